//! What a host needs beside programs: kernel modules and sysctls, names of the nodes, and whatever else of the host's own
//! settings stands in the way of a node. `[host]` of the cluster config decides how far that goes.
//!
//! One module each; all of them are one step, so that `plan` shows every line before anything is touched and `reset` undoes
//! all from what was captured before. What belongs to others (lines of a file, rules of a firewall) is never replaced.

mod clock;
mod firewall;
mod hostname;
mod hosts;
mod kernel;
mod modules;
mod part;
mod selinux;
mod swap;
mod sysctls;

use anyhow::Result;

use self::part::Part;
use crate::context::Context;
use crate::step::{Check, Step, Target};

/// The step.
#[derive(Clone, Copy, Debug)]
pub struct HostSettings;

/// The parts, in the order in which they are made.
fn parts(context: &Context<'_>) -> Vec<Box<dyn Part>> {
    let mut parts: Vec<Box<dyn Part>> = Vec::new();
    // A dedicated etcd member has no kubelet and no pods.
    if context.roles.run_pods() {
        parts.extend([Box::new(kernel::Kernel) as Box<dyn Part>, Box::new(swap::SwapOff), Box::new(selinux::Selinux)]);
    }
    parts.extend([
        Box::new(hostname::HostName) as Box<dyn Part>,
        Box::new(hosts::Hosts),
        Box::new(clock::Clock),
        Box::new(firewall::Firewall),
    ]);
    parts
}

impl Step for HostSettings {
    fn name(&self) -> &'static str {
        "host-settings"
    }

    fn title(&self) -> &'static str {
        "Set kernel, names, swap, firewall and time as a node needs them"
    }

    fn touches(&self, context: &Context<'_>) -> Result<Vec<Target>> {
        let mut targets = Vec::new();
        for part in parts(context) {
            targets.extend(part.touches(context)?);
        }
        Ok(targets)
    }

    fn check(&self, context: &Context<'_>) -> Result<Check> {
        let (mut changes, mut limits) = (Vec::new(), Vec::new());
        for part in parts(context) {
            let found = part.look(context)?;
            changes.extend(found.changes);
            limits.extend(found.limits);
        }
        if !changes.is_empty() {
            return Ok(Check::Needed(changes));
        }
        Ok(if limits.is_empty() { Check::Done } else { Check::Kept(limits.join("; ")) })
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        parts(context).iter().try_for_each(|part| part.apply(context))
    }
}
