//! The secrets that are made once for the life of a cluster: service-account key and encryption config.
//!
//! Losing either breaks the cluster (tokens no longer verify, secrets can no longer be read), so they are only ever made
//! when nothing that depends on them exists; see [`super::files`].

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};

use super::{Secret, random};

/// The key pair that signs service-account tokens (ES256).
///
/// The private key is PKCS#8 (`PRIVATE KEY`), which kube-apiserver and kube-controller-manager read since 1.9; the public
/// key is SPKI (`PUBLIC KEY`): as a *verification* key, Kubernetes 1.20 does not take a PKCS#8 EC private key
/// (client-go `util/keyutil`).
#[derive(Clone, Debug)]
pub struct ServiceAccountKey {
    /// PEM, `PUBLIC KEY`.
    pub public: String,
    /// PEM, `PRIVATE KEY`.
    pub private: Secret,
}

impl ServiceAccountKey {
    /// Makes a new one.
    pub fn create() -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("making the service-account key")?;
        Ok(Self { public: key.public_key_pem(), private: Secret::new(key.serialize_pem()) })
    }

    /// The public half of a private key file.
    pub fn public_of(private: &Secret) -> Result<String> {
        Ok(KeyPair::from_pem(private.expose()).context("reading the service-account key")?.public_key_pem())
    }
}

/// Makes the apiserver's encryption config: Secrets in etcd are sealed with XSalsa20-Poly1305 under a random key;
/// `identity` last reads what was written before.
pub fn encryption_config() -> Result<Secret> {
    let key = STANDARD.encode(random::<32>()?);
    let config = json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{
            "resources": ["secrets"],
            "providers": [{ "secretbox": { "keys": [{ "name": "key1", "secret": key }] } }, { "identity": {} }],
        }],
    });
    Ok(Secret::new(format!("{config:#}\n")))
}

/// Whether an existing encryption config can stay: readable, and a real cipher comes first. (Keys may have been rotated,
/// so the exact text is not compared.)
pub fn encryption_config_problem(text: &str) -> Option<String> {
    let Ok(config) = serde_json::from_str::<Value>(text) else {
        return Some("it is not JSON".to_owned());
    };
    let first = config.pointer("/resources/0/providers/0").and_then(Value::as_object);
    match first.and_then(|provider| provider.keys().next()) {
        None => Some("it names no provider".to_owned()),
        Some(name) if name == "identity" => {
            Some("`identity` comes first: secrets would be stored unencrypted".to_owned())
        }
        Some(_) => None,
    }
}
