//! Bad kernels: the machine comes back on the old one by itself, says so, and is usable.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use e2e::machine::Fault;
use e2e::machine::kernel;
use e2e::measure::seconds;
use e2e::output::say;
use e2e::{Process, wait};

use super::site::{LONG, Site};
use super::stage::Stage;

/// The packages are what the scenarios take them for: installable beside the old kernel, and bad in just one way.
pub(crate) fn bad_kernels_are_what_they_seem(stage: &Stage) -> Result<()> {
    let (archive, name) = (stage.archive()?, stage.archive()?.newest_kernel()?);
    let original = archive.download(&name, &stage.path("seem/original")?)?;
    let field = |package: &Path, field: &str| Process::new("dpkg-deb").arg("-f").arg(package).arg(field).text();
    for (fault, script) in [
        (Fault::None, false),
        (Fault::Panics, true),
        (Fault::Hangs, true),
        (Fault::Stalls, false),
        (Fault::ForeignModule, false),
    ] {
        let package = kernel::repack(&original, fault, &stage.path("seem/repacked")?)?;
        ensure!(kernel::release(&package)? == stage.newest()?);
        let (before, now) = (field(&original, "Version")?, field(&package, "Version")?);
        Process::new("dpkg").args(["--compare-versions", &now, "gt", &before]).run()?;
        ensure!(field(&package, "Depends")? == field(&original, "Depends")?);
        let files = Process::new("dpkg-deb").arg("-c").arg(&package).text()?;
        let has = |part: &str| files.lines().any(|line| line.contains(part));
        ensure!(
            has("/boot/vmlinuz-")
                && has("/ip_vs.ko")
                && has("/virtio_blk.ko")
                && has("/overlay.ko")
                && has("/br_netfilter.ko"),
            "{fault:?}"
        );
        ensure!(has("initramfs-tools/scripts/init-premount/bed-") == script, "{fault:?}");
        ensure!(has("/sysinit.target.wants/bed-stall.service") == (fault == Fault::Stalls), "{fault:?}");
        ensure!(!has("/kernel/sound/"), "{fault:?}");
    }
    Ok(())
}

pub(crate) fn a_kernel_that_panics(stage: &Stage) -> Result<()> {
    comes_back(stage, Fault::Panics)
}

pub(crate) fn a_kernel_that_hangs_in_its_initramfs(stage: &Stage) -> Result<()> {
    comes_back(stage, Fault::Hangs)
}

pub(crate) fn a_kernel_that_hangs_before_sysinit(stage: &Stage) -> Result<()> {
    comes_back(stage, Fault::Stalls)
}

pub(crate) fn a_kernel_that_fails_its_health_check(stage: &Stage) -> Result<()> {
    comes_back(stage, Fault::ForeignModule)
}

/// The machine comes back on the old kernel, the node comes up there, and nobody tries the new kernel again.
fn comes_back(stage: &Stage, fault: Fault) -> Result<()> {
    // Only what hangs has to wait for the trial's end.
    let trial = if matches!(fault, Fault::Hangs | Fault::Stalls) { "3m" } else { "20m" };
    let site = stage
        .site(fault, &format!("[kernel]\nexact = \"bundle\"\ntrial = \"{trial}\"\non_failure = \"continue\"\n"))?;
    let (machine, old) = (&site.machine, &stage.image()?.kernel);
    let boot = machine.boot_id()?;
    let start = Instant::now();
    site.start("--reboot=auto")?;
    site.armed(LONG)?;
    let armed = start.elapsed();
    // Of the new kernel's boot nothing may be seen; whoever answers last is the old one.
    let back = back_on(&site, old, &boot)?;
    say(format_args!(
        "figure: {fault:?}: armed after {}, back on Linux {old} after {}",
        seconds(armed),
        seconds(start.elapsed())
    ));
    let words: &[&str] = match fault {
        Fault::Panics => &["this kernel panics, to reboot after 30 s", "Kernel panic"],
        Fault::Hangs => &["this kernel hangs"],
        Fault::Stalls => &["was not accepted in time: rebooting"],
        Fault::None | Fault::ForeignModule => &[],
    };
    let console = machine.console(usize::MAX);
    for word in words {
        ensure!(console.contains(word), "the console never said `{word}`");
    }
    let new = stage.newest()?;
    wait::patiently("the failure to be on record", LONG, || {
        let known = site.kernels()?;
        let failed = known["failed"].as_array().into_iter().flatten();
        let failed: Vec<_> = failed.filter(|failed| failed["kernel"]["release"] == new.as_str()).collect();
        ensure!(failed.len() == 1, "{known}");
        let reason = failed[0]["reason"].as_str().unwrap_or_default();
        ensure!(fault != Fault::ForeignModule || reason.contains("br_netfilter does not load"), "{known}");
        ensure!(known["trial"].is_null(), "{known}");
        Ok(())
    })?;
    let said = site.status()?;
    ensure!(said.contains(&new), "the status does not name the failed kernel:\n{said}");
    site.ready(LONG)?;
    ensure!(machine.boot_id()? == back && machine.kernel()? == *old, "it did not stay on the old kernel");
    not_tried_again(&site, &back)
}

/// Waits for a boot of the old kernel other than `boot`.
fn back_on(site: &Site, old: &str, boot: &str) -> Result<String> {
    let mut last = boot.to_owned();
    loop {
        last = site.machine.rebooted(&last, LONG)?;
        // A kernel that fails its health check answers before it goes.
        if site.machine.kernel().is_ok_and(|kernel| kernel == old) {
            return Ok(last);
        }
    }
}

/// A second run reports the failure and leaves the kernel alone.
fn not_tried_again(site: &Site, boot: &str) -> Result<()> {
    site.machine.mount("bundle", "/mnt")?;
    site.run("--reboot=auto", 0)?;
    ensure!(site.machine.boot_id()? == boot, "the failed kernel was tried again");
    let said = site.machine.read("/root/install.log")?;
    ensure!(said.contains("--retry-kernel"), "nothing is said of the kernel that failed:\n{said}");
    Ok(())
}
