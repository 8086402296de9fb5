//! What bootstrap makes the cluster hold: RBAC, the record, and the Secrets of bootstrap tokens.
//!
//! Several masters do it at the same time, in any order, and later again. They come to the same end because everything
//! that differs between them (the tokens each knows) is first brought together in the record, by compare and swap, and
//! RBAC is made from the record alone. A token's Secret is made once, before the record names the token: one that is spent,
//! expired or revoked is not made again by a host that still has it in a file.

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::ensure::{self, Difference};
use super::known::Moved;
use super::{Record, rbac, record};
use crate::host::Host;
use crate::kubeapi::Client;
use crate::pki::files::{self, Wanted};
use crate::pki::tokens::Tokens;
use crate::pki::{AuthorityName, Inspection};

/// How often RBAC is made again because another master registered tokens in between.
const ROUNDS: usize = 20;

/// What this host brings to it.
#[derive(Clone, Debug)]
pub struct Contribution {
    config: String,
    node: String,
    tokens: Tokens,
    /// Whether this host's kubelet has its certificate: its token is spent then.
    joined: bool,
    /// An address change that the record does not know yet.
    moved: Option<Moved>,
    now: Timestamp,
}

impl Contribution {
    /// `config` is the text of `cluster.toml` that this host is installed with.
    pub fn of(host: &Host, wanted: &Wanted, config: &str) -> Result<Self> {
        let node = wanted.subject.node.clone();
        let path = files::certificate_path(AuthorityName::Cluster.stem());
        let authority = host.read_text(&path)?.with_context(|| format!("`{}` does not exist", path.display()))?;
        let joined = files::joined(host, &node, &Inspection::of_pem(&authority)?, host.now())?;
        let (tokens, moved) = (files::known_tokens(host)?, Moved::read(host)?);
        Ok(Self { config: config.to_owned(), node, tokens, joined, moved, now: host.now() })
    }

    /// The record as this host wants it, `None` if it is so.
    pub(super) fn register(&self, found: Option<&Record>) -> Result<Option<Record>> {
        let live = || self.tokens.iter().filter(|(_, token)| token.expires > self.now);
        let tokens = live().map(|(node, token)| (token.id.clone(), node.to_owned())).collect();
        let ends = live().map(|(_, token)| (token.id.clone(), token.expires));
        let Some(found) = found else {
            let first = Record::next(None, &self.config, tokens)?;
            return Ok(first.map(|mut first| {
                first.note_ends(ends);
                first
            }));
        };
        let mut here = found.clone();
        if let Some(moved) = &self.moved {
            moved.apply(&mut here)?;
        }
        // Its config is for this host's address, and it has come so far: this host is where the record says.
        here.arrived(&self.node);
        let mut next = Record::next(Some(&here), &self.config, tokens)?.unwrap_or(here);
        next.note_ends(ends);
        if next == *found {
            return Ok(None);
        }
        next.forget_ended(self.now);
        Ok(Some(next))
    }

    /// The Secrets of tokens that the cluster does not know yet, and of this host's own until it has joined.
    pub(super) fn secrets(&self, found: Option<&Record>) -> Vec<Value> {
        let wanted = |node: &str, id: &String| {
            let Some(record) = found else { return node != self.node || !self.joined };
            let own = node == self.node && !self.joined;
            !record.revoked.contains(id) && (own || !record.tokens.contains_key(id))
        };
        let live = self.tokens.iter().filter(|(_, token)| token.expires > self.now);
        live.filter(|(node, token)| wanted(node, &token.id)).map(|(node, token)| token.object(node)).collect()
    }

    /// What [`Contribution::make`] would do. Reads only.
    pub fn differences(&self, client: &Client<'_>) -> Result<Vec<Difference>> {
        let found = Record::read(client)?;
        let next = self.register(found.as_ref())?;
        let mut objects = vec![namespace()];
        objects.extend(self.secrets(found.as_ref()));
        objects.extend(next.as_ref().or(found.as_ref()).iter().flat_map(|record| rbac::objects(record.tokens.keys())));
        let mut differences = ensure::missing(client, &objects)?;
        if next.is_some() {
            let verb = if found.is_none() { "create" } else { "update" };
            differences.push(Difference { verb, object: format!("ConfigMap {}", record::NAME) });
        }
        Ok(differences)
    }

    /// Makes it so, also while other masters do the same.
    pub fn make(&self, client: &Client<'_>) -> Result<()> {
        // The apiserver makes this namespace too, a little later than it becomes ready.
        ensure::ensure(client, &[namespace()])?;
        ensure::ensure(client, &self.secrets(Record::read(client)?.as_ref()))?;
        let mut record = Record::update(client, |found| self.register(found))?.context("the record is gone")?;
        for _ in 0..ROUNDS {
            ensure::ensure(client, &rbac::objects(record.tokens.keys()))?;
            // Another master may have registered a token, and may then have been overtaken by what was just written.
            let fresh = Record::read(client)?.context("the record is gone")?;
            if fresh.tokens == record.tokens {
                return Ok(());
            }
            record = fresh;
        }
        bail!("the tokens in the cluster's record changed {ROUNDS} times in a row")
    }
}

fn namespace() -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": rbac::SYSTEM } })
}
