//! What the pod network of a node should be, from the cluster's record and the API's node objects.
//!
//! Addresses come from the record (which only administrators write), pod networks from the node objects
//! (`spec.podCIDR`, which the controller-manager writes); a pod network outside of the cluster's is not believed. The last
//! value is kept on disk and restored at boot, before any apiserver answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::routes::{Hop, Interface, Reach, Table};
use crate::cluster::Record;
use crate::config::Plugin;

/// The wanted network of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Who connects the pods. With another plugin than the bridge only the services are this agent's work.
    #[serde(default)]
    pub plugin: Plugin,
    /// This node's pods.
    pub own: Option<IpNet>,
    /// All pods of the cluster.
    pub cluster: IpNet,
    /// The pods of other nodes → the node's address.
    pub peers: BTreeMap<IpNet, IpAddr>,
    /// The addresses of all nodes.
    pub nodes: BTreeSet<IpAddr>,
    /// The network of service addresses.
    pub services: IpNet,
    /// This node's address.
    pub address: Option<IpAddr>,
}

impl Network {
    /// Puts together the record and the list of node objects. `node` is this node's name.
    pub fn of(record: &Record, objects: &[Value], node: &str) -> Self {
        let cluster = record.config.cluster.pod_cidr;
        let mut network = Self {
            plugin: record.config.network.plugin,
            own: None,
            cluster,
            peers: BTreeMap::new(),
            nodes: record.config.nodes.iter().map(|node| node.address).collect(),
            services: record.config.cluster.service_cidr,
            address: record.config.nodes.iter().find(|known| known.name == node).map(|known| known.address),
        };
        for known in &record.config.nodes {
            let object = objects.iter().find(|object| object["metadata"]["name"] == known.name.as_str());
            let pods = object.and_then(|object| object.pointer("/spec/podCIDR")).and_then(Value::as_str);
            let Some(pods) = pods.and_then(|pods| pods.parse::<IpNet>().ok()).map(|pods| pods.trunc()) else {
                continue;
            };
            if !cluster.contains(&pods) {
                continue;
            }
            if known.name == node {
                network.own = Some(pods);
            } else {
                network.peers.insert(pods, known.address);
            }
        }
        // Two nodes cannot have the same pods; this node's own are not reached through another.
        if let Some(own) = network.own {
            network.peers.remove(&own);
        }
        network
    }

    /// Whether Sealift itself connects the pods.
    pub fn is_bridge(&self) -> bool {
        self.plugin == Plugin::Bridge
    }

    /// All routes that this node should have, and why some peers get none.
    pub fn routes(&self, own: IpAddr, interface: &Interface, table: &Table) -> (BTreeMap<IpNet, Hop>, Vec<String>) {
        let mut routes = BTreeMap::from([(self.services.trunc(), Hop::Loopback(own))]);
        let mut refused = Vec::new();
        if !self.is_bridge() {
            return (routes, refused);
        }
        let Interface { name, .. } = interface;
        for (pods, node) in &self.peers {
            let reason = match table.reach(*node) {
                Reach::OnLink(device) if device == *name => {
                    routes.insert(*pods, Hop::Via { node: *node, device, source: own });
                    continue;
                }
                Reach::OnLink(device) => format!("is on the network of `{device}`, not on that of `{name}`"),
                Reach::Routed => format!("is behind a router, not on the network of `{name}`"),
                Reach::Nowhere => "has no route".to_owned(),
            };
            refused.push(format!("node {node} {reason}: its pods are not routed"));
        }
        (routes, refused)
    }
}
