//! What `installer reset` does about kernels: it gives up a trial and gives the boot menu back.

use anyhow::Result;

use super::state::{Fallback, PATH, State, Trial};
use super::{countdown, pin, trial};
use crate::host::Host;
use crate::host::boot::Grub;

/// Gives the boot menu back, unless that would boot a kernel that nobody has accepted. Gives what was done, and what is left,
/// for people.
pub fn forget(host: &Host) -> Result<(Vec<String>, Vec<String>)> {
    let mut state = State::read(host)?;
    let (mut done, mut left) = (Vec::new(), Vec::new());
    let mut good: Vec<String> = state.pin.iter().map(|pin| pin.release.clone()).collect();
    let running = host.read_text("/proc/sys/kernel/osrelease".as_ref())?.unwrap_or_default().trim().to_owned();
    let doubtful =
        state.trial.iter().map(|trial| &trial.kernel).chain(state.failed.iter().map(|failed| &failed.kernel));
    if !running.is_empty() && doubtful.into_iter().all(|kernel| kernel.release != running) {
        good.push(running);
    }
    if let Some(trial) = state.trial.clone() {
        give_up(host, &state, &trial)?;
        state.trial = None;
        state.write(host)?;
        done.push("give the kernel's trial up".to_owned());
    }
    if trial::is_left(host)? {
        trial::disarm(host)?;
        done.push("remove what watched over a kernel's trial".to_owned());
    }
    if countdown::is_left(host, &state)? {
        match countdown::remove(host, &mut state, None) {
            Ok(releases) => done.extend(
                releases.iter().map(|of| format!("make the initramfs of Linux {of} anew, without the trial's countdown")),
            ),
            Err(error) => left.push(format!(
                "{}: ends the countdown in the initramfs of Linux {} at every boot, because that could not be made anew \
                 ({error:#})",
                countdown::UNIT,
                state.countdowns.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
            )),
        }
    }
    let good: Vec<&str> = good.iter().map(String::as_str).collect();
    if let (Some(pin), Some(grub)) = (state.pin.clone(), Grub::find(host)?) {
        // A menu that cannot be made anew (a full `/boot`) does not keep the rest of Sealift on this host.
        let unwritten = |error: anyhow::Error| {
            format!("{}: the boot menu could not be made anew without it ({error:#})", pin::SETTINGS)
        };
        if pin::can_go(host, &grub, &good)? {
            match pin::unpin(host, &grub, &mut state, &good) {
                Ok(()) => done.push("give the boot menu's default back to the distribution".to_owned()),
                Err(error) => left.push(unwritten(error)),
            }
        } else {
            if state.watched.is_some() {
                match pin::relax(host, &grub, &mut state) {
                    Ok(()) => done.push(format!("take `{}` out of the boot menu", pin::PANIC)),
                    Err(error) => left.push(unwritten(error)),
                }
            }
            left.push(format!(
                "{}: holds the boot menu's default at Linux {}; without it another kernel would be booted, which nobody has \
                 accepted",
                pin::SETTINGS, pin.release
            ));
        }
    }
    if let Some(node) = state.closed.take() {
        state.write(host)?;
        left.push(format!(
            "node {node} is closed for new pods in its cluster: `kubectl uncordon {node}` when it is back"
        ));
    }
    if is_held(host)? {
        left.push(format!("{PATH}: says why; `installer reset` again takes all of it away when that is no longer so"));
    }
    Ok((done, left))
}

/// Whether something stays in the boot menu or at boot that the record explains: then `reset` keeps the record.
pub fn is_held(host: &Host) -> Result<bool> {
    let state = State::read(host)?;
    Ok(state.pin.is_some() || !state.countdowns.is_empty())
}

/// The next boot is the kernel before, whatever was set to try the new one.
pub(super) fn give_up(host: &Host, state: &State, trial: &Trial) -> Result<()> {
    if trial.fallback == Fallback::Kexec {
        trial::unload_kexec(host)?;
    }
    let Some(grub) = Grub::find(host)? else { return Ok(()) };
    if let (Fallback::Nothing, Some(pin)) = (trial.fallback, &state.pin) {
        grub.set_default(host, &pin.entry)?;
    }
    if grub.environment(host)?.next().is_some() {
        grub.unset(host, "next_entry")?;
    }
    Ok(())
}
