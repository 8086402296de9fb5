//! What a component is: the signed description that travels in the component image's config, so that everything needed to
//! plan an installation (files, sizes, templates, roles) is known before the first layer byte is read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::quote;
use crate::name::{ComponentName, LayerPath, Version};

/// What a host is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Control plane, with etcd unless the cluster config names dedicated etcd nodes; also a (tainted) node.
    Master,
    /// Runs workloads.
    Worker,
    /// A dedicated etcd member.
    Etcd,
}

/// How the installer treats a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One layer of files, unpacked into the store.
    Program,
    /// A container image: its blobs are kept verbatim and imported into containerd.
    Container,
    /// OS packages: blobs kept verbatim and handed to the host's package tool.
    Packages,
    /// A distribution's kernel: OS packages that are installed before all others and need a reboot.
    Kernel,
    /// Kubernetes objects, `objects.json` and `patches.json` in one layer. No installer applies them yet.
    Addon,
}

impl Kind {
    /// Whether it is one layer of files that is unpacked into the store.
    pub fn has_files(self) -> bool {
        matches!(self, Self::Program | Self::Addon)
    }

    /// Whether it is OS packages.
    pub fn has_packages(self) -> bool {
        matches!(self, Self::Packages | Self::Kernel)
    }

    /// As written in annotations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::Container => "container",
            Self::Packages => "packages",
            Self::Kernel => "kernel",
            Self::Addon => "addon",
        }
    }
}

/// The signed description of one component (`dev.sealift.component` in the image config; for container images, which keep
/// their own config, in the annotations of the index descriptor).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// Directory name under `manifests/components/`.
    pub name: ComponentName,
    /// Upstream version, for packages the version of the main package.
    pub version: Version,
    /// How the installer treats it.
    pub kind: Kind,
    /// Roles that need it, sorted.
    pub roles: Vec<Role>,
    /// SPDX expression.
    pub licence: String,
    /// The artifacts its files came from, in the order of the lock.
    pub upstream: Vec<Upstream>,
    /// Programs the component promises, for example `bin/etcd`; each is in its file list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<LayerPath>,
    /// Kernel modules it needs (loaded or built in), canonical names with `_`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<String>,
    /// Units and config files, rendered on the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<Template>,
    /// OS packages; one blob each, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<Package>,
    /// For OS packages: the distribution they are for, for example `debian-12`; without one, any that takes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distribution: Option<String>,
    /// Programs that come as OS packages instead of files of its own: by distribution, the name a template knows them by and
    /// where the package puts them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub host_programs: BTreeMap<String, BTreeMap<LayerPath, String>>,
    /// For [`Kind::Addon`]: references of the container images its objects name, sorted; each is in the bundle.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
}

impl Component {
    /// Names that become file names or arguments of `dpkg`, `rpm` and `modprobe` must not look like paths or options; what
    /// people are shown must not talk to their terminal.
    pub(crate) fn check(&self) -> Result<(), String> {
        let module = |name: &String| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        let text = |name: &String| name.bytes().all(|byte| byte.is_ascii_graphic() && !b"/\\".contains(&byte));
        let plain =
            |name: &String| name.len() <= 255 && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let modules = self.modules.iter().find(|name| !plain(name) || !module(name));
        let packages = self.packages.iter().flat_map(|package| [&package.name, &package.version, &package.file]);
        let not_absolute =
            |path: &&String| path.strip_prefix('/').is_none_or(|rest| rest.parse::<LayerPath>().is_err());
        let programs = self.host_programs.values().flat_map(BTreeMap::values);
        let upstream = self.upstream.iter().flat_map(|Upstream { url, sha512, proof, licence, .. }| {
            [url, proof].into_iter().chain(sha512.as_ref()).chain(licence.as_ref())
        });
        let mut shown = upstream
            .chain([&self.licence])
            .chain(&self.distribution)
            .chain(self.host_programs.keys())
            .chain(self.host_programs.values().flat_map(BTreeMap::values))
            .chain(&self.images)
            .chain(self.packages.iter().map(|package| &package.architecture))
            .chain(self.packages.iter().flat_map(|package| package.relations.all()));
        let wrong = modules.or_else(|| shown.find(|text| text.chars().any(char::is_control)));
        let wrong = wrong.or_else(|| packages.into_iter().find(|name| !plain(name) || !text(name)));
        match wrong.or_else(|| programs.into_iter().find(not_absolute)) {
            Some(name) => Err(format!("`{}`", quote(name))),
            None => Ok(()),
        }
    }
}

/// Where an artifact came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// URL as the manifest names it (mirrors never appear); `apt:NAME=VERSION` for Debian packages.
    pub url: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the artifact.
    pub sha256: Digest,
    /// SHA-512 of the artifact in hex, where upstream publishes that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha512: Option<String>,
    /// What vouched for the digest when it was locked: `manifest`, `checksums:URL`, `apt:INDEX`, `rpm:INDEX`, `registry`, or
    /// `first-use` (of packages: `first-use:INDEX`), which means nothing but the download itself.
    pub proof: String,
    /// Its own licence, where upstream's index says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
}

/// What a rendered template becomes on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TemplateKind {
    /// A systemd unit: `/etc/systemd/system/NAME`.
    Unit,
    /// A configuration file: `/opt/sealift/current/etc/COMPONENT/NAME`.
    Config,
}

/// A minijinja template (strict undefined), carried as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// File name of the rendered file, for example `etcd.service`.
    pub name: LayerPath,
    /// What it becomes.
    pub kind: TemplateKind,
    /// The template's text.
    pub text: String,
}

/// One OS package, stored verbatim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Package name.
    pub name: String,
    /// Package version, with epoch.
    pub version: String,
    /// File name as published, for example `linux-image-6.1.0-40-amd64_6.1.153-1_amd64.deb`.
    pub file: String,
    /// Digest of the package file: the key of its blob.
    pub sha256: Digest,
    /// Bytes.
    pub size: u64,
    /// As the distribution names it: `amd64`, `x86_64`, `all`, `noarch`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub architecture: String,
    /// For Debian packages: what it says of others.
    #[serde(default, skip_serializing_if = "Relations::is_empty")]
    pub relations: Relations,
}

/// Fields of a Debian package that relate it to others, as written in its control file (Debian policy, chapter 7): what is
/// needed to tell, before anything is changed, whether a host can take it. Read them with [`crate::debian_relation`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relations {
    /// `Pre-Depends`: must be configured before it is unpacked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pre_depends: String,
    /// `Depends`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub depends: String,
    /// `Conflicts`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub conflicts: String,
    /// `Breaks`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub breaks: String,
    /// `Provides`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub provides: String,
}

impl Relations {
    /// Whether it says nothing of others.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn all(&self) -> [&String; 5] {
        [&self.pre_depends, &self.depends, &self.conflicts, &self.breaks, &self.provides]
    }
}

/// One entry of a component layer (`dev.sealift.files`): what may be in the layer, exactly, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "FlatFile", into = "FlatFile")]
pub struct File {
    /// Path inside the layer.
    pub path: LayerPath,
    /// What it is.
    pub entry: Entry,
}

/// The kinds of entry a layer can have; nothing else exists in the format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A directory (mode 0755).
    Directory,
    /// A regular file.
    Regular {
        /// Permission bits: one of 0755, 0644, 0555, 0444, 0700, 0600.
        mode: u32,
        /// Bytes.
        size: u64,
        /// SHA-256 of the content.
        sha256: Digest,
    },
    /// A relative symbolic link that stays inside the layer.
    Symlink {
        /// Link target, relative to the link's directory.
        target: String,
    },
}

impl Entry {
    /// Bytes of content: zero for anything but a regular file.
    pub fn size(&self) -> u64 {
        match self {
            Self::Regular { size, .. } => *size,
            Self::Directory | Self::Symlink { .. } => 0,
        }
    }
}

/// A [`File`] as it is written: one flat JSON object. (`serde` cannot refuse unknown fields of a flattened enum.)
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FlatFile {
    path: LayerPath,
    #[serde(rename = "type")]
    kind: FlatKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FlatKind {
    Directory,
    Regular,
    Symlink,
}

impl From<File> for FlatFile {
    fn from(File { path, entry }: File) -> Self {
        let bare = |kind| Self { path, kind, mode: None, size: None, sha256: None, target: None };
        match entry {
            Entry::Directory => bare(FlatKind::Directory),
            Entry::Regular { mode, size, sha256 } => {
                Self { mode: Some(mode), size: Some(size), sha256: Some(sha256), ..bare(FlatKind::Regular) }
            }
            Entry::Symlink { target } => Self { target: Some(target), ..bare(FlatKind::Symlink) },
        }
    }
}

impl TryFrom<FlatFile> for File {
    type Error = String;

    fn try_from(flat: FlatFile) -> Result<Self, String> {
        let FlatFile { path, kind, mode, size, sha256, target } = flat;
        let entry = match (kind, mode, size, sha256, target) {
            (FlatKind::Directory, None, None, None, None) => Entry::Directory,
            (FlatKind::Regular, Some(mode), Some(size), Some(sha256), None) => Entry::Regular { mode, size, sha256 },
            (FlatKind::Symlink, None, None, None, Some(target)) => Entry::Symlink { target },
            (kind, ..) => return Err(format!("`{path}` has not exactly the fields of type {kind:?}")),
        };
        Ok(Self { path, entry })
    }
}
