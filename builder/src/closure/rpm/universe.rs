//! All packages on offer, by what they provide.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::expression::Expression;
use crate::source::rpm_md::{Dependency, Package};

/// Finds the packages that have files which primary metadata does not list.
pub type Owners<'a> = dyn FnMut(&BTreeSet<Arc<str>>) -> anyhow::Result<BTreeMap<Arc<str>, Vec<usize>>> + 'a;

/// Packages by what they provide; a package is its position.
#[derive(Debug)]
pub(super) struct Universe<'a> {
    pub(super) packages: &'a [&'a Package],
    names: BTreeMap<&'a str, Vec<usize>>,
    provides: BTreeMap<&'a str, Vec<(usize, &'a Dependency)>>,
    files: BTreeMap<Arc<str>, Vec<usize>>,
    obsoletes: BTreeMap<&'a str, Vec<(usize, &'a Dependency)>>,
    complete: bool,
}

impl<'a> Universe<'a> {
    pub(super) fn new(packages: &'a [&'a Package]) -> Self {
        let mut universe = Self {
            packages,
            names: BTreeMap::new(),
            provides: BTreeMap::new(),
            files: BTreeMap::new(),
            obsoletes: BTreeMap::new(),
            complete: false,
        };
        for (at, package) in packages.iter().enumerate() {
            universe.names.entry(&package.name).or_default().push(at);
            for provide in &package.provides {
                universe.provides.entry(&provide.name).or_default().push((at, provide));
            }
            for obsolete in &package.obsoletes {
                universe.obsoletes.entry(&obsolete.name).or_default().push((at, obsolete));
            }
            for file in &package.files {
                universe.files.entry(file.clone()).or_default().push(at);
            }
        }
        universe
    }

    /// All versions of a package.
    pub(super) fn named(&self, name: &str) -> &[usize] {
        self.names.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Packages that meet a plain requirement, each once.
    pub(super) fn providers(&self, dependency: &Dependency) -> BTreeSet<usize> {
        let provided = self.provides.get(&*dependency.name).into_iter().flatten();
        let provided = provided.filter(|(_, provide)| dependency.is_met_by(provide)).map(|(at, _)| *at);
        let files = if dependency.name.starts_with('/') { self.files.get(&dependency.name) } else { None };
        provided.chain(files.into_iter().flatten().copied()).collect()
    }

    /// Obsoletes of this name, with the packages that have them.
    pub(super) fn obsoletes(&self, name: &str) -> &[(usize, &'a Dependency)] {
        self.obsoletes.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether one package meets a requirement by itself.
    pub(super) fn meets(&self, package: usize, dependency: &Dependency) -> bool {
        let provided = self.packages[package].provides.iter().any(|provide| dependency.is_met_by(provide));
        let has = || self.files.get(&dependency.name).is_some_and(|owners| owners.contains(&package));
        provided || (dependency.name.starts_with('/') && has())
    }

    /// Adds, once, the files that dependencies of any package ask for and that primary metadata does not list.
    pub(super) fn complete_files(&mut self, owners: &mut Owners<'_>) -> anyhow::Result<bool> {
        if std::mem::replace(&mut self.complete, true) {
            return Ok(false);
        }
        let mut asked = BTreeSet::new();
        for dependency in self.packages.iter().flat_map(|package| &package.requires) {
            if dependency.name.starts_with('/') {
                asked.insert(dependency.name.clone());
            } else if dependency.name.contains('/')
                && let Ok(expression) = Expression::of(dependency)
            {
                asked.extend(
                    expression.plain().into_iter().map(|plain| plain.name.clone()).filter(|name| name.starts_with('/')),
                );
            }
        }
        asked.retain(|path| !self.files.contains_key(path) && !self.provides.contains_key(&**path));
        for (path, packages) in owners(&asked)? {
            self.files.entry(path).or_default().extend(packages);
        }
        Ok(true)
    }

    /// The newest of some versions.
    pub(super) fn newest(&self, of: &[usize]) -> Option<usize> {
        let newer = |a: &&usize, b: &&usize| self.by_version(**a, **b).reverse();
        of.iter().min_by(newer).copied()
    }

    /// By version, oldest first; where that is equal, by architecture.
    pub(super) fn by_version(&self, a: usize, b: usize) -> Ordering {
        let (a, b) = (self.packages[a], self.packages[b]);
        a.evr.compare(&b.evr).then_with(|| a.arch.cmp(&b.arch))
    }
}
