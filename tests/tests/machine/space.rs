//! What stands in a kernel's way on the host: each has a clear outcome and breaks nothing.

use anyhow::{Context, Result, ensure};
use e2e::machine::BOOT;

use super::site::{LONG, Site};
use super::stage::Stage;

/// Holds dpkg's lock as dpkg does (fcntl) until it is ended.
const HOLDER: &str = "perl -e 'use Fcntl; open(my $f, \"+>>\", \"/var/lib/dpkg/lock\") or die; \
    my $l = pack(\"ssx4qqi\", F_WRLCK, 0, 0, 0, 0); fcntl($f, F_SETLK, $l) or die; $|=1; print \"held\\n\"; sleep 100000'";

/// Runs the installer to a refusal (exit code 1 or 3) that says one of these words, and proves that nothing is broken.
fn refused(stage: &Stage, site: &Site, words: &[&str]) -> Result<()> {
    site.start("--reboot=never")?;
    let code = site.ended(LONG)?;
    let said = site.log();
    ensure!([1, 3].contains(&code), "the installer ended with {code}\n{said}");
    ensure!(words.iter().any(|word| said.contains(word)), "it does not say {words:?}:\n{said}");
    unbroken(stage, site)
}

/// Packages whole, the old kernel what boots.
fn unbroken(stage: &Stage, site: &Site) -> Result<()> {
    let machine = &site.machine;
    let audit = machine.run("dpkg --audit")?.stdout;
    ensure!(audit.is_empty(), "packages are left half installed:\n{audit}");
    machine.run("dpkg -s linux-image-amd64 | grep -q 'install ok installed\\|hold ok installed'")?;
    let boot = machine.boot_id()?;
    machine.run("sync; systemctl reboot --no-block")?;
    machine.rebooted(&boot, BOOT)?;
    let kernel = machine.kernel()?;
    ensure!(kernel == stage.image()?.kernel, "it boots {kernel}");
    Ok(())
}

/// /boot is a file system of its own that has no room for another kernel.
pub(crate) fn boot_is_too_small(stage: &Stage) -> Result<()> {
    stage.fresh(|site| boot_is_too_small_on(stage, site))
}

fn boot_is_too_small_on(stage: &Stage, site: &Site) -> Result<()> {
    site.machine.run(
        "truncate -s 32M /root/boot.img && mkfs.ext4 -q /root/boot.img && mount -o loop /root/boot.img /media && \
         cp -a /boot/. /media && umount /media && mount -o loop /root/boot.img /boot && df /boot",
    )?;
    refused(stage, site, &["/boot"])
}

/// The disk fills up while dpkg unpacks; with room again the next run completes it.
pub(crate) fn the_disk_fills_up(stage: &Stage) -> Result<()> {
    stage.fresh(|site| the_disk_fills_up_on(stage, site))
}

fn the_disk_fills_up_on(stage: &Stage, site: &Site) -> Result<()> {
    let machine = &site.machine;
    site.start("--reboot=never")?;
    let new = stage.newest()?;
    machine.run_for(
        &format!(
            "until ls -d /lib/modules/{new}* 2>/dev/null || test -e /root/install.code; do sleep 0.2; done; \
                  fallocate -l $(($(stat -f -c '%a*%S' /))) /full || true; df /"
        ),
        LONG,
    )?;
    let code = site.ended(LONG)?;
    let said = site.log();
    ensure!(code == 1, "the installer ended with {code}\n{said}");
    ensure!(said.contains("space") || said.contains("full"), "it does not say why:\n{said}");
    machine.run("rm /full; sync")?;
    site.run("--reboot=never", 5)?;
    unbroken_but_for_the_trial(site)
}

fn unbroken_but_for_the_trial(site: &Site) -> Result<()> {
    let audit = site.machine.run("dpkg --audit")?.stdout;
    ensure!(audit.is_empty(), "packages are left half installed:\n{audit}");
    let state = site.kernels()?;
    ensure!(state["trial"]["stage"] == "armed", "{state}");
    Ok(())
}

/// Another process holds dpkg's lock: who it is is said, and without it the next run goes through.
pub(crate) fn dpkg_is_locked(stage: &Stage) -> Result<()> {
    stage.fresh(dpkg_is_locked_on)
}

fn dpkg_is_locked_on(site: &Site) -> Result<()> {
    let machine = &site.machine;
    machine.start_service("holder", HOLDER)?;
    machine.run("for i in $(seq 100); do grep -q held /root/holder.log && exit 0; sleep 0.2; done; exit 1")?;
    site.start("--reboot=never")?;
    let code = site.ended(LONG)?;
    let said = site.log();
    ensure!([1, 3].contains(&code), "the installer ended with {code}\n{said}");
    ensure!(said.contains("lock"), "it does not name the lock:\n{said}");
    machine.run("systemctl stop holder")?;
    site.run("--reboot=never", 5)?;
    unbroken_but_for_the_trial(site)
}

/// The administrator holds the kernel back: that is respected, and said.
pub(crate) fn the_kernel_is_held(stage: &Stage) -> Result<()> {
    stage.fresh(|site| the_kernel_is_held_on(stage, site))
}

fn the_kernel_is_held_on(stage: &Stage, site: &Site) -> Result<()> {
    let machine = &site.machine;
    machine.run("echo 'linux-image-amd64 hold' | dpkg --set-selections && dpkg --get-selections | grep -q 'linux-image-amd64.*hold'")?;
    refused(stage, site, &["held", "hold"]).context("a held kernel")?;
    machine.run("dpkg --get-selections | grep -q 'linux-image-amd64.*hold'")?;
    Ok(())
}
