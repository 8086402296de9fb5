//! Which ports the roles of this host listen on, who connects to them, and who holds them now (`ss -ltnp`).

use std::collections::BTreeMap;

use bundle::component::Role;
use serde::Serialize;

use crate::config::{ClusterConfig, Node, Plugin, Roles};

/// A port of the plan: number, what listens there, the unit that may hold it already, and who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    /// TCP port.
    pub(super) number: u16,
    /// What will listen.
    pub(super) purpose: &'static str,
    /// The unit of ours that is welcome to hold it.
    pub(super) unit: &'static str,
    /// Who connects.
    from: &'static str,
}

/// What a firewall has to let through to this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Opening {
    /// A number, a range `30000-32767`, or empty for a protocol without ports.
    pub(crate) port: String,
    /// `tcp`, `udp`, or what else it is.
    pub(crate) protocol: &'static str,
    /// What listens.
    pub(crate) purpose: &'static str,
    /// Who connects; `this host` needs no opening.
    pub(crate) from: &'static str,
}

/// What connects from here needs no opening.
pub(crate) const HOST: &str = "this host";
const NODES: &str = "all nodes";

const fn port(number: u16, purpose: &'static str, unit: &'static str, from: &'static str) -> Port {
    Port { number, purpose, unit, from }
}

const ETCD: &[Port] = &[
    port(2379, "etcd clients", "etcd.service", "masters and etcd members"),
    port(2380, "etcd peers", "etcd.service", "etcd members"),
    port(2381, "etcd metrics (loopback)", "etcd.service", HOST),
];
const CONTROL_PLANE: &[Port] = &[
    port(6443, "kube-apiserver", "kube-apiserver.service", "all nodes and users of the API"),
    port(10257, "kube-controller-manager (loopback)", "kube-controller-manager.service", HOST),
    port(10259, "kube-scheduler (loopback)", "kube-scheduler.service", HOST),
];
const NODE: &[Port] = &[
    port(8443, "apiserver proxy (loopback)", "sealift-proxy.service", HOST),
    port(10248, "kubelet health (loopback)", "kubelet.service", HOST),
    port(10249, "kube-proxy metrics (loopback)", "kube-proxy.service", HOST),
    port(10250, "kubelet", "kubelet.service", "masters, and nodes that run `installer check` or metrics-server"),
    port(10256, "kube-proxy health (loopback)", "kube-proxy.service", HOST),
];

const fn opening(protocol: &'static str, purpose: &'static str, from: &'static str) -> Opening {
    Opening { port: String::new(), protocol, purpose, from }
}

/// Everything that connects to a node of the cluster with these roles.
pub(crate) fn openings(config: &ClusterConfig, node: &Node, roles: &Roles) -> Vec<Opening> {
    let named: Vec<Role> = roles.iter().collect();
    let tcp = |port: Port| Opening { port: port.number.to_string(), ..opening("tcp", port.purpose, port.from) };
    let mut openings: Vec<Opening> = of_roles(&named, config.runs_etcd(node)).into_iter().map(tcp).collect();
    if !roles.run_pods() {
        return openings;
    }
    // The range is the API server's default (`--service-node-port-range`), which the template leaves alone.
    for protocol in ["tcp", "udp"] {
        let service = opening(protocol, "services of type NodePort", "whoever uses them");
        openings.push(Opening { port: "30000-32767".to_owned(), ..service });
    }
    openings.extend(between_pods(config.network.plugin));
    openings
}

/// What carries packets of pods from node to node, by the defaults of flannel's and calico's published manifests.
fn between_pods(plugin: Plugin) -> Vec<Opening> {
    match plugin {
        Plugin::Bridge => vec![opening("all", "pods, under their own addresses in the pod network", NODES)],
        Plugin::Flannel => vec![Opening { port: "8472".to_owned(), ..opening("udp", "flannel (VXLAN)", NODES) }],
        Plugin::Calico => vec![
            Opening { port: "179".to_owned(), ..opening("tcp", "calico (BGP)", NODES) },
            opening("IP-in-IP", "calico (protocol number 4)", NODES),
        ],
        Plugin::None => Vec::new(),
    }
}

/// The ports of these roles; `stacked` says whether a master runs etcd too.
pub(super) fn of_roles(roles: &[Role], stacked: bool) -> Vec<Port> {
    let mut ports = Vec::new();
    let master = roles.contains(&Role::Master);
    if roles.contains(&Role::Etcd) || (master && stacked) {
        ports.extend_from_slice(ETCD);
    }
    if master {
        ports.extend_from_slice(CONTROL_PLANE);
    }
    if master || roles.contains(&Role::Worker) {
        ports.extend_from_slice(NODE);
    }
    ports.sort_unstable();
    ports
}

/// A listening socket: program name and process id, when `ss` could tell.
pub(super) type Holder = Option<(String, u32)>;

/// Reads the output of `ss --listening --tcp --numeric --processes --no-header`.
pub(super) fn listeners(text: &str) -> BTreeMap<u16, Holder> {
    text.lines()
        .filter_map(|line| {
            let local = line.split_whitespace().nth(3)?;
            let number = local.rsplit(':').next()?.parse().ok()?;
            Some((number, holder(line)))
        })
        .collect()
}

/// `users:(("nginx",pid=12,fd=5),…)` → the first program.
fn holder(line: &str) -> Holder {
    let (_, rest) = line.split_once("users:((\"")?;
    let (name, rest) = rest.split_once('"')?;
    let (_, rest) = rest.split_once("pid=")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((name.to_owned(), digits.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_read_with_their_programs() {
        let text = "LISTEN 0 4096 127.0.0.1:10248 0.0.0.0:* users:((\"kubelet\",pid=712,fd=21))\n\
                    LISTEN 0 128 [::]:22 [::]:*\n\
                    LISTEN 0 4096 *:6443 *:* users:((\"kube-apiserver\",pid=99,fd=7),(\"x\",pid=1,fd=2))\n";
        let found = listeners(text);
        assert_eq!(found[&10248], Some(("kubelet".to_owned(), 712)));
        assert_eq!(found[&22], None);
        assert_eq!(found[&6443], Some(("kube-apiserver".to_owned(), 99)));
    }

    #[test]
    fn a_dedicated_etcd_host_listens_for_etcd_only() {
        let numbers =
            |roles: &[Role], stacked| of_roles(roles, stacked).iter().map(|port| port.number).collect::<Vec<_>>();
        assert_eq!(numbers(&[Role::Etcd], false), [2379, 2380, 2381]);
        assert!(!numbers(&[Role::Master], false).contains(&2379));
        assert!(numbers(&[Role::Master], true).contains(&2379));
        assert!(!numbers(&[Role::Worker], true).contains(&6443));
    }

    #[test]
    fn a_firewall_is_told_who_connects_to_each_role() {
        let text = "[cluster]\nname = \"x\"\n[network]\nplugin = \"flannel\"\n\
                    [[node]]\nname = \"m\"\naddress = \"192.0.2.1\"\nroles = [\"master\"]\n\
                    [[node]]\nname = \"w\"\naddress = \"192.0.2.2\"\nroles = [\"worker\"]\n";
        let config = ClusterConfig::parse(text, std::path::Path::new("x")).unwrap();
        let lines = |node: &Node| -> Vec<String> {
            let openings = openings(&config, node, &node.roles).into_iter().filter(|opening| opening.from != HOST);
            openings.map(|Opening { port, protocol, .. }| format!("{port}/{protocol}")).collect()
        };
        let node = ["10250/tcp", "30000-32767/tcp", "30000-32767/udp", "8472/udp"];
        assert_eq!(lines(&config.nodes[1]), node);
        assert_eq!(lines(&config.nodes[0]), [&["2379/tcp", "2380/tcp", "6443/tcp"], &node[..]].concat());
        // The port of a loopback listener needs no opening, and says so.
        for port in [ETCD, CONTROL_PLANE, NODE].concat() {
            assert_eq!(port.from == HOST, port.purpose.ends_with("(loopback)"), "{port:?}");
        }
        assert!(openings(&config, &config.nodes[1], &Roles::new([Role::Etcd])).iter().all(|one| one.port != "10250"));
    }
}
