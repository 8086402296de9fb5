//! A package as a repository describes it.

use std::fmt;
use std::sync::Arc;

use super::checksum::Checksum;
use bundle::rpm_version::{Evr, Relation, overlaps};

/// One package on offer, with what a closure needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Name.
    pub name: Arc<str>,
    /// Epoch, version, release.
    pub evr: Evr,
    /// `x86_64`, `aarch64` or `noarch`.
    pub arch: Arc<str>,
    /// Path below the repository.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Content.
    pub checksum: Checksum,
    /// Licence as the package says it (an SPDX expression in newer distributions).
    pub licence: Arc<str>,
    /// What it offers.
    pub provides: Vec<Dependency>,
    /// What it needs.
    pub requires: Vec<Dependency>,
    /// What it cannot be with.
    pub conflicts: Vec<Dependency>,
    /// Packages that it takes the place of.
    pub obsoletes: Vec<Dependency>,
    /// Its files that primary metadata lists: programs and configuration.
    pub files: Vec<Arc<str>>,
}

/// A name with a range of versions, or a boolean expression of such (then the name begins with `(`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// Package, capability, path or expression.
    pub name: Arc<str>,
    /// Range; `None` is every version.
    pub range: Option<Box<(Relation, Evr)>>,
}

impl Package {
    /// `NAME-[EPOCH:]VERSION-RELEASE.ARCH`.
    pub fn label(&self) -> String {
        format!("{}-{}.{}", self.name, self.evr, self.arch)
    }

    /// `NAME-VERSION-RELEASE.ARCH.rpm`, as rpm calls the file.
    pub fn file_name(&self) -> String {
        format!("{}-{}.{}.rpm", self.name, self.evr.without_epoch(), self.arch)
    }

    /// `NAME=[EPOCH:]VERSION-RELEASE`, as in a lock.
    pub fn locked_name(&self) -> String {
        format!("{}={}", self.name, self.evr)
    }

    /// Built for a module stream: not on offer unless the stream is enabled, which EL9 does by default for none.
    pub fn is_modular(&self) -> bool {
        self.evr.release.as_deref().is_some_and(|release| release.contains(".module+") || release.contains(".module_"))
    }
}

impl Dependency {
    /// Without a range.
    pub fn any(name: &str) -> Self {
        Self { name: name.into(), range: None }
    }

    /// Whether `provided` satisfies this requirement.
    pub fn is_met_by(&self, provided: &Dependency) -> bool {
        self.name == provided.name && overlaps(provided.range.as_deref(), self.range.as_deref())
    }
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match self.range.as_deref() {
            Some((relation, evr)) => write!(f, " {} {evr}", relation.sign()),
            None => Ok(()),
        }
    }
}
