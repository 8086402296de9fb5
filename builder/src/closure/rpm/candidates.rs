//! Which packages on offer can meet a requirement, and which of them is taken.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::expression::Expression;
use super::solver::{Solver, is_installed_beside_others};

impl Solver<'_, '_> {
    /// Packages that can meet a requirement that one package has to meet; where none does, the file lists are asked, too.
    pub(super) fn candidates_or_files(&mut self, expression: &Expression) -> anyhow::Result<BTreeSet<usize>> {
        let candidates = self.candidates(expression);
        let asks_for_file = || expression.plain().iter().any(|plain| plain.name.starts_with('/'));
        if candidates.is_empty() && asks_for_file() && self.universe.complete_files(self.owners)? {
            return Ok(self.candidates(expression));
        }
        Ok(candidates)
    }

    pub(super) fn candidates(&self, expression: &Expression) -> BTreeSet<usize> {
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

    pub(super) fn can_be_met(&mut self, expression: &Expression) -> anyhow::Result<bool> {
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
    pub(super) fn best(&self, expression: &Expression, candidates: BTreeSet<usize>) -> Option<usize> {
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

    pub(super) fn chosen_named(&self, name: &str) -> Option<usize> {
        self.universe.named(name).iter().copied().find(|at| self.chosen.contains_key(at))
    }
}
