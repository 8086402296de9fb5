//! What a closure must meet, and what meets it.

use crate::failure::Failure;
use bundle::debian_relation::{Group, Operator, Relation, parse_list};

/// What was asked for.
#[derive(Clone, Debug)]
pub(super) struct Root<'a> {
    pub(super) relation: Relation<'a>,
    pub(super) suite: Option<&'a str>,
}

/// Reads `NAME`, `NAME=VERSION` or `NAME/SUITE`.
pub(super) fn root(text: &str) -> anyhow::Result<Root<'_>> {
    let wrong = || Failure::usage(format!("`{text}` is no package: expected NAME, NAME=VERSION or NAME/SUITE"));
    let (name, version, suite) = match (text.split_once('='), text.split_once('/')) {
        (Some((name, version)), None) => (name, Some(version), None),
        (None, Some((name, suite))) => (name, None, Some(suite)),
        (None, None) => (text, None, None),
        _ => return Err(wrong().into()),
    };
    match &parse_list(name).map_err(|_| wrong())?[..] {
        [relation] if relation.bound.is_none() && relation.name == name && version != Some("") => {
            let bound = version.map(|version| (Operator::Equal, version));
            Ok(Root { relation: Relation { bound, ..relation.clone() }, suite })
        }
        _ => Err(wrong().into()),
    }
}

/// Something that must hold.
#[derive(Clone, Debug)]
pub(super) struct Requirement<'a> {
    pub(super) group: Group<'a>,
    /// The package that needs it; `None` for what was asked for.
    pub(super) needed_by: Option<&'a str>,
    pub(super) why: Why,
    pub(super) suite: Option<&'a str>,
}

/// Why something must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Asked,
    PreDepends,
    Depends,
    Recommends,
    /// A package of the base does not go with a newer or another package.
    Renewal,
}

/// A package that is there: in the base or chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Present<'a> {
    pub(super) version: &'a str,
    /// The candidate, or for the base the one that is most like it.
    pub(super) number: Option<usize>,
    pub(super) chosen: bool,
    pub(super) needed_by: Option<&'a str>,
}
