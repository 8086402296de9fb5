use std::collections::BTreeMap;
use std::net::SocketAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::backends::{Backends, Probe};
use super::cni::{Bridge, bridge, conflist};
use super::network::Network;
use super::packet_filter::ruleset;
use super::routes::{self, Hop, Interface, Table};
use crate::cluster::Record;
use crate::host::Host;
use crate::kubeapi::Error;

const CONFIG: &str = r#"
[cluster]
name = "demo"

[[node]]
name = "m1"
address = "10.9.0.1"
roles = ["master"]

[[node]]
name = "w1"
address = "10.9.0.2"
roles = ["worker"]

[[node]]
name = "w2"
address = "10.9.0.3"
roles = ["worker"]
"#;

fn record() -> Record {
    Record::new(CONFIG, 1, BTreeMap::new()).unwrap()
}

fn node(name: &str, pods: &str) -> Value {
    // The address in the object is a lie: the record's counts.
    json!({
        "metadata": { "name": name },
        "spec": { "podCIDR": pods },
        "status": { "addresses": [{ "type": "InternalIP", "address": "6.6.6.6" }] },
    })
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn the_network_is_put_together_from_record_and_nodes() {
    let nodes = [
        node("m1", "10.244.0.0/24"),
        node("w1", "10.244.1.0/24"),
        node("w2", "192.168.0.0/24"),
        node("stranger", "10.244.9.0/24"),
    ];
    let network = Network::of(&record(), &nodes, "m1");
    assert_eq!(network.own, Some(net("10.244.0.0/24")));
    assert_eq!(network.peers, [(net("10.244.1.0/24"), "10.9.0.2".parse().unwrap())].into());
    assert_eq!(network.nodes.len(), 3);
    let text = serde_json::to_string(&network).unwrap();
    assert_eq!(serde_json::from_str::<Network>(&text).unwrap(), network);
}

#[test]
fn a_node_cannot_take_over_this_nodes_pods() {
    let network = Network::of(&record(), &[node("m1", "10.244.0.0/24"), node("w1", "10.244.0.0/24")], "m1");
    assert!(network.peers.is_empty());
    assert_eq!(Network::of(&record(), &[], "m1").own, None);
}

#[test]
fn the_cni_file_speaks_the_plugins_version() {
    let list: Value = serde_json::from_str(&conflist(net("10.244.0.0/24"), "1.1.1", 1400)).unwrap();
    assert_eq!(list["cniVersion"], "1.0.0");
    assert_eq!(list["plugins"][0]["ipMasq"], false);
    assert_eq!(list["plugins"][0]["mtu"], 1400);
    assert_eq!(list["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.244.0.0/24");
    assert!(conflist(net("10.244.0.0/24"), "0.9.1", 1500).contains("\"0.4.0\""));
}

#[test]
fn a_bridge_of_another_network_is_deleted_only_without_pods() {
    let pods = net("10.244.1.0/24");
    let address = |text: &str| json!([{ "addr_info": [{ "local": text, "scope": "global" }] }]).to_string();
    let port = r#"[{"ifname":"veth1"}]"#;
    assert_eq!(bridge(pods, "", ""), Bridge::Fits);
    assert_eq!(bridge(pods, "[{}]", port), Bridge::Fits);
    assert_eq!(bridge(pods, &address("10.244.1.1"), port), Bridge::Fits);
    assert_eq!(bridge(pods, &address("10.244.0.1"), "[]"), Bridge::Delete);
    assert_eq!(bridge(pods, &address("10.244.0.1"), "[{}]"), Bridge::Delete);
    assert_eq!(bridge(pods, &address("10.244.0.1"), port), Bridge::InUse);
}

/// As `ip -j route show table main` prints a host with two interfaces, the default route on the other one.
const MAIN: &str = r#"[
    {"dst":"default","gateway":"192.0.2.1","dev":"eth0","flags":[]},
    {"dst":"192.0.2.0/24","dev":"eth0","protocol":"kernel","scope":"link","prefsrc":"192.0.2.2","flags":[]},
    {"dst":"10.9.0.0/24","dev":"eth1","protocol":"kernel","scope":"link","prefsrc":"10.9.0.1","metric":100,"flags":[]},
    {"dst":"10.9.0.3","gateway":"10.9.0.254","dev":"eth1","flags":[]}]"#;

fn eth1() -> Interface {
    Interface { name: "eth1".to_owned(), mtu: 1500 }
}

fn via(node: &str) -> Hop {
    Hop::Via { node: node.parse().unwrap(), device: "eth1".to_owned(), source: "10.9.0.1".parse().unwrap() }
}

fn lines(changes: &routes::RouteChanges) -> Vec<String> {
    changes.0.iter().map(|line| line.join(" ")).collect()
}

#[test]
fn only_our_routes_change_and_only_where_they_differ() {
    let found = Table::parse(
        r#"[{"dst":"10.244.1.0/24","gateway":"10.9.0.2","dev":"eth1","protocol":"119","prefsrc":"10.9.0.1","flags":[]},
            {"dst":"10.244.2.0/24","gateway":"10.9.0.9","dev":"eth1","protocol":"119","prefsrc":"10.9.0.1","flags":[]},
            {"dst":"10.244.3.0/24","gateway":"10.9.0.4","dev":"eth1","protocol":"119","prefsrc":"10.9.0.1","flags":[]},
            {"dst":"10.244.5.0/24","gateway":"10.9.0.8","dev":"eth1","protocol":"119","flags":[]},
            {"dst":"10.244.9.0/24","gateway":"10.9.0.4","dev":"eth1","protocol":"static","flags":[]}]"#,
    );
    let wanted = [
        ("10.244.1.0/24", "10.9.0.2"),
        ("10.244.2.0/24", "10.9.0.3"),
        ("10.244.4.0/24", "10.9.0.5"),
        ("10.244.5.0/24", "10.9.0.8"),
    ]
    .map(|(pods, node)| (net(pods), via(node)))
    .into();
    assert_eq!(
        lines(&found.changes(&wanted)),
        [
            "-4 route del 10.244.3.0/24 proto 119",
            "-4 route replace 10.244.2.0/24 via 10.9.0.3 dev eth1 src 10.9.0.1 proto 119",
            "-4 route add 10.244.4.0/24 via 10.9.0.5 dev eth1 src 10.9.0.1 proto 119",
            // One that an earlier version made, without a source.
            "-4 route replace 10.244.5.0/24 via 10.9.0.8 dev eth1 src 10.9.0.1 proto 119",
        ]
    );
    assert_eq!(Table::parse(""), Table::default());
}

#[test]
fn services_are_routed_to_loopback_once() {
    let network = Network::of(&record(), &[node("m1", "10.244.0.0/24")], "m1");
    let own = network.address.unwrap();
    let line = "-4 route add 10.96.0.0/16 dev lo src 10.9.0.1 proto 119";
    let (wanted, _) = network.routes(own, &eth1(), &Table::default());
    assert_eq!(lines(&Table::parse("[]").changes(&wanted)), [line]);
    // As `ip -j route` prints it.
    let found =
        r#"[{"dst":"10.96.0.0/16","dev":"lo","protocol":"119","scope":"link","prefsrc":"10.9.0.1","flags":[]}]"#;
    assert!(Table::parse(found).changes(&wanted).0.is_empty());
}

#[test]
fn a_peer_that_is_not_on_this_nodes_network_gets_no_route() {
    let nodes = [node("m1", "10.244.0.0/24"), node("w1", "10.244.1.0/24"), node("w2", "10.244.2.0/24")];
    let network = Network::of(&record(), &nodes, "m1");
    let own = network.address.unwrap();
    let (routes, refused) = network.routes(own, &eth1(), &Table::parse(MAIN));
    assert_eq!(routes.get(&net("10.244.1.0/24")), Some(&via("10.9.0.2")));
    assert_eq!(routes.get(&net("10.244.2.0/24")), None);
    assert_eq!(refused, ["node 10.9.0.3 is behind a router, not on the network of `eth1`: its pods are not routed"]);
    let eth0 = Interface { name: "eth0".to_owned(), mtu: 1500 };
    let (routes, refused) = network.routes(own, &eth0, &Table::parse(MAIN));
    assert_eq!(routes.len(), 1, "only the services");
    assert!(refused[0].contains("is on the network of `eth1`, not on that of `eth0`"), "{refused:?}");
    let (_, refused) = network.routes(own, &eth1(), &Table::default());
    assert!(refused[0].contains("has no route"), "{refused:?}");
}

#[test]
fn the_interface_is_the_one_with_the_configured_address() {
    let text = r#"[{"ifname":"lo","mtu":65536,"addr_info":[{"local":"127.0.0.1"}]},{},
        {"ifname":"eth0","mtu":1500,"addr_info":[{"local":"192.0.2.2"}]},
        {"ifname":"eth1","mtu":1450,"addr_info":[{"local":"10.9.0.9"},{"local":"10.9.0.1"}]}]"#;
    let found = routes::interface(text, "10.9.0.1".parse().unwrap());
    assert_eq!(found, Some(Interface { name: "eth1".to_owned(), mtu: 1450 }));
    assert_eq!(routes::interface(text, "10.9.0.2".parse().unwrap()), None);
}

#[test]
fn the_packet_filter_masquerades_only_what_leaves_the_cluster() {
    let network = Network::of(&record(), &[node("m1", "10.244.0.0/24")], "m1");
    insta::assert_snapshot!(ruleset(&network), @r#"
    table ip sealift { }
    delete table ip sealift
    table ip sealift {
        set inside {
            type ipv4_addr
            flags interval
            elements = { 10.244.0.0/16, 10.9.0.1, 10.9.0.2, 10.9.0.3 }
        }
        chain postrouting {
            type nat hook postrouting priority 100; policy accept;
            ip saddr 10.244.0.0/16 ip daddr != @inside masquerade
        }
        chain forward {
            type filter hook forward priority 0; policy accept;
            iifname "cni0" ip saddr != 10.244.0.0/24 drop
        }
    }
    "#);
}

fn address(last: u8) -> SocketAddr {
    format!("10.9.0.{last}:6443").parse().unwrap()
}

fn probes(results: &[(u8, Probe)]) -> BTreeMap<SocketAddr, Probe> {
    results.iter().map(|(last, probe)| (address(*last), *probe)).collect()
}

fn observed(backends: &mut Backends, rounds: usize, results: &[(u8, Probe)]) {
    (0..rounds).for_each(|_| backends.observe(&probes(results)));
}

#[test]
fn a_master_goes_down_after_three_failures_and_comes_back_after_five_successes() {
    let mut backends = Backends::default();
    backends.set_masters([address(1), address(2)]);
    observed(&mut backends, 2, &[(1, Probe::Failed), (2, Probe::Ready)]);
    assert!(backends.down().is_empty());
    observed(&mut backends, 1, &[(1, Probe::Failed), (2, Probe::Ready)]);
    assert_eq!(backends.down(), [address(1)]);
    assert_eq!(
        backends.text().unwrap(),
        "server 10.9.0.1:6443 max_fails=1 fail_timeout=2s down;\nserver 10.9.0.2:6443 max_fails=1 fail_timeout=2s;\n"
    );
    let both = [(1, Probe::Ready), (2, Probe::Ready)];
    observed(&mut backends, 4, &both);
    observed(&mut backends, 1, &[(1, Probe::Failed), (2, Probe::Ready)]);
    observed(&mut backends, 4, &both);
    assert_eq!(backends.down(), [address(1)]);
    observed(&mut backends, 1, &both);
    assert!(backends.down().is_empty());
}

#[test]
fn when_no_master_answers_all_are_listed_and_the_first_one_back_is_used_alone() {
    let mut backends = Backends::default();
    backends.set_masters([address(1), address(2), address(3)]);
    observed(&mut backends, 3, &[(1, Probe::Failed), (2, Probe::Ready), (3, Probe::Ready)]);
    assert_eq!(backends.down(), [address(1)]);
    observed(&mut backends, 9, &[(1, Probe::Failed), (2, Probe::Failed), (3, Probe::Failed)]);
    assert!(backends.down().is_empty() && !backends.text().unwrap().contains("down"));
    assert!(backends.all_down(&backends.addresses()));
    observed(&mut backends, 5, &[(1, Probe::Failed), (2, Probe::Ready), (3, Probe::Failed)]);
    assert_eq!(backends.down(), [address(1), address(3)]);
    assert_eq!(Backends::default().text(), None);
}

#[test]
fn a_master_that_is_added_has_to_answer_before_it_is_used() {
    let mut backends = Backends::default();
    backends.set_masters([address(1)]);
    backends.set_masters([address(1), address(2)]);
    assert_eq!(backends.down(), [address(2)]);
    observed(&mut backends, 5, &[(1, Probe::Ready), (2, Probe::Ready)]);
    assert!(backends.down().is_empty());
    backends.set_masters([address(2)]);
    assert_eq!(backends.addresses(), [address(2)]);
}

#[test]
fn an_agent_goes_on_with_the_list_of_the_one_before() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::under(directory.path());
    assert_eq!(Backends::restored(&host).unwrap(), Backends::default());
    let mut backends = Backends::default();
    backends.set_masters([address(1), address(2)]);
    observed(&mut backends, 3, &[(1, Probe::Failed), (2, Probe::Ready)]);
    host.create_dir("/var/lib/sealift/agent".as_ref(), 0o700).unwrap();
    host.write(super::backends::FILE.as_ref(), backends.text().unwrap().as_bytes(), 0o644).unwrap();
    assert_eq!(super::backends::read(&host).unwrap(), [(address(1), false), (address(2), true)]);
    let restored = Backends::restored(&host).unwrap();
    assert_eq!(restored.text(), backends.text());
}

#[test]
fn who_answers_lives_even_if_it_does_not_know_us() {
    let refused = |code| {
        Err(Error::Status {
            method: "GET".into(),
            path: "/readyz".into(),
            code,
            reason: String::new(),
            message: String::new(),
        })
    };
    assert_eq!(super::probe::judge(&Ok(())), Probe::Ready);
    assert_eq!(super::probe::judge(&refused(401)), Probe::Ready);
    assert_eq!(super::probe::judge(&refused(500)), Probe::Failed);
    assert_eq!(super::probe::judge(&Err(Error::Connect(address(1), "refused".into()))), Probe::Failed);
    assert_eq!(super::probe::judge(&Err(Error::Credentials("none".into()))), Probe::Unknown);
    let mut backends = Backends::default();
    backends.set_masters([address(1), address(2)]);
    observed(&mut backends, 9, &[(1, Probe::Unknown)]);
    assert!(backends.down().is_empty());
}
