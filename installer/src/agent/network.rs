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

use super::routes::Hop;
use crate::cluster::Record;

/// The wanted network of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
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
    /// All routes that this node should have.
    pub fn routes(&self) -> BTreeMap<IpNet, Hop> {
        let mut routes: BTreeMap<IpNet, Hop> = self.peers.iter().map(|(pods, node)| (*pods, Hop::Via(*node))).collect();
        routes.extend(self.address.map(|own| (self.services.trunc(), Hop::Loopback(own))));
        routes
    }
}
