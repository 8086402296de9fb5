//! From a kernel in the bundle to one that the next boot tries: pin, install, look, arm.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use super::health::Snapshot;
use super::packages::{install_missing, require_bootable};
use super::state::{Fallback, Identity, Stage, State, Trial};
use super::{countdown, drain, goal, pin, trial};
use crate::background;
use crate::context::Context;
use crate::host::Host;
use crate::host::boot::{Grub, Initramfs};
use crate::report::{Exit, Explain as _};
use crate::restart::boot_id;

/// What leads back on this host; an error when nothing does and the operator gave no reason.
pub(super) fn fallback(context: &Context<'_>, grub: Option<&Grub>) -> Result<Fallback> {
    let host = context.host;
    let obstacle = match grub {
        None => "the boot loader is not GRUB, or has no `grub-reboot`".to_owned(),
        Some(grub) => match grub.obstacle(host)? {
            None => return Ok(Fallback::Grub),
            Some(obstacle) => obstacle,
        },
    };
    // Without a menu of its own nothing says which kernel the firmware boots after a failed trial.
    if grub.is_some() && trial::can_kexec(host)? {
        return Ok(Fallback::Kexec);
    }
    if context.config.kernel.without_fallback.is_some() {
        return Ok(Fallback::Nothing);
    }
    let error: Result<Fallback> =
        Err(anyhow!("a new kernel could not be tried with a way back on this host: {obstacle}"));
    error.exit(Exit::Preflight).hint(
        "install kexec-tools, put /boot on a plain partition, set `[kernel] policy = \"keep\"`, or accept a reboot without a \
         way back: `without_fallback = \"reason\"`",
    )
}

/// All of it. Each part finds what an earlier run has done already.
pub(super) fn whole(context: &Context<'_>, state: &mut State, kernel: Identity) -> Result<()> {
    let host = context.host;
    let component = goal::component(context).context("the bundle brings no kernel for this host")?;
    let grub = Grub::find(host)?;
    let fallback = fallback(context, grub.as_ref())?;
    // From here on the run goes on by itself after any boot.
    background::prepare(host, &context.installer)?;
    let running = match &grub {
        Some(grub) => {
            let entry = pin::running(host, grub, &context.facts.kernel)?;
            pin::pin(host, grub, &entry, state)?;
            Some(entry)
        }
        None => None,
    };
    let counts_down = countdown::is_possible(host)?;
    if counts_down {
        countdown::prepare(host, state, &kernel.release, context.config.kernel.trial)?;
    }
    install_missing(context, component)?;
    if counts_down {
        countdown::pack(host, &kernel.release)?;
    }
    if let (Some(grub), Some(entry)) = (&grub, &running) {
        if grub.menu(host)?.of(&kernel.release).is_none() {
            grub.regenerate(host)?;
        }
        pin::require(host, grub, entry)?;
    }
    require_bootable(context, grub.as_ref(), &kernel)?;
    let entry = grub.as_ref().map(|grub| pin::entry(host, grub, &kernel.release)).transpose()?;
    drain::close(context, state)?;
    let trial = Trial {
        kernel,
        entry: entry.map(|entry| entry.id),
        before: context.facts.kernel.clone(),
        before_build: build(host)?,
        fallback,
        boot_id: boot_id(host)?,
        stage: Stage::Arming,
        since: host.now(),
        verdict: None,
        snapshot: Snapshot::take(context)?,
        ignored: 0,
    };
    arm(context, state, trial)
}

/// For a trial that is on record and was not armed, or never tried: the same kernel, from this boot.
pub(super) fn again(context: &Context<'_>, state: &mut State) -> Result<()> {
    let mut trial = state.trial.clone().context("no kernel is on trial")?;
    if trial.stage == Stage::Armed && trial.boot_id != boot_id(context.host)? {
        trial.ignored += 1;
    }
    let component = goal::component(context).context("the bundle brings no kernel for this host")?;
    let grub = Grub::find(context.host)?;
    install_missing(context, component)?;
    require_bootable(context, grub.as_ref(), &trial.kernel)?;
    trial.boot_id = boot_id(context.host)?;
    trial.before.clone_from(&context.facts.kernel);
    trial.before_build = build(context.host)?;
    drain::close(context, state)?;
    trial.snapshot = Snapshot::take(context)?;
    trial.stage = Stage::Arming;
    arm(context, state, trial)
}

/// On record, watched over, and only then set in the boot loader. The record says "armed" when that was read back: a power
/// cut in between is seen as "never tried".
fn arm(context: &Context<'_>, state: &mut State, trial: Trial) -> Result<()> {
    let host = context.host;
    let release = trial.kernel.release.clone();
    if trial.fallback == Fallback::Nothing {
        let reason = context.config.kernel.without_fallback.clone().unwrap_or_default();
        context.warn(format!("Linux {release} is booted without a way back: {reason}"));
    } else {
        trial::arm(host, &release, context.config.kernel.trial)?;
    }
    state.trial = Some(trial.clone());
    state.write(host)?;
    start(context, &trial)?;
    state.trial = Some(Trial { stage: Stage::Armed, ..trial });
    state.write(host)
}

fn start(context: &Context<'_>, trial: &Trial) -> Result<()> {
    let host = context.host;
    let grub = Grub::find(host)?;
    match (trial.fallback, grub, &trial.entry) {
        (Fallback::Grub, Some(grub), Some(entry)) => grub.boot_once(host, entry),
        (Fallback::Kexec, Some(grub), _) => {
            let entry = pin::entry(host, &grub, &trial.kernel.release)?;
            let initramfs = Initramfs::path(host, &trial.kernel.release)?.context("it has no initramfs")?;
            trial::load_kexec(host, &trial.kernel.release, &initramfs, &entry.options)
        }
        (Fallback::Nothing, Some(grub), Some(entry)) => grub.set_default(host, entry),
        // Another boot loader: the package's hooks have made it the default.
        (Fallback::Nothing, _, _) => Ok(()),
        _ => bail!("the boot loader has changed since the kernel was put on trial"),
    }
}

/// `uname -v`: which build of a release runs.
pub(super) fn build(host: &Host) -> Result<String> {
    let text = host.read_text("/proc/sys/kernel/version".as_ref())?.unwrap_or_default();
    Ok(text.trim().to_owned())
}

/// How long systemd may take to start everything, of a trial's time.
pub(super) fn settle_within(trial: Duration) -> Duration {
    trial / 4
}
