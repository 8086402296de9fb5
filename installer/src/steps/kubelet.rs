//! The kubelet: started with a bootstrap token, Done when it has its certificates, is registered and healthy. *Ready* is
//! the business of the network step.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::service::{Readiness, Service, UnitText, nothing_before};
use super::{api, loopback};
use crate::context::Context;
use crate::kubeapi::Client;
use crate::pki::{KUBELET_CLIENT, files};

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
        return Ok(missing(context, "client"));
    }
    if let Readiness::NotYet(reason) = loopback::healthy(10248, "/healthz")? {
        return Ok(Readiness::NotYet(reason));
    }
    let path = format!("/api/v1/nodes/{}", context.node.name);
    match api::client(context)?.find(&path) {
        Ok(None) => return Ok(Readiness::NotYet("it has not registered its node yet".to_owned())),
        Ok(Some(_)) => {}
        Err(error) => return api::unreachable(context, error),
    }
    if !context.host.exists(Path::new(SERVER))? {
        return Ok(missing(context, "serving"));
    }
    Ok(Readiness::Ready)
}

/// Why a certificate is missing. Elsewhere than on a master, an API server and an approver are others' business.
fn missing(context: &Context<'_>, what: &str) -> Readiness {
    let requests = match pending(context) {
        Ok(requests) => requests,
        Err(error) if context.roles.master() => {
            return Readiness::NotYet(format!("it has no {what} certificate yet: {error:#}"));
        }
        Err(error) => return Readiness::Waiting(format!("an API server, for its {what} certificate: {error:#}")),
    };
    if requests.is_empty() {
        return Readiness::NotYet(format!("it has no {what} certificate yet"));
    }
    let requests = requests.join(", ");
    if context.roles.master() {
        return Readiness::NotYet(format!("it has no {what} certificate yet; not approved: {requests}"));
    }
    Readiness::Waiting(format!(
        "a master to approve its {what} certificate: {requests}; `installer status` on a master says why it is not"
    ))
}

/// This node's requests that nobody has decided about.
fn pending(context: &Context<'_>) -> Result<Vec<String>> {
    let tokens = files::known_tokens(context.host)?;
    let node = &context.node.name;
    let client = if context.roles.master() {
        api::own_apiserver(context)?
    } else if context.host.exists(Path::new(KUBELET_CLIENT))? {
        api::as_node(context)?
    } else {
        let token = tokens.get(node).with_context(|| format!("no bootstrap token for node `{node}`"))?;
        api::as_bootstrapper(context, token)?
    };
    let users = [
        format!("system:node:{node}"),
        tokens.get(node).map(|token| format!("system:bootstrap:{}", token.id)).unwrap_or_default(),
    ];
    pending_of(&client, &users)
}

fn pending_of(client: &Client<'_>, users: &[String]) -> Result<Vec<String>> {
    let mut pending = Vec::new();
    client.pages("/apis/certificates.k8s.io/v1/certificatesigningrequests", |page| {
        let undecided = page.iter().filter_map(undecided).filter(|(user, _)| users.contains(user));
        pending.extend(undecided.map(|(_, text)| text));
    })?;
    Ok(pending)
}

/// User and `NAME (signer)` of a request without approval or denial.
fn undecided(request: &Value) -> Option<(String, String)> {
    let conditions = request.pointer("/status/conditions").and_then(Value::as_array);
    if conditions.is_some_and(|conditions| !conditions.is_empty()) {
        return None;
    }
    let text = |key: &str| request.pointer(key).and_then(Value::as_str).unwrap_or_default();
    Some((text("/spec/username").to_owned(), format!("{} ({})", text("/metadata/name"), text("/spec/signerName"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_on_a_later_page_is_found() {
        let server = crate::kubeapi::fake::Server::start();
        let mut pages = 0;
        server.fault(move |_| {
            pages += 1;
            let user = if pages == 2 { "system:node:m1" } else { "system:node:m9" };
            let request =
                serde_json::json!({ "metadata": {"name": "csr-x"}, "spec": {"signerName": "s", "username": user} });
            let more = if pages < 3 { "more" } else { "" };
            Some((200, serde_json::json!({ "metadata": {"continue": more}, "items": [request] })))
        });
        let found = pending_of(&server.client(), &["system:node:m1".to_owned()]).unwrap();
        assert_eq!(found, ["csr-x (s)"]);
    }

    #[test]
    fn only_undecided_requests_are_named() {
        let request = serde_json::json!({
            "metadata": {"name": "csr-abcde"},
            "spec": {"signerName": "kubernetes.io/kubelet-serving", "username": "system:node:m1"},
            "status": {},
        });
        let (user, text) = undecided(&request).unwrap();
        assert_eq!((user.as_str(), text.as_str()), ("system:node:m1", "csr-abcde (kubernetes.io/kubelet-serving)"));
        let mut approved = request;
        approved["status"]["conditions"] = serde_json::json!([{"type": "Approved"}]);
        assert_eq!(undecided(&approved), None);
    }
}
