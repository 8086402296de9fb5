//! What this host is and can do: detected, never assumed, and nothing is changed to find out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use bundle::Architecture;
use serde::Serialize;

use crate::host::Filesystem;

mod foreign;
mod gather;
mod machine;
mod modules;
mod network;
mod packages;
mod tools;

pub use foreign::{ForeignModule, ROOT_DISK};
pub use machine::{Clock, SeLinux, Security, Services, TIME_SERVICES};

pub use tools::which;

/// The resolver file Sealift writes for hosts without a usable nameserver (without `nameserver` lines).
pub const OWN_RESOLV_CONF: &str = "/etc/sealift/resolv.conf";

/// Everything the plan and the templates need to know about the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
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
    /// Filesystems by the places that programs and data go to.
    pub filesystems: BTreeMap<PathBuf, Filesystem>,
    /// Addresses of all interfaces but loopback, sorted.
    pub addresses: Vec<Address>,
    /// Interfaces but loopback.
    pub interfaces: Vec<Interface>,
    /// Default routes of both families.
    pub default_routes: Vec<DefaultRoute>,
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
    /// Sysctls without which the kubelet does not start and that this kernel does not have.
    pub missing_sysctls: Vec<String>,
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
    /// Host name of the kernel.
    pub host_name: String,
    /// Needed capabilities that the installer does not have.
    pub missing_capabilities: Vec<String>,
    /// SELinux, AppArmor, Secure Boot.
    pub security: Security,
    /// Loaded modules that are not of the kernel's own tree.
    pub foreign_modules: Vec<ForeignModule>,
    /// Sources that DKMS builds modules of.
    pub dkms: Vec<String>,
    /// How the clock is kept.
    pub clock: Clock,
    /// Units of others that concern us, active ones.
    pub services: Services,
    /// Proxy variables that systemd gives to every service, without user names and passwords.
    pub proxy_variables: BTreeMap<String, String>,
    /// Base chains of the packet filter.
    pub chains: Vec<Chain>,
    /// The resolver of the host's own programs.
    pub resolver: Resolver,
    /// Bits of entropy; `None` when the kernel does not tell.
    pub entropy: Option<u64>,
    /// Who installs something at this moment.
    pub package_managers: Vec<String>,
    /// Files and directories we write that nobody may change (`chattr +i`).
    pub immutable: Vec<PathBuf>,
    /// A shutdown is scheduled.
    pub shutdown: bool,
    /// Logins are refused: the host starts, stops, or an administrator said so.
    pub nologin: bool,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Largest packet, bytes.
    pub mtu: u32,
    /// Switched on.
    pub up: bool,
}

/// A default route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DefaultRoute {
    /// Interface.
    pub interface: String,
    /// Router; none on point-to-point links.
    pub gateway: Option<IpAddr>,
    /// The lowest wins.
    pub metric: u32,
}

/// A chain of the packet filter that packets come to by themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chain {
    /// `ip`, `ip6`, `inet` …
    pub family: String,
    /// Table.
    pub table: String,
    /// Chain.
    pub name: String,
    /// `input`, `forward`, `output` …
    pub hook: String,
    /// What happens to packets that no rule decides about: `accept` or `drop`.
    pub policy: String,
}

/// `/etc/resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resolver {
    /// Whom the host asks.
    pub nameservers: Vec<IpAddr>,
    /// Domains that are tried behind a name.
    pub search: Vec<String>,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cgroup {
    /// Controllers in version 1 hierarchies (also hybrid: version 2 only for systemd's own use).
    V1,
    /// The unified hierarchy.
    V2,
    /// None found.
    #[default]
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
    /// How module files are compressed: `xz`, `zst`, `gz`.
    pub compression: Option<String>,
    /// The host's modprobe says that it cannot read that.
    pub unreadable: bool,
    /// The running kernel has its directory of modules.
    pub directory: bool,
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
            filesystems: BTreeMap::new(),
            addresses: vec![Address {
                interface: "eth0".to_owned(),
                address: IpAddr::from([192, 0, 2, 1]),
                prefix: 24,
            }],
            interfaces: vec![Interface { name: "eth0".to_owned(), mtu: 1500, up: true }],
            default_routes: vec![DefaultRoute { interface: "eth0".to_owned(), gateway: None, metric: 0 }],
            modules: Modules { can_load: true, directory: true, ..Modules::default() },
            oom_score_adj: true,
            nofile: 1 << 20,
            shared_sysctls: false,
            missing_sysctls: Vec::new(),
            writable_sysctls: ["net.ipv4.ip_forward".to_owned()].into(),
            tools: BTreeMap::new(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            nameserver: true,
            listening: BTreeSet::new(),
            swap: Vec::new(),
            host_name: "m1".to_owned(),
            missing_capabilities: Vec::new(),
            security: Security::default(),
            foreign_modules: Vec::new(),
            dkms: Vec::new(),
            clock: Clock { services: vec!["chrony.service".to_owned()], synchronised: Some(true) },
            services: Services { time: vec!["chrony.service".to_owned()], ..Services::default() },
            proxy_variables: BTreeMap::new(),
            chains: Vec::new(),
            resolver: Resolver::default(),
            entropy: Some(256),
            package_managers: Vec::new(),
            immutable: Vec::new(),
            shutdown: false,
            nologin: false,
        }
    }
}
