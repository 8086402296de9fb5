//! What an installation of packages began and has not ended: kept in a file from before the first change until all is done,
//! so that the next run, or `reset`, finishes what one that died has left.
//!
//! rpm needs it above all: it takes a package into its database before the package's last scripts have run, and after
//! `kill -9` neither `rpm --query` nor `rpm --verify` tells.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{Archive, Database, Later, Mode, services};
use crate::host::Host;

/// The file.
const PATH: &str = "/var/lib/sealift/packages.json";

/// What was begun.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Packages that were handed to dpkg or rpm.
    pub(super) begun: Vec<Begun>,
    /// Names of packages that were not there before.
    pub(super) new: BTreeSet<String>,
    /// Units that were enabled before.
    pub(super) enabled: BTreeSet<String>,
}

/// A package that was handed to dpkg or rpm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    pub(super) archive: Archive,
    pub(super) mode: Mode,
}

impl Record {
    /// The record, if there is one.
    pub(super) fn read(host: &Host) -> Result<Option<Self>> {
        let Some(bytes) = host.read(Path::new(PATH))? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).with_context(|| format!("reading `{PATH}`"))
    }

    /// Adds what is begun now to what an earlier run has left, before anything is changed.
    pub(super) fn begin(host: &Host, archives: &[&Archive], mode: Mode) -> Result<Self> {
        let left = Self::read(host)?;
        let mut record = match left.clone() {
            Some(left) => left,
            None => Self { enabled: services::enabled(host)?, ..Self::default() },
        };
        let database = Database::read(host)?;
        for archive in archives {
            if database.as_ref().is_none_or(|database| database.find(&archive.name).is_none()) {
                record.new.insert(archive.name.clone());
            }
            record.begun.retain(|begun| begun.archive.name != archive.name || begun.mode != mode);
            record.begun.push(Begun { archive: (*archive).clone(), mode });
        }
        if left.as_ref() != Some(&record) {
            record.write(host)?;
        }
        Ok(record)
    }

    /// Nothing is left of them: what was begun has ended.
    pub(super) fn ended(&mut self, host: &Host) -> Result<()> {
        if self.begun.is_empty() {
            return Ok(());
        }
        self.begun.clear();
        self.write(host)
    }

    /// All has ended but what dpkg was interrupted with and a later installation finishes.
    pub(super) fn ended_but(&mut self, host: &Host, later: &Later<'_>) -> Result<()> {
        let Some(database) = Database::read(host)? else { return forget(host) };
        let is_left = |name: &str| later.contains(name) && database.unfinished().any(|(left, _)| left == name);
        self.begun.retain(|begun| is_left(&begun.archive.name));
        if self.begun.is_empty() { forget(host) } else { self.write(host) }
    }

    fn write(&self, host: &Host) -> Result<()> {
        host.write(Path::new(PATH), &serde_json::to_vec(self)?, 0o600)
    }
}

/// All is done.
pub(super) fn forget(host: &Host) -> Result<()> {
    host.remove(Path::new(PATH))
}
