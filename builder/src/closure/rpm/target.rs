//! What a target is known to have, as capabilities that dependencies ask for.
//!
//! A base names packages with the lowest version that targets have. What such a package provides is read off the package
//! of that name in the index: the same version, else the lowest on offer; provides with the package's own version get the
//! base's. The base's libraries, its C library's version and its programs count beside that.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use bundle::Architecture;

use crate::base::Base;
use crate::source::rpm_md::{Dependency, Package};
use bundle::rpm_version::{self, Evr, Relation};

/// Features of rpm that packages ask for (`rpm --showrc`, "Features supported by rpmlib") and that rpm 4.16, the one of
/// EL9, has.
const RPMLIB: [&str; 21] = [
    "BuiltinLuaScripts",
    "CaretInVersions",
    "CompressedFileNames",
    "ConcurrentAccess",
    "DynamicBuildRequires",
    "ExplicitPackageProvide",
    "FileCaps",
    "FileDigests",
    "HeaderLoadSortsTags",
    "LargeFiles",
    "PartialHardlinkSets",
    "PayloadFilesHavePrefix",
    "PayloadIsBzip2",
    "PayloadIsLzma",
    "PayloadIsXz",
    "PayloadIsZstd",
    "RichDependencies",
    "ScriptletExpansion",
    "ScriptletInterpreterArgs",
    "TildeInVersions",
    "VersionedDependencies",
];

/// The base, as far as dependencies see it.
#[derive(Debug)]
pub(super) struct Target<'a> {
    base: &'a Base,
    /// Its packages by name.
    pub(super) packages: BTreeMap<&'a str, Installed<'a>>,
    /// Packages by what they provide.
    provides: BTreeMap<Arc<str>, Vec<(&'a str, Dependency)>>,
}

/// One package of the base.
#[derive(Debug)]
pub(super) struct Installed<'a> {
    /// Its version; one older than all others where the base does not know.
    pub(super) evr: Evr,
    /// The package of the index that says what it provides and needs, if there is one.
    pub(super) described: Option<&'a Package>,
    /// Replaced by a newer one of the closure.
    pub(super) replaced: bool,
}

impl<'a> Target<'a> {
    pub(super) fn new(base: &'a Base, packages: &[&'a Package], architecture: Architecture) -> Self {
        let mut on_offer: BTreeMap<&str, Vec<&'a Package>> = BTreeMap::new();
        for package in packages.iter().filter(|package| base.packages.contains_key(&*package.name)) {
            on_offer.entry(&package.name).or_default().push(package);
        }
        let mut target = Self { base, packages: BTreeMap::new(), provides: BTreeMap::new() };
        for (name, version) in &base.packages {
            // `~` sorts before everything.
            let evr = Evr::parse(if version.is_empty() { "~" } else { version });
            let described = on_offer.get(name.as_str()).and_then(|same| {
                let exact = same.iter().find(|package| package.evr.compare(&evr) == Ordering::Equal);
                exact.or_else(|| same.iter().min_by(|a, b| a.evr.compare(&b.evr))).copied()
            });
            for provide in provides(name, &evr, described, architecture) {
                target.provides.entry(provide.name.clone()).or_default().push((name, provide));
            }
            for file in described.into_iter().flat_map(|package| &package.files) {
                target.provides.entry(file.clone()).or_default().push((name, Dependency::any(file)));
            }
            target.packages.insert(name, Installed { evr, described, replaced: false });
        }
        target
    }

    /// Whether the base meets a requirement, not counting packages that were replaced, and not `without`.
    pub(super) fn meets(&self, dependency: &Dependency, without: Option<&str>) -> bool {
        self.packages_that_meet(dependency)
            .into_iter()
            .any(|name| Some(name) != without && self.packages.get(name).is_some_and(|package| !package.replaced))
            || self.itself(dependency)
    }

    /// Names of the base's packages that meet a requirement, replaced ones included.
    pub(super) fn packages_that_meet(&self, dependency: &Dependency) -> Vec<&'a str> {
        let all = self.provides.get(&dependency.name).into_iter().flatten();
        all.filter(|(_, provided)| dependency.is_met_by(provided)).map(|(name, _)| *name).collect()
    }

    /// What the base has apart from packages: rpm's own features, libraries, programs.
    fn itself(&self, dependency: &Dependency) -> bool {
        let name = &*dependency.name;
        if let Some(feature) = name.strip_prefix("rpmlib(").and_then(|rest| rest.strip_suffix(')')) {
            return RPMLIB.contains(&feature);
        }
        if name.starts_with('/') {
            return self.base.has_program(name);
        }
        if dependency.range.is_some() {
            return false;
        }
        // `SONAME(VERSION)(64bit)`, as rpm's elfdeps writes it.
        let Some((soname, rest)) = name.split_once('(') else { return false };
        match rest.split_once(')') {
            Some(("", "(64bit)")) => self.base.has_library(soname),
            Some((version, "(64bit)")) => {
                self.base.has_library(soname)
                    && version.strip_prefix("GLIBC_").is_some_and(|version| {
                        version.starts_with(|digit: char| digit.is_ascii_digit())
                            && rpm_version::compare(version, &self.base.glibc) != Ordering::Greater
                    })
            }
            _ => name == "rtld(GNU_HASH)",
        }
    }
}

fn provides(name: &str, evr: &Evr, described: Option<&Package>, architecture: Architecture) -> Vec<Dependency> {
    let isa = match architecture {
        Architecture::Amd64 => "x86-64",
        Architecture::Arm64 => "aarch-64",
    };
    let own = |name: &str| Dependency { name: name.into(), range: Some(Box::new((Relation::Equal, evr.clone()))) };
    let Some(package) = described else { return vec![own(name), own(&format!("{name}({isa})"))] };
    let of_its_version = |provide: &Dependency| {
        provide.range.as_deref().is_some_and(|(_, version)| version.compare(&package.evr) == Ordering::Equal)
    };
    let all = package.provides.iter();
    all.map(|provide| if of_its_version(provide) { own(&provide.name) } else { provide.clone() }).collect()
}
