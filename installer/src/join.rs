//! Join files: what a host needs to become a node, and no more.
//!
//! A join file is age-encrypted JSON ([`Join`]). It says for which node of which cluster it is, until when, and holds the
//! files that this node cannot make itself, by their paths on the host; which these are depends on its roles
//! (KUBERNETES.md, "Join files"). Everything else is made on the host.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use jiff::Timestamp;

use crate::cli::joining::JoinSource;
use crate::cluster::founding::Founding;
use crate::host::Host;
use crate::pki::Secret;

/// An opened join file.
#[derive(Clone, Debug)]
pub struct Join {
    /// The cluster.
    pub founding: Founding,
    /// The node of the config that may use it.
    pub node: String,
    /// From then on it is refused.
    pub expires: Timestamp,
    /// Generation of the config in it.
    pub generation: u64,
    /// Text of the cluster's `cluster.toml` when it was made.
    pub config: String,
    /// Path on the host → content.
    pub files: BTreeMap<String, Secret>,
}

/// Opens the join file that the command line names, if it names one.
pub fn open(_host: &Host, source: &JoinSource) -> Result<Option<Join>> {
    match source.join {
        None => Ok(None),
        Some(_) => bail!("not there yet"),
    }
}
