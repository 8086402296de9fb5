//! The way to a closure: requirements are followed until none is left.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bundle::Architecture;

use super::expression::Expression;
use super::target::Target;
use super::universe::{Owners, Universe};
use crate::base::Base;
use crate::source::rpm_md::{Dependency, Package};
use bundle::rpm_version::Evr;

/// A requirement that waits.
#[derive(Clone, Debug)]
pub(super) struct Need {
    pub(super) expression: Expression,
    /// Who needs it.
    pub(super) package: usize,
}

pub(super) struct Solver<'a, 'o> {
    pub(super) universe: Universe<'a>,
    pub(super) target: Target<'a>,
    pub(super) owners: &'o mut Owners<'o>,
    /// Chosen packages and who needs them.
    pub(super) chosen: BTreeMap<usize, Option<String>>,
    /// Those whose requirements were not looked at yet.
    fresh: VecDeque<usize>,
    /// Requirements that several packages can meet.
    open: VecDeque<Need>,
    /// Requirements that hold only if something else is installed.
    conditional: Vec<Need>,
    pub(super) problems: BTreeSet<String>,
}

impl<'a, 'o> Solver<'a, 'o> {
    /// Nothing is chosen yet.
    pub(super) fn new(
        packages: &'a [&'a Package],
        base: &'a Base,
        architecture: Architecture,
        owners: &'o mut Owners<'o>,
    ) -> Self {
        Self {
            universe: Universe::new(packages),
            target: Target::new(base, packages, architecture),
            owners,
            chosen: BTreeMap::new(),
            fresh: VecDeque::new(),
            open: VecDeque::new(),
            conditional: Vec::new(),
            problems: BTreeSet::new(),
        }
    }

    pub(super) fn package(&self, at: usize) -> &'a Package {
        self.universe.packages[at]
    }

    pub(super) fn root(&mut self, root: &str) {
        let (name, version) = match root.split_once('=') {
            Some((name, version)) => (name.trim(), Some(Evr::parse(version.trim()))),
            None => (root.trim(), None),
        };
        let fits = |evr: &Evr| version.as_ref().is_none_or(|version| version.compare(evr) == Ordering::Equal);
        if let Some(installed) = self.target.packages.get(name)
            && fits(&installed.evr)
        {
            return;
        }
        if let Some(taken) = self.chosen_named(name).filter(|at| !is_installed_beside_others(self.package(*at))) {
            if !fits(&self.package(taken).evr) {
                self.problems.insert(format!("`{root}` contradicts the choice of `{}`", self.package(taken).label()));
            }
            return;
        }
        let all = self.universe.named(name).to_vec();
        let fitting: Vec<usize> = all.iter().copied().filter(|at| fits(&self.package(*at).evr)).collect();
        match self.universe.newest(&fitting) {
            Some(newest) => self.choose(newest, None),
            None if all.is_empty() => {
                let providers = self.universe.providers(&Dependency::any(name));
                let names: BTreeSet<&str> = providers.iter().map(|at| &*self.package(*at).name).collect();
                let names = Vec::from_iter(names).join(", ");
                let near = if names.is_empty() { String::new() } else { format!("; it is provided by {names}") };
                self.problems.insert(format!("no package is called `{name}`{near}"));
            }
            None => {
                let offered: Vec<String> = all.iter().map(|at| self.package(*at).evr.to_string()).collect();
                self.problems.insert(format!("`{root}` is not on offer: there is {}", offered.join(", ")));
            }
        }
    }

    /// Follows requirements until nothing is left to follow.
    pub(super) fn run(&mut self) -> anyhow::Result<()> {
        loop {
            if let Some(package) = self.fresh.pop_front() {
                for dependency in &self.package(package).requires {
                    match Expression::of(dependency) {
                        Ok(expression) => self.require(Need { expression, package }, false)?,
                        Err(error) => self.problem(package, &error.to_string()),
                    }
                }
            } else if let Some(need) = self.open.pop_front() {
                self.require(need, true)?;
            } else if !self.follow_conditions()? && !self.follow_replaced() {
                return Ok(());
            }
        }
    }

    /// Meets a requirement; one that several packages can meet waits unless it is `decided` now.
    fn require(&mut self, need: Need, decided: bool) -> anyhow::Result<()> {
        // A condition can come true later.
        if self.is_met(&need.expression, None) && !need.expression.has_condition() {
            return Ok(());
        }
        let Need { expression, package } = need;
        match expression {
            Expression::And(all) => {
                for expression in all {
                    self.require(Need { expression, package }, decided)?;
                }
            }
            Expression::Or(all) if all.iter().any(|one| self.is_met(one, None)) => {}
            Expression::Or(all) => {
                if !decided {
                    self.open.push_back(Need { expression: Expression::Or(all), package });
                    return Ok(());
                }
                // In the order written, the first that anything can meet.
                for expression in &all {
                    if self.can_be_met(expression)? {
                        return self.require(Need { expression: expression.clone(), package }, true);
                    }
                }
                let names: Vec<String> =
                    all.iter().flat_map(Expression::plain).map(|plain| format!("`{plain}`")).collect();
                self.problem(package, &format!("no package offers one of {}", names.join(", ")));
            }
            Expression::If(..) => self.conditional.push(Need { expression, package }),
            Expression::Unless(..) => {
                self.problem(package, "a requirement with `unless`, which only conflicts can have");
            }
            Expression::Plain(_) | Expression::With(_) | Expression::Without(_) => {
                let candidates = self.candidates_or_files(&expression)?;
                let names: BTreeSet<&str> = candidates.iter().map(|at| &*self.package(*at).name).collect();
                if names.len() > 1 && !decided {
                    self.open.push_back(Need { expression, package });
                    return Ok(());
                }
                match self.best(&expression, candidates) {
                    Some(best) => self.choose(best, Some(package)),
                    None => self.cannot_meet(&expression, package),
                }
            }
        }
        Ok(())
    }

    /// Chooses a package, with `needed_by` as the reason.
    fn choose(&mut self, package: usize, needed_by: Option<usize>) {
        let chosen = self.package(package);
        let reason = needed_by.map(|by| self.package(by).name.to_string());
        if !is_installed_beside_others(chosen)
            && let Some(installed) = self.target.packages.get_mut(&*chosen.name)
        {
            if chosen.evr.compare(&installed.evr) == Ordering::Less {
                let text = format!("`{}` is older than the base's {}", chosen.label(), installed.evr);
                self.problems.insert(text);
            }
            installed.replaced = true;
        }
        if self.chosen.insert(package, reason).is_none() {
            self.fresh.push_back(package);
        }
    }

    /// Requirements whose condition holds now, and at the very end the `else` of those whose does not.
    fn follow_conditions(&mut self) -> anyhow::Result<bool> {
        for needs_else in [false, true] {
            for at in 0..self.conditional.len() {
                let Need { expression, package } = self.conditional[at].clone();
                let Expression::If(pair, otherwise) = &expression else { continue };
                if self.is_met(&expression, None) {
                    continue;
                }
                let wanted = match (self.is_met(&pair[1], None), otherwise) {
                    (true, _) => &pair[0],
                    (false, Some(otherwise)) if needs_else => otherwise,
                    _ => continue,
                };
                let before = (self.chosen.len(), self.problems.len());
                self.require(Need { expression: wanted.clone(), package }, true)?;
                if before != (self.chosen.len(), self.problems.len()) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// What in the base depended on a package that was replaced, and no longer fits, is replaced as well.
    fn follow_replaced(&mut self) -> bool {
        let mut broken: Vec<&str> = Vec::new();
        for (name, installed) in self.target.packages.iter().filter(|(_, installed)| !installed.replaced) {
            for dependency in installed.described.into_iter().flat_map(|package| &package.requires) {
                let Ok(expression @ Expression::Plain(_)) = Expression::of(dependency) else { continue };
                let by_replaced = self
                    .target
                    .packages_that_meet(dependency)
                    .iter()
                    .any(|other| self.target.packages.get(other).is_some_and(|other| other.replaced));
                if by_replaced && !self.is_met(&expression, None) {
                    broken.push(name);
                    break;
                }
            }
        }
        let mut changed = false;
        for name in broken {
            let cause =
                self.chosen.keys().find(|at| self.target.packages.contains_key(&*self.package(**at).name)).copied();
            match self.universe.newest(self.universe.named(name)) {
                Some(newest) if !self.chosen.contains_key(&newest) => {
                    self.choose(newest, cause);
                    changed = true;
                }
                _ => {}
            }
        }
        changed
    }
}

/// Kernels are installed beside older ones and replace nothing.
pub(super) fn is_installed_beside_others(package: &Package) -> bool {
    package.provides.iter().any(|provide| &*provide.name == "installonlypkg(kernel)")
}
