//! The record of the cluster: ConfigMap `kube-system/sealift-cluster`, the truth about the cluster after bootstrap.
//!
//! It holds the config's text, its generation (raised by every change), its digest, the digests of the configs it replaced,
//! and which bootstrap token was made for which node (token ids, which are not secret). Agent and approver read it and keep
//! the last copy on disk, so that they can work while no apiserver answers. A copy whose digest does not fit its text is
//! not believed. Everybody writes it through [`Record::update`] or [`Record::change`]: compare and swap, no update is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bundle::Digest;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::{ClusterConfig, Node};
use crate::host::Host;
use crate::kubeapi::Client;
use crate::report::Explain as _;

/// Name of the ConfigMap.
pub const NAME: &str = "sealift-cluster";
/// The apiserver's port on every master.
pub const APISERVER_PORT: u16 = 6443;
const COLLECTION: &str = "/api/v1/namespaces/kube-system/configmaps";
const PATH: &str = "/api/v1/namespaces/kube-system/configmaps/sealift-cluster";
/// Each conflict means that somebody else's write succeeded, so this many others would have to write in a row.
const TRIES: usize = 50;
/// Digests kept of former configs, the newest ones: a ConfigMap holds at most 1 MiB.
const REMEMBERED: usize = 1000;

/// How long ago a token must have ended to be forgotten: the clocks of hosts differ.
const LONG_AGO: SignedDuration = SignedDuration::from_hours(24);

/// What the ConfigMap holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The cluster config.
    pub config: ClusterConfig,
    /// Raised by every change of the config.
    pub generation: u64,
    /// Bootstrap token id → node.
    pub tokens: BTreeMap<String, String>,
    /// Ids of tokens that were withdrawn: a host that still knows one does not make it valid again.
    pub revoked: BTreeSet<String>,
    /// Masters whose address has changed in the config and not yet on the host: node → the address it leaves.
    pub moving: BTreeMap<String, IpAddr>,
    /// When tokens end, as far as whoever made them said so.
    ends: BTreeMap<String, Timestamp>,
    /// Digests of the configs of former generations, the newest last.
    history: Vec<Digest>,
    text: String,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(rename = "cluster.toml")]
    text: String,
    generation: String,
    digest: Digest,
    tokens: String,
    #[serde(default = "empty_list")]
    revoked: String,
    #[serde(default = "empty_list")]
    history: String,
    #[serde(default = "empty_object")]
    moving: String,
    #[serde(default = "empty_object", rename = "token-ends")]
    ends: String,
}

fn empty_list() -> String {
    "[]".to_owned()
}

fn empty_object() -> String {
    "{}".to_owned()
}

impl Record {
    /// The record of a config's text.
    pub fn new(text: &str, generation: u64, tokens: BTreeMap<String, String>) -> Result<Self> {
        let config = ClusterConfig::parse(text, Path::new("cluster.toml"))?;
        let (revoked, moving, ends, history) = Default::default();
        Ok(Self { config, generation, tokens, revoked, moving, ends, history, text: text.to_owned() })
    }

    /// The config's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the cluster had this config (by the digest of its text) before the present one.
    pub fn replaced(&self, config: Digest) -> bool {
        self.history.contains(&config)
    }

    /// Puts another config in the place of the present one: the next generation. Not for configs that people hand over;
    /// see [`Record::next`].
    pub fn set_config(&mut self, text: &str) -> Result<()> {
        let config = ClusterConfig::parse(text, Path::new("the changed cluster.toml"))?;
        if config.digest != self.config.digest {
            self.history.push(self.config.digest);
            self.history.retain(|digest| *digest != config.digest);
            let extra = self.history.len().saturating_sub(REMEMBERED);
            self.history.drain(..extra);
        }
        self.config = config;
        text.clone_into(&mut self.text);
        self.generation += 1;
        Ok(())
    }

    /// Where API servers may be found: every master's address, and those that masters are about to leave.
    pub fn api_servers(&self) -> Vec<SocketAddr> {
        let masters = self.config.masters().map(|master| master.address).chain(self.moving.values().copied());
        masters.map(|address| SocketAddr::new(address, APISERVER_PORT)).collect()
    }

    /// Withdraws a bootstrap token: its holder becomes nobody, and no master makes its Secret again.
    pub fn revoke(&mut self, token: &str) {
        self.tokens.remove(token);
        self.revoked.insert(token.to_owned());
    }

    /// Notes when tokens end.
    pub fn note_ends(&mut self, ends: impl IntoIterator<Item = (String, Timestamp)>) {
        self.ends.extend(ends.into_iter().filter(|(id, _)| self.tokens.contains_key(id)));
    }

    /// Forgets tokens that ended long ago, spent and revoked ones too: nothing makes them valid again. For those who write
    /// the record anyway.
    pub fn forget_ended(&mut self, now: Timestamp) {
        let over: Vec<String> =
            self.ends.iter().filter(|(_, end)| **end + LONG_AGO < now).map(|(id, _)| id.clone()).collect();
        for id in over {
            self.tokens.remove(&id);
            self.revoked.remove(&id);
            self.ends.remove(&id);
        }
    }

    /// The ids of a node's bootstrap tokens.
    pub fn tokens_of(&self, node: &str) -> Vec<String> {
        self.tokens.iter().filter(|(_, owner)| *owner == node).map(|(id, _)| id.clone()).collect()
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
        fn json(value: &impl Serialize) -> Result<String> {
            serde_json::to_string(value).context("writing the cluster record")
        }
        Ok(Stored {
            text: self.text.clone(),
            generation: self.generation.to_string(),
            digest: Digest::of(self.text.as_bytes()),
            tokens: json(&self.tokens)?,
            revoked: json(&self.revoked)?,
            history: json(&self.history)?,
            moving: json(&self.moving)?,
            ends: json(&self.ends)?,
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
        let mut record = Self::new(&stored.text, generation, tokens)?;
        record.revoked =
            serde_json::from_str(&stored.revoked).context("reading the cluster record's revoked tokens")?;
        record.history = serde_json::from_str(&stored.history).context("reading the cluster record's history")?;
        record.moving = serde_json::from_str(&stored.moving).context("reading the cluster record's moving nodes")?;
        record.ends = serde_json::from_str(&stored.ends).context("reading the ends of the cluster record's tokens")?;
        Ok(record)
    }

    fn of_object(object: &Value) -> Result<Self> {
        Self::of_data(object.get("data").cloned().unwrap_or_default())
    }

    /// Reads the ConfigMap; `None` if the cluster has none yet.
    pub fn read(client: &Client<'_>) -> Result<Option<Self>> {
        client.find(PATH)?.as_ref().map(Self::of_object).transpose()
    }

    /// Decides what the ConfigMap shall hold, given what it holds, and writes it only if nobody changed it in between;
    /// otherwise everything is decided again. `None` leaves it as it is. Gives what the cluster holds afterwards.
    pub fn update(
        client: &Client<'_>,
        mut decide: impl FnMut(Option<&Self>) -> Result<Option<Self>>,
    ) -> Result<Option<Self>> {
        for _ in 0..TRIES {
            let mut object = client.find(PATH)?;
            let found = object.as_ref().map(Self::of_object).transpose()?;
            let Some(next) = decide(found.as_ref())? else { return Ok(found) };
            let written = match &mut object {
                None => client.post(COLLECTION, &next.object()?),
                Some(object) => {
                    // With the resourceVersion that was read: the apiserver refuses if it is no longer the newest.
                    object["data"] = serde_json::to_value(next.stored()?).context("writing the cluster record")?;
                    client.put(PATH, object)
                }
            };
            match written {
                Ok(_) => return Ok(Some(next)),
                Err(error) if error.code() == Some(409) => {}
                Err(error) if error.code() == Some(404) && object.is_some() => {}
                Err(error) => return Err(anyhow::Error::new(error).context("writing the cluster's record")),
            }
        }
        bail!("the cluster's record was changed by others {TRIES} times in a row while this program tried to change it")
    }

    /// Changes the record that the cluster holds. `edit` may run several times, each time on the newest record; what it
    /// leaves as it was is not written. Gives the record as it is afterwards.
    pub fn change(client: &Client<'_>, mut edit: impl FnMut(&mut Self) -> Result<()>) -> Result<Self> {
        let after = Self::update(client, |found| {
            let found = found.context("the cluster has no record yet: its first master is not up")?;
            let mut next = found.clone();
            edit(&mut next)?;
            Ok((next != *found).then_some(next))
        })?;
        after.context("the cluster has no record yet: its first master is not up")
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
    /// Tokens of other nodes are kept; other comments or another layout of the same config are no change.
    pub fn next(found: Option<&Self>, text: &str, tokens: BTreeMap<String, String>) -> Result<Option<Self>> {
        let Some(found) = found else { return Self::new(text, 1, tokens).map(Some) };
        let mut next = found.clone();
        next.tokens.extend(tokens.into_iter().filter(|(id, _)| !found.revoked.contains(id)));
        if found.accepts(text)? {
            next.set_config(text)?;
        }
        Ok((next != *found).then_some(next))
    }

    /// Whether a config that somebody hands over changes this cluster; refuses one that is older than the cluster's, that
    /// changes what can never change (name, domain, networks), or that changes or lacks a node: an old copy of the config
    /// must not make others forget one. New nodes and other settings are welcome.
    pub fn accepts(&self, text: &str) -> Result<bool> {
        let mut given = ClusterConfig::parse(text, Path::new("cluster.toml"))?;
        let digest = std::mem::replace(&mut given.digest, self.config.digest);
        if given == self.config {
            return Ok(false);
        }
        let generation = self.generation;
        if self.replaced(digest) {
            return Err(anyhow!("the config is older than the cluster's, which is at generation {generation}")).hint(
                "leave `--config` out to use the cluster's own (`installer config show`), or change that one; a run that \
                 began with the older one goes on with `installer refresh`",
            );
        }
        immutable(&self.config, &given)?;
        for node in &self.config.nodes {
            same_node(node, given.nodes.iter().find(|other| other.name == node.name), generation)?;
        }
        Ok(true)
    }
}

fn immutable(held: &ClusterConfig, given: &ClusterConfig) -> Result<()> {
    let (is, asked) = (&held.cluster, &given.cluster);
    for (key, is, asked) in [
        ("name", &is.name, &asked.name),
        ("domain", &is.domain, &asked.domain),
        ("service_cidr", &is.service_cidr.to_string(), &asked.service_cidr.to_string()),
        ("pod_cidr", &is.pod_cidr.to_string(), &asked.pod_cidr.to_string()),
    ] {
        if is != asked {
            return Err(anyhow!("the cluster that runs here has {key} `{is}`, the config says `{asked}`")).hint(
                "name, domain and networks of a cluster can never change; is this the config of another cluster?",
            );
        }
    }
    Ok(())
}

fn same_node(held: &Node, given: Option<&Node>, generation: u64) -> Result<()> {
    let name = &held.name;
    let Some(given) = given else {
        return Err(anyhow!("the config lacks node `{name}`, which the cluster has (generation {generation})"))
            .hint(format!("begin with the cluster's config (`installer config show`); to take the node out, run `installer node remove {name}` on a master"));
    };
    if given.address != held.address {
        return Err(anyhow!("node `{name}` has the address {}, the config says {}", held.address, given.address)).hint(
            format!("tell the cluster first: `installer node set-address {name} {}` on a master", given.address),
        );
    }
    if given.roles != held.roles {
        return Err(anyhow!("node `{name}` has the roles {}, the config says {}", held.roles, given.roles))
            .hint(format!("roles do not change on a running node: `installer node remove {name}`, then `installer node add {name} --address {} --role {}`, both on a master", given.address, given.roles));
    }
    Ok(())
}
