//! The other nodes, as this host's routes lead to them: over the interface with the configured address, from that address.
//!
//! Hosts with several interfaces are the reason: the default route may lead elsewhere. The built-in bridge routes pods
//! straight to their nodes, so nodes behind a router cannot use it. No packet is sent; peers need not be up.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Deserializer, Value};

use super::finding::Finding;
use crate::checks::CheckName;
use crate::config::{ClusterConfig, Node, Plugin};
use crate::context::Context;
use crate::host::Command;

/// The smallest largest packet that IPv6 and most tunnels expect of a link (RFC 8200 §5); less is a mistake somewhere.
const MTU: u32 = 1280;
/// Names of nodes in one finding.
const NAMES: usize = 5;

/// How the kernel would send to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Way {
    local: bool,
    device: String,
    gateway: Option<IpAddr>,
    source: Option<IpAddr>,
}

/// All findings of this file.
pub(super) fn look(context: &Context<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = named_interface(context).into_iter().collect();
    let own = context.node.address;
    // Without the address there is no way to speak of: that is a finding already.
    let Some(at) = context.facts.addresses.iter().find(|found| found.address == own) else { return findings };
    findings.extend(small_packets(context, &at.interface));
    let peers: Vec<&Node> = context.config.nodes.iter().filter(|node| node.name != context.node.name).collect();
    if peers.is_empty() {
        return findings;
    }
    // One call for all: a run must not take longer in a larger cluster.
    let questions: Vec<String> = peers.iter().map(|peer| format!("route get {}\n", peer.address)).collect();
    let command = Command::new("ip").args(["-force", "-j", "-batch", "-"]).input(questions.concat());
    match context.host.try_run(&command) {
        Ok(finished) => {
            findings.extend(judge(context.config, context.node, &at.interface, &parse(&finished.text())));
        }
        // Without the tool that is a finding already.
        Err(error) => findings.push(Finding::limit(
            CheckName::Routes,
            "way to other nodes",
            format!("{error:#}"),
            "it is not looked at",
            "see that `ip route get ADDRESS` works here for each node",
        )),
    }
    findings
}

/// The interface that the config names must have the address.
fn named_interface(context: &Context<'_>) -> Option<Finding> {
    let (wanted, own) = (context.node.interface.as_deref()?, context.node.address);
    let found = context.facts.addresses.iter().find(|found| found.address == own)?;
    if found.interface == wanted {
        return Some(Finding::good(CheckName::Interface, "interface", format!("{wanted} has {own}")));
    }
    Some(Finding::refused(
        CheckName::Interface,
        "interface",
        format!("{own} on {}", found.interface),
        format!("it on {wanted}, as the cluster config says"),
        "correct `interface` in the config, or the host's network",
    ))
}

fn small_packets(context: &Context<'_>, interface: &str) -> Option<Finding> {
    let mtu = context.facts.interfaces.iter().find(|found| found.name == interface)?.mtu;
    let found = format!("{mtu} on {interface}");
    (mtu < MTU).then(|| {
        Finding::limit(
            CheckName::Mtu,
            "MTU",
            found,
            format!("pods get no more; {MTU} is expected of a link"),
            format!("`ip link set {interface} mtu {MTU}` where the network carries that, and in its configuration too"),
        )
    })
}

/// The answers by the address that was asked for. Each question has a list of its own; those without a way have none.
fn parse(text: &str) -> BTreeMap<IpAddr, Way> {
    let answers = Deserializer::from_str(text).into_iter::<Vec<Value>>();
    let routes = answers.map_while(Result::ok).flatten();
    let address = |route: &Value, key: &str| route[key].as_str().and_then(|text| text.parse().ok());
    routes
        .filter_map(|route| {
            let gateway = address(&route, "gateway");
            let way = Way {
                local: route["type"] == "local",
                device: route["dev"].as_str()?.to_owned(),
                gateway: gateway.or_else(|| route["via"]["host"].as_str()?.parse().ok()),
                source: address(&route, "prefsrc"),
            };
            Some((address(&route, "dst")?, way))
        })
        .collect()
}

/// One finding for each kind of trouble, with the nodes it is about.
fn judge(config: &ClusterConfig, node: &Node, interface: &str, ways: &BTreeMap<IpAddr, Way>) -> Vec<Finding> {
    let own = node.address;
    let bridge = config.network.plugin == Plugin::Bridge && node.roles.run_pods();
    let mut troubles: BTreeMap<Trouble, Vec<String>> = BTreeMap::new();
    for peer in config.nodes.iter().filter(|peer| peer.name != node.name) {
        let trouble = match ways.get(&peer.address) {
            None => Some(Trouble::NoWay),
            Some(way) if way.local => Some(Trouble::Ours),
            Some(way) if bridge && peer.roles.run_pods() && way.gateway.is_some() => Some(Trouble::Router),
            Some(way) if bridge && peer.roles.run_pods() && way.device != interface => {
                Some(Trouble::OtherInterface(way.device.clone()))
            }
            Some(Way { source: Some(source), .. }) if *source != own => {
                let both = config.runs_etcd(node) && config.runs_etcd(peer);
                Some(if both { Trouble::EtcdSource(*source) } else { Trouble::OtherSource(*source) })
            }
            Some(_) => None,
        };
        if let Some(trouble) = trouble {
            troubles.entry(trouble).or_default().push(format!("{} ({})", peer.name, peer.address));
        }
    }
    troubles.into_iter().map(|(trouble, names)| trouble.finding(&list(&names), interface, own)).collect()
}

fn list(names: &[String]) -> String {
    let shown = names.iter().take(NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    NoWay,
    Ours,
    Router,
    OtherInterface(String),
    EtcdSource(IpAddr),
    OtherSource(IpAddr),
}

impl Trouble {
    fn finding(&self, names: &str, interface: &str, own: IpAddr) -> Finding {
        const ADDON: &str = "correct the config or the host's routes; nodes behind routers need `plugin = \"calico\"` or \
            `\"flannel\"` in `[network]`";
        let one_network =
            format!("all nodes on the network of {interface} (the built-in bridge routes pods to their nodes)");
        let first = "make the configured address the first of its interface, or give the route a `src`";
        match self {
            Self::NoWay => {
                let needed = "a route to every node of the cluster config";
                Finding::refused(
                    CheckName::Routes,
                    "way to other nodes",
                    format!("none to {names}"),
                    needed,
                    "correct the host's routes",
                )
            }
            Self::Ours => Finding::refused(
                CheckName::Routes,
                "addresses of other nodes",
                format!("on this host: {names}"),
                "each address on its own host",
                "correct the cluster config or this host's network",
            ),
            Self::Router => Finding::refused(
                CheckName::Routes,
                "way to other nodes",
                format!("a router before {names}"),
                one_network,
                ADDON,
            ),
            Self::OtherInterface(device) => Finding::refused(
                CheckName::Routes,
                "way to other nodes",
                format!("{device} leads to {names}"),
                one_network,
                ADDON,
            ),
            Self::EtcdSource(source) => Finding::refused(
                CheckName::SourceAddress,
                "source address",
                format!("{source} towards {names}"),
                format!("{own}: etcd refuses a member that calls from another address than its certificate says"),
                first,
            ),
            Self::OtherSource(source) => Finding::limit(
                CheckName::SourceAddress,
                "source address",
                format!("{source} towards {names}"),
                format!("they see this node under it, not under {own}"),
                first,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // As `ip -force -j -batch -` of iproute2 6.1 answers; the third question had no answer.
    const ANSWERS: &str = r#"[{"type":"local","dst":"10.9.0.1","dev":"lo","prefsrc":"10.9.0.1","flags":[],"uid":0,"cache":["local"]}]
[{"dst":"10.9.0.2","dev":"eth1","prefsrc":"10.9.0.1","flags":[],"uid":0,"cache":[]}]
[{"dst":"10.8.0.4","gateway":"192.0.2.1","dev":"eth0","prefsrc":"192.0.2.2","flags":[],"uid":0,"cache":[]}]
"#;

    #[test]
    fn answers_are_told_apart_by_their_destination() {
        let ways = parse(ANSWERS);
        assert_eq!(ways.len(), 3);
        assert!(ways[&"10.9.0.1".parse().unwrap()].local);
        let direct = &ways[&"10.9.0.2".parse().unwrap()];
        assert_eq!((direct.device.as_str(), direct.gateway), ("eth1", None));
        let routed = &ways[&"10.8.0.4".parse().unwrap()];
        assert_eq!(routed.gateway, Some("192.0.2.1".parse().unwrap()));
        assert!(parse("").is_empty());
        assert_eq!(list(&["a", "b", "c", "d", "e", "f", "g"].map(str::to_owned)), "a, b, c, d, e and 2 more");
    }

    const CONFIG: &str = r#"
[cluster]
name = "demo"
[[node]]
name = "m1"
address = "10.9.0.1"
roles = ["master"]
[[node]]
name = "m2"
address = "10.9.0.2"
roles = ["master"]
[[node]]
name = "w1"
address = "10.9.0.3"
roles = ["worker"]
"#;

    fn way(device: &str, gateway: Option<&str>, source: &str) -> Way {
        Way {
            local: false,
            device: device.to_owned(),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            source: Some(source.parse().unwrap()),
        }
    }

    /// What m1 finds, whose address is on eth1, when the others are reached so.
    fn found(plugin: &str, m2: Option<Way>, w1: Option<Way>) -> Vec<String> {
        let text = format!("{CONFIG}[network]\nplugin = \"{plugin}\"\n");
        let config = ClusterConfig::parse(&text, "x".as_ref()).unwrap();
        let ways = [("10.9.0.2", m2), ("10.9.0.3", w1)];
        let ways = ways.into_iter().filter_map(|(peer, way)| Some((peer.parse().unwrap(), way?))).collect();
        judge(&config, &config.nodes[0], "eth1", &ways).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nodes_of_the_bridge_are_on_one_network() {
        let good = || Some(way("eth1", None, "10.9.0.1"));
        assert!(found("bridge", good(), good()).is_empty());
        let routed = || Some(way("eth1", Some("10.9.0.254"), "10.9.0.1"));
        let refused = found("bridge", good(), routed());
        assert!(
            refused[0].contains("found a router before w1 (10.9.0.3)") && refused[0].contains("calico"),
            "{refused:?}"
        );
        assert!(found("calico", routed(), routed()).is_empty());
        // The default route is on another interface, and the network of the nodes is not on the right one.
        let other = || Some(way("eth0", None, "10.9.0.7"));
        let refused = found("bridge", other(), other());
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert!(refused[0].contains("found eth0 leads to m2 (10.9.0.2), w1 (10.9.0.3)"), "{refused:?}");
        let refused = found("calico", good(), None);
        assert!(refused[0].contains("found none to w1"), "{refused:?}");
        let twice = Some(Way { local: true, ..way("lo", None, "10.9.0.3") });
        assert!(found("none", good(), twice)[0].contains("found on this host: w1"));
    }

    #[test]
    fn another_source_address_is_refused_between_members_of_etcd() {
        let second = || Some(way("eth1", None, "10.9.0.9"));
        let lines = found("bridge", second(), second());
        assert!(lines[0].contains("found 10.9.0.9 towards m2") && lines[0].contains("etcd refuses"), "{lines:?}");
        assert_eq!(
            lines[1],
            "source address: 10.9.0.9 towards w1 (10.9.0.3); they see this node under it, not under 10.9.0.1; do: make the configured \
             address the first of its interface, or give the route a `src` [source-address]"
        );
    }
}
