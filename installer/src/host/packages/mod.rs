//! The package database of the distribution: what is installed, in which state, and what the operator holds back.
//!
//! One view for dpkg and rpm. dpkg's is read from its files, so that a database that dpkg left in the middle of something
//! is seen as it is; rpm's is asked of `rpm`. Reading changes nothing.

mod dpkg;
mod install;
mod lock;
pub mod policy;
mod rpm;
pub mod services;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use anyhow::Result;
use bundle::{debian_version, rpm_version};
use serde::Serialize;

use super::Host;

pub use install::{Archive, Mode, install};
pub use lock::{Holder, holder};

/// Whose packages a host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Debian, Ubuntu.
    Dpkg,
    /// Enterprise Linux and its kin.
    Rpm,
}

impl Family {
    /// The program: `dpkg`, `rpm`.
    pub fn program(self) -> &'static str {
        match self {
            Self::Dpkg => "dpkg",
            Self::Rpm => "rpm",
        }
    }

    /// Orders two versions as the package tool does; an epoch that is not written is 0.
    pub fn compare(self, left: &str, right: &str) -> Ordering {
        match self {
            Self::Dpkg => debian_version::compare(left, right),
            Self::Rpm => rpm_version::Evr::parse(left).compare(&rpm_version::Evr::parse(right)),
        }
    }
}

/// How far a package has got (dpkg(1), "Package states"); with rpm all are installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Removed, its configuration is still there: not installed.
    ConfigFiles,
    /// Unpacking or removing it began and did not end.
    HalfInstalled,
    /// Unpacked, not configured.
    Unpacked,
    /// Configuring it began and did not end.
    HalfConfigured,
    /// Another package has to process a trigger of it.
    TriggersAwaited,
    /// It has to process triggers.
    TriggersPending,
    /// Installed.
    Installed,
}

impl State {
    /// Nothing is left to do.
    pub fn is_whole(self) -> bool {
        matches!(self, Self::Installed | Self::ConfigFiles)
    }

    /// As dpkg writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConfigFiles => "config-files",
            Self::HalfInstalled => "half-installed",
            Self::Unpacked => "unpacked",
            Self::HalfConfigured => "half-configured",
            Self::TriggersAwaited => "triggers-awaited",
            Self::TriggersPending => "triggers-pending",
            Self::Installed => "installed",
        }
    }
}

/// One package of the database. A name may be there several times: for another architecture, or (rpm) as several kernels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Installed {
    /// Version with epoch and revision or release; an epoch of 0 is not written by rpm's side.
    pub version: String,
    /// As the distribution names it: `amd64`, `x86_64`, `all`, `noarch`.
    pub architecture: String,
    /// How far it has got.
    pub state: State,
    /// dpkg cannot repair it by configuring: it wants its archive again.
    pub reinstall: bool,
    /// The operator wants it as it is: `hold` in dpkg's selections, `versionlock` or `exclude` of dnf and yum.
    pub held: bool,
    /// Names it provides beside its own, with the version where one is given (dpkg only).
    pub provides: Vec<String>,
    /// Relations that a new package could break, as written in `Depends`, `Pre-Depends`, `Conflicts`, `Breaks` (dpkg only).
    pub relations: Vec<(Relation, String)>,
}

/// A field of relations in a Debian package (Debian policy, chapter 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// `Depends`.
    Depends,
    /// `Pre-Depends`.
    PreDepends,
    /// `Conflicts`.
    Conflicts,
    /// `Breaks`.
    Breaks,
}

/// All packages of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Database {
    /// Whose.
    pub family: Family,
    packages: BTreeMap<String, Vec<Installed>>,
}

impl Database {
    /// Reads the host's database; `None` on a host that has neither dpkg's nor rpm's. Where both are there, the one that has
    /// packages is the distribution's. Changes nothing.
    pub fn read(host: &Host) -> Result<Option<Self>> {
        let packages = dpkg::read(host)?;
        if !packages.is_empty() {
            return Ok(Some(Self { family: Family::Dpkg, packages }));
        }
        Ok(rpm::read(host)?.map(|packages| Self { family: Family::Rpm, packages }))
    }

    /// All entries of a name, also those that are only half there.
    pub fn entries(&self, name: &str) -> &[Installed] {
        self.packages.get(name).map_or(&[], Vec::as_slice)
    }

    /// The newest entry of a name that is installed or on its way to be; what was removed and left its configuration does not
    /// count.
    pub fn find(&self, name: &str) -> Option<&Installed> {
        let there = self.entries(name).iter().filter(|entry| entry.state != State::ConfigFiles);
        there.max_by(|left, right| self.family.compare(&left.version, &right.version))
    }

    /// Whether a package is installed whole, in this version or a newer one.
    pub fn has(&self, name: &str, version: &str) -> bool {
        let enough = |entry: &Installed| self.family.compare(&entry.version, version).is_ge();
        self.entries(name).iter().any(|entry| entry.state == State::Installed && enough(entry))
    }

    /// All packages by name, sorted.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Installed)> {
        self.packages.iter().flat_map(|(name, entries)| entries.iter().map(move |entry| (name.as_str(), entry)))
    }

    /// What an interrupted dpkg left behind, sorted by name.
    pub fn unfinished(&self) -> impl Iterator<Item = (&str, &Installed)> {
        self.all().filter(|(_, entry)| !entry.state.is_whole() || entry.reinstall)
    }
}

#[cfg(test)]
mod tests;
