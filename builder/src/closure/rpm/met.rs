//! Whether a requirement is met by what is chosen and by the base.

use std::collections::BTreeSet;

use super::expression::Expression;
use super::solver::Solver;
use crate::source::rpm_md::Dependency;

impl Solver<'_, '_> {
    /// Whether what is chosen and the base meet a requirement; `without` one chosen package.
    pub(super) fn is_met(&self, expression: &Expression, without: Option<usize>) -> bool {
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
}
