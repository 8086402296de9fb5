//! The table of leaf certificates: who is named, for what use, with which addresses.
//!
//! Source: KUBERNETES.md, "Certificates". User and group names are those that RBAC and the apiserver's own authorizers
//! look for; everything else is named `sealift:…`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::AuthorityName;

/// Below the PKI directory: the client certificate with which an apiserver asks etcd.
pub const ETCD_CLIENT: &str = "apiserver-etcd-client";

/// What a leaf may be used for (extended key usage).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Answering TLS connections.
    Server,
    /// Opening TLS connections.
    Client,
    /// Both: etcd members dial themselves and each other.
    ServerAndClient,
}

/// A leaf certificate as wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Who signs it.
    pub authority: AuthorityName,
    /// Common name: the user name in Kubernetes.
    pub common_name: String,
    /// Organization: the group in Kubernetes.
    pub organization: Option<String>,
    /// Extended key usage.
    pub usage: Usage,
    /// DNS names.
    pub names: BTreeSet<String>,
    /// IP addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// How long it lasts from now.
    pub lifetime: Duration,
}

/// What the leaves of one host are named after.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's DNS domain, `cluster.local`.
    pub domain: String,
    /// The first service address.
    pub api_service_ip: IpAddr,
    /// The node's name.
    pub node: String,
    /// The node's address.
    pub address: IpAddr,
    /// Further names of the apiserver, from the config.
    pub extra_names: BTreeSet<String>,
    /// Further addresses of the apiserver, from the config.
    pub extra_addresses: BTreeSet<IpAddr>,
    /// How long leaves last.
    pub lifetime: Duration,
}

/// A leaf that lives in two files, `STEM.crt` and `STEM.key` below the PKI directory.
#[derive(Clone, Debug)]
pub struct PairFile {
    /// Path below the PKI directory, without suffix.
    pub stem: &'static str,
    /// The certificate.
    pub leaf: Leaf,
}

impl Subject {
    fn client(&self, authority: AuthorityName, common_name: &str) -> Leaf {
        Leaf {
            authority,
            common_name: common_name.to_owned(),
            organization: None,
            usage: Usage::Client,
            names: BTreeSet::new(),
            addresses: BTreeSet::new(),
            lifetime: self.lifetime,
        }
    }

    fn etcd_member(&self) -> Leaf {
        let mut leaf = self.client(AuthorityName::Etcd, &self.node);
        leaf.usage = Usage::ServerAndClient;
        leaf.names = [self.node.clone(), "localhost".to_owned()].into();
        leaf.addresses = [self.address, Ipv4Addr::LOCALHOST.into()].into();
        leaf
    }

    fn apiserver(&self) -> Leaf {
        let mut leaf = self.client(AuthorityName::Cluster, "kube-apiserver");
        leaf.usage = Usage::Server;
        leaf.names =
            ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(String::from).into();
        leaf.names.insert(format!("kubernetes.default.svc.{}", self.domain));
        leaf.names.insert(self.node.clone());
        leaf.names.extend(self.extra_names.iter().cloned());
        leaf.addresses =
            [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), self.api_service_ip, self.address].into();
        leaf.addresses.extend(&self.extra_addresses);
        leaf
    }

    /// The client certificate with which an apiserver asks etcd.
    pub fn etcd_client(&self) -> Leaf {
        self.client(AuthorityName::Etcd, "sealift:apiserver")
    }

    /// The certificate pairs of an etcd member.
    pub fn etcd_pairs(&self) -> Vec<PairFile> {
        vec![
            PairFile { stem: "etcd/server", leaf: self.etcd_member() },
            PairFile { stem: "etcd/peer", leaf: self.etcd_member() },
            PairFile { stem: "etcd/admin", leaf: self.client(AuthorityName::Etcd, "sealift:etcd-admin") },
        ]
    }

    /// The certificate pairs of a master.
    pub fn master_pairs(&self) -> Vec<PairFile> {
        use AuthorityName::{Cluster, FrontProxy};
        vec![
            PairFile { stem: "apiserver", leaf: self.apiserver() },
            PairFile { stem: ETCD_CLIENT, leaf: self.etcd_client() },
            PairFile {
                stem: "apiserver-kubelet-client",
                leaf: self.client(Cluster, "sealift:apiserver-kubelet-client"),
            },
            PairFile { stem: "front-proxy-client", leaf: self.client(FrontProxy, "front-proxy-client") },
            PairFile { stem: "approver", leaf: self.client(Cluster, "sealift:csr-approver") },
        ]
    }

    /// The clients whose certificate is embedded in a kubeconfig: file name below the kubeconfig directory, certificate,
    /// the unit that reads it.
    pub fn master_kubeconfigs(&self) -> Vec<(&'static str, Leaf, &'static str)> {
        use AuthorityName::Cluster;
        vec![
            (
                "controller-manager.conf",
                self.client(Cluster, "system:kube-controller-manager"),
                "kube-controller-manager.service",
            ),
            ("scheduler.conf", self.client(Cluster, "system:kube-scheduler"), "kube-scheduler.service"),
        ]
    }

    /// The administrator of this host: bound to `cluster-admin` through its group, so it can be withdrawn.
    pub fn admin(&self) -> Leaf {
        let mut leaf = self.client(AuthorityName::Cluster, &format!("sealift:admin:{}", self.node));
        leaf.organization = Some("sealift:cluster-admins".to_owned());
        leaf
    }

    /// A client that passes every authorization check, for the minutes in which RBAC does not exist yet.
    /// It is kept in memory and never written: such a certificate cannot be revoked.
    pub fn bootstrap_admin(&self) -> Leaf {
        let mut leaf = self.client(AuthorityName::Cluster, "sealift:bootstrap");
        leaf.organization = Some("system:masters".to_owned());
        leaf.lifetime = Duration::from_secs(15 * 60);
        leaf
    }
}
