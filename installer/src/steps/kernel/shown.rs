//! What people are shown: the lines of a plan, and the section of `installer status`.

use anyhow::Result;
use serde::Serialize;

use super::state::{Fallback, Identity, Stage, State, Trial};
use super::{arm, countdown, drain, goal, packages, pin, trial};
use crate::context::Context;
use crate::host::Host;
use crate::host::boot::Grub;
use crate::restart::Mode;
use crate::step::Change;
use crate::steps::file::size;

/// Everything that will happen, from the pin to the end of the trial.
pub(super) fn whole(context: &Context<'_>, state: &State, kernel: &Identity) -> Result<Vec<Change>> {
    let host = context.host;
    let grub = Grub::find(host)?;
    let fallback = arm::fallback(context, grub.as_ref())?;
    let mut changes = Vec::new();
    if let Some(grub) = &grub {
        let entry = pin::running(host, grub, &context.facts.kernel)?;
        if !pin::holds(host, grub, &entry)? {
            changes.extend(pin::changes(grub, &entry));
        }
    }
    if let Some(component) = goal::component(context) {
        packages::require_beside(context, component)?;
        let missing = packages::missing(host, component)?;
        changes.extend(missing.into_iter().map(|package| {
            let size = size(package.size);
            Change::new(format!("install {} {} ({size}; not undone by reset)", package.name, package.version))
        }));
    }
    if state.failure(kernel).is_some() {
        changes.push(Change::new(format!("try Linux {} again (--retry-kernel)", kernel.release)));
    }
    if drain::is_needed(context)? {
        changes.push(Change::new(format!("close node {} and move its pods away", context.node.name)));
    }
    let back = match fallback {
        Fallback::Grub => {
            format!("boot Linux {} once; every other boot is Linux {}", kernel.release, context.facts.kernel)
        }
        Fallback::Kexec => format!(
            "start Linux {} by kexec, once; every boot from power-on is Linux {}",
            kernel.release, context.facts.kernel
        ),
        Fallback::Nothing => format!("boot Linux {} WITHOUT A WAY BACK by itself, as the config says", kernel.release),
    };
    changes.push(Change::new(back));
    if fallback != Fallback::Nothing {
        changes.push(Change::new(watch(context)?));
    }
    changes.push(reboot(context));
    changes.push(Change::new(format!(
        "accept Linux {} only if network, mounts, units and modules are as they were; else go back and {}",
        kernel.release,
        match context.config.kernel.on_failure {
            crate::config::OnFailure::Continue => "go on with the old kernel",
            crate::config::OnFailure::Stop => "stop",
        }
    )));
    Ok(changes)
}

/// What forces a kernel that nobody accepts back.
fn watch(context: &Context<'_>) -> Result<String> {
    let minutes = context.config.kernel.trial.as_secs().div_ceil(60);
    let early = match (countdown::is_possible(context.host)?, trial::watchdog(context.host)?) {
        (_, true) => "a freeze before that is the hardware watchdog's",
        (true, false) => {
            "its initramfs counts down too; a freeze even before that needs a power cycle (no hardware watchdog)"
        }
        (false, false) => "a freeze before systemd needs a power cycle (no hardware watchdog)",
    };
    Ok(format!("give it up after {minutes} minutes unless accepted ({}); {early}", trial::TIMER))
}

/// The line of a trial that is armed again.
pub(super) fn once(trial: &Trial) -> Change {
    Change::new(format!("boot Linux {} once, with Linux {} as the way back", trial.kernel.release, trial.before))
}

/// The line about the reboot itself.
pub(super) fn reboot(context: &Context<'_>) -> Change {
    Change::new(match context.reboot {
        Mode::Auto => "reboot without asking; this host then goes on by itself",
        Mode::Ask => {
            "reboot (asked for on a terminal, else left to you: exit code 5); this host then goes on by itself"
        }
        Mode::Never => "wait for a reboot (exit code 5); this host then goes on by itself",
    })
}

/// The kernel section of `installer status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Release that runs.
    pub running: String,
    /// The last one that was tried and accepted.
    pub accepted: Option<String>,
    /// Release that the boot menu's default is held at.
    pub pinned: Option<String>,
    /// The one on trial, and where that stands.
    pub trial: Option<String>,
    /// Those that failed, with the reasons.
    pub failed: Vec<String>,
    /// What was not as before when the last one was accepted, and did not count against it.
    pub differences: Vec<String>,
    /// What of trials that are over could not be undone yet.
    pub unfinished: Vec<String>,
}

/// Reads it.
pub fn shown(host: &Host) -> Result<Shown> {
    let state = State::read(host)?;
    let running = host.read_text("/proc/sys/kernel/osrelease".as_ref())?.unwrap_or_default().trim().to_owned();
    let label = |kernel: &Identity| format!("{} ({})", kernel.release, kernel.version);
    Ok(Shown {
        unfinished: unfinished(&state),
        differences: state.accepted.as_ref().map(|found| found.differences.clone()).unwrap_or_default(),
        accepted: state.accepted.map(|found| format!("{}, {}", label(&found.kernel), found.time)),
        pinned: state.pin.map(|pin| pin.release),
        trial: state.trial.map(|trial| {
            let kernel = label(&trial.kernel);
            match (trial.verdict, trial.kernel.release == running, trial.stage) {
                (Some(reason), _, _) => format!("{kernel}, not accepted: {reason}"),
                (None, true, _) => format!("{kernel}, runs and is not yet accepted"),
                (None, false, Stage::Armed) => format!("{kernel}, tried by the next reboot"),
                (None, false, Stage::Arming) => format!("{kernel}, not yet armed"),
            }
        }),
        failed: state
            .failed
            .iter()
            .map(|failed| format!("{}, {}: {}", label(&failed.kernel), failed.time, failed.reason))
            .collect(),
        running,
    })
}

/// What of trials that are over is still to be undone. It does no harm where it is, so no run fails of it; every run tries.
pub(super) fn unfinished(state: &State) -> Vec<String> {
    let until = if state.trial.is_some() { "until the trial is over" } else { "the next run opens it" };
    let closed = state
        .closed
        .iter()
        .map(|node| format!("node {node} is closed for new pods: {until}, or `kubectl uncordon {node}`"));
    let over = state.countdowns.iter().filter(|_| state.trial.is_none());
    let countdowns = over.map(|release| {
        format!(
            "the initramfs of Linux {release} still counts down, and {} ends that at every boot: the next run makes it anew, \
             or `update-initramfs -u -k {release}`",
            countdown::UNIT
        )
    });
    closed.chain(countdowns).collect()
}

impl Shown {
    /// As people read it.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("kernel: Linux {}", self.running)];
        lines.extend(self.accepted.iter().map(|accepted| format!("  accepted: {accepted}")));
        lines.extend(self.differences.iter().map(|difference| format!("    not as before: {difference}")));
        lines.extend(self.pinned.iter().map(|pinned| format!("  boot menu's default held at: {pinned}")));
        lines.extend(self.trial.iter().map(|trial| format!("  on trial: {trial}")));
        lines.extend(self.failed.iter().map(|failed| format!("  FAILED: {failed}")));
        lines.extend(self.unfinished.iter().map(|left| format!("  still to do: {left}")));
        lines
    }
}
