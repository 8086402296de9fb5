//! What stands in the way of a closure: everything at once, each with the chain that leads to it.

use std::collections::BTreeSet;

use super::Request;
use super::requirement::{Requirement, Root, Why};
use super::solver::Solver;
use super::universe::Universe;
use bundle::debian_relation::shown;

/// Walks on over every obstacle and names it.
pub(super) fn problems<'a>(
    universe: &Universe<'a>,
    request: &Request<'a>,
    roots: &[Root<'a>],
) -> anyhow::Result<Vec<String>> {
    let mut solver = Solver::new(universe, request, roots)?;
    solver.clashes = Some(Vec::new());
    let mut problems: Vec<String> = Vec::new();
    while let Some(at) = solver.next() {
        let mut refused = Vec::new();
        let options = solver.options(at);
        let chosen = options.iter().any(|number| match solver.choose(*number, at) {
            Ok(()) => true,
            Err(clash) => {
                refused.push(clash.to_string());
                false
            }
        });
        if chosen {
            continue;
        }
        let requirement = solver.agenda[at].clone();
        solver.pass();
        if requirement.why == Why::Recommends {
            continue;
        }
        let reason = match refused.first() {
            Some(reason) => reason.clone(),
            None => on_offer(universe, &solver, &requirement),
        };
        problems.push(format!("`{}` {}: {reason}", shown(&requirement.group), chain(&solver, &requirement)));
    }
    let clashes = solver.clashes.take().unwrap_or_default();
    problems.extend(clashes.iter().map(ToString::to_string));
    let mut seen = BTreeSet::new();
    problems.retain(|problem| seen.insert(problem.clone()));
    Ok(problems)
}

/// What there is of the names of a requirement.
fn on_offer(universe: &Universe<'_>, solver: &Solver<'_, '_>, requirement: &Requirement<'_>) -> String {
    let mut offers: Vec<String> = Vec::new();
    for relation in &requirement.group {
        let name = relation.name;
        let real = universe.named(name).map(|number| format!("`{name}` {}", universe.shown(number)));
        let provided = universe.providing(name).iter().map(|number| {
            format!("`{}` {}, which provides it", universe.get(*number).package.name, universe.shown(*number))
        });
        offers.extend(real.chain(provided).take(4));
        if let Some(present) = solver.present.get(name).filter(|present| !present.chosen) {
            let version = if present.version.is_empty() { "any version" } else { present.version };
            offers.push(format!("`{name}` {version} in the base"));
        }
    }
    if offers.is_empty() {
        "nothing of that name is on offer".to_owned()
    } else {
        format!("on offer is {}", offers.join(", "))
    }
}

/// Who needs it, and who needs that.
fn chain(solver: &Solver<'_, '_>, requirement: &Requirement<'_>) -> String {
    let Some(mut name) = requirement.needed_by else { return "was asked for".to_owned() };
    let mut names = vec![name];
    while let Some(next) = solver.present.get(name).and_then(|present| present.needed_by)
        && !names.contains(&next)
    {
        names.push(next);
        name = next;
    }
    names.reverse();
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    let verb = match requirement.why {
        Why::PreDepends => "must be there before",
        Why::Renewal => "must come with",
        _ => "is needed by",
    };
    format!("{verb} {}", names.join(" → "))
}
