//! Kubeconfig files, written as JSON (every JSON text is a YAML text), with everything embedded.
//!
//! They hold private keys or tokens: their text is a [`Secret`] and their mode 0600.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Pair, Secret};

/// How a kubeconfig's user proves who it is.
#[derive(Clone, Debug)]
pub enum Credential<'a> {
    /// An embedded certificate and key.
    Pair(&'a Pair),
    /// A bootstrap token.
    Token(&'a Secret),
    /// A PEM file with certificate and key that something else rotates (the kubelet's).
    File(&'a str),
}

/// Writes a kubeconfig with one cluster, one user and one context. `server` is a URL with a numeric address,
/// `authority` the PEM text of the cluster CA.
pub fn write(cluster: &str, server: &str, authority: &str, user: &str, credential: &Credential<'_>) -> Secret {
    let credential = match credential {
        Credential::Pair(pair) => json!({
            "client-certificate-data": STANDARD.encode(&pair.certificate),
            "client-key-data": STANDARD.encode(pair.key.expose()),
        }),
        Credential::Token(token) => json!({ "token": token.expose() }),
        Credential::File(path) => json!({ "client-certificate": path, "client-key": path }),
    };
    let context = format!("{user}@{cluster}");
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": cluster,
            "cluster": { "server": server, "certificate-authority-data": STANDARD.encode(authority) },
        }],
        "users": [{ "name": user, "user": credential }],
        "contexts": [{ "name": context, "context": { "cluster": cluster, "user": user } }],
        "current-context": context,
    });
    Secret::new(format!("{config:#}\n"))
}

/// The parts of a kubeconfig of ours that decide whether it can stay.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The first cluster's server.
    pub server: String,
    /// PEM text of the first cluster's authority.
    pub authority: String,
    /// Certificate and key, if embedded.
    pub pair: Option<Pair>,
    /// The token, if there is one.
    pub token: Option<Secret>,
}

/// Reads back what [`write`] wrote; `None` for anything else.
pub fn read(text: &str) -> Option<Parts> {
    let config: Value = serde_json::from_str(text).ok()?;
    let cluster = config.pointer("/clusters/0/cluster")?;
    let user = config.pointer("/users/0/user")?;
    let decoded = |value: &Value, key: &str| -> Option<String> {
        String::from_utf8(STANDARD.decode(value.get(key)?.as_str()?).ok()?).ok()
    };
    let pair = decoded(user, "client-certificate-data")
        .zip(decoded(user, "client-key-data"))
        .map(|(certificate, key)| Pair { certificate, key: Secret::new(key) });
    Some(Parts {
        server: cluster.get("server")?.as_str()?.to_owned(),
        authority: decoded(cluster, "certificate-authority-data")?,
        pair,
        token: user.get("token").and_then(Value::as_str).map(|token| Secret::new(token.to_owned())),
    })
}
