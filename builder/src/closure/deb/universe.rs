//! All packages that a closure may choose from, by name and by what they provide.

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::BTreeMap;

use bundle::Architecture;

use crate::source::apt::{Field, Package};
use bundle::debian_relation::{Group, Relation, parse_groups, parse_list};
use bundle::debian_version;

/// A package on offer.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// The package.
    pub package: &'a Package,
    /// Number of the index that lists it.
    pub index: usize,
    facts: OnceCell<Box<Facts<'a>>>,
}

/// What a package says of others.
#[derive(Debug, Default)]
pub(super) struct Facts<'a> {
    pub(super) pre_depends: Vec<Group<'a>>,
    pub(super) depends: Vec<Group<'a>>,
    pub(super) recommends: Vec<Group<'a>>,
    /// Name and, if it says, version.
    pub(super) provides: Vec<(&'a str, Option<&'a str>)>,
    pub(super) conflicts: Vec<Relation<'a>>,
    pub(super) breaks: Vec<Relation<'a>>,
    pub(super) replaces: Vec<Relation<'a>>,
    /// Why none of that can be relied on.
    pub(super) broken: Option<String>,
}

/// The packages of some suites for one architecture.
#[derive(Debug)]
pub struct Universe<'a> {
    pub(super) architecture: Architecture,
    /// By name, the highest version first; of the same version the one from the first source.
    candidates: Vec<Candidate<'a>>,
    by_name: BTreeMap<&'a str, std::ops::Range<usize>>,
    /// Virtual packages: numbers of those that provide them.
    providers: BTreeMap<&'a str, Vec<usize>>,
    /// By number of the index: names of its suite, the best for people first.
    suites: Vec<Vec<String>>,
}

impl<'a> Facts<'a> {
    /// Of a package of which nothing is known but what it provides.
    pub(super) fn providing(provides: &[Relation<'a>]) -> Self {
        let provides = provides.iter().map(|given| (given.name, given.bound.map(|(_, version)| version))).collect();
        Self { provides, ..Self::default() }
    }
}

impl<'a> Universe<'a> {
    /// Sorts the packages (each with the number of its index); `suites` are the names of each index's suite.
    pub fn new(packages: Vec<(&'a Package, usize)>, architecture: Architecture, suites: Vec<Vec<String>>) -> Self {
        let mut packages = packages;
        packages.sort_by(|(a, _), (b, _)| {
            a.name.cmp(&b.name).then_with(|| debian_version::compare(&b.version, &a.version))
        });
        packages.dedup_by(|(later, _), (first, _)| {
            (&later.name, &later.version, later.sha256) == (&first.name, &first.version, first.sha256)
        });
        let candidates: Vec<Candidate<'a>> =
            packages.into_iter().map(|(package, index)| Candidate { package, index, facts: OnceCell::new() }).collect();
        let mut by_name: BTreeMap<&str, std::ops::Range<usize>> = BTreeMap::new();
        let mut providers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (number, Candidate { package, .. }) in candidates.iter().enumerate() {
            by_name.entry(&package.name).or_insert(number..number).end = number + 1;
            // What cannot be read here is said when the package is looked at.
            for provision in parse_list(package.field(Field::Provides)).unwrap_or_default() {
                providers.entry(provision.name).or_default().push(number);
            }
        }
        Self { architecture, candidates, by_name, providers, suites }
    }

    pub(super) fn get(&self, number: usize) -> &Candidate<'a> {
        &self.candidates[number]
    }

    /// Real packages of a name, the highest version first.
    pub(super) fn named(&self, name: &str) -> std::ops::Range<usize> {
        self.by_name.get(name).cloned().unwrap_or(0..0)
    }

    /// Packages that provide a name, by name, the highest version first.
    pub(super) fn providing(&self, name: &str) -> &[usize] {
        self.providers.get(name).map_or(&[], |numbers| numbers)
    }

    /// What a package says of others; read when it is first asked for.
    pub(super) fn facts(&self, number: usize) -> &Facts<'a> {
        let candidate = &self.candidates[number];
        candidate.facts.get_or_init(|| {
            let facts = facts(candidate.package);
            Box::new(facts.unwrap_or_else(|error| Facts { broken: Some(format!("{error:#}")), ..Facts::default() }))
        })
    }

    /// Whether a package is listed by an index of this suite.
    pub(super) fn is_of_suite(&self, number: usize, suite: &str) -> bool {
        self.suites.get(self.candidates[number].index).is_some_and(|names| names.iter().any(|name| name == suite))
    }

    /// `1.0 in bookworm` for a package.
    pub(super) fn shown(&self, number: usize) -> String {
        let Candidate { package, index, .. } = &self.candidates[number];
        let suite = self.suites.get(*index).and_then(|names| names.first()).map_or("?", |name| name);
        format!("{} in {suite}", package.version)
    }

    /// Whether two sources offer a package in the same version with different digests: nobody can say which is meant.
    pub(super) fn is_ambiguous(&self, number: usize) -> bool {
        let package = self.candidates[number].package;
        let same = |other: &usize| *other != number && self.candidates[*other].package.version == package.version;
        self.named(&package.name).any(|other| same(&other))
    }

    /// The package of a name that tells best what an installed `version` of it is like: that version, else the next
    /// higher, else the highest.
    pub(super) fn nearest(&self, name: &str, version: &str) -> Option<usize> {
        let named = self.named(name);
        let not_older = |number: &usize| debian_version::compare(&self.get(*number).package.version, version).is_ge();
        named.clone().filter(not_older).max_by_key(|number| Reverse(named.end - number)).or(named.clone().next())
    }
}

fn facts(package: &Package) -> anyhow::Result<Facts<'_>> {
    let groups = |field| parse_groups(package.field(field));
    let list = |field| parse_list(package.field(field));
    Ok(Facts {
        pre_depends: groups(Field::PreDepends)?,
        depends: groups(Field::Depends)?,
        recommends: groups(Field::Recommends)?,
        conflicts: list(Field::Conflicts)?,
        breaks: list(Field::Breaks)?,
        replaces: list(Field::Replaces)?,
        ..Facts::providing(&list(Field::Provides)?)
    })
}
