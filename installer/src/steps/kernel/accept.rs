//! On the new kernel: judged, and accepted or given up; and what is left to clear away afterwards.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::health::{self, Snapshot};
use super::state::{Accepted, Fallback, Pin, State, Trial};
use super::{arm, drain, pin, trial};
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
    let reasons = look(context, &trial)?;
    if !reasons.is_empty() {
        let verdict = reasons.join("; ");
        context.warn(format!("Linux {} is not accepted: {verdict}", trial.kernel.release));
        // The way back is looked at before it is taken: a default that is not the old kernel would lead here again.
        if let (Some(grub), Some(pin)) = (Grub::find(context.host)?, &state.pin) {
            grub.set_default(context.host, &pin.entry)?;
        }
        trial.verdict = Some(verdict);
        state.trial = Some(trial);
        return state.write(context.host);
    }
    accept(context, state, &trial)
}

/// What is not as it should be; looked at for a while, because addresses and mounts may come late.
fn look(context: &Context<'_>, trial: &Trial) -> Result<Vec<String>> {
    let mut reasons = proof(context.host, trial)?;
    reasons.extend(health::load(context, &trial.snapshot)?);
    if !reasons.is_empty() {
        return Ok(reasons);
    }
    let patience = arm::settle_within(context.config.kernel.trial);
    let start = context.host.monotonic();
    loop {
        let worse = trial.snapshot.worse(&Snapshot::take(context)?);
        let failed_for_good = worse.iter().any(|reason| reason.starts_with("unit "));
        let over = context.host.monotonic().saturating_sub(start) >= patience;
        if worse.is_empty() || failed_for_good || over {
            return Ok(worse);
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
fn accept(context: &Context<'_>, state: &mut State, tried: &Trial) -> Result<()> {
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
    state.accepted = Some(Accepted { kernel: tried.kernel.clone(), build, time: host.now() });
    state.trial = None;
    state.write(host)?;
    trial::disarm(host)?;
    if tried.closed {
        reopen(context, release);
    }
    clear(context, state)
}

/// Opens the node again. Best effort: its cluster may be out of reach, and the kernel is not to blame.
pub(super) fn reopen(context: &Context<'_>, release: &str) {
    if let Err(error) = drain::open(context) {
        let node = &context.node.name;
        context.warn(format!(
            "node {node} runs Linux {release} and is still closed ({error:#}): `kubectl uncordon {node}`"
        ));
    }
}

/// What is left of trials that are over.
pub(super) fn leftovers(context: &Context<'_>, state: &State) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    if trial::is_left(context.host)? {
        changes.push(Change::new("remove what watched over a kernel's trial"));
    }
    if let Some(release) = &state.countdown {
        changes.push(Change::new(format!("make the initramfs of Linux {release} anew, without the trial's countdown")));
    }
    if let Some(pin) = removable(context.host, state)? {
        changes.push(Change::new(format!(
            "remove {}: the boot menu boots Linux {} by itself, and later kernels of the distribution after it",
            pin::SETTINGS,
            pin.release
        )));
    }
    Ok(changes)
}

/// Clears it away.
pub(super) fn clear(context: &Context<'_>, state: &mut State) -> Result<()> {
    if trial::is_left(context.host)? {
        trial::disarm(context.host)?;
    }
    if let Err(error) = rebuild(context.host, state) {
        let release = state.countdown.take().unwrap_or_default();
        if state.accepted.as_ref().is_some_and(|accepted| accepted.kernel.release == release) {
            return Err(error);
        }
        // Nothing boots this one by itself.
        context.warn(format!(
            "Linux {release}, which was not accepted, still counts down when somebody boots it: {error:#}"
        ));
        state.write(context.host)?;
    }
    if removable(context.host, state)?.is_some()
        && let Some(grub) = Grub::find(context.host)?
    {
        pin::unpin(context.host, &grub, state)?;
    }
    Ok(())
}

/// The initramfs of the kernel that was on trial, as the distribution makes it.
pub(super) fn rebuild(host: &Host, state: &mut State) -> Result<()> {
    let Some(release) = state.countdown.clone() else { return Ok(()) };
    trial::rebuild(host, &release)?;
    state.countdown = None;
    state.write(host)
}

/// The pin, when it has done its work: the pinned kernel is what the distribution boots by itself. Not while a kernel is on
/// trial or is about to be.
fn removable(host: &Host, state: &State) -> Result<Option<Pin>> {
    let (Some(pin), None) = (&state.pin, &state.trial) else { return Ok(None) };
    let Some(grub) = Grub::find(host)? else { return Ok(None) };
    Ok(pin::can_go(host, &grub, &pin.release)?.then(|| pin.clone()))
}
