//! What a manifest says of target distributions: which OS packages and kernels the bundle brings for each.

use std::collections::BTreeMap;
use std::fmt;

use bundle::{Architecture, LayerPath};
use serde::{Deserialize, Serialize};

use super::Trust;

/// The seeds' list: what Kubernetes nodes need of the distribution.
const DEB_PACKAGES: [&str; 11] = [
    "chrony",
    "conntrack",
    "curl",
    "ethtool",
    "ipset",
    "iptables",
    "ipvsadm",
    "jq",
    "libseccomp2",
    "nftables",
    "socat",
];
/// The same as Enterprise Linux names them.
const RPM_PACKAGES: [&str; 11] = [
    "chrony",
    "conntrack-tools",
    "curl",
    "ethtool",
    "ipset",
    "iptables-nft",
    "ipvsadm",
    "jq",
    "libseccomp",
    "nftables",
    "socat",
];

/// A target distribution and its release, for example `debian-12` or `el9`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Distribution(String);

impl Distribution {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Distribution> for String {
    fn from(distribution: Distribution) -> Self {
        distribution.0
    }
}

impl TryFrom<String> for Distribution {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        let start = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        if start && text.len() <= 40 && text.bytes().all(good) {
            Ok(Self(text))
        } else {
            Err(format!("`{text}` is not a distribution: expected a name such as `debian-12`, `ubuntu-24.04` or `el9`"))
        }
    }
}

/// The two families of package formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// dpkg and apt.
    Deb,
    /// rpm and dnf.
    Rpm,
}

/// Which indexes the packages of a distribution are looked for in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackageSource {
    /// Suites or codenames of the apt sources.
    Apt {
        /// For example `bookworm`, `bookworm-security`.
        suites: Vec<String>,
        /// Whether recommended packages come along where they can be had.
        recommends: bool,
    },
    /// Repositories of `--rpm-repos`, by id.
    RpmMd {
        /// For example `baseos`, `appstream`.
        repositories: Vec<String>,
        /// `$releasever`.
        releasever: Option<String>,
        /// Whether a repository without a key will do.
        trust: Trust,
    },
}

/// `[packages.DISTRIBUTION]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Text")]
pub struct PackagesText {
    /// Packages wanted by name (`NAME`, or `NAME=VERSION`); the closure against the base follows from them.
    pub install: Vec<String>,
    /// Where they are looked for.
    pub source: PackageSource,
    /// Architectures that get them; empty means all.
    pub architectures: Vec<Architecture>,
}

/// `[kernel.DISTRIBUTION]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Text")]
pub struct KernelText {
    /// The image package (a metapackage will do), with modules in it or in its dependencies.
    pub install: Vec<String>,
    /// Header packages, if wanted.
    pub headers: Vec<String>,
    /// Firmware packages, if wanted.
    pub firmware: Vec<String>,
    /// Where they are looked for.
    pub source: PackageSource,
    /// Architectures that get them; empty means all.
    pub architectures: Vec<Architecture>,
}

/// How a component's programs come with one distribution's packages.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostPackages {
    /// Packages that bring them.
    pub install: Vec<String>,
    /// The name a template knows a program by, and the absolute path the package puts it at.
    pub programs: BTreeMap<LayerPath, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    install: Option<Vec<String>>,
    #[serde(default)]
    headers: Vec<String>,
    #[serde(default)]
    firmware: Vec<String>,
    #[serde(default)]
    suites: Vec<String>,
    #[serde(default)]
    repositories: Vec<String>,
    releasever: Option<String>,
    #[serde(default)]
    recommends: bool,
    #[serde(default)]
    trust: Trust,
    #[serde(default)]
    architectures: Vec<Architecture>,
}

impl Text {
    fn source(&self) -> Result<PackageSource, String> {
        match (&self.suites[..], &self.repositories[..]) {
            ([], []) => Err("say where to look: `suites = [..]` for apt, `repositories = [..]` for rpm-md".into()),
            (_, []) if self.trust == Trust::FirstUse => {
                Err("`trust` is for rpm-md: apt suites are always signed, or refused".into())
            }
            (suites, []) if self.releasever.is_none() => {
                Ok(PackageSource::Apt { suites: suites.to_vec(), recommends: self.recommends })
            }
            ([], _) if self.recommends => Err("`recommends` is for apt: say `suites`".into()),
            ([], repositories) => {
                let (repositories, releasever) = (repositories.to_vec(), self.releasever.clone());
                Ok(PackageSource::RpmMd { repositories, releasever, trust: self.trust })
            }
            _ => Err("`suites` is for apt, `repositories` and `releasever` are for rpm-md: not both".into()),
        }
    }
}

impl TryFrom<Text> for PackagesText {
    type Error = String;

    fn try_from(text: Text) -> Result<Self, String> {
        let source = text.source()?;
        if !text.headers.is_empty() || !text.firmware.is_empty() {
            return Err("`headers` and `firmware` belong to `[kernel.…]`".into());
        }
        let default = match source {
            PackageSource::Apt { .. } => DEB_PACKAGES,
            PackageSource::RpmMd { .. } => RPM_PACKAGES,
        };
        let install = text.install.unwrap_or_else(|| default.map(str::to_owned).to_vec());
        Ok(Self { install, source, architectures: text.architectures })
    }
}

impl TryFrom<Text> for KernelText {
    type Error = String;

    fn try_from(text: Text) -> Result<Self, String> {
        let source = text.source()?;
        if text.recommends {
            return Err("`recommends` belongs to `[packages.…]`".into());
        }
        let install = text.install.filter(|names| !names.is_empty());
        let install = install.ok_or("say which kernel: `install = [\"linux-image-amd64\"]`")?;
        let Text { headers, firmware, architectures, .. } = text;
        Ok(Self { install, headers, firmware, source, architectures })
    }
}

impl PackageSource {
    /// `$releasever` for a repository of a distribution: what is stated, else the number in names such as `el9`; `None` if
    /// the repository is not among these.
    pub fn releasever<'a>(&'a self, repository: &str, distribution: &'a Distribution) -> Option<&'a str> {
        match self {
            Self::RpmMd { repositories, releasever, .. } if repositories.iter().any(|id| id == repository) => {
                releasever.as_deref().or_else(|| distribution.0.strip_prefix("el"))
            }
            _ => None,
        }
    }
}

impl PackagesText {
    /// Whether this architecture gets them.
    pub fn is_for(&self, architecture: Architecture) -> bool {
        self.architectures.is_empty() || self.architectures.contains(&architecture)
    }
}

impl KernelText {
    /// Whether this architecture gets it.
    pub fn is_for(&self, architecture: Architecture) -> bool {
        self.architectures.is_empty() || self.architectures.contains(&architecture)
    }

    /// Image, headers and firmware: what the closure starts from.
    pub fn roots(&self) -> Vec<String> {
        self.install.iter().chain(&self.headers).chain(&self.firmware).cloned().collect()
    }
}
