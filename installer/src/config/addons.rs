//! `[addons]`: which addons of the bundle the cluster has.

use std::collections::BTreeSet;

use serde::Deserialize;

/// `[addons]` of `cluster.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Addons {
    /// Names of addons; all of the bundle but network plugins when absent.
    pub install: Option<BTreeSet<String>>,
}
