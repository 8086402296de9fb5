//! The kernel: compared with the bundle's, kept. A container has none of its own.

use anyhow::Result;

use crate::config::KernelPolicy;
use crate::context::Context;
use crate::step::{Check, Step};

/// The step.
#[derive(Clone, Copy, Debug)]
pub struct Kernel;

impl Step for Kernel {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn title(&self) -> &'static str {
        "Compare the running kernel with the bundle's"
    }

    fn check(&self, context: &Context<'_>) -> Result<Check> {
        let running = &context.facts.kernel;
        if context.facts.container.is_some() {
            return Ok(Check::Skipped(format!("shares the machine's kernel ({running})")));
        }
        let offered = context
            .components
            .iter()
            .filter(|component| component.kind.has_packages())
            .flat_map(|component| &component.packages)
            .find(|package| package.name.starts_with("linux-image-") || package.name.starts_with("kernel"));
        let KernelPolicy::Keep = context.config.kernel.policy;
        Ok(Check::Kept(match offered {
            Some(package) if package.name.ends_with(running.as_str()) => {
                format!("{running}, the kernel of the bundle")
            }
            Some(package) => {
                format!("{running}; the bundle has {} {} (policy \"keep\")", package.name, package.version)
            }
            None => format!("{running}; the bundle brings no kernel"),
        }))
    }

    fn apply(&self, _: &Context<'_>) -> Result<()> {
        Ok(())
    }
}
