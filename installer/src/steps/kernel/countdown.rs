//! A countdown in the initramfs of a kernel on trial: what hangs before systemd goes back as well. Hosts that make their
//! initramfs otherwise (dracut) have none.
//!
//! It is packed into the initramfs and would end every later boot of that kernel, too. It is taken out when the trial is
//! over; until that has worked, [`UNIT`] ends it at every boot, as soon as the trial's timer is gone.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::state::State;
use super::trial::TIMER;
use crate::facts::which;
use crate::host::boot::Initramfs;
use crate::host::{Command, Host};
use crate::steps::file::WantedFile;
use crate::steps::unit::{UnitState, systemctl, unit_path};

/// A script of the initramfs (initramfs-tools(7)), packed into the initramfs of every kernel that is installed after it.
pub(super) const SCRIPT: &str = "/etc/initramfs-tools/scripts/init-top/sealift-trial";
/// Ends a countdown whose trial is over.
pub(super) const UNIT: &str = "sealift-trial-over.service";
/// The process of that script, once the host is up.
const PROCESS: &str = "/run/initramfs/sealift-trial.pid";
/// The script in the list of an initramfs.
const NAME: &str = "scripts/init-top/sealift-trial";
/// How long an initramfs may take to be made, on the slowest of machines.
const PATIENCE: Duration = Duration::from_secs(1200);

/// Runs in the initramfs before anything else of it. The descriptor is opened first: later `/proc` is elsewhere.
fn script(release: &str, trial: Duration) -> String {
    format!(
        "#!/bin/sh\n\
         # Written by Sealift: a kernel on trial that hangs in its initramfs goes back to the one before.\n\
         case \"$1\" in prereqs) exit 0 ;; esac\n\
         [ \"$(uname -r)\" = '{release}' ] || exit 0\n\
         (\n\
         \x20   exec 3>/proc/sysrq-trigger || exit 0\n\
         \x20   sleep {seconds}\n\
         \x20   echo b >&3\n\
         ) >/dev/null 2>&1 </dev/null &\n\
         mkdir -p /run/initramfs\n\
         echo \"$!\" >/run/initramfs/sealift-trial.pid\n\
         exit 0\n",
        // After the timer, which ends a host more gently.
        seconds = trial.as_secs() + 60,
    )
}

/// Whether the trial is over is one fact on the disk, the timer's file: the unit needs no change when a kernel is accepted,
/// and a power cut cannot come between.
fn unit() -> WantedFile {
    let text = format!(
        "# Written by Sealift: a kernel whose trial is over is not ended by its initramfs. Removed with the countdown in there.\n\
         [Unit]\n\
         Description=Sealift: end the countdown of a trial that is over\n\
         DefaultDependencies=no\n\
         ConditionPathExists={PROCESS}\n\
         ConditionPathExists=!{timer}\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         ExecStart=/bin/sh -c 'read -r pid <{PROCESS}; if grep -qs sealift-trial \"/proc/$$pid/cmdline\"; then kill -9 \"$$pid\"; fi; \
         rm -f {PROCESS}'\n\
         \n\
         [Install]\n\
         WantedBy=sysinit.target emergency.target\n",
        timer = unit_path(TIMER).display()
    );
    WantedFile::public(unit_path(UNIT), text)
}

/// Whether this host makes its initramfs with initramfs-tools.
pub(super) fn is_possible(host: &Host) -> Result<bool> {
    Ok(which(host, "mkinitramfs")?.is_some())
}

/// Puts the script where the kernel's package will find it; what ends it later comes first.
pub(super) fn prepare(host: &Host, state: &mut State, release: &str, trial: Duration) -> Result<()> {
    if state.countdowns.insert(release.to_owned()) {
        state.write(host)?;
    }
    if unit().write(host)? {
        systemctl(host, &["daemon-reload"])?;
    }
    if !UnitState::read(host, UNIT)?.is_enabled() {
        systemctl(host, &["enable", UNIT])?;
    }
    WantedFile { path: SCRIPT.into(), bytes: script(release, trial).into_bytes(), mode: 0o755 }.write(host).map(drop)
}

/// Packs it into the initramfs of a kernel whose package was there before the script. Makes one where there is none: a
/// package that was configured on a full `/boot` may have left without.
pub(super) fn pack(host: &Host, release: &str) -> Result<()> {
    match Initramfs::path(host, release)? {
        None => make(host, "-c", release),
        Some(path) if Initramfs::read(host, &path)?.has(NAME) => Ok(()),
        Some(_) => make(host, "-u", release),
    }
}

/// Whether anything of it is to be taken away. The unit goes last, when nothing is on record any more.
pub(super) fn is_left(host: &Host, state: &State) -> Result<bool> {
    Ok(!state.countdowns.is_empty() || host.exists(&unit_path(UNIT))?)
}

/// Takes it out of the initramfs of every kernel that has one, but for one that is about to be tried; each is made anew, and
/// of a failure the others are not the worse. Gives the releases that are done.
pub(super) fn remove(host: &Host, state: &mut State, but: Option<&str>) -> Result<Vec<String>> {
    let (mut done, mut failed) = (Vec::new(), Ok(()));
    for release in state.countdowns.clone().into_iter().filter(|release| Some(release.as_str()) != but) {
        match rebuild(host, &release) {
            Ok(()) => {
                state.countdowns.remove(&release);
                state.write(host)?;
                done.push(release);
            }
            Err(error) => failed = Err(error),
        }
    }
    failed?;
    if state.countdowns.is_empty() && host.exists(&unit_path(UNIT))? {
        systemctl(host, &["disable", UNIT])?;
        host.remove(&unit_path(UNIT))?;
        systemctl(host, &["daemon-reload"])?;
    }
    Ok(done)
}

/// Nothing for a kernel that is not there (any more).
fn rebuild(host: &Host, release: &str) -> Result<()> {
    end(host)?;
    host.remove(Path::new(SCRIPT))?;
    let Some(path) = Initramfs::path(host, release)? else { return Ok(()) };
    make(host, "-u", release)?;
    if Initramfs::read(host, &path)?.has(NAME) {
        bail!("`{}` was made anew and still counts down: `update-initramfs -u -k {release}`", path.display());
    }
    Ok(())
}

/// `-c` makes a new one, `-u` the one that is there anew (update-initramfs(8)).
fn make(host: &Host, how: &str, release: &str) -> Result<()> {
    let command = Command::new("update-initramfs").args([how, "-k", release]).timeout(PATIENCE);
    host.run(&command).with_context(|| format!("making the initramfs of Linux {release}"))?;
    host.run(&Command::new("sync")).map(drop)
}

/// Ends the process that the initramfs started, if it is still that one.
pub(super) fn end(host: &Host) -> Result<()> {
    let path = Path::new(PROCESS);
    let Some(text) = host.read_text(path)? else { return Ok(()) };
    if let Ok(pid) = text.trim().parse::<i32>() {
        let is_it = || {
            let line = host.read(Path::new(&format!("/proc/{pid}/cmdline"))).ok().flatten().unwrap_or_default();
            String::from_utf8_lossy(&line).contains("sealift-trial")
        };
        if is_it() {
            host.kill(pid, is_it).context("ending the initramfs's countdown")?;
        }
    }
    host.remove(path)
}
