//! What forces a kernel on trial back when nobody accepts it: a timer from the first moments of systemd on, which emergency
//! and rescue mode start as well. What hangs before is for the [`countdown`].
//!
//! All of it looks at `uname -r` first: on any other kernel it does nothing, whatever is left over of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::countdown;
use crate::facts::which;
use crate::host::{Command, Host};
use crate::steps::file::WantedFile;
use crate::steps::unit::{UnitState, systemctl, unit_path};

/// The timer.
pub const TIMER: &str = "sealift-trial.timer";
/// What it starts.
pub const SERVICE: &str = "sealift-trial.service";
/// Targets that a host ends in when it cannot start.
const TARGETS: [&str; 2] = ["emergency.target", "rescue.target"];

/// A reboot that asks nobody: units are stopped and file systems synced if they can be.
fn service(release: &str) -> String {
    format!(
        "# Written by Sealift: gives up a kernel on trial. Removed when that is decided.\n\
         [Unit]\n\
         Description=Sealift: Linux {release} was not accepted in time, go back to the one before\n\
         DefaultDependencies=no\n\
         ConditionKernelVersion={release}\n\
         SuccessAction=reboot-force\n\
         FailureAction=reboot-immediate\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         ExecStart=/bin/sh -c 'echo \"<1>sealift: Linux {release} was not accepted in time: rebooting\" > /dev/kmsg'\n\
         TimeoutStartSec=30\n"
    )
}

/// Not ordered after anything: what hangs before `sysinit.target` does not hold it up.
fn timer(release: &str, trial: Duration) -> String {
    format!(
        "# Written by Sealift: gives up a kernel on trial. Removed when that is decided.\n\
         [Unit]\n\
         Description=Sealift: Linux {release} on trial\n\
         DefaultDependencies=no\n\
         ConditionKernelVersion={release}\n\
         \n\
         [Timer]\n\
         OnBootSec={}s\n\
         AccuracySec=1s\n\
         Unit={SERVICE}\n\
         \n\
         [Install]\n\
         WantedBy=sysinit.target\n",
        trial.as_secs()
    )
}

fn drop_in() -> String {
    format!("# Written by Sealift: a kernel on trial that ends up here goes back as well.\n[Unit]\nWants={TIMER}\n")
}

fn drop_in_path(target: &str) -> PathBuf {
    unit_path(&format!("{target}.d/10-sealift-trial.conf"))
}

/// Units as they should be while a kernel is on trial.
fn files(release: &str, trial: Duration) -> Vec<WantedFile> {
    let mut files = vec![
        WantedFile::public(unit_path(SERVICE), service(release)),
        WantedFile::public(unit_path(TIMER), timer(release, trial)),
    ];
    files.extend(TARGETS.map(|target| WantedFile::public(drop_in_path(target), drop_in())));
    files
}

/// Puts the timer in place for the next boot.
pub(super) fn arm(host: &Host, release: &str, trial: Duration) -> Result<()> {
    let mut changed = false;
    for file in files(release, trial) {
        changed |= file.write(host)?;
    }
    if changed {
        systemctl(host, &["daemon-reload"])?;
    }
    if !UnitState::read(host, TIMER)?.is_enabled() {
        systemctl(host, &["enable", TIMER])?;
    }
    Ok(())
}

/// Whether anything of it is left.
pub(super) fn is_left(host: &Host) -> Result<bool> {
    let places =
        TARGETS.map(drop_in_path).into_iter().chain([unit_path(TIMER), unit_path(SERVICE), countdown::SCRIPT.into()]);
    for place in places {
        if host.exists(&place)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes everything away; a countdown that runs ends first.
pub(super) fn disarm(host: &Host) -> Result<()> {
    countdown::end(host)?;
    if host.exists(&unit_path(TIMER))? {
        systemctl(host, &["disable", "--now", TIMER])?;
    }
    for target in TARGETS {
        let path = drop_in_path(target);
        host.remove(&path)?;
        // Somebody else's drop-ins may be beside it.
        if let Some(directory) = path.parent()
            && host.exists(directory)?
            && host.list(directory)?.is_empty()
        {
            host.remove(directory)?;
        }
    }
    // The timer's own file last: as long as it is there, `disarm` is known to be unfinished.
    for path in [PathBuf::from(countdown::SCRIPT), unit_path(SERVICE), unit_path(TIMER)] {
        host.remove(&path)?;
    }
    systemctl(host, &["daemon-reload"])
}

/// A hardware watchdog, which reboots a host that freezes before systemd.
pub(super) fn watchdog(host: &Host) -> Result<bool> {
    Ok(!host.list(Path::new("/sys/class/watchdog"))?.is_empty())
}

/// Whether this host can start another kernel by itself.
pub(super) fn can_kexec(host: &Host) -> Result<bool> {
    let allowed = host.read_text(Path::new("/proc/sys/kernel/kexec_load_disabled"))?;
    Ok(which(host, "kexec")?.is_some() && allowed.is_some_and(|text| text.trim() == "0"))
}

/// Loads a kernel that `systemctl kexec` then starts.
pub(super) fn load_kexec(host: &Host, release: &str, initramfs: &Path, options: &str) -> Result<()> {
    let kernel = Path::new("/boot").join(format!("vmlinuz-{release}"));
    let mut argument = std::ffi::OsString::from("--initrd=");
    argument.push(initramfs);
    let command = Command::new("kexec").arg("-l").arg(kernel).arg(argument).arg(format!("--append={options}"));
    host.run(&command).context("loading the kernel for kexec").map(drop)
}

/// Whether one is loaded.
pub(super) fn kexec_loaded(host: &Host) -> Result<bool> {
    Ok(host.read_text(Path::new("/sys/kernel/kexec_loaded"))?.is_some_and(|text| text.trim() == "1"))
}

/// Unloads it again.
pub(super) fn unload_kexec(host: &Host) -> Result<()> {
    if kexec_loaded(host)? {
        host.run(&Command::new("kexec").arg("-u")).context("unloading the kernel for kexec")?;
    }
    Ok(())
}
