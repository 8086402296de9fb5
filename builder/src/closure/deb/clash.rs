//! What keeps packages apart.

use std::fmt;

use super::universe::Facts;
use bundle::debian_relation::Relation;

/// Why a package cannot be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Clash {
    /// Another version of it is chosen, or a newer one in the base.
    Version { name: String, wanted: String, there: String, chosen: bool },
    /// Two packages exclude each other.
    Exclusion { who: String, relation: String, breaks: bool, whom: String, in_base: bool },
    /// Its entry cannot be read.
    Broken { name: String, error: String },
    /// Sources disagree on it.
    Ambiguous { name: String, version: String },
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { name, wanted, there, chosen: true } => {
                write!(f, "`{name}` {wanted} does not go with its version {there}, which something else needs")
            }
            Self::Version { name, wanted, there, chosen: false } => {
                write!(f, "`{name}` {wanted} is older than {there} in the base")
            }
            Self::Exclusion { who, relation, breaks, whom, in_base } => {
                let verb = if *breaks { "breaks" } else { "conflicts with" };
                let place = if *in_base { " of the base" } else { "" };
                write!(f, "{who} {verb} `{relation}`: {whom}{place}")
            }
            Self::Broken { name, error } => write!(f, "the entry of `{name}` cannot be read: {error}"),
            Self::Ambiguous { name, version } => {
                write!(f, "two sources offer `{name}` {version} with different digests")
            }
        }
    }
}

/// Whether a package provides what a relation names.
pub(super) fn provides(facts: &Facts<'_>, relation: &Relation<'_>) -> bool {
    facts.provides.iter().any(|(name, version)| *name == relation.name && relation.allows_provided(*version))
}

/// The relation by which a package excludes another one, and whether it is `Breaks`.
pub(super) fn excludes<'f, 'a>(
    facts: &'f Facts<'a>,
    other: &str,
    version: &str,
    theirs: &Facts<'_>,
) -> Option<(&'f Relation<'a>, bool)> {
    let conflicts = facts.conflicts.iter().map(|relation| (relation, false));
    let mut all = conflicts.chain(facts.breaks.iter().map(|relation| (relation, true)));
    all.find(|(relation, _)| (relation.name == other && relation.allows(version)) || provides(theirs, relation))
}
