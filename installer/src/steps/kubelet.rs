//! The kubelet: started with a bootstrap token, Done when it has its certificates, is registered and healthy. *Ready* is
//! the business of the network step.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::service::{Readiness, Service, UnitText, nothing_before};
use super::{api, loopback};
use crate::context::Context;
use crate::pki::KUBELET_CLIENT;

const SERVER: &str = "/var/lib/kubelet/pki/kubelet-server-current.pem";

/// The step.
pub fn step() -> Service {
    Service {
        name: "kubelet",
        title: "Start the kubelet and register this node",
        unit: "kubelet.service",
        text: UnitText::Component("kubelet"),
        deadline: Duration::from_secs(240),
        probe: registered,
        before_start: nothing_before,
        hint: "`kubectl get csr` on a master shows what it asks for, `journalctl -u sealift-approver` why it is not approved",
    }
}

fn registered(context: &Context<'_>) -> Result<Readiness> {
    if !context.host.exists(Path::new(KUBELET_CLIENT))? {
        return Ok(Readiness::NotYet(pending(context, "client")));
    }
    if let Readiness::NotYet(reason) = loopback::healthy(10248, "/healthz")? {
        return Ok(Readiness::NotYet(reason));
    }
    let path = format!("/api/v1/nodes/{}", context.node.name);
    if api::client(context)?.find(&path)?.is_none() {
        return Ok(Readiness::NotYet("it has not registered its node yet".to_owned()));
    }
    if !context.host.exists(Path::new(SERVER))? {
        return Ok(Readiness::NotYet(pending(context, "serving")));
    }
    Ok(Readiness::Ready)
}

/// Why a certificate is missing: the requests that wait for approval, when this host may see them.
fn pending(context: &Context<'_>, what: &str) -> String {
    let requests = api::own_apiserver(context)
        .and_then(|client| Ok(client.list("/apis/certificates.k8s.io/v1/certificatesigningrequests")?))
        .map(|requests| requests.iter().filter_map(undecided).collect::<Vec<_>>())
        .unwrap_or_default();
    if requests.is_empty() {
        return format!("it has no {what} certificate yet");
    }
    format!("it has no {what} certificate yet; pending: {}", requests.join(", "))
}

/// `NAME (signer, user)` of a request without approval or denial.
fn undecided(request: &Value) -> Option<String> {
    let conditions = request.pointer("/status/conditions").and_then(Value::as_array);
    if conditions.is_some_and(|conditions| !conditions.is_empty()) {
        return None;
    }
    let text = |key: &str| request.pointer(key).and_then(Value::as_str).unwrap_or_default();
    Some(format!("{} ({}, {})", text("/metadata/name"), text("/spec/signerName"), text("/spec/username")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_undecided_requests_are_named() {
        let request = serde_json::json!({
            "metadata": {"name": "csr-abcde"},
            "spec": {"signerName": "kubernetes.io/kubelet-serving", "username": "system:node:m1"},
            "status": {},
        });
        assert_eq!(undecided(&request).unwrap(), "csr-abcde (kubernetes.io/kubelet-serving, system:node:m1)");
        let mut approved = request;
        approved["status"]["conditions"] = serde_json::json!([{"type": "Approved"}]);
        assert_eq!(undecided(&approved), None);
    }
}
