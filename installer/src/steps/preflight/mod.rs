//! Preflight: everything that could stop the installation is looked at before anything is touched, and all findings are
//! given at once, each with what was found, what is needed and what to do. Limits of a host (a container's capped limits,
//! missing modules) are reported, not refused.

mod finding;
mod founding;
mod leftovers;
mod machine;
mod network;
mod peers;
pub(crate) mod ports;
mod proxy_mode;
mod scope;

use anyhow::Result;

pub use self::finding::{Finding, Verdict};
use crate::context::Context;
use crate::report::{Exit, Explain as _};
use crate::step::{Check, Step};

/// The step.
#[derive(Clone, Copy, Debug)]
pub struct Preflight;

/// All findings about this host.
pub fn findings(context: &Context<'_>) -> Result<Vec<Finding>> {
    let mut findings = machine::look(context);
    findings.extend(network::look(context)?);
    findings.extend(peers::look(context));
    findings.extend(proxy_mode::look(context));
    findings.extend(scope::look(context)?);
    findings.extend(founding::look(context)?);
    findings.extend(leftovers::look(context)?);
    Ok(findings)
}

impl Step for Preflight {
    fn name(&self) -> &'static str {
        "preflight"
    }

    fn title(&self) -> &'static str {
        "Look at everything that could stop the installation"
    }

    fn check(&self, context: &Context<'_>) -> Result<Check> {
        let findings = findings(context)?;
        let refused: Vec<String> = with(&findings, Verdict::Refused);
        if !refused.is_empty() {
            return Err(refusal(&refused));
        }
        let limits = with(&findings, Verdict::Limit);
        Ok(if limits.is_empty() { Check::Done } else { Check::Kept(limits.join("; ")) })
    }

    fn apply(&self, _: &Context<'_>) -> Result<()> {
        Ok(())
    }
}

fn with(findings: &[Finding], verdict: Verdict) -> Vec<String> {
    findings.iter().filter(|finding| finding.verdict == verdict).map(ToString::to_string).collect()
}

fn refusal(refused: &[String]) -> anyhow::Error {
    anyhow::anyhow!("this host cannot take the role yet:\n- {}", refused.join("\n- ")).exit(Exit::Preflight)
}
