//! The kernel: kept, or the bundle's installed beside it, tried once, and accepted only on a healthy host (DESIGN §6).
//!
//! Order matters, because installing a kernel already makes it the default: the running kernel is pinned, by the id of its
//! menu entry, before the first package is touched; the new one is booted once; every other boot, whatever ends this one, is
//! the kernel that ran before. Nothing ever removes the running or the saved kernel.

mod accept;
mod arm;
mod coming;
mod drain;
mod goal;
mod health;
mod packages;
mod pin;
mod shown;
mod situation;
mod state;
#[cfg(test)]
mod tests;
mod trial;

use anyhow::{Result, anyhow};

use self::goal::Goal;
use self::situation::{Seen, Situation, situation};
use self::state::{Failed, Fallback, Identity, State, Trial};
use crate::config::OnFailure;
use crate::context::Context;
use crate::host::Host;
use crate::host::boot::Grub;
use crate::report::{Exit, Explain as _};
use crate::restart::{Restart, Urgency, Way, boot_id};
use crate::step::{Change, Check, Step};

pub use coming::{Coming, coming, no_way_back};
pub use shown::{Shown, shown};
pub use trial::{SERVICE, TIMER};

/// The step.
#[derive(Clone, Copy, Debug)]
pub struct Kernel;

impl Step for Kernel {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn title(&self) -> &'static str {
        "See to the kernel"
    }

    fn check(&self, context: &Context<'_>) -> Result<Check> {
        if context.facts.container.is_some() {
            return Ok(Check::Skipped(format!("shares the machine's kernel ({})", context.facts.kernel)));
        }
        let state = State::read(context.host)?;
        let Some(trial) = &state.trial else { return settled(context, &state) };
        let release = &trial.kernel.release;
        Ok(match situation(trial, &seen(context, trial)?) {
            Situation::ToArm => Check::Needed(vec![shown::once(trial), shown::reboot(context)]),
            Situation::Armed => Check::Reboot(Restart {
                reason: format!("Linux {release} is tried, Linux {} is the way back", trial.before),
                urgency: Urgency::AsAsked,
                way: way(trial),
            }),
            Situation::Running => {
                Check::Needed(vec![Change::new(format!("accept Linux {release} if this host is as well as before"))])
            }
            Situation::Condemned(reason) if trial.fallback == Fallback::Nothing => Check::Needed(vec![Change::new(
                format!("record that Linux {release} is not good ({reason}); there is no way back by itself"),
            )]),
            Situation::Condemned(reason) => Check::Reboot(Restart {
                reason: format!("Linux {release} is not accepted ({reason}): back to Linux {}", trial.before),
                urgency: Urgency::Now,
                way: Way::Reboot,
            }),
            Situation::Failed(reason) => Check::Needed(vec![
                Change::new(format!("record that Linux {release} was tried and failed: {reason}")),
                Change::new("remove what watched over its trial"),
            ]),
        })
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        let mut state = State::read(context.host)?;
        let Some(trial) = state.trial.clone() else { return begin(context, &mut state) };
        match situation(&trial, &seen(context, &trial)?) {
            Situation::ToArm => arm::again(context, &mut state),
            Situation::Running => accept::judge(context, &mut state, trial),
            Situation::Failed(reason) => give_up(context, &mut state, trial, reason),
            Situation::Condemned(reason) if trial.fallback == Fallback::Nothing => {
                give_up(context, &mut state, trial, reason)
            }
            Situation::Condemned(_) | Situation::Armed => Ok(()),
        }
    }
}

/// What the host says about a trial.
fn seen(context: &Context<'_>, trial: &Trial) -> Result<Seen> {
    let set = match trial.fallback {
        Fallback::Grub => match Grub::find(context.host)? {
            Some(grub) => trial.entry.is_some() && grub.environment(context.host)?.next() == trial.entry.as_deref(),
            None => false,
        },
        Fallback::Kexec => trial::kexec_loaded(context.host)?,
        // The default is another one until it is armed; afterwards every boot is the new kernel.
        Fallback::Nothing => trial.boot_id == boot_id(context.host)?,
    };
    Ok(Seen { release: context.facts.kernel.clone(), boot_id: boot_id(context.host)?, set })
}

fn way(trial: &Trial) -> Way {
    match trial.fallback {
        Fallback::Kexec => Way::Kexec,
        Fallback::Grub | Fallback::Nothing => Way::Reboot,
    }
}

/// No kernel is on trial: is another one wanted, or something of an earlier trial left to do?
fn settled(context: &Context<'_>, state: &State) -> Result<Check> {
    let left = accept::leftovers(context, state)?;
    let goal = Goal::of(context)?;
    let kept = match goal {
        Goal::Install(kernel) => match refused(context, state, &kernel)? {
            None => return Ok(Check::Needed(shown::whole(context, state, &kernel)?)),
            Some(reason) => reason,
        },
        Goal::Keep(reason) | Goal::Have(reason) => reason,
    };
    if !left.is_empty() {
        return Ok(Check::Needed(left));
    }
    Ok(Check::Kept(match &state.pin {
        Some(pin) => format!("{kept}; the boot menu's default is held at Linux {}", pin.release),
        None => kept,
    }))
}

/// Why a wanted kernel is not tried: it was, and failed. An error where the config does not let the host go on without it.
fn refused(context: &Context<'_>, state: &State, kernel: &Identity) -> Result<Option<String>> {
    let Some(Failed { reason, time, .. }) = state.failure(kernel).filter(|_| !context.retry_kernel) else {
        return Ok(None);
    };
    let Identity { release, version, .. } = kernel;
    let text = format!("Linux {release} ({version}) was tried here and failed ({time}: {reason})");
    if context.config.kernel.on_failure == OnFailure::Continue {
        return Ok(Some(format!("Linux {}; {text}; `--retry-kernel` tries it again", context.facts.kernel)));
    }
    let error: Result<Option<String>> =
        Err(anyhow!("{text}, and the config does not let this host go on with Linux {}", context.facts.kernel));
    error.exit(Exit::Preflight).hint(
        "`installer resume --retry-kernel` tries it again; a bundle with another kernel, or `[kernel] on_failure = \
         \"continue\"`, lets the installation go on",
    )
}

/// From a host with its old kernel to one that is armed for the new one.
fn begin(context: &Context<'_>, state: &mut State) -> Result<()> {
    accept::clear(context, state)?;
    let Goal::Install(kernel) = Goal::of(context)? else { return Ok(()) };
    if refused(context, state, &kernel)?.is_some() {
        return Ok(());
    }
    // `--retry-kernel` counts once: what goes on by itself must not try for ever.
    if state.failure(&kernel).is_some() {
        state.failed.retain(|failed| failed.kernel != kernel);
        state.write(context.host)?;
    }
    arm::whole(context, state, kernel)
}

/// A trial that is over, and lost.
fn give_up(context: &Context<'_>, state: &mut State, trial: Trial, reason: String) -> Result<()> {
    let (release, before) = (trial.kernel.release.clone(), trial.before.clone());
    context
        .warn(format!("Linux {release} was tried and failed: {reason}; this host runs Linux {}", context.facts.kernel));
    if trial.closed {
        accept::reopen(context, &before);
    }
    trial::disarm(context.host)?;
    // Without a way back the new kernel was made the default; where a person has found one, it stays.
    if let (Fallback::Nothing, Some(grub), Some(pin)) = (trial.fallback, Grub::find(context.host)?, &state.pin) {
        grub.set_default(context.host, &pin.entry)?;
    }
    if let Some(grub) = Grub::find(context.host)?
        && grub.environment(context.host)?.next().is_some()
    {
        grub.unset(context.host, "next_entry")?;
    }
    state.failed.push(Failed { kernel: trial.kernel, reason, time: context.host.now() });
    state.trial = None;
    state.write(context.host)?;
    accept::clear(context, state)
}

/// Whether the running kernel is on trial and not judged yet.
pub fn on_trial(context: &Context<'_>) -> Result<bool> {
    let trial = State::read(context.host)?.trial;
    Ok(trial.is_some_and(|trial| trial.verdict.is_none() && trial.kernel.release == context.facts.kernel))
}

/// Whether this host waits for the reboot that tries a kernel: nothing can go on before.
pub fn awaits_reboot(host: &Host) -> Result<bool> {
    let Some(trial) = State::read(host)?.trial else { return Ok(false) };
    Ok(trial.boot_id == boot_id(host)? && trial.stage == state::Stage::Armed)
}

/// For `reset`: gives the boot menu back, unless that would boot a kernel that has failed. Gives what was done, and what is
/// left, for people.
pub fn forget(host: &Host) -> Result<(Vec<String>, Vec<String>)> {
    let mut state = State::read(host)?;
    let (mut done, mut left) = (Vec::new(), Vec::new());
    if state.trial.is_some() {
        if let Some(grub) = Grub::find(host)?
            && grub.environment(host)?.next().is_some()
        {
            grub.unset(host, "next_entry")?;
        }
        state.trial = None;
        state.write(host)?;
        done.push("give the kernel's trial up".to_owned());
    }
    if trial::is_left(host)? {
        trial::disarm(host)?;
        done.push("remove what watched over a kernel's trial".to_owned());
    }
    if let Some(release) = state.countdown.clone() {
        accept::rebuild(host, &mut state)?;
        done.push(format!("make the initramfs of Linux {release} anew, without the trial's countdown"));
    }
    if let (Some(pin), Some(grub)) = (state.pin.clone(), Grub::find(host)?) {
        if pin::can_go(host, &grub, &pin.release)? {
            pin::unpin(host, &grub, &mut state)?;
            done.push("give the boot menu's default back to the distribution".to_owned());
        } else {
            left.push(format!(
                "{}: holds the boot menu's default at Linux {}; without it another kernel would be booted, which nobody has \
                 accepted",
                pin::SETTINGS, pin.release
            ));
        }
    }
    Ok((done, left))
}
