//! The record of the cluster: ConfigMap `kube-system/sealift-cluster`, the truth about the cluster after bootstrap.
//!
//! It holds the config's text, its generation (raised by every change), its digest, and which bootstrap token was made
//! for which node (token ids, which are not secret). Agent and approver read it and keep the last copy on disk, so that
//! they can work while no apiserver answers. A copy whose digest does not fit its text is not believed.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use bundle::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::ClusterConfig;
use crate::host::Host;
use crate::kubeapi::Client;
use crate::report::Explain as _;

/// Name of the ConfigMap.
pub const NAME: &str = "sealift-cluster";
const PATH: &str = "/api/v1/namespaces/kube-system/configmaps/sealift-cluster";

/// What the ConfigMap holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The cluster config.
    pub config: ClusterConfig,
    /// Raised by every change of the config.
    pub generation: u64,
    /// Bootstrap token id → node.
    pub tokens: BTreeMap<String, String>,
    text: String,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(rename = "cluster.toml")]
    text: String,
    generation: String,
    digest: Digest,
    tokens: String,
}

impl Record {
    /// The record of a config's text.
    pub fn new(text: &str, generation: u64, tokens: BTreeMap<String, String>) -> Result<Self> {
        let config = ClusterConfig::parse(text, Path::new("cluster.toml"))?;
        Ok(Self { config, generation, tokens, text: text.to_owned() })
    }

    /// The config's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The ConfigMap object.
    pub fn object(&self) -> Result<Value> {
        let data = serde_json::to_value(self.stored()?).context("writing the cluster record")?;
        Ok(json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": NAME, "namespace": "kube-system" },
            "data": data,
        }))
    }

    fn stored(&self) -> Result<Stored> {
        Ok(Stored {
            text: self.text.clone(),
            generation: self.generation.to_string(),
            digest: Digest::of(self.text.as_bytes()),
            tokens: serde_json::to_string(&self.tokens).context("writing the cluster record")?,
        })
    }

    fn of_data(data: Value) -> Result<Self> {
        let stored: Stored = serde_json::from_value(data).context("reading the cluster record")?;
        ensure!(
            stored.digest == Digest::of(stored.text.as_bytes()),
            "the cluster record's digest does not fit its config"
        );
        let generation = stored.generation.parse().context("reading the cluster record's generation")?;
        let tokens = serde_json::from_str(&stored.tokens).context("reading the cluster record's tokens")?;
        Self::new(&stored.text, generation, tokens)
    }

    /// Reads the ConfigMap; `None` if the cluster has none yet.
    pub fn read(client: &Client<'_>) -> Result<Option<Self>> {
        let Some(object) = client.find(PATH)? else { return Ok(None) };
        let data = object.get("data").cloned().unwrap_or_default();
        Ok(Some(Self::of_data(data)?))
    }

    /// The copy on disk, if there is one.
    pub fn cached(host: &Host, path: &Path) -> Result<Option<Self>> {
        let Some(text) = host.read_text(path)? else { return Ok(None) };
        let data = serde_json::from_str(&text).with_context(|| format!("reading `{}`", path.display()))?;
        Ok(Some(Self::of_data(data)?))
    }

    /// Keeps a copy on disk; writes only when it differs.
    pub fn keep(&self, host: &Host, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.stored()?).context("writing the cluster record")? + "\n";
        if host.has(path, text.as_bytes(), 0o600)? {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            host.create_dir(parent, 0o700)?;
        }
        host.write(path, text.as_bytes(), 0o600)
    }

    /// The record that a run with this config has to write, given what the cluster holds; `None` if nothing changes.
    /// What can never change (name, domain, networks) is refused, and so is a config that lacks nodes of the cluster: an
    /// old copy of it must not make others forget them. Tokens of other nodes are kept. Other comments or another layout
    /// of the same config are no change.
    pub fn next(found: Option<&Self>, text: &str, tokens: BTreeMap<String, String>) -> Result<Option<Self>> {
        let Some(found) = found else { return Self::new(text, 1, tokens).map(Some) };
        let mut next = Self::new(text, found.generation, found.tokens.clone())?;
        next.tokens.extend(tokens);
        ensure!(
            next.config.cluster == found.config.cluster,
            "the config names another cluster (name, domain or networks) than the one that runs here"
        );
        let has = |name: &str| next.config.nodes.iter().any(|node| node.name == name);
        let missing: Vec<&str> =
            found.config.nodes.iter().map(|node| node.name.as_str()).filter(|name| !has(name)).collect();
        if !missing.is_empty() {
            return Err(anyhow!("the config lacks nodes that the cluster has: {}", missing.join(", "))
                .hint("use the cluster's current config; a run of the installer does not remove nodes"));
        }
        next.config.digest = found.config.digest;
        if next.config == found.config {
            next.text.clone_from(&found.text);
        } else {
            next.config.digest = Digest::of(text.as_bytes());
            next.generation += 1;
        }
        Ok((next != *found).then_some(next))
    }
}
