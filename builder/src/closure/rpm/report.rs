//! What does not work out, and why.

use std::collections::BTreeSet;

use super::expression::Expression;
use super::solver::Solver;
use crate::source::rpm_md::Dependency;

impl Solver<'_, '_> {
    /// Notes what is not met although its turn came: a later choice has undone it. To be called at the end.
    pub(super) fn report_unmet(&mut self) {
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
    pub(super) fn cannot_meet(&mut self, expression: &Expression, package: usize) {
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
    pub(super) fn problem(&mut self, package: usize, text: &str) {
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
