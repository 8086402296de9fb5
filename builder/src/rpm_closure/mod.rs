//! The closure of RPM packages: what has to be installed beside a base so that the packages asked for work.
//!
//! A requirement is met by what is chosen already, then by the base; else a package is chosen: not one that conflicts with
//! the rest, or that another on offer makes obsolete, if there is a choice; then the one whose name is the requirement's,
//! then the highest version, then the first by name. Requirements that only packages of one name meet are followed first.
//! Weak dependencies (`Recommends`, `Supplements`) are left out. A package of the base that is too old is replaced by a
//! newer one, and what in the base depended on exactly the old one follows. No search goes back on a choice: whatever
//! contradicts itself at the end is reported, all of it.

mod conflicts;
mod expression;
mod target;
#[cfg(test)]
mod tests;
mod universe;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bundle::Architecture;

use self::expression::Expression;
use self::target::Target;
use self::universe::Universe;
use crate::base::Base;
use crate::failure::Failure;
use crate::rpm_version::Evr;
use crate::source::rpm_md::{Dependency, Package};

pub use self::universe::Owners;

/// A package of the closure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its position among the packages on offer.
    pub package: usize,
    /// The package that needs it; `None` if it was asked for.
    pub needed_by: Option<String>,
}

/// A requirement that waits.
#[derive(Clone, Debug)]
struct Need {
    expression: Expression,
    /// Who needs it.
    package: usize,
}

struct Solver<'a, 'o> {
    universe: Universe<'a>,
    target: Target<'a>,
    owners: &'o mut Owners<'o>,
    /// Chosen packages and who needs them.
    chosen: BTreeMap<usize, Option<String>>,
    /// Those whose requirements were not looked at yet.
    fresh: VecDeque<usize>,
    /// Requirements that several packages can meet.
    open: VecDeque<Need>,
    /// Requirements that hold only if something else is installed.
    conditional: Vec<Need>,
    problems: BTreeSet<String>,
}

/// Computes the closure of `roots` (`NAME` or `NAME=[EPOCH:]VERSION[-RELEASE]`) against `base`, sorted by name.
///
/// A root that the base has is left out unless a version is asked for. `owners` is asked at most once.
pub fn resolve(
    packages: &[&Package],
    base: &Base,
    architecture: Architecture,
    roots: &[String],
    owners: &mut Owners<'_>,
) -> anyhow::Result<Vec<Member>> {
    let mut solver = Solver {
        universe: Universe::new(packages),
        target: Target::new(base, packages, architecture),
        owners,
        chosen: BTreeMap::new(),
        fresh: VecDeque::new(),
        open: VecDeque::new(),
        conditional: Vec::new(),
        problems: BTreeSet::new(),
    };
    // Exact versions first: the same name without one is then met.
    for root in roots.iter().map(|root| (!root.contains('='), root)).collect::<BTreeSet<_>>() {
        solver.root(root.1);
    }
    solver.run()?;
    solver.report_unmet();
    solver.report_conflicts()?;
    if !solver.problems.is_empty() {
        let problems: Vec<String> = solver.problems.iter().map(|problem| format!("\n  {problem}")).collect();
        let text = format!("the packages do not fit together on `{}`:{}", base.distribution, problems.concat());
        return Err(Failure::new(text)
            .hint("add what is missing to `repositories` or `install`, or state in the base what targets have")
            .into());
    }
    let mut members: Vec<Member> =
        solver.chosen.into_iter().map(|(package, needed_by)| Member { package, needed_by }).collect();
    members.sort_by_cached_key(|member| packages[member.package].label());
    Ok(members)
}

impl<'a> Solver<'a, '_> {
    fn package(&self, at: usize) -> &'a Package {
        self.universe.packages[at]
    }

    fn root(&mut self, root: &str) {
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
    fn run(&mut self) -> anyhow::Result<()> {
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

    /// Packages that can meet a requirement that one package has to meet; where none does, the file lists are asked, too.
    fn candidates_or_files(&mut self, expression: &Expression) -> anyhow::Result<BTreeSet<usize>> {
        let candidates = self.candidates(expression);
        let asks_for_file = || expression.plain().iter().any(|plain| plain.name.starts_with('/'));
        if candidates.is_empty() && asks_for_file() && self.universe.complete_files(self.owners)? {
            return Ok(self.candidates(expression));
        }
        Ok(candidates)
    }

    fn candidates(&self, expression: &Expression) -> BTreeSet<usize> {
        match expression {
            Expression::Plain(dependency) => self.universe.providers(dependency),
            Expression::With(all) => {
                let mut sets = all.iter().map(|expression| self.candidates(expression));
                let first = sets.next().unwrap_or_default();
                sets.fold(first, |left, right| left.intersection(&right).copied().collect())
            }
            Expression::Without(pair) => {
                self.candidates(&pair[0]).difference(&self.candidates(&pair[1])).copied().collect()
            }
            _ => BTreeSet::new(),
        }
    }

    fn can_be_met(&mut self, expression: &Expression) -> anyhow::Result<bool> {
        Ok(match expression {
            Expression::And(all) => {
                for expression in all {
                    if !self.is_met(expression, None) && !self.can_be_met(expression)? {
                        return Ok(false);
                    }
                }
                true
            }
            Expression::Or(all) => {
                for expression in all {
                    if self.is_met(expression, None) || self.can_be_met(expression)? {
                        return Ok(true);
                    }
                }
                false
            }
            Expression::If(..) => true,
            Expression::Unless(..) => false,
            one => {
                let candidates = self.candidates_or_files(one)?;
                self.best(one, candidates).is_some()
            }
        })
    }

    /// The best of several candidates by the rule at the head of this module; `None` if none can be taken.
    fn best(&self, expression: &Expression, candidates: BTreeSet<usize>) -> Option<usize> {
        // `NAME`, or `NAME(x86-64)` as rpm adds for the architecture.
        let name = match expression {
            Expression::Plain(dependency) => dependency.name.split('(').next(),
            _ => None,
        };
        let possible = candidates.into_iter().filter(|at| {
            let package = self.package(*at);
            let older = self
                .target
                .packages
                .get(&*package.name)
                .is_some_and(|installed| package.evr.compare(&installed.evr) == Ordering::Less);
            is_installed_beside_others(package) || (!older && self.chosen_named(&package.name).is_none())
        });
        let ranked = possible.map(|at| {
            let other_name = name != Some(&*self.package(at).name);
            ((self.conflicts_with_rest(at), self.is_obsolete(at), other_name), at)
        });
        let better = |(left, a): &((bool, bool, bool), usize), (right, b): &((bool, bool, bool), usize)| {
            let (a, b) = (self.package(*a), self.package(*b));
            let versions = || b.evr.compare(&a.evr);
            left.cmp(right).then_with(versions).then_with(|| a.name.cmp(&b.name)).then_with(|| b.arch.cmp(&a.arch))
        };
        ranked.min_by(better).map(|(_, at)| at)
    }

    fn chosen_named(&self, name: &str) -> Option<usize> {
        self.universe.named(name).iter().copied().find(|at| self.chosen.contains_key(at))
    }

    /// Whether what is chosen and the base meet a requirement; `without` one chosen package.
    fn is_met(&self, expression: &Expression, without: Option<usize>) -> bool {
        let others = |at: &usize| Some(*at) != without && self.chosen.contains_key(at);
        match expression {
            Expression::Plain(dependency) => {
                let name = without.map(|at| &*self.package(at).name);
                self.universe.providers(dependency).iter().any(others) || self.target.meets(dependency, name)
            }
            Expression::And(all) => all.iter().all(|expression| self.is_met(expression, without)),
            Expression::Or(all) => all.iter().any(|expression| self.is_met(expression, without)),
            Expression::If(pair, otherwise) => {
                if self.is_met(&pair[1], without) {
                    self.is_met(&pair[0], without)
                } else {
                    otherwise.as_ref().is_none_or(|otherwise| self.is_met(otherwise, without))
                }
            }
            Expression::Unless(pair, otherwise) => {
                if self.is_met(&pair[1], without) {
                    otherwise.as_ref().is_some_and(|otherwise| self.is_met(otherwise, without))
                } else {
                    self.is_met(&pair[0], without)
                }
            }
            Expression::With(_) | Expression::Without(_) => {
                self.candidates(expression).iter().any(others) || self.base_meets_at_once(expression, without)
            }
        }
    }

    /// Whether one package of the base meets all that one package has to.
    fn base_meets_at_once(&self, expression: &Expression, without: Option<usize>) -> bool {
        let without = without.map(|at| &*self.package(at).name);
        let meeting = |dependency: &Dependency| -> BTreeSet<&str> {
            let names = self.target.packages_that_meet(dependency).into_iter();
            names
                .filter(|name| Some(*name) != without)
                .filter(|name| self.target.packages.get(name).is_some_and(|installed| !installed.replaced))
                .collect()
        };
        let sets =
            |expression: &Expression| -> BTreeSet<&str> { expression.plain().into_iter().flat_map(meeting).collect() };
        match expression {
            Expression::With(all) => {
                let mut sets = all.iter().map(sets);
                let first = sets.next().unwrap_or_default();
                !sets.fold(first, |left, right| left.intersection(&right).copied().collect()).is_empty()
            }
            Expression::Without(pair) => sets(&pair[0]).difference(&sets(&pair[1])).next().is_some(),
            _ => false,
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

    /// Notes what is not met although its turn came: a later choice has undone it. To be called at the end.
    fn report_unmet(&mut self) {
        let sound = self.problems.is_empty();
        for at in self.chosen.keys().copied().filter(|_| sound).collect::<Vec<_>>() {
            for dependency in &self.package(at).requires {
                if Expression::of(dependency).is_ok_and(|expression| !self.is_met(&expression, None)) {
                    self.problem(at, &format!("`{dependency}` is not met in the end"));
                }
            }
        }
    }

    /// Notes that nothing on offer meets a requirement, and why what looks like it does not.
    fn cannot_meet(&mut self, expression: &Expression, package: usize) {
        let shown: Vec<String> = expression.plain().iter().map(|plain| format!("`{plain}`")).collect();
        let shown = shown.join(" and ");
        let mut text = format!("no package offers {shown}");
        if let [plain] = expression.plain()[..] {
            let any = Dependency::any(&plain.name);
            let others: Vec<String> =
                self.universe.providers(&any).into_iter().map(|at| self.package(at).label()).collect();
            let mut names = self.universe.providers(&any).into_iter().map(|at| &self.package(at).name);
            if let Some(taken) = names.find_map(|name| self.chosen_named(name)) {
                text = format!("{shown} contradicts the choice of `{}`", self.package(taken).label());
            } else if !others.is_empty() {
                text = format!("no package offers {shown}, only {}", others.join(", "));
            }
        }
        self.problem(package, &text);
    }

    /// Notes a problem with the way that led to it.
    fn problem(&mut self, package: usize, text: &str) {
        let mut way = format!("`{}`", self.package(package).label());
        let mut seen = BTreeSet::from([package]);
        let mut at = package;
        while let Some(Some(by)) = self.chosen.get(&at)
            && let Some(next) = self.chosen_named(by)
            && seen.insert(next)
        {
            way.extend([", needed by `", by, "`"]);
            at = next;
        }
        self.problems.insert(format!("{way}: {text}"));
    }
}

/// Kernels are installed beside older ones and replace nothing.
fn is_installed_beside_others(package: &Package) -> bool {
    package.provides.iter().any(|provide| &*provide.name == "installonlypkg(kernel)")
}
