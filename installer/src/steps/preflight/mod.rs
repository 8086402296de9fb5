//! Preflight: everything that could stop the installation is looked at before anything is touched, and all findings are
//! given at once, each with what was found, what is needed and what to do. Limits of a host (a container's capped limits,
//! missing modules) are reported, not refused.

mod boot;
mod disk;
mod finding;
mod founding;
mod leftovers;
mod machine;
mod names;
mod neighbours;
mod network;
mod peers;
pub(crate) mod ports;
mod proxy_mode;
mod scope;
mod skew;
mod sysctls;
mod system;

use anyhow::{Result, anyhow};

pub use self::finding::{Finding, Verdict};
use crate::context::Context;
use crate::event::Event;
use crate::report::{Exit, Explain as _};
use crate::step::{Check, Step};
use crate::steps::kernel;

/// The step.
#[derive(Clone, Copy, Debug)]
pub struct Preflight;

/// All findings about this host.
pub fn findings(context: &Context<'_>) -> Result<Vec<Finding>> {
    let mut findings = machine::look(context);
    findings.extend(system::look(context));
    if context.roles.run_pods() {
        findings.extend(sysctls::look(context)?);
    }
    findings.extend(disk::look(context)?);
    findings.extend(boot::look(context)?);
    findings.extend(network::look(context)?);
    findings.extend(names::look(context)?);
    findings.extend(neighbours::look(context));
    findings.extend(peers::look(context));
    findings.extend(proxy_mode::look(context));
    findings.extend(scope::look(context)?);
    findings.extend(founding::look(context)?);
    findings.extend(leftovers::look(context)?);
    findings.extend(skew::look(context));
    for finding in &mut findings {
        if finding.verdict == Verdict::Refused && context.ignored.contains(&finding.check) {
            finding.verdict = Verdict::Ignored;
        }
    }
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
        for finding in &findings {
            context.events.emit(&Event::of_finding(context.step, finding));
        }
        let with = |verdict| findings.iter().filter(move |finding| finding.verdict == verdict);
        let refused: Vec<&Finding> = with(Verdict::Refused).collect();
        if !refused.is_empty() && kernel::on_trial(context)? {
            // A refusal here would send a good kernel back, and without its reason: the kernel's own step judges it.
            let refused: Vec<String> = refused.iter().map(ToString::to_string).collect();
            let refused = refused.join("; ");
            return Ok(Check::Kept(format!("a kernel is on trial, so these do not stop the run: {refused}")));
        }
        if !refused.is_empty() {
            return Err(refusal(&refused));
        }
        let (limits, ignored) = (with(Verdict::Limit).count(), with(Verdict::Ignored).count());
        let said = [counted(limits, "limit"), counted(ignored, "ignored finding")];
        let said: Vec<String> = said.into_iter().flatten().collect();
        Ok(if said.is_empty() { Check::Done } else { Check::Kept(said.join(", ")) })
    }

    fn apply(&self, _: &Context<'_>) -> Result<()> {
        Ok(())
    }
}

/// `1 limit`, `3 limits`; none of none.
fn counted(count: usize, what: &str) -> Option<String> {
    match count {
        0 => None,
        1 => Some(format!("1 {what}")),
        _ => Some(format!("{count} {what}s")),
    }
}

fn refusal(refused: &[&Finding]) -> anyhow::Error {
    let lines: Vec<String> = refused.iter().map(|finding| format!("- {finding}")).collect();
    let error = anyhow!("this host cannot take the role yet:\n{}", lines.join("\n")).exit(Exit::Preflight);
    if refused.iter().all(|finding| finding.check.never_ignored().is_some()) {
        return error;
    }
    error.hint(
        "put right what is listed and run again; `--ignore NAME` (the name in brackets) goes on without that check",
    )
}
