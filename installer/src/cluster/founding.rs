//! What was decided once, when the cluster was founded: its random id, etcd's cluster token and the founding members.
//!
//! It is made with the cluster's secrets, travels in join files and stays on every host. The id tells two clusters apart
//! that were founded from the same config.

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::config::{ClusterConfig, Node};
use crate::host::Host;
use crate::pki::{Secret, random};

/// Where it is, mode 0600.
pub const PATH: &str = "/etc/sealift/secrets/founding.json";

/// The founding of a cluster.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Founding {
    /// Random, 32 hexadecimal digits.
    pub id: String,
    /// etcd's `initial-cluster-token`, random; known to etcd members only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd_token: Option<String>,
    /// The etcd members that bootstrap together; everybody else joins as a learner. Known to etcd members only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub founders: Vec<Founder>,
    /// This host founded the cluster by itself, without a join file: as long as it has issued no certificate, it may make the
    /// secrets that are still missing (a crash in between). Never in a join file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub made_here: bool,
}

/// A founding member of etcd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Founder {
    /// Node name.
    pub name: String,
    /// Its address then.
    pub address: IpAddr,
}

impl fmt::Debug for Founding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Founding").field("id", &self.id).field("founders", &self.founders).finish_non_exhaustive()
    }
}

impl Founding {
    /// Founds a cluster: a random id and token, and these members.
    pub fn create<'a>(founders: impl IntoIterator<Item = &'a Node>, made_here: bool) -> Result<Self> {
        let founder = |node: &Node| Founder { name: node.name.clone(), address: node.address };
        Ok(Self {
            id: hexadecimal()?,
            etcd_token: Some(hexadecimal()?),
            founders: founders.into_iter().map(founder).collect(),
            made_here,
        })
    }

    /// What of it a node may know: etcd's token and the founding members only if it runs a member.
    #[must_use]
    pub fn for_node(&self, etcd: bool) -> Self {
        let Self { id, etcd_token, founders, .. } = self.clone();
        if etcd {
            return Self { id, etcd_token, founders, made_here: false };
        }
        Self { id, etcd_token: None, founders: Vec::new(), made_here: false }
    }

    /// The text of its file.
    pub fn write(&self) -> Result<Secret> {
        let text = serde_json::to_string_pretty(self).with_context(|| format!("writing `{PATH}`"))?;
        Ok(Secret::new(text + "\n"))
    }

    /// What this host knows of it; `None` on a host that has not been given it yet.
    pub fn read(host: &Host) -> Result<Option<Self>> {
        let Some(text) = host.read_text(Path::new(PATH))? else { return Ok(None) };
        serde_json::from_str(&text).with_context(|| format!("reading `{PATH}`")).map(Some)
    }
}

/// Whether a node may found a cluster by itself: the first master of the config, or the one that the operator said
/// `--init` on, if it is an etcd member.
pub fn may_found(config: &ClusterConfig, node: &Node, init: bool) -> bool {
    let first = config.masters().next().is_some_and(|master| master.name == node.name);
    node.roles.master() && config.runs_etcd(node) && (first || init)
}

fn hexadecimal() -> Result<String> {
    let mut text = String::with_capacity(32);
    for byte in random::<16>()? {
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}
