//! The lock: exactly what we got, written by `builder lock` beside the manifest and committed with it.
//!
//! Same input, same bytes: fixed field order, sorted maps, no clock. An artifact is resolved (size and digest known, and
//! what vouched for them) or `unresolved = "reason"`; nothing is invented. Mirrors never appear.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;
use bundle::{Architecture, ComponentName, Digest, Version};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::manifest::{Manifest, toml_text};

/// First line of every lock.
const HEAD: &str = "# Written by `builder lock`; changes by hand are lost.\n";

/// A lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Version of this file's shape: 1.
    pub format: u32,
    /// Release name, as in the manifest.
    pub name: ComponentName,
    /// Release version, as in the manifest.
    pub version: Version,
    /// Digest of the manifest this lock fits.
    pub manifest: Digest,
    /// zstd level of the layers.
    pub level: i32,
    /// Signed indexes that were looked through for packages, by `SUITE/COMPONENT/ARCHITECTURE`: none of them may get older.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub apt: BTreeMap<String, AptProof>,
    /// Artifacts by component and architecture, in the manifest's order.
    pub component: BTreeMap<ComponentName, LockedComponent>,
}

/// The signed chain that a package's digest came from, or could have come from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AptProof {
    /// Suite as the Release names it.
    pub suite: String,
    /// Codename as the Release names it.
    pub codename: String,
    /// `Date` of the Release: an older one is refused later.
    pub date: String,
    /// Fingerprint of the key that signed the InRelease.
    pub key: String,
    /// Digest of the InRelease file.
    pub inrelease: Digest,
    /// Digest of the (compressed) Packages index.
    pub packages: Digest,
}

/// One component's artifacts (any key but `version` must be an architecture).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedComponent {
    /// Exact version: the manifest's, or the main package's when the manifest names a series (`6.1`).
    pub version: Version,
    /// Per architecture, in the manifest's order.
    #[serde(flatten)]
    pub artifacts: BTreeMap<Architecture, Vec<LockedArtifact>>,
}

/// One artifact: resolved or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedArtifact {
    /// `apt:NAME=VERSION`, the manifest's URL, or `file:PATH`.
    pub url: String,
    /// Pool path, for apt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// What vouched: `manifest`, `first-use`, or `apt:` and a key of [`Lock::apt`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<String>,
    /// Why it is not resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unresolved: Option<String>,
}

/// An artifact whose bytes are known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resolved {
    /// As in the lock.
    pub url: String,
    /// Pool path, for apt.
    pub path: Option<String>,
    /// Bytes.
    pub size: u64,
    /// Digest.
    pub sha256: Digest,
    /// What vouched.
    pub proof: String,
}

impl LockedArtifact {
    /// An entry that is not resolved.
    pub fn unresolved(url: String, reason: impl Into<String>) -> Self {
        Self { url, path: None, size: None, sha256: None, proof: None, unresolved: Some(reason.into()) }
    }

    /// The artifact, if it is resolved; else the reason why not.
    pub fn resolved(&self) -> Result<Resolved, String> {
        match (self.size, self.sha256, &self.proof, &self.unresolved) {
            (Some(size), Some(sha256), Some(proof), None) => {
                Ok(Resolved { url: self.url.clone(), path: self.path.clone(), size, sha256, proof: proof.clone() })
            }
            (_, _, _, Some(reason)) => Err(reason.clone()),
            _ => Err("size, sha256 or proof is missing".into()),
        }
    }
}

impl From<Resolved> for LockedArtifact {
    fn from(resolved: Resolved) -> Self {
        let Resolved { url, path, size, sha256, proof } = resolved;
        Self { url, path, size: Some(size), sha256: Some(sha256), proof: Some(proof), unresolved: None }
    }
}

impl Lock {
    /// Reads a lock and the digest of its bytes.
    pub fn read(path: &Path) -> anyhow::Result<(Self, Digest)> {
        let text = fs_err::read_to_string(path)
            .with_context(|| Failure::new("there is no lock").hint("run `builder lock MANIFEST` first"))?;
        let lock: Self = toml_text(&text, path)?;
        if lock.format != 1 {
            return Err(
                Failure::new(format!("`{}` has format {}, this builder knows 1", path.display(), lock.format)).into()
            );
        }
        Ok((lock, Digest::of(text.as_bytes())))
    }

    /// The bytes of the lock file.
    pub fn to_bytes(&self) -> anyhow::Result<Vec<u8>> {
        Ok(format!("{HEAD}{}", toml::to_string(self).context("writing the lock as TOML")?).into_bytes())
    }

    /// Names of everything that is not resolved, with the reason.
    pub fn unresolved(&self) -> Vec<String> {
        self.entries()
            .filter_map(|(component, architecture, artifact)| {
                let reason = artifact.resolved().err()?;
                Some(format!("{component} ({architecture}): {}: {reason}", artifact.url))
            })
            .collect()
    }

    /// Every entry with its component and architecture.
    pub fn entries(&self) -> impl Iterator<Item = (&ComponentName, Architecture, &LockedArtifact)> {
        self.component.iter().flat_map(|(name, component)| {
            component
                .artifacts
                .iter()
                .flat_map(move |(architecture, list)| list.iter().map(move |artifact| (name, *architecture, artifact)))
        })
    }

    /// The suites its apt packages were looked for in.
    pub fn suites(&self) -> BTreeSet<&str> {
        self.apt.values().map(|proof| proof.suite.as_str()).collect()
    }

    /// Refuses a lock that was made for another manifest.
    pub fn check_fits(&self, manifest: &Manifest) -> anyhow::Result<()> {
        let release = &manifest.release;
        if self.manifest == manifest.digest && self.name == release.name && self.version == release.version {
            return Ok(());
        }
        Err(Failure::new(format!(
            "the lock does not fit `{}`: the manifest has changed since",
            manifest.path.display()
        ))
        .hint(format!("run `builder lock {}` and look at the difference", manifest.path.display()))
        .into())
    }

    /// The resolved artifacts of one component, in the manifest's order.
    pub fn artifacts(&self, name: &ComponentName, architecture: Architecture) -> anyhow::Result<Vec<Resolved>> {
        let list = self.component.get(name).and_then(|component| component.artifacts.get(&architecture));
        let list = list.ok_or_else(|| Failure::new(format!("the lock has no entry for `{name}` on {architecture}")))?;
        list.iter()
            .map(|artifact| {
                artifact.resolved().map_err(|reason| {
                    Failure::new(format!("`{name}` ({architecture}) is not resolved: {}: {reason}", artifact.url))
                        .hint("run `builder lock` where it can be reached")
                        .into()
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_reads_what_it_writes() {
        let resolved = Resolved {
            url: "apt:etcd-server=3.4.23+dfsg-4+b5".into(),
            path: Some("pool/main/e/etcd/x.deb".into()),
            size: 7,
            sha256: Digest::of(b"x"),
            proof: "apt:bookworm/main/amd64".into(),
        };
        let artifacts =
            vec![resolved.into(), LockedArtifact::unresolved("https://example.com/".into(), "size not known")];
        let component = LockedComponent {
            version: "1".parse().unwrap(),
            artifacts: BTreeMap::from([(Architecture::Amd64, artifacts)]),
        };
        let lock = Lock {
            format: 1,
            name: "demo".parse().unwrap(),
            version: "1-1".parse().unwrap(),
            manifest: Digest::of(b""),
            level: 12,
            apt: BTreeMap::new(),
            component: BTreeMap::from([("etcd".parse().unwrap(), component)]),
        };
        let bytes = lock.to_bytes().unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap();
        let again: Lock = toml::from_str(&text).unwrap();
        assert_eq!(again, lock);
        assert_eq!(again.to_bytes().unwrap(), bytes);
        assert_eq!(again.unresolved(), ["etcd (amd64): https://example.com/: size not known"]);
        assert!(text.contains("[[component.etcd.amd64]]"), "{text}");
    }
}
