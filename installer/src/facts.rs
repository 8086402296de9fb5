//! What this host is and can do: detected, never assumed, and nothing is changed to find out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use bundle::Architecture;
use serde::Serialize;

mod gather;

pub use gather::which;

/// The resolver file Sealift writes for hosts without a usable nameserver (without `nameserver` lines).
pub const OWN_RESOLV_CONF: &str = "/etc/sealift/resolv.conf";

/// Everything the plan and the templates need to know about the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Facts {
    /// Processor architecture; `None` when it is one Sealift does not know.
    pub architecture: Option<Architecture>,
    /// `ID`, `VERSION_ID` and `PRETTY_NAME` of os-release.
    pub os: Os,
    /// Kernel release (`uname -r`).
    pub kernel: String,
    /// Kind of container this host is (`systemd-nspawn`, `lxc`, …); `None` on a machine of its own.
    pub container: Option<String>,
    /// Whether systemd is process 1.
    pub systemd: bool,
    /// Control groups.
    pub cgroup: Cgroup,
    /// Usable processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Free space in MiB below `/opt/sealift` and `/var/lib`.
    pub disk_free_mib: u64,
    /// Addresses of all interfaces but loopback, sorted.
    pub addresses: Vec<Address>,
    /// Kernel modules.
    pub modules: Modules,
    /// Whether services may have a negative OOM score.
    pub oom_score_adj: bool,
    /// Hard limit of open files that a service can reach.
    pub nofile: u64,
    /// Whether `kernel.*` sysctls are shared with the machine this host is a container of.
    pub shared_sysctls: bool,
    /// Sysctls that Sealift may want to set and that can be set here.
    pub writable_sysctls: BTreeSet<String>,
    /// Tools of the host and their versions; absent ones are not in the map.
    pub tools: BTreeMap<String, String>,
    /// Choice for the kubelet's `resolvConf`.
    pub resolv_conf: PathBuf,
    /// Whether the host has a nameserver at all.
    pub nameserver: bool,
    /// Listening TCP ports and their addresses.
    pub listening: BTreeSet<(u16, IpAddr)>,
    /// Swap devices in use.
    pub swap: Vec<String>,
}

/// `/etc/os-release`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Os {
    /// `ID`: `debian`.
    pub id: String,
    /// `VERSION_ID`: `12`.
    pub version: String,
    /// `PRETTY_NAME`.
    pub pretty: String,
    /// As bundles name it: `debian-12`, `ubuntu-24.04`; `el9` for Enterprise Linux 9 and what is built from its sources.
    pub distribution: String,
}

/// How control groups are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cgroup {
    /// Controllers in version 1 hierarchies (also hybrid: version 2 only for systemd's own use).
    V1,
    /// The unified hierarchy.
    V2,
    /// None found.
    Missing,
}

impl Cgroup {
    /// `v1`, `v2`; a host without is refused by preflight.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Missing => "none",
        }
    }
}

/// One address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Address {
    /// Interface.
    pub interface: String,
    /// Address.
    pub address: IpAddr,
    /// Network bits.
    pub prefix: u8,
}

/// Kernel modules by how they are there; names with `_`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Modules {
    /// Loaded, or built in and visible.
    pub present: BTreeSet<String>,
    /// Not loaded, but a file for the running kernel exists and modules can be loaded here.
    pub loadable: BTreeSet<String>,
    /// Whether this host can load modules at all.
    pub can_load: bool,
}

impl Modules {
    /// Whether the module is there or can be loaded.
    pub fn available(&self, name: &str) -> bool {
        self.present.contains(name) || self.loadable.contains(name)
    }
}

impl Facts {
    /// The bare addresses.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.addresses.iter().map(|address| address.address).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A Debian 12 machine of its own with two processors.
    pub(crate) fn debian() -> Facts {
        Facts {
            architecture: Some(Architecture::Amd64),
            os: Os {
                id: "debian".to_owned(),
                version: "12".to_owned(),
                pretty: "Debian GNU/Linux 12 (bookworm)".to_owned(),
                distribution: "debian-12".to_owned(),
            },
            kernel: "6.1.0-40-amd64".to_owned(),
            container: None,
            systemd: true,
            cgroup: Cgroup::V2,
            cpus: 2,
            memory_mib: 4096,
            disk_free_mib: 20_000,
            addresses: vec![Address {
                interface: "eth0".to_owned(),
                address: IpAddr::from([192, 0, 2, 1]),
                prefix: 24,
            }],
            modules: Modules { can_load: true, ..Modules::default() },
            oom_score_adj: true,
            nofile: 1 << 20,
            shared_sysctls: false,
            writable_sysctls: BTreeSet::new(),
            tools: BTreeMap::new(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            nameserver: true,
            listening: BTreeSet::new(),
            swap: Vec::new(),
        }
    }
}
