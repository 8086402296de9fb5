//! Power cuts at the worst moments of the kernel step, all from one checkpoint taken as the step begins.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::measure::seconds;
use e2e::output::say;
use e2e::wait;

use super::site::{LONG, Site};
use super::stage::Stage;

pub(crate) fn during_dpkg(stage: &Stage) -> Result<()> {
    stage.before_the_kernel(|site| during_dpkg_on(stage, site))
}

fn during_dpkg_on(stage: &Stage, site: &Site) -> Result<()> {
    let new = stage.newest()?;
    let moment = format!("test -d /lib/modules/{new}.dpkg-new || test -d /lib/modules/{new}/kernel");
    cut(site, &moment)?;
    repaired(stage, site)
}

pub(crate) fn during_the_initramfs(stage: &Stage) -> Result<()> {
    stage.before_the_kernel(|site| during_the_initramfs_on(stage, site))
}

fn during_the_initramfs_on(stage: &Stage, site: &Site) -> Result<()> {
    cut(site, "pgrep -f mkinitramfs")?;
    repaired(stage, site)
}

/// The entry is set, the machine about to go: the next boot is the trial, as if it had gone in order.
pub(crate) fn right_before_the_reboot(stage: &Stage) -> Result<()> {
    stage.before_the_kernel(|site| right_before_the_reboot_on(stage, site))
}

fn right_before_the_reboot_on(stage: &Stage, site: &Site) -> Result<()> {
    site.armed(LONG)?;
    site.machine.kill()?;
    let took = site.power_on()?;
    say(format_args!("figure: booted {} after the power cut", seconds(took)));
    site.accepted(&stage.newest()?)?;
    site.ready(LONG)
}

/// The one boot of the trial is spent: the machine is on the old kernel, says so, and tries again when it is told to.
pub(crate) fn right_after_the_reboot(stage: &Stage) -> Result<()> {
    stage.before_the_kernel(|site| right_after_the_reboot_on(stage, site))
}

fn right_after_the_reboot_on(stage: &Stage, site: &Site) -> Result<()> {
    let (machine, new) = (&site.machine, stage.newest()?);
    let starts = || machine.console(usize::MAX).matches(&format!("Linux version {new}")).count();
    let before = starts();
    site.armed(LONG)?;
    wait::until("the new kernel to start", LONG, || {
        ensure!(starts() > before, "not yet");
        Ok(())
    })?;
    machine.kill()?;
    site.power_on()?;
    let kernel = machine.kernel()?;
    ensure!(kernel == stage.image()?.kernel, "it runs {kernel}");
    wait::patiently("the failure to be on record", LONG, || {
        let known = site.kernels()?;
        ensure!(known["failed"].as_array().is_some_and(|failed| !failed.is_empty()), "{known}");
        Ok(())
    })?;
    // What goes on in the background goes on without that kernel.
    machine.run("systemctl stop sealift-resume.service")?;
    machine.mount("bundle", "/mnt")?;
    site.start("--reboot=auto --retry-kernel")?;
    site.accepted(&new)?;
    site.ready(LONG)
}

/// Cuts the power when a shell command succeeds.
fn cut(site: &Site, moment: &str) -> Result<()> {
    let machine = &site.machine;
    let start = Instant::now();
    while !machine.try_run(moment)?.success() {
        if start.elapsed() > LONG || machine.try_run("test -e /root/install.code")?.success() {
            bail!("the moment to cut the power never came\n{}", site.log());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    machine.kill()?;
    let took = site.power_on()?;
    say(format_args!("figure: the power was cut after {}, booted in {}", seconds(start.elapsed()), seconds(took)));
    Ok(())
}

/// It boots the old kernel; the next run, from the stick that is still there, repairs and completes what was begun.
fn repaired(stage: &Stage, site: &Site) -> Result<()> {
    let (machine, new) = (&site.machine, stage.newest()?);
    let kernel = machine.kernel()?;
    ensure!(kernel == stage.image()?.kernel, "it boots {kernel}");
    machine.mount("bundle", "/mnt")?;
    // What goes on in the background may have armed it already.
    site.start("--reboot=auto")?;
    wait::patiently("the new kernel", LONG, || {
        machine.boot_id()?;
        let kernel = machine.kernel()?;
        ensure!(kernel == new, "it runs {kernel}");
        Ok(())
    })
    .with_context(|| site.log())?;
    site.accepted(&new)?;
    site.ready(LONG)?;
    ensure!(machine.run("dpkg --audit")?.stdout.is_empty(), "packages are left half installed");
    Ok(())
}
