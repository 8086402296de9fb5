//! The lock: exactly what we got, written by `builder lock` beside the manifest and committed with it.
//!
//! Same input, same bytes: fixed field order, sorted maps, no clock. An artifact is resolved (size and digest known, and
//! what vouched for them) or `unresolved = "reason"`; nothing is invented. Mirrors never appear.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;
use bundle::component::Kind;
use bundle::{Architecture, ComponentName, Digest, Version};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::manifest::{Distribution, Manifest, toml_text};

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
    /// Indexes of rpm-md repositories that were looked through, by `REPOSITORY/ARCHITECTURE`: none of them may get older.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rpm: BTreeMap<String, RpmProof>,
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

/// What vouches for the packages of one rpm-md repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RpmProof {
    /// Seconds since 1970 (or a counter) that `repomd.xml` gives as its revision: an older one is refused later.
    pub revision: u64,
    /// Digest of `repomd.xml`.
    pub repomd: Digest,
    /// Digest of the (compressed) primary index.
    pub primary: Digest,
    /// Fingerprint of the key that signed `repomd.xml`; absent if no key was given: then nothing but the connection vouched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Where `repomd.xml` is not signed, but the packages are: fingerprints of the keys that signed those in this lock, each
    /// of which was checked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub package_keys: Vec<String>,
}

/// One component's artifacts (any key but those named here must be an architecture).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedComponent {
    /// Exact version: the manifest's, or the main package's when the manifest names a series (`6.1`).
    pub version: Version,
    /// For components that the builder made of `[packages.…]`, `[kernel.…]` or `[addon.…]`: how the installer treats it.
    /// Others have a recipe that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Kind>,
    /// For packages and kernels: the distribution they are for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distribution: Option<Distribution>,
    /// For addons: references of the images it needs, as the bundle names them, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// Per architecture, in the manifest's order.
    #[serde(flatten)]
    pub artifacts: BTreeMap<Architecture, Vec<LockedArtifact>>,
}

/// One artifact: resolved or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedArtifact {
    /// The manifest's URL, `file:PATH`, `apt:NAME=VERSION`, `rpm:NAME=[EPOCH:]VERSION-RELEASE`, or `image:REFERENCE`.
    pub url: String,
    /// Further URLs of the same bytes, from the manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<String>,
    /// Where it lies below the archive (apt) or the repository (rpm).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Bytes; for images those of the manifest or index that the reference named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Digest; for images that of the manifest or index that the reference named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// SHA-512 in hex, where upstream publishes that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha512: Option<String>,
    /// Licence, where upstream's index says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// What vouched: `manifest`, `first-use`, `checksums:URL`, `registry`, or `apt:` or `rpm:` and a key of [`Lock::apt`] or
    /// [`Lock::rpm`]; `first-use:` and a key of [`Lock::rpm`] for packages of repositories without a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<String>,
    /// For a package that was not asked for by name: the package that needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed_by: Option<String>,
    /// Why it is not resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unresolved: Option<String>,
}

/// An artifact whose bytes are known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resolved {
    /// As in the lock.
    pub url: String,
    /// As in the lock.
    pub mirrors: Vec<String>,
    /// As in the lock.
    pub path: Option<String>,
    /// Bytes.
    pub size: u64,
    /// Digest.
    pub sha256: Digest,
    /// SHA-512 in hex, where upstream publishes that.
    pub sha512: Option<String>,
    /// Licence, where upstream's index says it.
    pub licence: Option<String>,
    /// What vouched.
    pub proof: String,
    /// As in the lock.
    pub needed_by: Option<String>,
}

impl Resolved {
    /// Published file name: the last part of the pool path or URL.
    pub fn file_name(&self) -> &str {
        let place = self.path.as_deref().unwrap_or(&self.url);
        place.split(['?', '#']).next().and_then(|path| path.rsplit(['/', ':']).next()).unwrap_or(place)
    }
}

impl LockedArtifact {
    /// An entry that is not resolved.
    pub fn unresolved(url: String, reason: impl Into<String>) -> Self {
        Self { url, unresolved: Some(reason.into()), ..Self::default() }
    }

    /// The artifact, if it is resolved; else the reason why not.
    pub fn resolved(&self) -> Result<Resolved, String> {
        if let Some(reason) = &self.unresolved {
            return Err(reason.clone());
        }
        let (Some(size), Some(sha256), Some(proof)) = (self.size, self.sha256, self.proof.clone()) else {
            return Err("size, sha256 or proof is missing".into());
        };
        let Self { url, mirrors, path, sha512, licence, needed_by, .. } = self.clone();
        Ok(Resolved { url, mirrors, path, size, sha256, sha512, licence, proof, needed_by })
    }
}

impl Resolved {
    /// The reference, for a container image.
    pub fn reference(&self) -> Option<&str> {
        self.url.strip_prefix("image:")
    }
}

impl From<Resolved> for LockedArtifact {
    fn from(resolved: Resolved) -> Self {
        let Resolved { url, mirrors, path, size, sha256, sha512, licence, proof, needed_by } = resolved;
        let (size, sha256, proof) = (Some(size), Some(sha256), Some(proof));
        Self { url, mirrors, path, size, sha256, sha512, licence, proof, needed_by, unresolved: None }
    }
}

impl LockedComponent {
    /// A component of the manifest, still without artifacts.
    pub fn new(version: Version) -> Self {
        Self { version, made: None, distribution: None, images: Vec::new(), artifacts: BTreeMap::new() }
    }
}

impl Lock {
    /// Reads a lock and the digest of its bytes.
    pub fn read(path: &Path) -> anyhow::Result<(Self, Digest)> {
        let text = fs_err::read_to_string(path)
            .with_context(|| Failure::new("there is no lock").hint("run `builder lock MANIFEST` first"))?;
        let lock: Self = toml_text(&text, path)?;
        if lock.format != 1 {
            let text = format!("`{}` has format {}, this builder knows 1", path.display(), lock.format);
            return Err(Failure::new(text).hint("use the builder that wrote it, or delete it and lock again").into());
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
        let list = list.ok_or_else(|| {
            Failure::new(format!("the lock has no entry for `{name}` on {architecture}"))
                .hint("run `builder lock MANIFEST` and look at the difference")
        })?;
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
            mirrors: Vec::new(),
            path: Some("pool/main/e/etcd/x.deb".into()),
            size: 7,
            sha256: Digest::of(b"x"),
            sha512: None,
            licence: None,
            proof: "apt:bookworm/main/amd64".into(),
            needed_by: None,
        };
        let artifacts =
            vec![resolved.into(), LockedArtifact::unresolved("https://example.com/".into(), "size not known")];
        let component = LockedComponent {
            version: "1".parse().unwrap(),
            made: Some(Kind::Kernel),
            distribution: Some("debian-12".to_owned().try_into().unwrap()),
            images: Vec::new(),
            artifacts: BTreeMap::from([(Architecture::Amd64, artifacts)]),
        };
        let lock = Lock {
            format: 1,
            name: "demo".parse().unwrap(),
            version: "1-1".parse().unwrap(),
            manifest: Digest::of(b""),
            level: 12,
            apt: BTreeMap::new(),
            rpm: BTreeMap::new(),
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
