//! The CNI file: a bridge with an address from this node's pod network, and port mappings.
//!
//! `ipMasq` is off, because the agent's own packet filter table masquerades what leaves the cluster and nothing else.

use ipnet::IpNet;
use serde_json::{Value, json};

/// The file that containerd reads; it sorts before other networks' files.
pub const FILE: &str = "/etc/cni/net.d/10-sealift.conflist";
/// The bridge on which the pods are.
pub const BRIDGE: &str = "cni0";
/// The network's name; CNI plugins put it into comments of their rules.
pub const NETWORK: &str = "sealift";
/// Address reservations; lost at a reboot like the pods that hold them.
const RESERVATIONS: &str = "/run/sealift/ipam";

/// The version of the CNI specification for a version of the plugins: 1.0.0 of the plugins brought 1.0.0 of the
/// specification (containernetworking/plugins release notes); older ones know 0.4.0.
fn specification(plugins: &str) -> &'static str {
    let major = plugins.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_some_and(|major| major >= 1) { "1.0.0" } else { "0.4.0" }
}

/// The text of the file. `mtu` is that of the interface between the nodes: the bridge adds nothing to a packet.
pub fn conflist(pods: IpNet, plugins: &str, mtu: u32) -> String {
    let anywhere = match pods {
        IpNet::V4(_) => "0.0.0.0/0",
        IpNet::V6(_) => "::/0",
    };
    let list = json!({
        "cniVersion": specification(plugins),
        "name": NETWORK,
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": true,
                "ipMasq": false,
                "hairpinMode": true,
                "mtu": mtu,
                "ipam": {
                    "type": "host-local",
                    "dataDir": RESERVATIONS,
                    "ranges": [[{ "subnet": pods }]],
                    "routes": [{ "dst": anywhere }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    });
    format!("{list:#}\n")
}

/// What to do about a bridge that was made for another pod network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bridge {
    /// It fits, or there is none.
    Fits,
    /// It has another network's address and no pod on it: delete it, the next pod makes it anew.
    Delete,
    /// It has another network's address and pods on it: only a person can decide.
    InUse,
}

/// Compares the bridge with the pod network. `addresses` is the output of `ip -j addr show dev cni0`, `ports` that of
/// `ip -j link show master cni0`; text that is no JSON stands for "no such device".
pub fn bridge(pods: IpNet, addresses: &str, ports: &str) -> Bridge {
    let list = |text: &str| serde_json::from_str::<Vec<Value>>(text).unwrap_or_default();
    let found = list(addresses);
    let mut global = found
        .iter()
        .filter_map(|link| link["addr_info"].as_array())
        .flatten()
        .filter(|address| address["scope"] == "global")
        .filter_map(|address| address["local"].as_str()?.parse::<std::net::IpAddr>().ok())
        .peekable();
    if global.peek().is_none() || global.any(|address| pods.contains(&address)) {
        return Bridge::Fits;
    }
    if has_ports(ports) { Bridge::InUse } else { Bridge::Delete }
}

/// Whether the output of `ip -j link show …` names an interface. It prints empty objects for those it leaves out.
pub fn has_ports(text: &str) -> bool {
    let links = serde_json::from_str::<Vec<Value>>(text).unwrap_or_default();
    links.iter().any(|link| link["ifname"].is_string())
}
