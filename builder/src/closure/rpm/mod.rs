//! The closure of RPM packages: what has to be installed beside a base so that the packages asked for work.
//!
//! A requirement is met by what is chosen already, then by the base; else a package is chosen: not one that conflicts with
//! the rest, or that another on offer makes obsolete, if there is a choice; then the one whose name is the requirement's,
//! then the highest version, then the first by name. Requirements that only packages of one name meet are followed first.
//! Weak dependencies (`Recommends`, `Supplements`) are left out. A package of the base that is too old is replaced by a
//! newer one, and what in the base depended on exactly the old one follows. No search goes back on a choice: whatever
//! contradicts itself at the end is reported, all of it.

mod candidates;
mod conflicts;
mod expression;
mod met;
mod report;
mod solver;
mod target;
#[cfg(test)]
mod tests;
mod universe;

use std::collections::BTreeSet;

use bundle::Architecture;

use self::solver::Solver;
use crate::base::Base;
use crate::failure::Failure;
use crate::source::rpm_md::Package;

pub use self::universe::Owners;

/// A package of the closure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its position among the packages on offer.
    pub package: usize,
    /// The package that needs it; `None` if it was asked for.
    pub needed_by: Option<String>,
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
    let mut solver = Solver::new(packages, base, architecture, owners);
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
