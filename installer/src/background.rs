//! A run that waits for other hosts goes on by itself: `sealift-resume.service` runs `installer resume` until it ends well,
//! also after a reboot. The run that ends well removes it.
//!
//! A run that an operator starts takes over from it and gives back what it has not finished; the lock decides if both
//! come at once.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bundle::Digest;

use crate::event::{Event, Events};
use crate::host::{Command, Host};
use crate::journal::Journal;
use crate::steps::kernel;
use crate::steps::unit::{UnitState, systemctl, unit_path};
use crate::store::program_path;
use crate::waiting;

/// The unit.
pub const UNIT: &str = "sealift-resume.service";
/// A run in the background is stopped between two changes; a single one may take this long.
const STOP_WITHIN: Duration = Duration::from_secs(330);

/// Exit code 6 is an expected end, and tried again; wrong usage (2: also a join file whose token ended or was revoked), a kernel
/// that the config demands and that has failed (3; what preflight finds ends with 1 in here) and a refused bundle (4) need a
/// person: `installer status` goes on saying so.
fn unit(installer: &Digest) -> String {
    let installer = program_path(installer);
    format!(
        "# Written by Sealift: an installation that waits for other hosts. Removed when it has ended well.\n\
         [Unit]\n\
         Description=Sealift: go on with an installation that waits for other hosts\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         ExecStart={} resume --wait 10m\n\
         SuccessExitStatus=5 6\n\
         RestartForceExitStatus=6\n\
         RestartPreventExitStatus=2 3 4\n\
         Restart=on-failure\n\
         RestartSec=10\n\
         KillMode=mixed\n\
         TimeoutStopSec=300\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        installer.display()
    )
}

/// Whether this process is the run in the background.
pub fn inside(host: &Host) -> bool {
    let cgroups = host.read_text(Path::new("/proc/self/cgroup")).ok().flatten().unwrap_or_default();
    cgroups.lines().any(|line| line.ends_with(&format!("/{UNIT}")))
}

/// Held by a run while it works; what it has not finished goes on in the background when it is dropped. To be made before
/// the lock is taken, so that it is dropped after the lock.
pub struct Foreground<'a> {
    host: &'a Host,
    events: &'a dyn Events,
}

impl std::fmt::Debug for Foreground<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Foreground").finish_non_exhaustive()
    }
}

impl<'a> Foreground<'a> {
    /// Ends a run that works in the background, at its next safe point.
    pub fn take_over(host: &'a Host, events: &'a dyn Events) -> Result<Self> {
        let foreground = Self { host, events };
        if inside(host) || !host.exists(&unit_path(UNIT))? {
            return Ok(foreground);
        }
        let state = UnitState::read(host, UNIT)?;
        if state.is_active() || state.is_coming() {
            foreground.say(format!("taking over from the run in the background ({UNIT})"));
            let stop = Command::new("systemctl").args(["stop", UNIT]).timeout(STOP_WITHIN);
            host.run(&stop).context("ending the run in the background")?;
        }
        Ok(foreground)
    }

    fn say(&self, text: String) {
        self.events.emit(&Event::Note { step: String::new(), text });
    }

    fn give_back(&self) -> Result<()> {
        let host = self.host;
        // Its next part is after the reboot.
        if kernel::awaits_reboot(host)? {
            return Ok(());
        }
        if inside(host) || !host.exists(&unit_path(UNIT))? || Journal::read(host)?.pending().is_none() {
            return Ok(());
        }
        systemctl(host, &["--no-block", "start", UNIT])?;
        self.say(format!("this host goes on by itself in the background ({UNIT})"));
        Ok(())
    }
}

impl Drop for Foreground<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.give_back() {
            let text = format!("{UNIT} does not go on in the background: {error:#}; `installer resume` goes on");
            self.events.emit(&Event::Warning { step: String::new(), text });
        }
    }
}

/// Prepares the run that goes on by itself, now ([`Foreground`] starts it) and at every boot.
pub fn prepare(host: &Host, installer: &Digest) -> Result<()> {
    let (path, text) = (unit_path(UNIT), unit(installer));
    if !host.has(&path, text.as_bytes(), 0o644)? {
        host.write(&path, text.as_bytes(), 0o644)?;
        systemctl(host, &["daemon-reload"])?;
    }
    if !UnitState::read(host, UNIT)?.is_enabled() {
        systemctl(host, &["enable", UNIT])?;
    }
    Ok(())
}

/// Nothing is left to go on with: removes the unit. Called from within it too, so it does not stop it.
pub fn remove(host: &Host) -> Result<()> {
    waiting::clear(host);
    let path = unit_path(UNIT);
    if !host.exists(&path)? {
        return Ok(());
    }
    systemctl(host, &["disable", UNIT])?;
    host.remove(&path)?;
    systemctl(host, &["daemon-reload"])?;
    // Only what has failed has this to be forgotten.
    host.try_run(&Command::new("systemctl").args(["reset-failed", UNIT])).map(drop)
}

#[cfg(test)]
mod tests;
