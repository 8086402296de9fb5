//! What stands in a kernel's way on the host: each has a clear outcome and breaks nothing.

use anyhow::{Context, Result, ensure};
use e2e::machine::BOOT;

use super::site::{LONG, Site};
use super::stage::Stage;

/// Holds dpkg's lock as dpkg does (fcntl) until it is ended.
const HOLDER: &str = "perl -e 'use Fcntl; open(my $f, \"+>>\", \"/var/lib/dpkg/lock\") or die; \
    my $l = pack(\"ssx4qqi\", F_WRLCK, 0, 0, 0, 0); fcntl($f, F_SETLK, $l) or die; $|=1; print \"held\\n\"; sleep 100000'";

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
    let machine = &site.machine;
    machine.run(
        "truncate -s 100M /root/boot.img && mkfs.ext4 -q /root/boot.img && mount -o loop /root/boot.img /media && \
         cp -a /boot/. /media && umount /media && mount -o loop /root/boot.img /boot && \
         fallocate -l $(($(stat -f -c '%a*%S' /boot) - 4194304)) /boot/full && df /boot",
    )?;
    site.start("--reboot=never")?;
    ended_saying(site, 3, "/boot")?;
    ensure!(machine.run("dpkg --audit")?.stdout.is_empty());
    // Who will not be told finds out in the middle, and goes on when there is room.
    site.start("--reboot=never --ignore disk")?;
    ended_saying(site, 1, "space")?;
    ensure!(machine.kernel()? == stage.image()?.kernel);
    machine.run("rm /boot/full; sync")?;
    site.run("--reboot=never", 5)?;
    unbroken_but_for_the_trial(site)
}

/// Waits for the installer's end with this exit code and word.
fn ended_saying(site: &Site, code: i32, word: &str) -> Result<()> {
    let ended = site.ended(LONG)?;
    let said = site.log();
    ensure!(ended == code, "the installer ended with {ended}, not {code}\n{said}");
    ensure!(said.contains(word), "it does not say `{word}`:\n{said}");
    Ok(())
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
                  fallocate -l $(($(stat -f -c '%f*%S' /))) /full || true; df /"
        ),
        LONG,
    )?;
    ended_saying(site, 1, "space")?;
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
    ended_saying(site, 1, "perl")?;
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
    site.start("--reboot=never")?;
    ended_saying(site, 3, "hold").context("a held kernel")?;
    unbroken(stage, site)?;
    machine.run("dpkg --get-selections | grep -q 'linux-image-amd64.*hold'")?;
    Ok(())
}
