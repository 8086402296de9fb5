//! Every pod of the cluster, reached by its own address from this host.
//!
//! A pod that declares a TCP port is asked there, another one at a port where "connection refused" proves as much: the answer
//! came from the pod. Pods of the host's network have no address of their own.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use super::Question;
use super::dial::{Dial, dial, for_all};
use super::table::{Table, Tally};
use crate::kubeapi::{Client, Error};

/// Where nobody listens, usually (discard, RFC 863).
const ANY_PORT: u16 = 9;
/// Names that a row mentions.
const NAMES: usize = 10;

/// What to do about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pod {
    /// Has an address of its own.
    Own { path: String, name: String, node: String, address: SocketAddr },
    /// Runs in its host's network.
    Host,
    /// Should run, but does not.
    NotRunning(String),
    /// Has ended, or is about to.
    Over,
}

/// What was found, without the pods themselves.
#[derive(Default)]
struct Seen {
    nodes: BTreeMap<String, Tally>,
    host: usize,
    waiting: usize,
    names: Vec<String>,
}

/// One row a node, and one for every pod that does not answer.
pub(super) fn look(question: &Question<'_>, client: &Client<'_>, table: &mut Table) {
    let mut seen = Seen::default();
    let mut listed = client.pages("/api/v1/pods", |page| seen.probe(question, client, &page));
    // From Kubernetes 1.32 on a node may list only its own pods.
    if let (Err(error), Some(node)) = (&listed, &question.node)
        && error.code() == Some(403)
    {
        table.unchecked("pods of other nodes", "this node may not list them; a master may");
        let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}");
        listed = client.pages(&path, |page| seen.probe(question, client, &page));
    }
    for (node, tally) in &seen.nodes {
        table.tally(&format!("pods on {node}"), tally);
    }
    if seen.host > 0 {
        table.unchecked("pods in the network of their hosts", format!("{}: no address of their own", seen.host));
    }
    if seen.waiting > 0 {
        let more = if seen.waiting > seen.names.len() { ", …" } else { "" };
        table.unchecked("pods that do not run yet", format!("{}: {}{more}", seen.waiting, seen.names.join(", ")));
    }
    if let Err(error) = listed {
        table.failed("pods", format!("{error:#}"));
    }
}

impl Seen {
    /// Probes one page of the list and keeps the counts.
    fn probe(&mut self, question: &Question<'_>, client: &Client<'_>, page: &[Value]) {
        let pods: Vec<Pod> = page.iter().filter_map(read).collect();
        let results = for_all(&pods, |pod| match pod {
            Pod::Own { address, .. } => answered(client, pod, dial(*address, question.timeout), question),
            Pod::Host | Pod::NotRunning(_) | Pod::Over => None,
        });
        for (pod, result) in pods.into_iter().zip(results) {
            match (pod, result) {
                (Pod::Own { name, node, address, .. }, Some(result)) => {
                    let subject = || format!("pod {name} at {}", address.ip());
                    self.nodes.entry(node).or_default().add(subject, result);
                }
                (Pod::Host, _) => self.host += 1,
                (Pod::NotRunning(name), _) => {
                    self.waiting += 1;
                    if self.names.len() < NAMES {
                        self.names.push(name);
                    }
                }
                (Pod::Over | Pod::Own { .. }, _) => {}
            }
        }
    }
}

/// The verdict on a pod. One that did not answer is looked up and tried again: it may have ended since it was listed. `None`
/// when it has.
fn answered(client: &Client<'_>, pod: &Pod, first: Dial, question: &Question<'_>) -> Option<Result<(), String>> {
    let Err(reason) = first.reached() else { return Some(Ok(())) };
    let Pod::Own { path, .. } = pod else { return None };
    match client.find(path) {
        Ok(Some(object)) if read(&object).as_ref() == Some(pod) => {}
        Ok(_) => return None,
        Err(Error::Status { code: 403, .. }) => {}
        Err(_) => return Some(Err(reason)),
    }
    let Pod::Own { address, .. } = pod else { return None };
    Some(dial(*address, question.timeout).reached())
}

fn read(object: &Value) -> Option<Pod> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str);
    let (namespace, name) = (text("/metadata/namespace")?, text("/metadata/name")?);
    let full = format!("{namespace}/{name}");
    let phase = text("/status/phase").unwrap_or_default();
    if text("/metadata/deletionTimestamp").is_some() || matches!(phase, "Succeeded" | "Failed") {
        return Some(Pod::Over);
    }
    if object.pointer("/spec/hostNetwork").and_then(Value::as_bool) == Some(true) {
        return Some(Pod::Host);
    }
    let address = text("/status/podIP").and_then(|address| address.parse::<IpAddr>().ok());
    let (Some(address), "Running") = (address, phase) else { return Some(Pod::NotRunning(full)) };
    let containers =
        object.pointer("/spec/containers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let ports = containers.iter().filter_map(|container| container["ports"].as_array()).flatten();
    let mut tcp = ports.filter(|port| port["protocol"].is_null() || port["protocol"] == "TCP");
    let port = tcp.find_map(|port| u16::try_from(port["containerPort"].as_u64()?).ok()).unwrap_or(ANY_PORT);
    Some(Pod::Own {
        path: format!("/api/v1/namespaces/{namespace}/pods/{name}"),
        name: full,
        node: text("/spec/nodeName").unwrap_or_default().to_owned(),
        address: SocketAddr::new(address, port),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(phase: &str, spec: &Value) -> Value {
        json!({
            "metadata": { "namespace": "default", "name": "web" },
            "spec": spec,
            "status": { "phase": phase, "podIP": "10.244.1.5" },
        })
    }

    #[test]
    fn a_pod_is_asked_at_a_port_it_declares_else_where_a_refusal_proves_as_much() {
        let ports = json!([{ "containerPort": 53, "protocol": "UDP" }, { "containerPort": 8080 }]);
        let spec = json!({ "nodeName": "w1", "containers": [{ "name": "a" }, { "name": "b", "ports": ports }] });
        let Some(Pod::Own { path, name, node, address }) = read(&pod("Running", &spec)) else { panic!() };
        assert_eq!((name.as_str(), node.as_str()), ("default/web", "w1"));
        assert_eq!(address, "10.244.1.5:8080".parse().unwrap());
        assert_eq!(path, "/api/v1/namespaces/default/pods/web");
        let Some(Pod::Own { address, .. }) = read(&pod("Running", &json!({ "nodeName": "w1" }))) else { panic!() };
        assert_eq!(address.port(), ANY_PORT);
    }

    #[test]
    fn pods_without_an_address_of_their_own_are_set_apart() {
        let spec = json!({ "nodeName": "w1", "hostNetwork": true });
        assert_eq!(read(&pod("Running", &spec)), Some(Pod::Host));
        assert_eq!(read(&pod("Pending", &json!({}))), Some(Pod::NotRunning("default/web".to_owned())));
        assert_eq!(read(&pod("Succeeded", &spec)), Some(Pod::Over));
        let mut ending = pod("Running", &json!({}));
        ending["metadata"]["deletionTimestamp"] = "2026-11-21T12:00:00Z".into();
        assert_eq!(read(&ending), Some(Pod::Over));
    }
}
