//! The package database of the distribution: what is installed, in which state, and what the operator holds back.
//!
//! One view for dpkg and rpm. dpkg's is read from its files, so that a database that dpkg left in the middle of something
//! is seen as it is; rpm's is asked of `rpm`. Reading changes nothing.

mod dpkg;
mod install;
mod lock;
pub mod policy;
mod record;
mod rpm;
pub mod services;
mod settle;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use anyhow::Result;
use bundle::{debian_version, rpm_version};
use serde::Serialize;

use super::Host;

pub use install::{Archive, Later, Mode, install, install_with};
pub use lock::{Holder, Lock, holder};
pub use settle::{Left, Settled, left, settle};

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

/// What packages of other architectures may count on (deb-control(5), `Multi-Arch`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MultiArch {
    /// It serves its own architecture alone.
    #[default]
    No,
    /// The same, and it may be there for several at once, in one version.
    Same,
    /// It serves every architecture.
    Foreign,
    /// It serves those of other architectures that ask for `NAME:any`.
    Allowed,
}

/// One package of the database. A name may be there several times: for another architecture, or (rpm) as several kernels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Installed {
    /// Version with epoch and revision or release; an epoch of 0 is not written by rpm's side.
    pub version: String,
    /// As the distribution names it: `amd64`, `x86_64`, `all`, `noarch`.
    pub architecture: String,
    /// What packages of other architectures may count on (dpkg only).
    pub multi_arch: MultiArch,
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

impl Installed {
    /// Whether dpkg can finish it from what is unpacked; else it wants its archive again.
    pub fn can_be_configured(&self) -> bool {
        self.state != State::HalfInstalled && !self.reinstall
    }
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

/// Whether an architecture is none in particular.
fn is_for_all(architecture: &str) -> bool {
    matches!(architecture, "" | "all" | "noarch" | "(none)")
}

/// All packages of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Database {
    /// Whose.
    pub family: Family,
    /// The architecture of the package tool itself, whose packages the host runs on; `None` when the tool is no package here.
    native: Option<String>,
    packages: BTreeMap<String, Vec<Installed>>,
}

impl Database {
    /// Reads the host's database; `None` on a host that has neither dpkg's nor rpm's. Where both are there, the one that has
    /// packages is the distribution's. Changes nothing.
    pub fn read(host: &Host) -> Result<Option<Self>> {
        let packages = dpkg::read(host)?;
        if !packages.is_empty() {
            return Ok(Some(Self::new(Family::Dpkg, packages)));
        }
        Ok(rpm::read(host)?.map(|packages| Self::new(Family::Rpm, packages)))
    }

    fn new(family: Family, packages: BTreeMap<String, Vec<Installed>>) -> Self {
        let tool = packages.get(family.program()).and_then(|entries| entries.first());
        let native = tool.map(|tool| tool.architecture.clone());
        Self { family, native, packages }
    }

    /// Whether an entry serves packages of an architecture: a `libc6:i386` is none for those of amd64. `any` is asked for by
    /// `NAME:any`. Packages for no architecture in particular count as the host's own (Debian policy, chapter 5).
    pub fn serves(&self, entry: &Installed, architecture: &str, any: bool) -> bool {
        let Some(native) = &self.native else { return true };
        let name = |name| if is_for_all(name) { native.as_str() } else { name };
        name(&entry.architecture) == name(architecture)
            || entry.multi_arch == MultiArch::Foreign
            || (any && entry.multi_arch == MultiArch::Allowed)
    }

    /// Whether an entry is for the host's own architecture.
    pub fn is_native(&self, entry: &Installed) -> bool {
        self.native.as_ref().is_none_or(|native| is_for_all(&entry.architecture) || entry.architecture == *native)
    }

    /// Whether an entry serves the host's own packages.
    pub fn is_own(&self, entry: &Installed) -> bool {
        self.serves(entry, "", false)
    }

    /// All entries of a name, also those that are only half there.
    pub fn entries(&self, name: &str) -> &[Installed] {
        self.packages.get(name).map_or(&[], Vec::as_slice)
    }

    /// The newest entry of a name, for the host's own architecture, that is installed or on its way to be; what was removed
    /// and left its configuration does not count.
    pub fn find(&self, name: &str) -> Option<&Installed> {
        let own = self.entries(name).iter().filter(|entry| self.is_own(entry));
        let there = own.filter(|entry| entry.state != State::ConfigFiles);
        there.max_by(|left, right| self.family.compare(&left.version, &right.version))
    }

    /// Whether a package is installed whole, for the host's own architecture, in this version or a newer one.
    pub fn has(&self, name: &str, version: &str) -> bool {
        let enough = |entry: &Installed| self.family.compare(&entry.version, version).is_ge();
        let own = self.entries(name).iter().filter(|entry| self.is_own(entry));
        own.into_iter().any(|entry| entry.state == State::Installed && enough(entry))
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
