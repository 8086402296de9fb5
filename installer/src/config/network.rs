//! `[network]`: which network the pods are on, how services are reached, and the name of a node's interface.

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::ClusterConfig;
use super::check::Wrong;

/// `[network]` of `cluster.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// The network of the pods.
    pub plugin: Plugin,
    /// How services are reached.
    pub kube_proxy: ProxyMode,
}

/// Who connects the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plugin {
    /// Sealift itself: a bridge on every node and routes between them, for nodes on one L2 network.
    #[default]
    Bridge,
    /// The bundle's addon `flannel`.
    Flannel,
    /// The bundle's addon `calico`.
    Calico,
    /// Nobody: a person installs a network plugin afterwards.
    None,
}

impl Plugin {
    /// As written in `cluster.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Flannel => "flannel",
            Self::Calico => "calico",
            Self::None => "none",
        }
    }

    /// The addon of the bundle that it is, if it is one.
    pub fn addon(self) -> Option<&'static str> {
        match self {
            Self::Flannel | Self::Calico => Some(self.name()),
            Self::Bridge | Self::None => None,
        }
    }

    /// Whether its programs come from elsewhere than the bundle's component `cni`, and so lie in `/opt/cni/bin`.
    pub fn has_own_programs(self) -> bool {
        self != Self::Bridge
    }
}

/// How kube-proxy brings connections to services to their pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyMode {
    /// By Kubernetes version and what the host's kernel can do.
    #[default]
    Auto,
    /// Rules of iptables.
    Iptables,
    /// The kernel's load balancer.
    Ipvs,
    /// Rules of nftables.
    Nftables,
}

impl ProxyMode {
    /// As written in `cluster.toml` and in kube-proxy's configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Iptables => "iptables",
            Self::Ipvs => "ipvs",
            Self::Nftables => "nftables",
        }
    }
}

impl ClusterConfig {
    /// The interface that all nodes with an `interface` name, when every node names the same one: what an addon that takes
    /// one name for all nodes can be told.
    pub fn common_interface(&self) -> Option<&str> {
        let mut names = self.nodes.iter().map(|node| node.interface.as_deref());
        let first = names.next()??;
        names.all(|name| name == Some(first)).then_some(first)
    }
}

/// A name that the kernel takes for an interface: at most 15 bytes (`IFNAMSIZ`), here without anything that a path or a
/// command could take for something else.
pub(super) fn interface(given: Option<Spanned<String>>) -> Result<Option<String>, Wrong> {
    let Some(given) = given else { return Ok(None) };
    let (span, name) = (given.span(), given.into_inner());
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if !(1..=15).contains(&name.len()) || !plain || name.starts_with(['.', '-']) {
        return Err(Wrong(span, "an interface's name has 1 to 15 of `A-Z a-z 0-9 . _ -`, such as `eth0`".to_owned()));
    }
    Ok(Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const GOOD: &str =
        "[cluster]\nname = \"site\"\n\n[[node]]\nname = \"m1\"\naddress = \"192.0.2.1\"\nroles = [\"master\"]\n";

    fn parse(text: &str) -> Result<ClusterConfig, String> {
        ClusterConfig::parse(text, Path::new("x")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_network_is_the_bridge_and_the_mode_is_found_unless_the_config_says_otherwise() {
        assert_eq!(parse(GOOD).unwrap().network, Network { plugin: Plugin::Bridge, kube_proxy: ProxyMode::Auto });
        let text = format!("{GOOD}[network]\nplugin = \"calico\"\nkube_proxy = \"ipvs\"\n");
        let network = parse(&text).unwrap().network;
        assert_eq!((network.plugin.addon(), network.kube_proxy.name()), (Some("calico"), "ipvs"));
        for (wrong, words) in [
            ("plugin = \"cilium\"", "unknown variant `cilium`"),
            ("kube_proxy = \"userspace\"", "unknown variant `userspace`"),
            ("mtu = 1400", "unknown field `mtu`"),
        ] {
            let error = parse(&format!("{GOOD}[network]\n{wrong}\n")).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_node_may_name_its_interface() {
        let config = parse(&format!("{GOOD}interface = \"eth1.100\"\n")).unwrap();
        assert_eq!(config.nodes[0].interface.as_deref(), Some("eth1.100"));
        assert_eq!(config.common_interface(), Some("eth1.100"));
        let second = "[[node]]\nname = \"w1\"\naddress = \"192.0.2.2\"\nroles = [\"worker\"]\n";
        assert_eq!(parse(&format!("{GOOD}interface = \"eth1\"\n{second}")).unwrap().common_interface(), None);
        assert_eq!(parse(GOOD).unwrap().common_interface(), None);
        for name in ["", "../eth0", "a name", "-j", "sixteen-bytes-xx"] {
            let error = parse(&format!("{GOOD}interface = \"{name}\"\n")).unwrap_err();
            assert!(error.contains("an interface's name has") && error.contains("line 8"), "{error}");
        }
    }
}
