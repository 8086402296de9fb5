//! The order in which dpkg can take the members of a closure.
//!
//! dpkg unpacks all it is given and configures afterwards, in an order of its own; only what a `Pre-Depends` names must be
//! configured before its dependent is unpacked (policy 7.2).

use std::collections::{BTreeMap, BTreeSet};

use super::Member;
use super::clash::provides;
use super::requirement::Present;
use super::universe::Universe;
use crate::failure::Failure;
use bundle::debian_relation::Group;

/// No closure has more packages (a whole desktop has 3000).
const MEMBERS_LIMIT: usize = 10_000;

type Chosen<'a> = BTreeMap<&'a str, (Present<'a>, Option<&'a str>)>;

/// Members that members need, by name.
#[derive(Debug, Default)]
struct Edges<'a> {
    before: BTreeMap<&'a str, BTreeSet<&'a str>>,
    beside: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

/// Sorts what was chosen: by stage, and within one so that what is needed comes first where that is possible.
pub(super) fn order<'a>(universe: &Universe<'a>, chosen: &Chosen<'a>) -> anyhow::Result<Vec<Member<'a>>> {
    if chosen.len() > MEMBERS_LIMIT {
        let text = format!("{} packages belong together, at most {MEMBERS_LIMIT} are taken", chosen.len());
        return Err(Failure::new(text).into());
    }
    let mut edges = Edges::default();
    for (name, (present, _)) in chosen {
        let Some(number) = present.number else { continue };
        let facts = universe.facts(number);
        edges.before.insert(name, meeting(universe, chosen, &facts.pre_depends));
        edges.beside.insert(name, meeting(universe, chosen, &facts.depends));
    }
    let stages = stages(&edges)?;
    let mut names = Vec::new();
    let mut seen = BTreeSet::new();
    for name in chosen.keys() {
        visit(name, &edges, &mut seen, &mut names);
    }
    let mut members = Vec::new();
    for name in names {
        let Some((present, renews)) = chosen.get(name) else { continue };
        let Some(number) = present.number else { continue };
        let candidate = universe.get(number);
        let stage = stages.get(name).copied().unwrap_or(0);
        let (package, index, needed_by) = (candidate.package, candidate.index, present.needed_by);
        members.push(Member { package, index, needed_by, renews: *renews, stage });
    }
    members.sort_by_key(|member| member.stage);
    Ok(members)
}

/// The chosen packages that meet these relations.
fn meeting<'a>(universe: &Universe<'a>, chosen: &Chosen<'a>, groups: &[Group<'a>]) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for relation in groups.iter().flatten() {
        for (name, (present, _)) in chosen {
            let real = *name == relation.name && relation.allows(present.version);
            if real || present.number.is_some_and(|number| provides(universe.facts(number), relation)) {
                names.insert(*name);
            }
        }
    }
    names
}

/// What must be configured before comes with all it needs; what is needed beside comes next.
fn visit<'a>(name: &'a str, edges: &Edges<'a>, seen: &mut BTreeSet<&'a str>, names: &mut Vec<&'a str>) {
    // Not by recursion: an index decides how long a chain is. The last one is done first; `true`: all before it is done.
    let mut agenda = vec![(name, false)];
    while let Some((name, is_ready)) = agenda.pop() {
        if is_ready {
            names.push(name);
        } else if seen.insert(name) {
            let needed = |edges: &BTreeMap<&'a str, BTreeSet<&'a str>>| {
                edges.get(name).into_iter().flatten().rev().map(|name| (*name, false)).collect::<Vec<_>>()
            };
            agenda.extend(needed(&edges.beside));
            agenda.push((name, true));
            agenda.extend(needed(&edges.before));
        }
    }
}

/// The stage of each member: later than what must be configured before, not earlier than what it needs beside.
fn stages<'a>(edges: &Edges<'a>) -> anyhow::Result<BTreeMap<&'a str, usize>> {
    let mut stages: BTreeMap<&str, usize> = edges.before.keys().map(|name| (*name, 0)).collect();
    for _ in 0..=edges.before.len() {
        let mut changed = false;
        for name in edges.before.keys() {
            let at = |name: &&str| stages.get(name).copied().unwrap_or(0);
            let before = edges.before.get(name).into_iter().flatten().map(|before| at(before) + 1);
            let beside = edges.beside.get(name).into_iter().flatten().map(at);
            let stage = before.chain(beside).max().unwrap_or(0);
            if stage > at(name) {
                stages.insert(name, stage);
                changed = true;
            }
        }
        if !changed {
            return Ok(stages);
        }
    }
    Err(Failure::new("packages must be configured before each other: dpkg cannot install them").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_chain_does_not_take_the_stack() {
        let all: Vec<String> = (0..200_000).map(|number| format!("p{number:06}")).collect();
        let mut edges = Edges::default();
        for pair in all.windows(2) {
            edges.before.insert(&pair[0], BTreeSet::from([pair[1].as_str()]));
        }
        let (mut seen, mut names) = (BTreeSet::new(), Vec::new());
        visit(&all[0], &edges, &mut seen, &mut names);
        assert!(names.iter().rev().eq(&all));
    }
}
