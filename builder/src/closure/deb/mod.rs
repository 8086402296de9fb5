//! Closures of Debian packages: what `dpkg -i` must be given, beside what targets have, so that nothing is missing.
//!
//! The rules are those of the Debian policy, chapter 7, and the choices those of apt: the highest version in the allowed
//! suites; of alternatives what is chosen or in the base already, else the first that can be installed. Unlike apt this
//! searches on when a choice turns out to be impossible, and says everything that is wrong when there is no way.

mod clash;
mod order;
mod report;
mod requirement;
mod solver;
mod universe;

use std::collections::BTreeMap;

use crate::failure::Failure;
use crate::source::apt::Package;

pub use bundle::debian_relation::{Group, Operator, Relation, parse_groups, parse_list, shown};
pub use universe::{Candidate, Universe};

use solver::Solver;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `NAME`, `NAME=VERSION` or `NAME/SUITE`.
    pub install: &'a [String],
    /// Packages that targets have, and their lowest versions.
    pub base: &'a BTreeMap<String, String>,
    /// What packages of the base provide, by name, as far as the base states it.
    pub provides: &'a BTreeMap<String, String>,
    /// Whether to bring what is recommended, too, as far as that is possible.
    pub recommends: bool,
}

/// One package of a closure.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// The package.
    pub package: &'a Package,
    /// Number of the index that lists it.
    pub index: usize,
    /// The package that needs it; `None` if it was asked for.
    pub needed_by: Option<&'a str>,
    /// The version in the base that is too old.
    pub renews: Option<&'a str>,
    /// Members of one stage can be given to dpkg at once when all earlier stages are configured. More than one stage is
    /// rare: it takes a `Pre-Depends` between members.
    pub stage: usize,
}

/// A closure: installed on the base, all dependencies hold.
#[derive(Clone, Debug)]
pub struct Closure<'a> {
    /// What a `Pre-Depends` needs comes before what has it.
    pub members: Vec<Member<'a>>,
}

/// Computes the closure, or says all that stands in its way.
pub fn resolve<'a>(universe: &Universe<'a>, request: &Request<'a>) -> anyhow::Result<Closure<'a>> {
    let roots = request.install.iter().map(|text| requirement::root(text)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut solver = Solver::new(universe, request, &roots)?;
    match solver.search() {
        Ok(()) => Ok(Closure { members: order::order(universe, &solver.chosen())? }),
        Err(gave_up) => {
            let problems = report::problems(universe, request, &roots)?;
            let mut text = match problems[..] {
                [] if gave_up => "no way was found to install them on the base; too many were tried".to_owned(),
                [] => "there is no way to install them on the base".to_owned(),
                _ => "they cannot be installed on the base:".to_owned(),
            };
            for problem in problems {
                text.push_str("\n    ");
                text.push_str(&problem);
            }
            Err(Failure::new(text)
                .hint("name a suite that has what is missing, take another package, or correct the base if targets have more")
                .into())
        }
    }
}

#[cfg(test)]
mod tests;
