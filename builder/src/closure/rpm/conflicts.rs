//! Conflicts and obsoletes, among the chosen packages and with the base.

use super::expression::Expression;
use super::solver::Solver;
use crate::source::rpm_md::{Dependency, Package};
use bundle::rpm_version::{Relation, overlaps};

impl Solver<'_, '_> {
    /// Notes every conflict of what was chosen. To be called at the end.
    pub(super) fn report_conflicts(&mut self) -> anyhow::Result<()> {
        let chosen: Vec<usize> = self.chosen.keys().copied().collect();
        for at in chosen {
            for dependency in &self.package(at).conflicts {
                let expression = Expression::of(dependency)?;
                if self.is_met(&expression, Some(at)) {
                    let with = self.culprits(&expression, at).join(", ");
                    self.problem(at, &format!("it conflicts with `{dependency}`, which is {with}"));
                }
            }
            for dependency in &self.package(at).obsoletes {
                for victim in self.obsoleted(at, dependency) {
                    self.problem(at, &format!("it makes {victim} obsolete (`{dependency}`)"));
                }
            }
        }
        self.report_conflicts_of_base()
    }

    /// Conflicts that packages of the base have with chosen ones.
    fn report_conflicts_of_base(&mut self) -> anyhow::Result<()> {
        let mut found = Vec::new();
        for (name, installed) in self.target.packages.iter().filter(|(_, installed)| !installed.replaced) {
            for dependency in installed.described.into_iter().flat_map(|package| &package.conflicts) {
                let Expression::Plain(plain) = Expression::of(dependency)? else { continue };
                let met = self.universe.providers(&plain).into_iter().find(|at| self.chosen.contains_key(at));
                found.extend(met.map(|at| (at, format!("the base's `{name}` conflicts with it (`{plain}`)"))));
            }
        }
        for (at, text) in found {
            self.problem(at, &text);
        }
        Ok(())
    }

    /// Whether a candidate conflicts with what is chosen or with the base.
    pub(super) fn conflicts_with_rest(&self, candidate: usize) -> bool {
        let package = self.package(candidate);
        let own = package.conflicts.iter().any(|dependency| {
            Expression::of(dependency).is_ok_and(|expression| self.is_met(&expression, Some(candidate)))
        });
        let others = || {
            self.chosen.keys().filter(|at| **at != candidate).any(|at| {
                self.package(*at).conflicts.iter().any(|dependency| self.universe.meets(candidate, dependency))
            })
        };
        let obsoletes = || package.obsoletes.iter().any(|dependency| !self.obsoleted(candidate, dependency).is_empty());
        own || others() || obsoletes()
    }

    /// Whether another package on offer takes a candidate's place.
    pub(super) fn is_obsolete(&self, candidate: usize) -> bool {
        let package = self.package(candidate);
        let mut all = self.universe.obsoletes(&package.name).iter();
        all.any(|(other, dependency)| self.package(*other).name != package.name && is_obsoleted(package, dependency))
    }

    /// Chosen packages and packages of the base that a chosen one makes obsolete. Only names count here (rpm-dependencies(7)).
    fn obsoleted(&self, by: usize, dependency: &Dependency) -> Vec<String> {
        let own = &self.package(by).name;
        if dependency.name == *own {
            return Vec::new();
        }
        let chosen = self.universe.named(&dependency.name).iter().filter(|at| self.chosen.contains_key(at));
        let chosen = chosen.map(|at| self.package(*at)).filter(|package| is_obsoleted(package, dependency));
        let mut victims: Vec<String> = chosen.map(|package| format!("`{}`", package.label())).collect();
        if let Some(installed) = self.target.packages.get(&*dependency.name)
            && !installed.replaced
            && overlaps(Some(&(Relation::Equal, installed.evr.clone())), dependency.range.as_deref())
        {
            victims.push(format!("the base's `{}`", dependency.name));
        }
        victims
    }

    /// Who meets an expression, for messages.
    fn culprits(&self, expression: &Expression, without: usize) -> Vec<String> {
        let mut all = Vec::new();
        for plain in expression.plain() {
            let chosen = self.universe.providers(plain).into_iter();
            let chosen = chosen.filter(|at| *at != without && self.chosen.contains_key(at));
            all.extend(chosen.map(|at| format!("`{}`", self.package(at).label())));
            let own = &*self.package(without).name;
            let base = self.target.packages_that_meet(plain).into_iter();
            let base =
                base.filter(|name| *name != own && self.target.packages.get(name).is_some_and(|base| !base.replaced));
            all.extend(base.map(|name| format!("the base's `{name}`")));
        }
        all
    }
}

fn is_obsoleted(package: &Package, dependency: &Dependency) -> bool {
    package.name == dependency.name
        && overlaps(Some(&(Relation::Equal, package.evr.clone())), dependency.range.as_deref())
}
