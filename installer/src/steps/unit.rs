//! What systemd says about one unit, and the few things the steps ask it to do.
//!
//! Everything goes through `systemctl` (argument vectors, never D-Bus); a host without that unit answers with an inactive
//! one, so checks work before anything was installed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::host::{Command, Host};

/// Where unit files live.
pub const UNIT_DIRECTORY: &str = "/etc/systemd/system";

/// The state of a unit as `systemctl show` reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitState {
    /// `active`, `inactive`, `failed`, `activating` …
    pub active: String,
    /// `running`, `dead`, `auto-restart` …
    pub sub: String,
    /// `enabled`, `disabled`, `static`, empty without a unit file.
    pub enabled: String,
    /// Whether the file on disk is newer than what systemd has loaded.
    pub reload_needed: bool,
    /// Automatic restarts since the last manual start.
    pub restarts: u32,
}

impl UnitState {
    /// Asks systemd.
    pub fn read(host: &Host, unit: &str) -> Result<Self> {
        let command = Command::new("systemctl")
            .arg("show")
            .arg("--property=ActiveState,SubState,UnitFileState,NeedDaemonReload,NRestarts")
            .arg(unit);
        let output = host.run(&command).with_context(|| format!("asking systemd about `{unit}`"))?;
        Ok(Self::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Reads the `KEY=VALUE` lines of `systemctl show`.
    fn parse(text: &str) -> Self {
        let mut values: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
        let mut take = |key: &str| values.remove(key).unwrap_or_default().to_owned();
        Self {
            active: take("ActiveState"),
            sub: take("SubState"),
            enabled: take("UnitFileState"),
            reload_needed: take("NeedDaemonReload") == "yes",
            restarts: take("NRestarts").parse().unwrap_or(0),
        }
    }

    /// Running as it should.
    pub fn is_active(&self) -> bool {
        self.active == "active"
    }

    /// On its way up by itself; not between two attempts.
    pub fn is_starting(&self) -> bool {
        self.active == "activating" && !self.sub.starts_with("auto-restart")
    }

    /// On its way up, or between two attempts that systemd makes by itself.
    pub fn is_coming(&self) -> bool {
        self.active == "activating"
    }

    /// Will be started at boot.
    pub fn is_enabled(&self) -> bool {
        self.enabled == "enabled"
    }

    /// For messages: `active (running)`.
    pub fn describe(&self) -> String {
        let state = if self.active.is_empty() { "unknown" } else { &self.active };
        if self.sub.is_empty() { state.to_owned() } else { format!("{state} ({})", self.sub) }
    }
}

/// Path of a unit's file.
pub fn unit_path(unit: &str) -> PathBuf {
    Path::new(UNIT_DIRECTORY).join(unit)
}

/// Path of the stamp a unit writes when it starts: the digest of the configuration it was started with.
pub fn stamp_path(unit: &str) -> PathBuf {
    Path::new("/run/sealift/started").join(unit)
}

/// Runs `systemctl` with these arguments.
pub fn systemctl(host: &Host, arguments: &[&str]) -> Result<()> {
    host.run(&Command::new("systemctl").args(arguments))?;
    Ok(())
}

/// The last lines a unit wrote to the journal, for error messages; empty when there are none or the journal cannot be read.
pub fn last_lines(host: &Host, unit: &str, count: u32) -> String {
    let command = Command::new("journalctl")
        .arg("--unit")
        .arg(unit)
        .arg("--lines")
        .arg(count.to_string())
        .arg("--no-pager")
        .arg("--output=cat");
    match host.try_run(&command) {
        Ok(finished) => String::from_utf8_lossy(&finished.stdout).trim_end().to_owned(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_systemctl_show_prints() {
        let state = UnitState::parse(
            "ActiveState=activating\nSubState=auto-restart\nUnitFileState=enabled\nNeedDaemonReload=no\nNRestarts=3\n",
        );
        assert_eq!(state.describe(), "activating (auto-restart)");
        assert!(state.is_enabled() && !state.is_active() && !state.reload_needed);
        assert_eq!(state.restarts, 3);
        assert!(!state.is_starting() && state.is_coming());
        assert!(UnitState::parse("ActiveState=activating\nSubState=start\n").is_starting());
    }

    #[test]
    fn a_unit_that_does_not_exist_is_inactive() {
        let state = UnitState::parse("ActiveState=inactive\nSubState=dead\nUnitFileState=\nNeedDaemonReload=no\n");
        assert!(!state.is_active() && !state.is_enabled());
        assert_eq!(UnitState::parse("").describe(), "unknown");
    }
}
