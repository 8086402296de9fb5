//! The machine proves itself: what the scenarios lean on holds on this machine.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::machine::{ADDRESS, BOOT, Firmware, Machine};
use e2e::measure::seconds;
use e2e::output::say;
use e2e::{Bed, Process};

use super::stage::Stage;

pub(crate) fn the_machine_proves_itself(stage: &Stage) -> Result<()> {
    let image = stage.image()?;
    let bed = Bed::new()?;
    let run = bed.run().directory().to_owned();
    let start = Instant::now();
    let machine = Machine::boot(&bed, image, Firmware::Bios)?;
    say(format_args!("figure: the machine boots in {}", seconds(start.elapsed())));
    runs_programs(&machine)?;
    ensure!(machine.kernel()? == image.kernel, "it runs {}", machine.kernel()?);
    has_an_older_kernel(stage, &machine)?;
    machine.run(&format!("ip -4 addr | grep -qF {ADDRESS}/24 && ping -c1 -W5 {}", bed.gateway()))?;
    disks_come_and_go(stage, &machine)?;
    goes_on_from_a_checkpoint(&machine)?;
    loses_power(&machine)?;
    reboots(&machine)?;
    ensure!(bed.foreign()?.packets == 0, "it dials out: {:?}", bed.foreign()?);
    drop(machine);
    drop(bed);
    ensure!(!run.exists(), "files are left");
    let processes = Process::new("ps").args(["-e", "-o", "args"]).text()?;
    ensure!(!processes.contains(&run.display().to_string()), "processes are left");
    Ok(())
}

fn runs_programs(machine: &Machine) -> Result<()> {
    ensure!(machine.run("hostname")?.stdout.trim() == "machine");
    let finished = machine.try_run("echo out; echo err >&2; exit 7")?;
    ensure!((finished.code, &*finished.stdout, &*finished.stderr) == (Some(7), "out\n", "err\n"), "{finished:?}");
    let error = machine.run("echo reason >&2; false").err().context("a failing command is an error")?;
    ensure!(error.to_string().contains("reason"), "{error:#}");
    // An answer that comes too late is not taken for the next one.
    ensure!(machine.run_for("sleep 3; echo late", Duration::from_secs(1)).is_err());
    ensure!(machine.run("echo next")?.stdout == "next\n");
    let lines = "a line\n".repeat(2000);
    machine.write("/root/new/file", &lines)?;
    ensure!(machine.read("/root/new/file")? == lines);
    Ok(())
}

/// The bundle brings the archive's newest; modules are real here.
fn has_an_older_kernel(stage: &Stage, machine: &Machine) -> Result<()> {
    let newest = stage.archive()?.newest_kernel()?;
    ensure!(newest != format!("linux-image-{}", machine.kernel()?), "{newest} runs already");
    machine.run("modprobe ip_vs && grep -q ^ip_vs /proc/modules && test -d /boot/grub/i386-pc")?;
    machine.run("grub-probe --target=fs_uuid / && grub-editenv - list")?;
    Ok(())
}

fn disks_come_and_go(stage: &Stage, machine: &Machine) -> Result<()> {
    let disk = stage.carrier("small", &[(Path::new("/bin/true"), "tool")])?;
    machine.plug("small", &disk)?;
    machine.mount("small", "/mnt")?;
    machine.run("/mnt/tool; ! touch /mnt/new 2>/dev/null; umount /mnt")?;
    machine.unplug("small")?;
    machine.run("! test -e /dev/disk/by-id/virtio-small")?;
    Ok(())
}

fn goes_on_from_a_checkpoint(machine: &Machine) -> Result<()> {
    machine.start_service("counter", "touch /root/before; while sleep 1; do echo x >>/run/count; done")?;
    machine.run("for i in $(seq 50); do [ -s /run/count ] && break; sleep 0.2; done; test -s /run/count")?;
    let boot = machine.boot_id()?;
    let start = Instant::now();
    machine.checkpoint("counting")?;
    let saved = start.elapsed();
    machine.run("touch /root/after; sync")?;
    machine.kill()?;
    ensure!(!machine.alive() && machine.run("true").is_err(), "it is still on");
    let start = Instant::now();
    machine.go_on_from("counting")?;
    say(format_args!("figure: a checkpoint takes {}, going on from it {}", seconds(saved), seconds(start.elapsed())));
    ensure!(machine.boot_id()? == boot, "another boot");
    machine.run("test -e /root/before && ! test -e /root/after && systemctl is-active counter")?;
    Ok(())
}

fn loses_power(machine: &Machine) -> Result<()> {
    machine.run("echo kept >/root/kept; sync; echo lost >/root/lost")?;
    let boot = machine.boot_id()?;
    machine.kill()?;
    machine.power_on()?;
    machine.settled(BOOT)?;
    ensure!(machine.boot_id()? != boot, "the same boot");
    ensure!(machine.read("/root/kept")? == "kept\n");
    ensure!(!machine.try_run("grep -q lost /root/lost")?.success(), "a power cut kept what was never flushed");
    Ok(())
}

fn reboots(machine: &Machine) -> Result<()> {
    let boot = machine.boot_id()?;
    machine.run("systemctl reboot --no-block")?;
    machine.rebooted(&boot, BOOT)?;
    machine.settled(BOOT)?;
    machine.power_off()?;
    ensure!(!machine.alive(), "it is still on");
    Ok(())
}
