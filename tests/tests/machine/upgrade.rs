//! The good way: another kernel from the bundle, one reboot, a Ready node; later kernels of the distribution boot by default again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::machine::{Archive, BOOT, Firmware, Image, Machine};
use e2e::measure::seconds;
use e2e::output::say;
use e2e::product::{Programs, Yard};
use e2e::root::Debian;
use e2e::{Bed, wait};

use super::site::{LONG, Site};
use super::stage::{EXACT, Stage};

pub(crate) fn an_older_kernel_is_replaced_by_one_reboot(stage: &Stage) -> Result<()> {
    let site = Site::prepare(stage, stage.machine()?, stage.product()?, EXACT)?;
    let (machine, old) = (&site.machine, &stage.image()?.kernel);
    ensure!(machine.kernel()? == *old);
    let boot = machine.boot_id()?;
    let start = Instant::now();
    machine.stops_at_its_reboot()?;
    site.start("--reboot=auto")?;
    site.armed(LONG)?;
    let armed = start.elapsed();
    // Everything is on the host now: the stick is gone when the new kernel comes.
    machine.stopped(LONG)?;
    machine.unplug("bundle")?;
    machine.power_on()?;
    let next = machine.rebooted(&boot, LONG)?;
    let rebooted = start.elapsed();
    machine.run("! test -e /dev/disk/by-id/virtio-bundle").context("the stick is still there")?;
    site.ready(LONG)?;
    let all = start.elapsed();
    let new = stage.newest()?;
    ensure!(machine.kernel()? == new, "it runs {}, not {new}", machine.kernel()?);
    ensure!(machine.boot_id()? == next, "it rebooted once more");
    let mode = machine.run("cat /proc/net/ip_vs; cat /proc/modules | grep -E '^(ip_vs|nf_tables) '")?.stdout;
    ensure!(
        mode.lines().any(|line| line.starts_with("TCP") && line.contains("rr")),
        "kube-proxy does not use ipvs:\n{mode}"
    );
    let code: i32 = machine.read("/root/install.code")?.trim().parse().context("the installer's exit code")?;
    ensure!(code == 5, "the installer ended with {code} before the reboot");
    say(format_args!(
        "figure: from Linux {old} to {new}: armed after {}, booted after {}, Ready after {}",
        seconds(armed),
        seconds(rebooted),
        seconds(all)
    ));
    no_pin_is_left(&site)?;
    stage.keep(site);
    Ok(())
}

/// The same with UEFI below: its boot loader is another program, and everything that it reads is the same.
pub(crate) fn a_kernel_is_replaced_on_uefi(stage: &Stage) -> Result<()> {
    let machine = Machine::boot(&Bed::new()?, stage.image()?, Firmware::Uefi)?;
    machine.run("test -d /sys/firmware/efi").context("it did not boot by UEFI")?;
    let site = Site::prepare(stage, machine, stage.product()?, EXACT)?;
    let (machine, boot, new) = (&site.machine, site.machine.boot_id()?, stage.newest()?);
    site.start("--reboot=auto")?;
    let next = machine.rebooted(&boot, LONG)?;
    site.accepted(&new)?;
    ensure!(machine.boot_id()? == next, "it rebooted once more");
    machine.run("sync; systemctl reboot --no-block")?;
    machine.rebooted(&next, BOOT)?;
    ensure!(machine.kernel()? == new, "it runs {}, not {new}", machine.kernel()?);
    Ok(())
}

/// The same on Debian 13: GRUB 2.12, packed modules below `/usr/lib`, control groups of version 2 alone.
pub(crate) fn debian_13_gets_its_newer_kernel(stage: &Stage) -> Result<()> {
    let archive = Archive::open(&stage.path("apt-13")?, Debian::Trixie)?;
    let image = Image::base(&archive)?;
    let mut yard = Yard::lay(&Programs::build()?, &stage.path("yard-13")?, None)?;
    yard.set_releases(&[Debian::Trixie])?;
    let product = yard.make()?;
    let start = Instant::now();
    let site = Site::prepare(stage, Machine::boot(&Bed::new()?, &image, Firmware::Bios)?, &product, EXACT)?;
    let (machine, boot, old) = (&site.machine, site.machine.boot_id()?, &image.kernel);
    ensure!(machine.kernel()? == *old && machine.read("/etc/debian_version")?.starts_with("13"));
    site.start("--reboot=auto")?;
    let next = machine.rebooted(&boot, LONG)?;
    let new = archive.newest_kernel()?;
    let new = new.trim_start_matches("linux-image-");
    site.accepted(new)?;
    site.ready(LONG)?;
    ensure!(machine.boot_id()? == next, "it rebooted once more");
    say(format_args!("figure: from Linux {old} to {new}: Ready after {}", seconds(start.elapsed())));
    no_pin_is_left(&site)?;
    machine.run("sync; systemctl reboot --no-block")?;
    machine.rebooted(&next, BOOT)?;
    ensure!(machine.kernel()? == new, "it runs {}, not {new}", machine.kernel()?);
    Ok(())
}

/// Neither a saved default nor a one-time entry: the newest kernel is what boots.
fn no_pin_is_left(site: &Site) -> Result<()> {
    let state = site.kernels()?;
    ensure!(state["trial"].is_null() && state["pin"].is_null() && !state["accepted"].is_null(), "{state}");
    let left = site
        .machine
        .run("grub-editenv - list; ls /etc/default/grub.d /etc/systemd/system | grep -i sealift-trial || true")?;
    ensure!(!left.stdout.contains("next_entry=g") && !left.stdout.contains("sealift-trial"), "{}", left.stdout);
    let left = site.machine.run_for("lsinitramfs /boot/initrd.img-$(uname -r) | grep sealift", LONG)?.stdout;
    ensure!(left.is_empty(), "every later boot would end after the trial's time: {left}");
    Ok(())
}

/// A newer kernel of the distribution, installed as an administrator does, is what the machine boots next, and the node is Ready on it.
pub(crate) fn a_later_kernel_boots_by_default(stage: &Stage) -> Result<()> {
    let site = stage.upgraded()?;
    let machine = &site.machine;
    let newest = stage.archive()?.kernels("linux-image-6[.]12[.]")?;
    let newest = newest.last().context("the archive has no kernel 6.12")?;
    let package = stage.archive()?.download(newest, &stage.path("later")?)?;
    let disk = stage.carrier("later", &[(&package, "later.deb")])?;
    machine.plug("later", &disk)?;
    machine.mount("later", "/media")?;
    let said = machine.run_for("dpkg -i /media/later.deb && umount /media", LONG)?;
    ensure!(said.success(), "{}", said.tail());
    machine.unplug("later")?;
    let boot = machine.boot_id()?;
    machine.run("systemctl reboot --no-block")?;
    machine.rebooted(&boot, BOOT)?;
    let expected = newest.trim_start_matches("linux-image-");
    ensure!(machine.kernel()? == expected, "it runs {}, not {expected}", machine.kernel()?);
    wait::patiently("the node to be Ready on it", LONG, || site.ready(Duration::from_secs(60)))
}
