//! Our units: stopped and disabled, with force when they hang. Their files stay until the before-images are put back, so
//! that a reset that was killed finds them again.
//!
//! Ours are those that the journal, the generation or this program names: an operator's own timer that runs
//! `/opt/sealift/bin/installer` is his.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::agent::backends;
use crate::background;
use crate::context::{CURRENT, HOME};
use crate::host::{Command, FileKind, Host};
use crate::journal::Journal;
use crate::report::Explain as _;
use crate::step::Target;
use crate::steps::unit::{UNIT_DIRECTORY, UnitState, unit_path};
use crate::steps::{approver, network};

/// Time for a unit to end by itself, and again after it was killed.
const PATIENCE: Duration = Duration::from_secs(45);
const ASKING: Duration = Duration::from_secs(60);

/// Units of this program's own, on every host or on some.
const OWN: [&str; 4] = [background::UNIT, network::UNIT, approver::UNIT, backends::UNIT];

/// Our units whose files are there. Without a journal that can be read: all that name a program below `/opt/sealift`.
pub(super) fn ours(host: &Host, journal: Option<&Journal<'_>>) -> Result<Vec<String>> {
    let names = journal.map(|journal| names(host, journal)).transpose()?;
    let mut units = Vec::new();
    for name in host.list(Path::new(UNIT_DIRECTORY))? {
        if names.as_ref().is_none_or(|names| names.contains(&name)) && runs_ours(host, &name)? {
            units.push(name);
        }
    }
    Ok(units)
}

/// The names that units of ours may have here: of files that a run was about to write, of the current generation, our own.
fn names(host: &Host, journal: &Journal<'_>) -> Result<BTreeSet<String>> {
    let mut names: BTreeSet<String> = OWN.map(str::to_owned).into();
    names.extend(host.list(&Path::new(CURRENT).join("units"))?);
    let written = journal.images().filter_map(|(target, _)| match target {
        Target::File(path) => path.strip_prefix(UNIT_DIRECTORY).ok()?.to_str().map(str::to_owned),
        _ => None,
    });
    names.extend(written);
    Ok(names)
}

/// Whether a unit's file names a program below `/opt/sealift`. One that does not is somebody else's, whatever its name.
fn runs_ours(host: &Host, name: &str) -> Result<bool> {
    let path = unit_path(name);
    let regular = host.entry(&path)?.is_some_and(|entry| entry.kind == FileKind::Regular);
    let text = if regular { host.read(&path)?.unwrap_or_default() } else { Vec::new() };
    Ok(String::from_utf8_lossy(&text).contains(&format!("{HOME}/")))
}

/// Disables units and stops them, all at once.
pub(super) fn stop(host: &Host, units: &[String]) -> Result<Vec<String>> {
    if units.is_empty() {
        return Ok(Vec::new());
    }
    // First: whatever happens from here on, a reboot does not start them again.
    let disabled = host.try_run(&systemctl(&["disable"], units));
    for link in wants(host, units)? {
        host.remove(&link)?;
    }
    disabled.context("disabling the units")?;
    let _ = host.try_run(&systemctl(&["--no-block", "stop"], units))?;
    let mut left = wait(host, units)?;
    if !left.is_empty() {
        let _ = host.try_run(&systemctl(&["kill", "--signal=SIGKILL"], &left))?;
        left = wait(host, &left)?;
    }
    if let Some(unit) = left.first() {
        let error: Result<()> = Err(anyhow::anyhow!("{unit} does not end, even when it is killed"));
        error.hint(format!("`systemctl status {unit}`; reboot if it waits for a disk, then reset again"))?;
    }
    Ok(vec![format!("stop and disable {}", units.join(", "))])
}

/// The links by which systemd starts units at boot (what `disable` removes, should systemd not answer).
fn wants(host: &Host, units: &[String]) -> Result<Vec<PathBuf>> {
    let mut links = Vec::new();
    for directory in host.list(Path::new(UNIT_DIRECTORY))? {
        let directory = Path::new(UNIT_DIRECTORY).join(directory);
        if directory.extension().is_none_or(|extension| extension != "wants") {
            continue;
        }
        for unit in units {
            let link = directory.join(unit);
            if host.link_target(&link)?.is_some() {
                links.push(link);
            }
        }
    }
    Ok(links)
}

/// Waits until they have ended; gives those that have not.
fn wait(host: &Host, units: &[String]) -> Result<Vec<String>> {
    let start = host.monotonic();
    loop {
        let mut left = Vec::new();
        for unit in units {
            let state = UnitState::read(host, unit)?.active;
            if matches!(state.as_str(), "active" | "activating" | "deactivating" | "reloading") {
                left.push(unit.clone());
            }
        }
        if left.is_empty() || host.monotonic().saturating_sub(start) >= PATIENCE {
            return Ok(left);
        }
        host.pause(Duration::from_millis(250));
    }
}

fn systemctl(arguments: &[&str], units: &[String]) -> Command {
    Command::new("systemctl").args(arguments).args(units).timeout(ASKING)
}

/// Removes the files of `stopped` units that no before-image covers, and lets systemd forget all of them.
pub(super) fn forget(host: &Host, stopped: &[String], journal: Option<&Journal<'_>>) -> Result<()> {
    for unit in stopped {
        let path = unit_path(unit);
        let target = Target::File(path.clone());
        let covered = journal.is_some_and(|journal| journal.before(&target).is_some());
        if !covered && runs_ours(host, unit)? {
            host.remove(&path)?;
        }
    }
    host.run(&Command::new("systemctl").arg("daemon-reload").timeout(ASKING))?;
    if !stopped.is_empty() {
        // A unit that failed stays in systemd's memory without its file; one that did not is an error here, and fine.
        let _ = host.try_run(&systemctl(&["reset-failed"], stopped));
    }
    Ok(())
}
