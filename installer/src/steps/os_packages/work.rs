//! What is to be done about the bundle's packages on one host: pure, from its package database and what the signed
//! description of the packages says of each other (Debian policy, chapter 7).
//!
//! What is not there is installed; what is there stays, unless something that is installed needs a newer one. Whatever would
//! break is said before anything is changed: a dependency that nobody meets, a conflict, a package of the host that would lose
//! what it needs, one that the operator holds. rpm's relations are not in the bundle: `rpm --test` tells.

use std::collections::{BTreeMap, BTreeSet};

use bundle::component::Package;
use bundle::debian_relation::{Group, Relation, parse_groups, parse_list, shown};

use crate::host::packages::{self, Database, Family, Installed, MultiArch, State};

/// The work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work<'a> {
    /// Packages that are not there, in the order of the bundle.
    pub install: Vec<&'a Package>,
    /// Packages that are there, but not whole.
    pub again: Vec<&'a Package>,
    /// Packages that are too old, and what is there.
    pub upgrade: Vec<(&'a Package, String)>,
    /// How many stay as they are.
    pub kept: usize,
    /// Why it cannot be done.
    pub problems: Vec<Problem>,
}

/// Something that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The package it is about.
    pub package: String,
    /// What is wrong.
    pub text: String,
    /// What a person can do.
    pub hint: String,
}

impl<'a> Work<'a> {
    /// Compares `packages` with the host's. Only those that `wanted` names are asked for; of the others those that they need.
    pub fn of(database: &Database, packages: &[&'a Package], wanted: &dyn Fn(&Package) -> bool) -> Self {
        let mut chooser = Chooser::new(database, packages);
        chooser.begin(wanted);
        match database.family {
            Family::Dpkg => {
                chooser.complete();
                chooser.clashes();
                chooser.losses();
            }
            Family::Rpm => chooser.renew(),
        }
        chooser.finish()
    }

    /// Whether there is nothing to install.
    pub fn is_empty(&self) -> bool {
        self.install.is_empty() && self.again.is_empty() && self.upgrade.is_empty()
    }

    /// All that is handed to the package tool; the order of the bundle is not important to it, stages are found by trying.
    pub fn packages(&self) -> impl Iterator<Item = &'a Package> {
        let again = self.again.iter().chain(&self.install).copied();
        again.chain(self.upgrade.iter().map(|(package, _)| *package))
    }
}

/// Why `wanted`, all of which are installed or renewed, do not fit a host; what they need may be among `others`. That a package
/// of the host loses what it depends on is not asked: whoever has a metapackage for kernels (Ubuntu's `linux-generic`) has one
/// that names one version of another.
pub(super) fn problems_of(database: &Database, wanted: &[&Package], others: &[&Package]) -> Vec<Problem> {
    let packages: Vec<&Package> = wanted.iter().chain(others).copied().collect();
    let mut chooser = Chooser::new(database, &packages);
    for number in 0..wanted.len() {
        chooser.choose(number, None);
    }
    if database.family == Family::Dpkg {
        chooser.complete();
        chooser.clashes();
    }
    chooser.problems.into_iter().collect()
}

/// Who provides a virtual package, and in which version.
type Provided<'d> = (&'d str, &'d Installed, Option<&'d str>);

struct Chooser<'d, 'a> {
    database: &'d Database,
    packages: Vec<&'a Package>,
    /// Numbers in `packages`, and who needs it.
    chosen: BTreeMap<usize, Option<String>>,
    /// Virtual packages of the host, by name.
    provided: BTreeMap<&'d str, Vec<Provided<'d>>>,
    problems: BTreeSet<Problem>,
}

impl<'d, 'a> Chooser<'d, 'a> {
    fn new(database: &'d Database, packages: &[&'a Package]) -> Self {
        let mut provided: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (name, entry) in database.all().filter(|(_, entry)| counts(entry)) {
            for relation in entry.provides.iter().filter_map(|text| parse_list(text).ok()).flatten() {
                let version = relation.bound.map(|(_, version)| version);
                provided.entry(relation.name).or_default().push((name, entry, version));
            }
        }
        let packages = packages.to_vec();
        Self { database, packages, chosen: BTreeMap::new(), provided, problems: BTreeSet::new() }
    }

    /// What the host has of a package, for its own architecture.
    fn present(&self, package: &Package) -> Option<&'d Installed> {
        self.database.find(&package.name)
    }

    fn begin(&mut self, wanted: &dyn Fn(&Package) -> bool) {
        for number in 0..self.packages.len() {
            let package = self.packages[number];
            let there = self.present(package).is_some_and(counts);
            // What is half there came with an earlier run, or is needed by what did.
            if !there && (wanted(package) || self.present(package).is_some()) {
                self.choose(number, None);
            }
        }
    }

    /// Entries for other architectures: in one version with the host's own where both may be there, else one takes the other's
    /// place (deb-control(5), `Multi-Arch`).
    fn beside(&mut self, package: &Package) {
        let database = self.database;
        for entry in database.entries(&package.name).iter().filter(|entry| counts(entry)) {
            let fits = entry.multi_arch == MultiArch::Same && entry.version == package.version;
            if !fits && !database.is_native(entry) {
                let text = format!(
                    "{} cannot be installed beside `{}:{}` {}",
                    package.version, package.name, entry.architecture, entry.version
                );
                let hint = format!(
                    "remove `{}:{}`, or bring it to {}; Sealift removes no packages",
                    package.name, entry.architecture, package.version
                );
                self.problem(package, text, hint);
            }
        }
    }

    fn choose(&mut self, number: usize, needed_by: Option<String>) {
        let package = self.packages[number];
        if self.database.family == Family::Dpkg {
            self.beside(package);
        }
        let present = self.present(package);
        // One that is only to be finished stays what the operator wants.
        if let Some(held) = present.filter(|present| present.held && present.version != package.version) {
            let who = needed_by.as_ref().map(|name| format!(" for `{name}`")).unwrap_or_default();
            self.problem(
                package,
                format!("{} is held, {} would have to take its place{who}", held.version, package.version),
                match self.database.family {
                    Family::Dpkg => {
                        format!("`apt-mark unhold {}`, or keep it and build the bundle with that version", package.name)
                    }
                    Family::Rpm => format!("take `{}` out of dnf's versionlock and excludes", package.name),
                },
            );
        }
        let newer = |present: &&Installed| self.database.family.compare(&present.version, &package.version).is_gt();
        if let Some(newer) = present.filter(newer) {
            let text = match &needed_by {
                Some(name) => format!("`{name}` needs {}, and {} is installed", package.version, newer.version),
                None => format!(
                    "{} is only half installed, and the bundle has the older {}",
                    newer.version, package.version
                ),
            };
            let hint =
                format!("`apt-get install --reinstall {}`, or build the bundle from newer packages", package.name);
            self.problem(package, text, hint);
        }
        self.chosen.insert(number, needed_by);
    }

    fn problem(&mut self, package: &Package, text: String, hint: String) {
        self.problems.insert(Problem { package: package.name.clone(), text, hint });
    }

    /// Adds what the chosen ones need and the host does not have, until nothing is missing.
    fn complete(&mut self) {
        let mut agenda: Vec<usize> = self.chosen.keys().copied().collect();
        while let Some(number) = agenda.pop() {
            let package = self.packages[number];
            let relations = &package.relations;
            for group in [&relations.pre_depends, &relations.depends]
                .into_iter()
                .filter_map(|text| parse_groups(text).ok())
                .flatten()
            {
                if self.is_met(&group, &package.architecture) {
                    continue;
                }
                let meets = |number: &usize| group.iter().any(|relation| gives(self.packages[*number], relation));
                match (0..self.packages.len()).filter(|number| !self.chosen.contains_key(number)).find(meets) {
                    Some(found) => {
                        self.choose(found, Some(package.name.clone()));
                        agenda.push(found);
                    }
                    None => self.unmet(package, &group),
                }
            }
        }
    }

    fn unmet(&mut self, package: &Package, group: &Group<'_>) {
        let there: Vec<String> = group
            .iter()
            .filter_map(|relation| Some(format!("{} {}", relation.name, self.database.find(relation.name)?.version)))
            .collect();
        let there = if there.is_empty() { "nothing of it".to_owned() } else { there.join(", ") };
        self.problem(
            package,
            format!("it needs {}; the host has {there}, the bundle nothing that fits", shown(group)),
            "install what is missing from the distribution's archive, or state this host's packages as the base of the bundle".to_owned(),
        );
    }

    /// rpm: the closure fits together in its own versions, so what is older comes along.
    fn renew(&mut self) {
        if self.chosen.is_empty() {
            return;
        }
        for number in 0..self.packages.len() {
            let package = self.packages[number];
            let older = |present: &&Installed| self.database.family.compare(&present.version, &package.version).is_lt();
            if !self.chosen.contains_key(&number)
                && self.present(package).filter(older).is_some_and(|present| !present.held)
            {
                self.choose(number, None);
            }
        }
    }

    /// Whether a chosen package takes the place of this entry.
    fn is_replaced(&self, name: &str, entry: &Installed) -> bool {
        self.database.is_own(entry) && self.chosen.keys().any(|number| self.packages[*number].name == name)
    }

    /// Packages of the host that stay as they are.
    fn staying(&self) -> impl Iterator<Item = (&'d str, &'d Installed)> {
        self.database.all().filter(|(name, entry)| counts(entry) && !self.is_replaced(name, entry))
    }

    /// Whether a host with the chosen packages has one of these, for a package of this architecture.
    fn is_met(&self, group: &Group<'_>, architecture: &str) -> bool {
        group.iter().any(|relation| {
            self.chosen.keys().any(|number| gives(self.packages[*number], relation))
                || self.host_gives(relation, architecture)
        })
    }

    /// Whether what stays of the host has it.
    fn host_gives(&self, relation: &Relation<'_>, architecture: &str) -> bool {
        let stays = |name: &str, entry: &Installed| {
            let (wanted, any) = match relation.qualifier {
                Some("any") => (architecture, true),
                Some("native") | None => (architecture, false),
                Some(other) => (other, false),
            };
            counts(entry) && !self.is_replaced(name, entry) && self.database.serves(entry, wanted, any)
        };
        let real = self.database.entries(relation.name).iter();
        let virtually = self.provided.get(relation.name).into_iter().flatten();
        real.into_iter().any(|entry| stays(relation.name, entry) && relation.allows(&entry.version))
            || virtually
                .into_iter()
                .any(|(owner, entry, version)| stays(owner, entry) && relation.allows_provided(*version))
    }

    /// What may not be there at the same time, in both directions.
    fn clashes(&mut self) {
        let mut found = Vec::new();
        for number in self.chosen.keys() {
            let package = self.packages[*number];
            for relation in against([&package.relations.conflicts, &package.relations.breaks]) {
                let others = self.chosen.keys().map(|other| self.packages[*other]);
                let others = others.filter(|other| other.name != package.name && gives(other, &relation));
                found
                    .extend(others.map(|other| (package, format!("`{}` {} of the bundle", other.name, other.version))));
                for (name, entry) in
                    self.staying().filter(|(name, entry)| *name != package.name && has(name, entry, &relation))
                {
                    found.push((package, format!("`{name}` {}", entry.version)));
                }
            }
        }
        for (name, entry) in self.staying() {
            let texts = entry
                .relations
                .iter()
                .filter(|(field, _)| matches!(field, packages::Relation::Conflicts | packages::Relation::Breaks));
            for relation in texts.filter_map(|(_, text)| parse_list(text).ok()).flatten() {
                let ours = self.chosen.keys().map(|number| self.packages[*number]);
                let hit = ours.filter(|package| package.name != name && gives(package, &relation));
                found.extend(hit.map(|package| (package, format!("`{name}` {}", entry.version))));
            }
        }
        for (package, other) in found {
            let text = format!("{} cannot be installed beside {other}", package.version);
            self.problem(package, text, "remove or upgrade the other one; Sealift removes no packages".to_owned());
        }
    }

    /// What packages of the host need and would lose by an upgrade.
    fn losses(&mut self) {
        let upgraded: BTreeSet<&str> = self
            .chosen
            .keys()
            .map(|number| self.packages[*number])
            .filter(|package| self.present(package).is_some_and(counts))
            .map(|package| package.name.as_str())
            .collect();
        let mut lost = Vec::new();
        for (name, entry) in self.staying() {
            let texts = entry
                .relations
                .iter()
                .filter(|(field, _)| matches!(field, packages::Relation::Depends | packages::Relation::PreDepends));
            for group in texts.filter_map(|(_, text)| parse_groups(text).ok()).flatten() {
                let Some(relation) = group.iter().find(|relation| upgraded.contains(relation.name)) else { continue };
                if !self.is_met(&group, &entry.architecture) {
                    lost.push((
                        relation.name.to_owned(),
                        format!("`{name}` {} needs {}", entry.version, shown(&group)),
                    ));
                }
            }
        }
        for (package, text) in lost {
            let hint =
                "upgrade or remove the package that needs it, or build the bundle from packages that fit this host"
                    .to_owned();
            self.problems.insert(Problem { package, text, hint });
        }
    }

    fn finish(self) -> Work<'a> {
        let mut work = Work { problems: self.problems.iter().cloned().collect(), ..Work::default() };
        for (number, package) in self.packages.iter().enumerate() {
            match (self.chosen.contains_key(&number), self.present(package)) {
                (true, None) => work.install.push(package),
                (true, Some(present)) if counts(present) => work.upgrade.push((package, present.version.clone())),
                (true, Some(_)) => work.again.push(package),
                (false, Some(_)) => work.kept += 1,
                (false, None) => {}
            }
        }
        work
    }
}

/// Whether a package of the host is there, or will be when dpkg has finished what it began.
fn counts(entry: &Installed) -> bool {
    !matches!(entry.state, State::ConfigFiles | State::HalfInstalled) && !entry.reinstall
}

/// Whether a package of the bundle is, or provides, what a relation asks for.
fn gives(package: &Package, relation: &Relation<'_>) -> bool {
    (package.name == relation.name && relation.allows(&package.version))
        || provides(&package.relations.provides, relation)
}

/// Whether a package of the host is, or provides, what a relation asks for.
fn has(name: &str, entry: &Installed, relation: &Relation<'_>) -> bool {
    (name == relation.name && relation.allows(&entry.version))
        || entry.provides.iter().any(|text| provides(text, relation))
}

fn provides(text: &str, relation: &Relation<'_>) -> bool {
    let provided = parse_list(text).unwrap_or_default();
    let same = provided.into_iter().filter(|provided| provided.name == relation.name);
    same.into_iter().any(|provided| relation.allows_provided(provided.bound.map(|(_, version)| version)))
}

fn against(texts: [&String; 2]) -> impl Iterator<Item = Relation<'_>> {
    texts.into_iter().filter_map(|text| parse_list(text).ok()).flatten()
}

#[cfg(test)]
mod tests;
