//! The OCI structures we read and write, with a fixed field order.
//!
//! What we write ourselves is read back with unknown fields refused; manifests and indexes of container images, which are
//! copied verbatim from elsewhere, are read for their descriptors only and may hold more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::component::{Component, File};
use crate::digest::Digest;

/// The whole content of `oci-layout` (containerd demands exactly this version).
pub(crate) const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// The `created` of everything we write: the constant that is also the time of every file.
#[cfg(feature = "write")]
pub(crate) const CREATED: &str = "1980-01-01T00:00:00Z";

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Media type of a Debian package.
pub const DEB: &str = "application/vnd.debian.binary-package";
/// Media type of an RPM package.
pub const RPM: &str = "application/x-rpm";

/// Type, digest and size of a blob.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type.
    pub media_type: String,
    /// Digest of the blob.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// `index.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Index {
    pub schema_version: u8,
    pub media_type: String,
    pub manifests: Vec<IndexEntry>,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct IndexEntry {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    pub platform: Platform,
    pub annotations: BTreeMap<String, String>,
}

impl IndexEntry {
    pub(crate) fn descriptor(&self) -> Descriptor {
        Descriptor { media_type: self.media_type.clone(), digest: self.digest, size: self.size }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Platform {
    pub architecture: String,
    pub os: String,
}

/// A manifest that we wrote.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Manifest {
    pub schema_version: u8,
    pub media_type: String,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

/// A config that we wrote.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub created: String,
    pub architecture: String,
    pub os: String,
    #[serde(rename = "config", default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<Execution>,
    pub rootfs: RootFs,
    pub history: Vec<History>,
    #[serde(rename = "dev.sealift.component", default, skip_serializing_if = "Option::is_none")]
    pub component: Option<Component>,
    #[serde(rename = "dev.sealift.files", default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<File>>,
}

/// How a container that we pack is run (`config` of an OCI image config).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Execution {
    /// User and group, numeric: `65535:65535`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Environment, `NAME=value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Program and fixed arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Default arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RootFs {
    #[serde(rename = "type")]
    pub kind: String,
    pub diff_ids: Vec<Digest>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct History {
    pub created: String,
    pub created_by: String,
}

/// A container's manifest: descriptors only.
#[derive(Debug, Deserialize)]
pub(crate) struct ForeignManifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

/// A container's index: descriptors and platforms only.
#[derive(Debug, Deserialize)]
pub(crate) struct ForeignIndex {
    pub manifests: Vec<ForeignIndexEntry>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ForeignIndexEntry {
    #[serde(flatten)]
    pub descriptor: Descriptor,
    pub platform: Option<ForeignPlatform>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ForeignPlatform {
    pub architecture: String,
    pub os: String,
}
