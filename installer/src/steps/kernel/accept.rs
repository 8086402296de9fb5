//! On the new kernel: judged, and accepted or given up; and what is left to clear away afterwards.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::health::{self, Difference, Snapshot};
use super::state::{Accepted, Fallback, Pin, State, Trial};
use super::{arm, pin, trial};
use crate::context::Context;
use crate::host::boot::Grub;
use crate::host::packages::{Database, Family};
use crate::host::{Command, Host};
use crate::step::Change;

/// How often the host is looked at while it is not yet as well as before.
const EVERY: Duration = Duration::from_secs(3);

/// Accepts the kernel on trial, or puts on record why not.
pub(super) fn judge(context: &Context<'_>, state: &mut State, mut trial: Trial) -> Result<()> {
    health::settle(context.host, arm::settle_within(context.config.kernel.trial))?;
    let Difference { bad, other } = look(context, &trial)?;
    if !bad.is_empty() {
        let verdict = bad.join("; ");
        context.warn(format!("Linux {} is not accepted: {verdict}", trial.kernel.release));
        // The way back is looked at before it is taken: a default that is not the old kernel would lead here again.
        if let (Some(grub), Some(pin)) = (Grub::find(context.host)?, &state.pin) {
            grub.set_default(context.host, &pin.entry)?;
        }
        trial.verdict = Some(verdict);
        state.trial = Some(trial);
        return state.write(context.host);
    }
    for difference in &other {
        context.warn(format!(
            "not as on Linux {}: {difference}; this does not count against Linux {}",
            trial.before, trial.kernel.release
        ));
    }
    accept(context, state, &trial, other)
}

/// What is not as it should be; looked at for a while, because addresses and mounts may come late.
fn look(context: &Context<'_>, trial: &Trial) -> Result<Difference> {
    let mut bad = proof(context.host, trial)?;
    bad.extend(health::load(context, &trial.snapshot)?);
    if !bad.is_empty() {
        return Ok(Difference { bad, other: Vec::new() });
    }
    let patience = arm::settle_within(context.config.kernel.trial);
    let start = context.host.monotonic();
    loop {
        let found = trial.snapshot.difference(&Snapshot::take(context)?);
        let failed_for_good = found.bad.iter().any(|reason| reason.starts_with("unit "));
        let over = context.host.monotonic().saturating_sub(start) >= patience;
        if found.bad.is_empty() || failed_for_good || over {
            return Ok(found);
        }
        if crate::engine::interrupted() {
            bail!("interrupted while looking at the host on its new kernel");
        }
        context.host.pause(EVERY);
    }
}

/// Whether what runs is the kernel that was installed: by its build, and by the package that its image is from.
fn proof(host: &Host, trial: &Trial) -> Result<Vec<String>> {
    let mut reasons = Vec::new();
    let build = arm::build(host)?;
    if build == trial.before_build {
        reasons.push(format!("its build is that of the kernel before (`uname -v` is `{build}`)"));
    }
    let kernel = &trial.kernel;
    let image = Path::new("/boot").join(format!("vmlinuz-{}", kernel.release));
    let Some(database) = Database::read(host)? else { return Ok(reasons) };
    let owner = match database.family {
        Family::Dpkg => Command::new("dpkg").arg("-S").arg(&image),
        Family::Rpm => Command::new("rpm").args(["-q", "--file", "--qf", "%{NAME}: "]).arg(&image),
    };
    let said = host.try_run(&owner)?.text();
    // `linux-image-6.1.0-49-amd64: /boot/vmlinuz-6.1.0-49-amd64`, several owners separated by commas.
    let owners = said.split_once(": ").map_or("", |(owners, _)| owners);
    if !owners.split(", ").any(|owner| owner == kernel.package) {
        reasons.push(format!("`{}` belongs to `{owners}`, not to {}", image.display(), kernel.package));
    }
    if !database.has(&kernel.package, &kernel.version) {
        reasons.push(format!("package {} {} is not installed whole", kernel.package, kernel.version));
    }
    Ok(reasons)
}

/// In this order a power cut at any point boots a kernel that was accepted: the default first, then the record, then what
/// forces back, then the pin.
fn accept(context: &Context<'_>, state: &mut State, tried: &Trial, differences: Vec<String>) -> Result<()> {
    let host = context.host;
    let release = &tried.kernel.release;
    if let (Some(grub), Some(pinned)) = (Grub::find(host)?, state.pin.clone()) {
        let entry = pin::entry(host, &grub, release)?;
        if tried.fallback != Fallback::Nothing {
            grub.set_default(host, &entry.id).context("making the accepted kernel the default")?;
        }
        state.pin = Some(Pin { release: release.clone(), entry: entry.id, ..pinned });
    }
    let build = arm::build(host)?;
    context.note(format!("Linux {release} is accepted ({build}): this host is as well as on Linux {}", tried.before));
    state.accepted = Some(Accepted { kernel: tried.kernel.clone(), build, time: host.now(), differences });
    state.failed.retain(|failed| failed.kernel != tried.kernel);
    state.trial = None;
    state.write(host)?;
    clear(host, state)
}

/// What is left of trials that are over.
pub(super) fn leftovers(host: &Host, state: &State) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    if trial::is_left(host)? {
        changes.push(Change::new("remove what watched over a kernel's trial"));
    }
    if let Some(pin) = removable(host, state)? {
        changes.push(Change::new(format!(
            "remove {}: the boot menu boots Linux {} by itself, and later kernels of the distribution after it",
            pin::SETTINGS,
            pin.release
        )));
    } else if state.trial.is_none() && state.watched.is_some() && Grub::find(host)?.is_some() {
        changes.push(Change::new(format!("take `{}` out of the boot menu", pin::PANIC)));
    }
    Ok(changes)
}

/// Clears it away.
pub(super) fn clear(host: &Host, state: &mut State) -> Result<()> {
    if trial::is_left(host)? {
        trial::disarm(host)?;
    }
    let Some(grub) = Grub::find(host)? else { return Ok(()) };
    if let Some(pin) = removable(host, state)? {
        pin::unpin(host, &grub, state, &[&pin.release])?;
    } else if state.trial.is_none() && state.watched.is_some() {
        pin::relax(host, &grub, state)?;
    }
    Ok(())
}

/// The pin, when it has done its work: the pinned kernel is what the distribution boots by itself. Not while a kernel is on
/// trial or is about to be.
fn removable(host: &Host, state: &State) -> Result<Option<Pin>> {
    let (Some(pin), None) = (&state.pin, &state.trial) else { return Ok(None) };
    let Some(grub) = Grub::find(host)? else { return Ok(None) };
    Ok(pin::can_go(host, &grub, &[&pin.release])?.then(|| pin.clone()))
}
