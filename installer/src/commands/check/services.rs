//! Every service address and node port with somebody behind it, as this host's kube-proxy serves them; and the cluster's DNS.
//!
//! Only TCP can be proven by connecting. UDP is named as not checked, but for DNS, which is asked a real question.

mod endpoints;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use self::endpoints::Ready;
use super::dial::{dial, for_all};
use super::table::{Table, Tally};
use super::{Question, dns};
use crate::kubeapi::Client;

/// Names that a row mentions.
const NAMES: usize = 10;

/// A service with an address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Service {
    /// `namespace/name`.
    name: String,
    address: IpAddr,
    ports: Vec<Port>,
    /// Node ports answer only on nodes with an endpoint (`externalTrafficPolicy: Local`).
    local: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Port {
    name: String,
    number: u16,
    on_nodes: Option<u16>,
    tcp: bool,
}

/// A connection to try.
struct Target {
    subject: String,
    address: SocketAddr,
    /// The node whose port it is; `None` for a service's own address.
    node: Option<String>,
}

/// What was found, without the services themselves.
#[derive(Default)]
struct Seen {
    addresses: Tally,
    nodes: BTreeMap<String, Tally>,
    others: Names,
    empty: Names,
    dns: Option<IpAddr>,
}

#[derive(Default)]
struct Names(usize, Vec<String>);

impl Names {
    fn add(&mut self, name: String) {
        self.0 += 1;
        if self.1.len() < NAMES {
            self.1.push(name);
        }
    }

    fn text(&self) -> String {
        format!("{}: {}{}", self.0, self.1.join(", "), if self.0 > self.1.len() { ", …" } else { "" })
    }
}

/// Rows for service addresses, node ports and DNS.
pub(super) fn look(question: &Question<'_>, client: &Client<'_>, table: &mut Table) {
    let ready = match endpoints::list(client) {
        Ok(ready) => ready,
        Err(error) => return table.failed("endpoints of services", format!("{error:#}")),
    };
    let mut seen = Seen::default();
    let listed = client.pages("/api/v1/services", |page| {
        let services: Vec<Service> = page.iter().filter_map(read).collect();
        seen.probe(question, &ready, &services);
    });
    table.tally("service addresses", &seen.addresses);
    for (node, tally) in &seen.nodes {
        table.tally(&format!("node ports of {node}"), tally);
    }
    if seen.empty.0 > 0 {
        table.unchecked("services without a ready endpoint", seen.empty.text());
    }
    if seen.others.0 > 0 {
        table.unchecked("ports of services that are not TCP", seen.others.text());
    }
    if let Err(error) = listed {
        table.failed("services", format!("{error:#}"));
    }
    if let Some(server) = seen.dns {
        names(question, server, table);
    }
}

/// Asks the cluster's DNS for the address of the API.
fn names(question: &Question<'_>, server: IpAddr, table: &mut Table) {
    let subject = format!("DNS at {server}");
    let name = format!("kubernetes.default.svc.{}", question.config.cluster.domain);
    let expected = question.config.api_service_ip();
    match dns::ask(server, &name, question.timeout) {
        Ok(found) if found.iter().any(|address| IpAddr::V4(*address) == expected) => {
            table.good(subject, format!("{name} is {expected}"));
        }
        Ok(found) => table.failed(subject, format!("{name} is {found:?}, not {expected}")),
        Err(error) => table.failed(subject, error),
    }
}

impl Seen {
    fn probe(&mut self, question: &Question<'_>, ready: &BTreeMap<String, Ready>, services: &[Service]) {
        let nodes: Vec<(&str, IpAddr)> = question
            .config
            .nodes
            .iter()
            .filter(|node| node.roles.master() || node.roles.worker())
            .map(|node| (node.name.as_str(), node.address))
            .collect();
        let mut targets = Vec::new();
        for service in services {
            if service.name == "kube-system/kube-dns" {
                self.dns = Some(service.address);
            }
            self.sort(service, ready.get(&service.name), &nodes, &mut targets);
        }
        let results = for_all(&targets, |target| {
            let first = dial(target.address, question.timeout).open();
            // Endpoints come and go; one that just went is not asked twice.
            first.or_else(|_| {
                question.host.pause(std::time::Duration::from_secs(1));
                dial(target.address, question.timeout).open()
            })
        });
        for (target, result) in targets.into_iter().zip(results) {
            let tally = match target.node {
                Some(node) => self.nodes.entry(node).or_default(),
                None => &mut self.addresses,
            };
            tally.add(|| target.subject, result);
        }
    }

    /// What of a service can be tried, and what not.
    fn sort(&mut self, service: &Service, ready: Option<&Ready>, nodes: &[(&str, IpAddr)], targets: &mut Vec<Target>) {
        let Service { name, address, ports, local } = service;
        for port in ports {
            if !port.tcp {
                self.others.add(format!("{name} {}", port.number));
                continue;
            }
            let Some(ready) = ready.filter(|ready| ready.has(&port.name)) else {
                self.empty.add(format!("{name} {}", port.number));
                continue;
            };
            let own = SocketAddr::new(*address, port.number);
            targets.push(Target { subject: format!("service {name} at {own}"), address: own, node: None });
            let Some(number) = port.on_nodes else { continue };
            for (node, address) in nodes.iter().filter(|(node, _)| !local || ready.is_on(node)) {
                let at = SocketAddr::new(*address, number);
                let subject = format!("node port of {name} at {at}");
                targets.push(Target { subject, address: at, node: Some((*node).to_owned()) });
            }
        }
    }
}

/// A service with an address of its own; `None` for headless ones and names of others.
fn read(object: &Value) -> Option<Service> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str);
    let address = text("/spec/clusterIP")?.parse().ok()?;
    let ports = object.pointer("/spec/ports").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let number = |port: &Value, key: &str| port[key].as_u64().and_then(|number| u16::try_from(number).ok());
    Some(Service {
        name: format!("{}/{}", text("/metadata/namespace")?, text("/metadata/name")?),
        address,
        ports: ports
            .iter()
            .filter_map(|port| {
                Some(Port {
                    name: port["name"].as_str().unwrap_or_default().to_owned(),
                    number: number(port, "port")?,
                    on_nodes: number(port, "nodePort").filter(|number| *number != 0),
                    tcp: port["protocol"].is_null() || port["protocol"] == "TCP",
                })
            })
            .collect(),
        local: text("/spec/externalTrafficPolicy") == Some("Local"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(policy: &str) -> Service {
        let object = json!({
            "metadata": { "namespace": "default", "name": "web" },
            "spec": {
                "clusterIP": "10.96.0.20",
                "type": "NodePort",
                "externalTrafficPolicy": policy,
                "ports": [
                    { "name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP", "targetPort": 8080 },
                    { "name": "metrics", "port": 9100, "nodePort": 30910, "protocol": "TCP" },
                    { "name": "dns", "port": 53, "nodePort": 30053, "protocol": "UDP" },
                ],
            },
        });
        read(&object).unwrap()
    }

    fn sorted(policy: &str) -> (Vec<String>, Seen) {
        let ready = endpoints::tests::ready(&["http"], &["w2"]);
        let nodes = [("w1", "10.9.0.2".parse().unwrap()), ("w2", "10.9.0.3".parse().unwrap())];
        let (mut seen, mut targets) = (Seen::default(), Vec::new());
        seen.sort(&service(policy), Some(&ready), &nodes, &mut targets);
        (targets.into_iter().map(|target| target.subject).collect(), seen)
    }

    #[test]
    fn every_tcp_port_with_somebody_behind_it_is_tried_on_every_node() {
        let (targets, seen) = sorted("Cluster");
        assert_eq!(
            targets,
            [
                "service default/web at 10.96.0.20:80",
                "node port of default/web at 10.9.0.2:30080",
                "node port of default/web at 10.9.0.3:30080",
            ]
        );
        assert_eq!(seen.empty.text(), "1: default/web 9100");
        assert_eq!(seen.others.text(), "1: default/web 53");
    }

    #[test]
    fn a_local_node_port_is_tried_only_where_an_endpoint_is() {
        assert_eq!(sorted("Local").0[1..], ["node port of default/web at 10.9.0.3:30080"]);
    }

    #[test]
    fn headless_services_and_names_of_others_have_no_address() {
        let service = |spec: Value| json!({ "metadata": { "namespace": "a", "name": "b" }, "spec": spec });
        assert_eq!(read(&service(json!({ "clusterIP": "None" }))), None);
        assert_eq!(read(&service(json!({ "type": "ExternalName", "externalName": "x.example" }))), None);
    }
}
