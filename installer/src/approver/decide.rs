//! Which certificate requests are approved. Everything else stays pending, with a reason that `status` shows.
//!
//! Source of the rules: KUBERNETES.md, "Node identity and approval". Nothing is ever denied: a pending request can still
//! be decided by a person, and ends by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::csr::{Csr, Request};
use crate::cluster::Record;
use crate::pki::tokens;

/// Signer of the kubelets' client certificates.
pub const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Signer of the kubelets' serving certificates.
pub const SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";
const NODES: &str = "system:nodes";

/// What the decision is based on, apart from the request.
#[derive(Clone, Debug, Default)]
pub struct ClusterView {
    /// The nodes of the config and their addresses.
    pub nodes: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Bootstrap token id → node it was made for.
    pub tokens: BTreeMap<String, String>,
}

impl ClusterView {
    /// The view that a record gives.
    pub fn of_record(record: &Record) -> Self {
        let nodes = record.config.nodes.iter().map(|node| (node.name.clone(), BTreeSet::from([node.address])));
        Self { nodes: nodes.collect(), tokens: record.tokens.clone() }
    }
}

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Approve it.
    Approve,
    /// Leave it, for this reason.
    Pending(String),
}

/// Decides about an undecided request.
pub fn decide(csr: &Csr, view: &ClusterView) -> Decision {
    match objection(csr, view) {
        None => Decision::Approve,
        Some(reason) => Decision::Pending(reason),
    }
}

fn objection(csr: &Csr, view: &ClusterView) -> Option<String> {
    let purpose = match csr.signer.as_str() {
        CLIENT_SIGNER => "client auth",
        SERVING_SIGNER => "server auth",
        other => return Some(format!("signer `{other}` is not decided by Sealift")),
    };
    let request = match &csr.request {
        Ok(request) => request,
        Err(reason) => return Some(reason.clone()),
    };
    if request.organization != NODES {
        return Some(format!("its organization is `{}`, not `{NODES}`", request.organization));
    }
    let Some(node) = request.common_name.strip_prefix("system:node:") else {
        return Some(format!("its common name `{}` is not a node's", request.common_name));
    };
    let Some(addresses) = view.nodes.get(node) else {
        return Some(format!("node `{node}` is not in the cluster's config"));
    };
    if let Some(reason) = wrong_usages(&csr.usages, purpose) {
        return Some(reason);
    }
    if request.other_names {
        return Some("it asks for an e-mail, URI or other unusual name".to_owned());
    }
    if purpose == "client auth" {
        wrong_client(csr, request, node, view)
    } else {
        wrong_serving(csr, request, node, addresses)
    }
}

/// Exactly `digital signature` and the purpose; `key encipherment` may be among them (kubelets ask for it with any key).
fn wrong_usages(usages: &BTreeSet<String>, purpose: &str) -> Option<String> {
    let mut rest: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    if !rest.remove("digital signature") || !rest.remove(purpose) {
        return Some(format!("its usages lack `digital signature` or `{purpose}`"));
    }
    rest.remove("key encipherment");
    rest.pop_first().map(|usage| format!("it asks for usage `{usage}`"))
}

fn wrong_client(csr: &Csr, request: &Request, node: &str, view: &ClusterView) -> Option<String> {
    if !request.names.is_empty() || !request.addresses.is_empty() {
        return Some("a client certificate has no names or addresses".to_owned());
    }
    if let Some(id) = csr.user.strip_prefix("system:bootstrap:") {
        if !csr.groups.contains(tokens::GROUP) {
            return Some(format!("user `{}` is not in group `{}`", csr.user, tokens::GROUP));
        }
        return match view.tokens.get(id) {
            Some(owner) if owner == node => None,
            Some(owner) => Some(format!("token `{id}` was made for node `{owner}`, not `{node}`")),
            None => Some(format!("token `{id}` was not made for a node of this cluster")),
        };
    }
    wrong_user(csr, request)
}

fn wrong_serving(csr: &Csr, request: &Request, node: &str, addresses: &BTreeSet<IpAddr>) -> Option<String> {
    if let Some(reason) = wrong_user(csr, request) {
        return Some(reason);
    }
    if let Some(name) = request.names.iter().find(|name| *name != node) {
        return Some(format!("DNS name `{name}` is not the node's name"));
    }
    if let Some(address) = request.addresses.difference(addresses).next() {
        return Some(format!("address {address} is not configured for node `{node}`"));
    }
    if request.names.is_empty() && request.addresses.is_empty() {
        return Some("it asks for no name and no address".to_owned());
    }
    None
}

/// A node may ask for itself only.
fn wrong_user(csr: &Csr, request: &Request) -> Option<String> {
    if csr.user != request.common_name {
        return Some(format!("user `{}` asks for `{}`", csr.user, request.common_name));
    }
    (!csr.groups.contains(NODES)).then(|| format!("user `{}` is not in group `{NODES}`", csr.user))
}
