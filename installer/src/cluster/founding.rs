//! What was decided once, when the cluster was founded: its random id, etcd's cluster token and the founding members.
//!
//! It is made with the cluster's secrets, travels in join files and stays on every host. The id tells two clusters apart
//! that were founded from the same config.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::host::Host;

/// Where it is, mode 0600.
pub const PATH: &str = "/etc/sealift/secrets/founding.json";

/// The founding of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

impl Founding {
    /// What this host knows of it; `None` on a host that has not been given it yet.
    pub fn read(host: &Host) -> Result<Option<Self>> {
        let Some(text) = host.read_text(Path::new(PATH))? else { return Ok(None) };
        serde_json::from_str(&text).with_context(|| format!("reading `{PATH}`")).map(Some)
    }
}
