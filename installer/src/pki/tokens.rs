//! Bootstrap tokens: one per node, for its kubelet's first certificate request and nothing else.
//!
//! A token only authenticates; whether its holder becomes the node it names is decided by the approver, which knows
//! which token was made for which node. Tokens expire absolutely and are deleted after the node's first serving
//! certificate.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Secret, random};

/// The group of all our bootstrap tokens.
pub const GROUP: &str = "system:bootstrappers:sealift";
/// How long a token made during an install lasts.
pub const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// A token that ends sooner is replaced: the join may take a while.
pub const MARGIN: Duration = Duration::from_secs(3600);

/// A bootstrap token.
#[derive(Clone, Debug)]
pub struct Token {
    /// The public half: six characters.
    pub id: String,
    secret: Secret,
    /// When it ends.
    pub expires: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredToken {
    token: String,
    expires: Timestamp,
}

impl Token {
    /// Makes a token.
    pub fn create(now: Timestamp, lifetime: Duration) -> Result<Self> {
        // Whole seconds: the apiserver's format has no more, and the value is compared.
        let expires = Timestamp::from_second((now + lifetime).as_second()).context("computing a token's expiry")?;
        Ok(Self { id: characters::<6>()?, secret: Secret::new(characters::<16>()?), expires })
    }

    /// `id.secret`, as the kubelet sends it.
    pub fn text(&self) -> Secret {
        Secret::new(format!("{}.{}", self.id, self.secret.expose()))
    }

    fn parse(text: &str, expires: Timestamp) -> Result<Self> {
        let (id, secret) = text.split_once('.').context("a bootstrap token has the form `id.secret`")?;
        let good = |part: &str, length| {
            part.len() == length && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        anyhow::ensure!(good(id, 6) && good(secret, 16), "a bootstrap token is 6 and 16 of `a-z0-9`");
        Ok(Self { id: id.to_owned(), secret: Secret::new(secret.to_owned()), expires })
    }

    /// The name of its Secret object in `kube-system`.
    pub fn object_name(&self) -> String {
        object_name(&self.id)
    }

    /// The Secret object that makes the apiserver accept it.
    pub fn object(&self, node: &str) -> Value {
        // `data`, not `stringData`: what is read back can then be compared.
        let data = |text: &str| STANDARD.encode(text);
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": self.object_name(), "namespace": "kube-system" },
            "type": "bootstrap.kubernetes.io/token",
            "data": {
                "description": data(&format!("Sealift: first certificate of node {node}")),
                "token-id": data(&self.id),
                "token-secret": data(self.secret.expose()),
                "expiration": data(&self.expires.to_string()),
                "usage-bootstrap-authentication": data("true"),
                "auth-extra-groups": data(GROUP),
            },
        })
    }
}

/// The name of a token's Secret object in `kube-system`.
pub fn object_name(id: &str) -> String {
    format!("bootstrap-token-{id}")
}

/// The path of a token's Secret object in the API.
pub fn object_path(id: &str) -> String {
    format!("/api/v1/namespaces/kube-system/secrets/{}", object_name(id))
}

/// `tokens.json`: node name → token.
#[derive(Clone, Debug, Default)]
pub struct Tokens(BTreeMap<String, Token>);

impl Tokens {
    /// Reads `tokens.json`.
    pub fn parse(text: &str) -> Result<Self> {
        let stored: BTreeMap<String, StoredToken> = serde_json::from_str(text).context("reading bootstrap tokens")?;
        let tokens = stored.into_iter().map(|(node, stored)| Ok((node, Token::parse(&stored.token, stored.expires)?)));
        Ok(Self(tokens.collect::<Result<_>>()?))
    }

    /// The text of `tokens.json`.
    pub fn write(&self) -> Result<Secret> {
        let stored: BTreeMap<&str, StoredToken> = self
            .0
            .iter()
            .map(|(node, token)| {
                (node.as_str(), StoredToken { token: token.text().expose().to_owned(), expires: token.expires })
            })
            .collect();
        Ok(Secret::new(format!("{}\n", serde_json::to_string_pretty(&stored).context("writing bootstrap tokens")?)))
    }

    /// A node's token.
    pub fn get(&self, node: &str) -> Option<&Token> {
        self.0.get(node)
    }

    /// Gives a node a token.
    pub fn insert(&mut self, node: &str, token: Token) {
        self.0.insert(node.to_owned(), token);
    }

    /// That of one node alone.
    #[must_use]
    pub fn only(&self, node: &str) -> Self {
        Self(
            self.0
                .iter()
                .filter(|(name, _)| *name == node)
                .map(|(name, token)| (name.clone(), token.clone()))
                .collect(),
        )
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Token)> {
        self.0.iter().map(|(node, token)| (node.as_str(), token))
    }

    /// Token id → node: what the approver decides by.
    pub fn nodes_by_id(&self) -> BTreeMap<String, String> {
        self.0.iter().map(|(node, token)| (token.id.clone(), node.clone())).collect()
    }

    /// Whether a node that has not joined needs a new token.
    pub fn needs_new(&self, node: &str, now: Timestamp) -> bool {
        self.get(node).is_none_or(|token| token.expires < now + MARGIN)
    }
}

/// Random characters of `a-z0-9`, each equally likely (bytes of 252 and more are thrown away).
fn characters<const N: usize>() -> Result<String> {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut text = String::with_capacity(N);
    while text.len() < N {
        for byte in random::<32>()? {
            if byte < 252 && text.len() < N {
                text.push(char::from(ALPHABET[usize::from(byte % 36)]));
            }
        }
    }
    Ok(text)
}
