//! OS packages: detected, not changed, in this release. The bundle brings its programs as files; what has to come from the
//! distribution is named by preflight when it is missing.

use anyhow::Result;

use crate::context::Context;
use crate::step::{Check, Step};

/// The step.
#[derive(Clone, Copy, Debug)]
pub struct OsPackages;

impl Step for OsPackages {
    fn name(&self) -> &'static str {
        "os-packages"
    }

    fn title(&self) -> &'static str {
        "Look at the packages of the distribution"
    }

    fn check(&self, context: &Context<'_>) -> Result<Check> {
        let tools: Vec<String> = context
            .facts
            .tools
            .iter()
            .map(|(name, version)| if version.is_empty() { name.clone() } else { format!("{name} {version}") })
            .collect();
        Ok(Check::Kept(format!("{}: {}", context.facts.os.pretty, tools.join(", "))))
    }

    fn apply(&self, _: &Context<'_>) -> Result<()> {
        Ok(())
    }
}
