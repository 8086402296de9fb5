//! The kernel: kept, or the bundle's installed beside it, tried once, and accepted only on a healthy host (DESIGN §6).
//!
//! Order matters, because installing a kernel already makes it the default: the running kernel is pinned, by the id of its
//! menu entry, before the first package is touched; the new one is booted once; every other boot, whatever ends this one, is
//! the kernel that ran before. Nothing ever removes the running or the saved kernel.

mod accept;
mod arm;
mod coming;
mod countdown;
mod drain;
mod goal;
mod health;
mod packages;
mod pin;
mod reset;
mod shown;
mod situation;
mod state;
#[cfg(test)]
mod tests;
mod tidy;
mod trial;

use anyhow::{Result, anyhow};

use self::goal::Goal;
use self::situation::{Seen, Situation, situation};
use self::state::{Failed, Fallback, Identity, State, Trial};
use crate::config::{KernelPolicy, OnFailure};
use crate::context::Context;
use crate::host::Host;
use crate::host::boot::Grub;
use crate::report::{Exit, Explain as _};
use crate::restart::{Restart, Urgency, Way, boot_id};
use crate::step::{Change, Check, Step};

pub use coming::{Coming, coming, installs, no_way_back, unmet};
pub use reset::{forget, is_held};
pub use shown::{Shown, shown};
pub use state::PATH as RECORD;
pub use tidy::tidy;
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
            Situation::ToArm | Situation::Armed if keeps(context, trial)? => Check::Needed(vec![Change::new(format!(
                "call the trial of Linux {release} off, it stays installed: the config keeps Linux {}",
                context.facts.kernel
            ))]),
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
            Situation::ToArm | Situation::Armed if keeps(context, &trial)? => call_off(context, &mut state, &trial),
            Situation::ToArm => {
                let armed = arm::again(context, &mut state);
                // With a trial on record the end of the run does not open the node.
                if armed.is_err() {
                    drain::open_or_say(context, &mut state);
                }
                armed
            }
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

/// The kernel that is to be tried; else why what runs is kept.
fn wanted(context: &Context<'_>, state: &State) -> Result<std::result::Result<Identity, String>> {
    Ok(match Goal::of(context)? {
        Goal::Install(kernel) => refused(context, state, &kernel)?.map_or(Ok(kernel), Err),
        Goal::Keep(reason) | Goal::Have(reason) => Err(reason),
    })
}

/// No kernel is on trial: is another one wanted, or something of an earlier trial left to do?
fn settled(context: &Context<'_>, state: &State) -> Result<Check> {
    let wanted = wanted(context, state);
    if let Ok(Ok(kernel)) = &wanted {
        return Ok(Check::Needed(shown::whole(context, state, kernel)?));
    }
    // Before an error, too: the host is put in order before it is left to a person.
    let left = accept::leftovers(context.host, state)?;
    if !left.is_empty() {
        return Ok(Check::Needed(left));
    }
    let kept = wanted?.err();
    let held = state.pin.iter().map(|pin| format!("the boot menu's default is held at Linux {}", pin.release));
    let parts: Vec<String> = kept.into_iter().chain(held).chain(shown::unfinished(state)).collect();
    Ok(Check::Kept(parts.join("; ")))
}

/// Why a wanted kernel is not tried: it was, and failed. An error where the config does not let the host go on without it.
fn refused(context: &Context<'_>, state: &State, kernel: &Identity) -> Result<Option<String>> {
    // A wish counts once: with a further failure it has had its try, also within this run.
    let retries = context.retry_kernel == Some(state.failed.len());
    let Some(Failed { reason, time, .. }) = state.failure(kernel).filter(|_| !retries) else {
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
    let Ok(Ok(kernel)) = wanted(context, state) else { return accept::clear(context.host, state) };
    if trial::is_left(context.host)? {
        trial::disarm(context.host)?;
    }
    arm::whole(context, state, kernel)
}

/// Whether the config has come to want no other kernel, and the old one can be made what boots: with another boot loader than
/// GRUB the new kernel's package has made it the default.
fn keeps(context: &Context<'_>, trial: &Trial) -> Result<bool> {
    Ok(context.config.kernel.policy == KernelPolicy::Keep
        && (trial.fallback != Fallback::Nothing || Grub::find(context.host)?.is_some()))
}

/// A trial that has not begun and is not wanted any more. From the first write on, a boot of the old kernel is not taken for
/// a failure of the new one.
fn call_off(context: &Context<'_>, state: &mut State, trial: &Trial) -> Result<()> {
    let host = context.host;
    state.trial = Some(Trial { stage: state::Stage::Arming, ..trial.clone() });
    state.write(host)?;
    reset::give_up(host, state, trial)?;
    state.trial = None;
    state.write(host)?;
    accept::clear(host, state)
}

/// A trial that is over, and lost.
fn give_up(context: &Context<'_>, state: &mut State, trial: Trial, reason: String) -> Result<()> {
    let release = trial.kernel.release.clone();
    context
        .warn(format!("Linux {release} was tried and failed: {reason}; this host runs Linux {}", context.facts.kernel));
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
    accept::clear(context.host, state)
}

/// How often a kernel was tried here and failed, in all: whoever says `--retry-kernel` means those that have failed by then.
pub fn failures(host: &Host) -> Result<usize> {
    Ok(State::read(host)?.failed.len())
}

/// Whether a trial is to be judged: on the kernel on trial, and on the old one that the machine has come back to.
pub fn on_trial(context: &Context<'_>) -> Result<bool> {
    let Some(trial) = State::read(context.host)?.trial else { return Ok(false) };
    let runs = trial.verdict.is_none() && trial.kernel.release == context.facts.kernel;
    Ok(runs || trial.boot_id != boot_id(context.host)?)
}

/// Whether this host waits for the reboot that tries a kernel: nothing can go on before.
pub fn awaits_reboot(host: &Host) -> Result<bool> {
    let Some(trial) = State::read(host)?.trial else { return Ok(false) };
    Ok(trial.boot_id == boot_id(host)? && trial.stage == state::Stage::Armed)
}
