//! Who is behind the services, from endpoint slices. Only names of ports and nodes are kept.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::kubeapi::{Client, Error};

/// From Kubernetes 1.21 on.
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
/// Up to Kubernetes 1.24.
const BETA: &str = "/apis/discovery.k8s.io/v1beta1/endpointslices";

/// Which ports of a service have a ready endpoint, and on which nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ready {
    ports: BTreeSet<String>,
    nodes: BTreeSet<String>,
}

impl Ready {
    /// Whether the port of this name has somebody behind it.
    pub(super) fn has(&self, port: &str) -> bool {
        self.ports.contains(port)
    }

    /// Whether an endpoint is on this node.
    pub(super) fn is_on(&self, node: &str) -> bool {
        self.nodes.contains(node)
    }
}

/// All services with ready endpoints, by `namespace/name`.
pub(super) fn list(client: &Client<'_>) -> Result<BTreeMap<String, Ready>, Error> {
    let mut found = BTreeMap::new();
    match client.pages(SLICES, |page| page.iter().for_each(|slice| add(&mut found, slice))) {
        Err(error) if error.code() == Some(404) => {
            client.pages(BETA, |page| page.iter().for_each(|slice| add(&mut found, slice)))?;
        }
        other => other?,
    }
    Ok(found)
}

fn add(found: &mut BTreeMap<String, Ready>, slice: &Value) {
    let text = |path: &str| slice.pointer(path).and_then(Value::as_str);
    let service = text("/metadata/labels/kubernetes.io~1service-name");
    let (Some(namespace), Some(service)) = (text("/metadata/namespace"), service) else { return };
    let list = |key: &str| slice[key].as_array().map(Vec::as_slice).unwrap_or_default();
    // No condition at all stands for "ready" (API reference of EndpointConditions).
    let ready: Vec<&Value> =
        list("endpoints").iter().filter(|endpoint| endpoint["conditions"]["ready"] != false).collect();
    if ready.is_empty() {
        return;
    }
    let entry = found.entry(format!("{namespace}/{service}")).or_default();
    entry.ports.extend(list("ports").iter().map(|port| port["name"].as_str().unwrap_or_default().to_owned()));
    let node = |endpoint: &Value| {
        let beta = endpoint.pointer("/topology/kubernetes.io~1hostname");
        endpoint["nodeName"].as_str().or_else(|| beta?.as_str()).map(str::to_owned)
    };
    entry.nodes.extend(ready.into_iter().filter_map(node));
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    pub(in super::super) fn ready(ports: &[&str], nodes: &[&str]) -> Ready {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Ready { ports: set(ports), nodes: set(nodes) }
    }

    #[test]
    fn only_ready_endpoints_count_in_both_versions() {
        let slice = |service: &str, endpoints: Value| {
            json!({
                "metadata": { "namespace": "a", "labels": { "kubernetes.io/service-name": service } },
                "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }, { "name": null, "port": 1 }],
                "endpoints": endpoints,
            })
        };
        let mut found = BTreeMap::new();
        let stable = json!([
            { "addresses": ["10.244.1.2"], "nodeName": "w1", "conditions": { "ready": true } },
            { "addresses": ["10.244.2.2"], "nodeName": "w2", "conditions": { "ready": false } },
        ]);
        add(&mut found, &slice("web", stable));
        let beta = json!([{ "addresses": ["10.244.3.2"], "topology": { "kubernetes.io/hostname": "w3" } }]);
        add(&mut found, &slice("web", beta));
        add(&mut found, &slice("none", json!([{ "conditions": { "ready": false } }])));
        add(&mut found, &json!({ "metadata": { "namespace": "a" } }));
        assert_eq!(found, BTreeMap::from([("a/web".to_owned(), ready(&["http", ""], &["w1", "w3"]))]));
    }
}
