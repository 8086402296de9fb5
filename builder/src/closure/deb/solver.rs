//! The search for a closure: requirements one after the other, each decided for the first possible package, going back
//! where that leads nowhere.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;

use super::Request;
use super::clash::{Clash, excludes, provides};
use super::requirement::{Present, Requirement, Root, Why};
use super::universe::{Facts, Universe};
use bundle::debian_relation::{Group, Operator, Relation, parse_list};
use bundle::debian_version;

/// Packages tried before the search is given up: a hundred times what a large closure takes.
const STEPS: usize = 100_000;
/// Comparisons before the search is given up, a minute at most: an index decides how many a step takes.
const WORK: u64 = 2_000_000_000;

#[derive(Clone, Copy, Debug)]
struct Mark {
    agenda: usize,
    trail: usize,
    simple: usize,
    other: usize,
}

#[derive(Debug)]
struct Decision {
    at: usize,
    /// `None`: do without.
    options: Vec<Option<usize>>,
    next: usize,
    mark: Mark,
}

/// State of the search.
#[derive(Debug)]
pub(super) struct Solver<'u, 'a> {
    universe: &'u Universe<'a>,
    recommends: bool,
    /// What packages of the base provide, where the base states it.
    stated: BTreeMap<&'a str, Facts<'a>>,
    pub(super) present: BTreeMap<&'a str, Present<'a>>,
    pub(super) agenda: Vec<Requirement<'a>>,
    trail: Vec<(&'a str, Option<Present<'a>>)>,
    /// How far the agenda is done: what can be met in one way only goes first, so that alternatives see what is there.
    simple: usize,
    other: usize,
    steps: usize,
    /// Comparisons that are left; without any, everything seems to hold.
    pub(super) work: Cell<u64>,
    /// Exclusions are noted here and passed over, to find everything that is wrong.
    pub(super) clashes: Option<Vec<Clash>>,
}

impl<'u, 'a> Solver<'u, 'a> {
    pub(super) fn new(universe: &'u Universe<'a>, request: &Request<'a>, roots: &[Root<'a>]) -> anyhow::Result<Self> {
        let base = request.base.iter().map(|(name, version)| {
            let number = universe.nearest(name, version);
            (name.as_str(), Present { version, number, chosen: false, needed_by: None })
        });
        let asked = |root: &Root<'a>| Requirement {
            group: vec![root.relation.clone()],
            needed_by: None,
            why: Why::Asked,
            suite: root.suite,
        };
        let mut stated = BTreeMap::new();
        for (name, text) in request.provides {
            let provides = parse_list(text).with_context(|| format!("reading what `{name}` of the base provides"))?;
            stated.insert(name.as_str(), Facts::providing(&provides));
        }
        Ok(Self {
            universe,
            recommends: request.recommends,
            stated,
            present: base.collect(),
            agenda: roots.iter().map(asked).collect(),
            trail: Vec::new(),
            simple: 0,
            other: 0,
            steps: 0,
            work: Cell::new(WORK),
            clashes: None,
        })
    }

    /// Finds a way; `Err(true)` if it gave up, `Err(false)` if there is none.
    pub(super) fn search(&mut self) -> Result<(), bool> {
        let mut decisions: Vec<Decision> = Vec::new();
        while let Some(at) = self.next() {
            let mut options: Vec<Option<usize>> = self.options(at).into_iter().map(Some).collect();
            if self.agenda[at].why == Why::Recommends {
                options.push(None);
            }
            let mut decision = Decision { at, options, next: 0, mark: self.mark() };
            while !self.decide(&mut decision)? {
                decision = decisions.pop().ok_or(false)?;
            }
            decisions.push(decision);
        }
        if self.is_spent() { Err(true) } else { Ok(()) }
    }

    /// Takes the next possible option of a decision.
    fn decide(&mut self, decision: &mut Decision) -> Result<bool, bool> {
        while let Some(option) = decision.options.get(decision.next) {
            decision.next += 1;
            self.undo(decision.mark);
            let Some(number) = *option else {
                self.pass();
                return Ok(true);
            };
            self.steps += 1;
            if self.steps > STEPS || self.is_spent() {
                return Err(true);
            }
            if self.choose(number, decision.at).is_ok() {
                return Ok(true);
            }
        }
        self.undo(decision.mark);
        Ok(false)
    }

    fn spend(&self, comparisons: usize) {
        self.work.set(self.work.get().saturating_sub(comparisons as u64));
    }

    fn is_spent(&self) -> bool {
        self.work.get() == 0
    }

    fn mark(&self) -> Mark {
        let Self { simple, other, .. } = *self;
        Mark { agenda: self.agenda.len(), trail: self.trail.len(), simple, other }
    }

    fn undo(&mut self, mark: Mark) {
        self.agenda.truncate(mark.agenda);
        while self.trail.len() > mark.trail {
            match self.trail.pop() {
                Some((name, Some(before))) => {
                    self.present.insert(name, before);
                }
                Some((name, None)) => {
                    self.present.remove(name);
                }
                None => {}
            }
        }
        (self.simple, self.other) = (mark.simple, mark.other);
    }

    /// The next requirement that does not hold yet.
    pub(super) fn next(&mut self) -> Option<usize> {
        let open = |solver: &Self, at: usize| !solver.holds(&solver.agenda[at].group);
        while self.simple < self.agenda.len() {
            if self.is_simple(self.simple) && open(self, self.simple) {
                return Some(self.simple);
            }
            self.simple += 1;
        }
        while self.other < self.agenda.len() {
            if !self.is_simple(self.other) && open(self, self.other) {
                return Some(self.other);
            }
            self.other += 1;
        }
        None
    }

    /// Leaves the requirement that [`Solver::next`] named as it is.
    pub(super) fn pass(&mut self) {
        if self.simple < self.agenda.len() { self.simple += 1 } else { self.other += 1 }
    }

    /// Whether one package name alone can meet the requirement.
    fn is_simple(&self, at: usize) -> bool {
        match &self.agenda[at].group[..] {
            [relation] => {
                let providers = self.universe.providing(relation.name);
                let names: BTreeSet<&str> =
                    providers.iter().map(|number| &*self.universe.get(*number).package.name).collect();
                !self.universe.named(relation.name).is_empty() || names.len() <= 1
            }
            _ => false,
        }
    }

    /// Packages that would meet a requirement, the best first.
    pub(super) fn options(&self, at: usize) -> Vec<usize> {
        let Requirement { group, suite, .. } = &self.agenda[at];
        let mut options = Vec::new();
        for relation in group {
            let fits = |number: &usize| {
                let package = self.universe.get(*number).package;
                relation.allows(&package.version)
                    && self.qualifies(relation, Some(*number))
                    && suite.is_none_or(|suite| self.universe.is_of_suite(*number, suite))
            };
            let provides = |number: &&usize| {
                self.qualifies(relation, Some(**number)) && provides(self.universe.facts(**number), relation)
            };
            let real = self.universe.named(relation.name).filter(fits);
            let virtual_ = self.universe.providing(relation.name).iter().filter(provides).copied();
            for number in real.chain(virtual_) {
                if !options.contains(&number) {
                    options.push(number);
                }
            }
        }
        options
    }

    fn qualifies(&self, relation: &Relation<'_>, number: Option<usize>) -> bool {
        match relation.qualifier {
            None | Some("native") => true,
            Some("any") => number.is_none_or(|number| self.universe.get(number).package.any_architecture),
            Some(architecture) => architecture == self.universe.architecture.as_str(),
        }
    }

    /// Whether one of the alternatives is there.
    pub(super) fn holds(&self, group: &[Relation<'_>]) -> bool {
        if self.is_spent() {
            return true;
        }
        group.iter().any(|relation| {
            self.spend(1);
            let real = self
                .present
                .get(relation.name)
                .is_some_and(|present| relation.allows(present.version) && self.qualifies(relation, present.number));
            real || self.present.iter().any(|(name, present)| {
                self.qualifies(relation, present.number)
                    && self.provisions(name, present).is_some_and(|facts| {
                        self.spend(1 + facts.provides.len());
                        provides(facts, relation)
                    })
            })
        })
    }

    /// What tells what a package that is there provides.
    fn provisions(&self, name: &str, present: &Present<'a>) -> Option<&Facts<'a>> {
        let stated = self.stated.get(name).filter(|_| !present.chosen);
        stated.or_else(|| present.number.map(|number| self.universe.facts(number)))
    }

    /// Adds a package and what follows from it.
    pub(super) fn choose(&mut self, number: usize, at: usize) -> Result<(), Clash> {
        let (universe, needed_by) = (self.universe, self.agenda[at].needed_by);
        let package = universe.get(number).package;
        let (name, version): (&'a str, &'a str) = (&package.name, &package.version);
        let facts = universe.facts(number);
        if let Some(error) = &facts.broken {
            return Err(Clash::Broken { name: name.to_owned(), error: error.clone() });
        }
        if universe.is_ambiguous(number) {
            return Err(Clash::Ambiguous { name: name.to_owned(), version: version.to_owned() });
        }
        let before = self.present.get(name).copied();
        if let Some(there) = before
            && (there.chosen || debian_version::compare(version, there.version).is_lt())
        {
            let (wanted, there, chosen) = (version.to_owned(), there.version.to_owned(), there.chosen);
            return Err(Clash::Version { name: name.to_owned(), wanted, there, chosen });
        }
        let removed = self.exclusions(name, version, number)?;
        let gone: Vec<&str> = before.map(|_| name).into_iter().chain(removed.iter().copied()).collect();
        let watched = self.watched(&gone);

        self.set(name, Some(Present { version, number: Some(number), chosen: true, needed_by }));
        for removed in removed {
            self.set(removed, None);
        }
        for requirement in watched {
            if !self.holds(&requirement.group) {
                self.agenda.push(match requirement.why {
                    // Something of the base needs another version of itself.
                    Why::Renewal => self.renewal(requirement.needed_by.unwrap_or(name), name),
                    _ => requirement,
                });
            }
        }
        let needs = [(&facts.pre_depends, Why::PreDepends), (&facts.depends, Why::Depends)];
        let recommends = self.recommends.then_some((&facts.recommends, Why::Recommends));
        for (groups, why) in needs.into_iter().chain(recommends) {
            let requirement =
                |group: &Group<'a>| Requirement { group: group.clone(), needed_by: Some(name), why, suite: None };
            self.agenda.extend(groups.iter().map(requirement));
        }
        Ok(())
    }

    fn set(&mut self, name: &'a str, present: Option<Present<'a>>) {
        let before = match present {
            Some(present) => self.present.insert(name, present),
            None => self.present.remove(name),
        };
        self.trail.push((name, before));
    }

    /// A newer version of a package of the base, because of `cause`.
    fn renewal(&self, name: &'a str, cause: &'a str) -> Requirement<'a> {
        let version = self.present.get(name).map_or("", |present| present.version);
        let newer = Relation { name, qualifier: None, bound: Some((Operator::Later, version)) };
        Requirement { group: vec![newer], needed_by: Some(cause), why: Why::Renewal, suite: None }
    }

    /// What excludes the package: packages of the base are renewed where a newer version goes with it, or removed where it
    /// says that it takes their place; those are returned.
    fn exclusions(&mut self, name: &'a str, version: &'a str, number: usize) -> Result<Vec<&'a str>, Clash> {
        let universe = self.universe;
        let facts = universe.facts(number);
        let (mut renewals, mut removed) = (Vec::new(), Vec::new());
        let others: Vec<(&'a str, Present<'a>)> = self
            .present
            .iter()
            .filter(|(other, _)| **other != name)
            .map(|(other, present)| (*other, *present))
            .collect();
        let nothing = Facts::default();
        for (other, present) in others {
            let theirs = present.number.map_or(&nothing, |number| universe.facts(number));
            let relations = |facts: &Facts<'_>| facts.conflicts.len() + facts.breaks.len();
            let ours = relations(facts).saturating_mul(1 + theirs.provides.len());
            self.spend(
                relations(theirs).saturating_mul(1 + facts.provides.len()).saturating_add(ours).saturating_add(1),
            );
            let ours = excludes(facts, other, present.version, theirs);
            let Some((relation, breaks, is_ours)) = ours
                .map(|(relation, breaks)| (relation, breaks, true))
                .or_else(|| excludes(theirs, name, version, facts).map(|(relation, breaks)| (relation, breaks, false)))
            else {
                continue;
            };
            let newer = |number: &usize| {
                let package = universe.get(*number).package;
                let theirs = universe.facts(*number);
                debian_version::compare(&package.version, present.version).is_gt()
                    && excludes(facts, other, &package.version, theirs).is_none()
                    && excludes(theirs, name, version, facts).is_none()
            };
            if !present.chosen && universe.named(other).any(|number| newer(&number)) {
                renewals.push(other);
                continue;
            }
            let takes_place = facts.replaces.iter().any(|relation| {
                (relation.name == other && relation.allows(present.version)) || provides(theirs, relation)
            });
            let essential = present.number.is_some_and(|number| universe.get(number).package.essential);
            if !present.chosen && is_ours && !breaks && takes_place && !essential {
                removed.push(other);
                continue;
            }
            let (this, that) = (format!("`{name}` {version}"), format!("`{other}` {}", present.version));
            let (who, whom) = if is_ours { (this, that) } else { (that, this) };
            let in_base = !present.chosen;
            let clash = Clash::Exclusion { who, relation: relation.to_string(), breaks, whom, in_base };
            match &mut self.clashes {
                Some(clashes) => clashes.push(clash),
                None => return Err(clash),
            }
        }
        for other in renewals {
            let renewal = self.renewal(other, name);
            self.agenda.push(renewal);
        }
        Ok(removed)
    }

    /// What holds now and has to be looked at again when packages change: relations of the agenda and of the base that they
    /// may have met.
    fn watched(&self, gone: &[&'a str]) -> Vec<Requirement<'a>> {
        if gone.is_empty() {
            return Vec::new();
        }
        let mut names: BTreeSet<&str> = gone.iter().copied().collect();
        for (name, present) in gone.iter().filter_map(|name| self.present.get_key_value(name)) {
            let facts = self.provisions(name, present);
            names.extend(facts.into_iter().flat_map(|facts| facts.provides.iter().map(|(name, _)| *name)));
        }
        let concerned = |group: &Group<'a>| group.iter().any(|relation| names.contains(relation.name));
        self.spend(self.agenda.len());
        let agenda = self.agenda.iter().filter(|requirement| concerned(&requirement.group)).cloned();
        let mut watched: Vec<Requirement<'a>> = agenda.filter(|requirement| self.holds(&requirement.group)).collect();
        for (name, present) in &self.present {
            let Some(number) = present.number.filter(|_| !present.chosen && !gone.contains(name)) else { continue };
            let facts = self.universe.facts(number);
            self.spend(1 + facts.pre_depends.len() + facts.depends.len());
            let like = &*self.universe.get(number).package.version;
            for group in facts.pre_depends.iter().chain(&facts.depends).filter(|group| concerned(group)) {
                // Packages of one source depend on each other's exact version: on this one's, not on that of the package
                // that it is only like.
                let mut group = group.clone();
                for relation in &mut group {
                    if relation.bound == Some((Operator::Equal, like)) {
                        relation.bound = Some((Operator::Equal, present.version));
                    }
                }
                if self.holds(&group) {
                    watched.push(Requirement { group, needed_by: Some(name), why: Why::Renewal, suite: None });
                }
            }
        }
        watched
    }

    /// Name and state of everything that was chosen.
    pub(super) fn chosen(&self) -> BTreeMap<&'a str, (Present<'a>, Option<&'a str>)> {
        let mut first: BTreeMap<&'a str, Option<&'a str>> = BTreeMap::new();
        for (name, before) in &self.trail {
            first.entry(name).or_insert(before.filter(|before| !before.chosen).map(|before| before.version));
        }
        let chosen = self.present.iter().filter(|(_, present)| present.chosen);
        chosen.map(|(name, present)| (*name, (*present, first.get(name).copied().flatten()))).collect()
    }
}
