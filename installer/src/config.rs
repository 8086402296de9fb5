//! `cluster.toml`: the cluster's networks and its nodes. The same file on every host; unknown keys are errors.
//!
//! Parsing gives a value that has been checked as a whole: addresses are numeric and distinct, networks do not overlap,
//! there is a master. Errors show the line and what is wrong there.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use bundle::Digest;
use bundle::component::Role;
use ipnet::IpNet;
use serde::Deserialize;

pub mod addons;
mod check;
pub mod edit;
pub mod host;
pub mod kernel;
pub mod network;

pub use addons::Addons;
pub use check::ConfigError;
pub use host::HostSettings;
pub use kernel::{Kernel, KernelPolicy, OnFailure};
pub use network::{Network, Plugin, ProxyMode};

/// The roles of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roles(BTreeSet<Role>);

impl Roles {
    /// A set of roles.
    pub fn new(roles: impl IntoIterator<Item = Role>) -> Self {
        Self(roles.into_iter().collect())
    }

    /// Whether this role is among them.
    pub fn contains(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    /// Control plane.
    pub fn master(&self) -> bool {
        self.contains(Role::Master)
    }

    /// Runs workloads.
    pub fn worker(&self) -> bool {
        self.contains(Role::Worker)
    }

    /// Dedicated etcd member.
    pub fn etcd(&self) -> bool {
        self.contains(Role::Etcd)
    }

    /// Whether a kubelet runs here: masters are nodes too, dedicated etcd members are not.
    pub fn run_pods(&self) -> bool {
        self.master() || self.worker()
    }

    /// In a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = Role> {
        self.0.iter().copied()
    }

    /// No role at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every role of this set is in the other.
    pub fn is_subset(&self, other: &Roles) -> bool {
        self.0.is_subset(&other.0)
    }
}

/// The name of a role as written in files and on the command line.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Master => "master",
        Role::Worker => "worker",
        Role::Etcd => "etcd",
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(role_name).collect();
        f.pad(&names.join(","))
    }
}

/// A checked `cluster.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// `[cluster]`.
    pub cluster: Cluster,
    /// `api_names` of `[cluster]`: further DNS names of the API, in the apiservers' certificates. They may change.
    pub api_names: BTreeSet<String>,
    /// `api_addresses` of `[cluster]`: further addresses of the API, the same way.
    pub api_addresses: BTreeSet<IpAddr>,
    /// `[[node]]`, in the order of the file.
    pub nodes: Vec<Node>,
    /// `[etcd]`.
    pub etcd: Etcd,
    /// `[network]`.
    pub network: Network,
    /// `[addons]`.
    pub addons: Addons,
    /// `[kernel]`.
    pub kernel: Kernel,
    /// `[host]`.
    pub host: HostSettings,
    /// `[certificates]`.
    pub certificates: Certificates,
    /// Digest of the file's bytes.
    pub digest: Digest,
}

/// Names and networks of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Name, RFC 1123 label.
    pub name: String,
    /// DNS domain of services.
    pub domain: String,
    /// Network of service addresses.
    pub service_cidr: IpNet,
    /// Network of pod addresses; each node gets a part of it.
    pub pod_cidr: IpNet,
}

/// One host of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Node name, RFC 1123, lower case.
    pub name: String,
    /// Its numeric address, by which it is known to all others.
    pub address: IpAddr,
    /// The interface that must carry the address, where the config says one.
    pub interface: Option<String>,
    /// What it is for.
    pub roles: Roles,
}

/// Settings of etcd; defaults are etcd's own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Etcd {
    /// Heartbeat interval in milliseconds.
    pub heartbeat_ms: u32,
    /// Election timeout in milliseconds, at least five heartbeats.
    pub election_ms: u32,
    /// Size at which the database refuses writes, bytes.
    pub quota_bytes: u64,
    /// Data directory.
    pub data_dir: PathBuf,
    /// Separate directory of the write-ahead log.
    pub wal_dir: Option<PathBuf>,
}

impl Default for Etcd {
    fn default() -> Self {
        Self {
            heartbeat_ms: 100,
            election_ms: 1000,
            quota_bytes: 2 << 30,
            data_dir: PathBuf::from("/var/lib/etcd"),
            wal_dir: None,
        }
    }
}

/// Lifetimes of certificates; for tests of renewal.
#[derive(Clone, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Certificates {
    /// Lifetime of leaf certificates in hours; a year when absent.
    pub leaf_hours: Option<u32>,
    /// Lifetime of kubelet certificates in minutes (controller-manager's signing duration); a year when absent.
    pub kubelet_minutes: Option<u32>,
}

impl ClusterConfig {
    /// Bits of the part of the pod network that one node gets.
    pub const NODE_CIDR_MASK: u8 = 24;

    /// All nodes with role master, in the order of the file.
    pub fn masters(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.roles.master())
    }

    /// The etcd members: nodes with role etcd, or the masters when there are none.
    pub fn etcd_members(&self) -> Vec<&Node> {
        let dedicated: Vec<&Node> = self.nodes.iter().filter(|node| node.roles.etcd()).collect();
        if dedicated.is_empty() { self.masters().collect() } else { dedicated }
    }

    /// Whether etcd runs on this node.
    pub fn runs_etcd(&self, node: &Node) -> bool {
        self.etcd_members().iter().any(|member| member.name == node.name)
    }

    /// The address of the `kubernetes` service: the first of the service network.
    pub fn api_service_ip(&self) -> IpAddr {
        nth_address(self.cluster.service_cidr, 1)
    }

    /// The address of the DNS service: the tenth of the service network.
    pub fn dns_ip(&self) -> IpAddr {
        nth_address(self.cluster.service_cidr, 10)
    }

    /// What is allowed and yet not good: shown wherever a config is read for people.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let (masters, members) = (self.masters().count(), self.etcd_members().len());
        let dedicated = self.nodes.iter().any(|node| node.roles.etcd());
        if masters == 1 {
            warnings
                .push("one master: while it is away, nothing can be changed, and its loss is the cluster's".to_owned());
        }
        if members > 1 && members % 2 == 0 {
            let fewer = members - 1;
            warnings
                .push(format!("{members} etcd members survive no more losses than {fewer}: an odd number is better"));
        }
        if dedicated && members < 3 {
            warnings.push(format!("{members} dedicated etcd members do not survive the loss of one: three do"));
        }
        if members > 7 {
            warnings.push(format!("{members} etcd members: writes get slower with each, five are enough"));
        }
        if !self.nodes.iter().any(|node| node.roles.worker()) {
            warnings.push("no node has the role `worker`: nothing but the cluster's own pods will run".to_owned());
        }
        warnings
    }

    /// The node that has one of these addresses.
    pub fn node_at(&self, addresses: &[IpAddr]) -> Option<&Node> {
        self.nodes.iter().find(|node| addresses.contains(&node.address))
    }
}

fn nth_address(network: IpNet, n: u32) -> IpAddr {
    match network {
        IpNet::V4(network) => Ipv4Addr::from(u32::from(network.network()).wrapping_add(n)).into(),
        IpNet::V6(network) => {
            std::net::Ipv6Addr::from(u128::from(network.network()).wrapping_add(u128::from(n))).into()
        }
    }
}
