//! kube-apiserver on a master, asked with a certificate at the address that everybody else uses.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::api;
use super::service::{Readiness, Service, UnitText, nothing_before};
use crate::context::Context;
use crate::kubeapi::{Client, Credentials, Limits};
use crate::pki::files::{certificate_path, key_path};

/// etcd answers at once, or within its election.
const LIMITS: Limits = Limits { connect: Duration::from_secs(2), total: Duration::from_secs(7), body: 64 << 10 };

/// The step.
pub fn step() -> Service {
    Service {
        name: "kube-apiserver",
        title: "Start the Kubernetes API server",
        unit: "kube-apiserver.service",
        text: UnitText::Component("kube-apiserver"),
        deadline: Duration::from_secs(240),
        probe: ready,
        before_start: nothing_before,
        hint: "`journalctl -u kube-apiserver` says more; it needs its etcd members",
    }
}

/// Without a healthy etcd member there is nothing that this host could do.
fn ready(context: &Context<'_>) -> Result<Readiness> {
    let Err(error) = api::own_apiserver(context)?.healthy("/readyz") else { return Ok(Readiness::Ready) };
    let members = etcd_health(context)?;
    if members.iter().all(|(_, problem)| problem.is_some()) {
        let problems: Vec<String> =
            members.into_iter().filter_map(|(name, problem)| Some(format!("{name}: {}", problem?))).collect();
        return Ok(Readiness::Waiting(format!("a healthy etcd member ({})", problems.join("; "))));
    }
    Err(error.into())
}

/// Asks every etcd member at its `/health` (it commits a proposal, so a member without quorum is not healthy); `None` for a
/// healthy one.
fn etcd_health(context: &Context<'_>) -> Result<Vec<(String, Option<String>)>> {
    let path = certificate_path("etcd/ca");
    let authority = context.host.read_text(&path)?.with_context(|| format!("`{}` does not exist", path.display()))?;
    let (host, stem) = (context.host, "apiserver-etcd-client");
    let ask = |address: IpAddr| -> Option<String> {
        let credentials = Credentials::Files { host, certificate: certificate_path(stem), key: key_path(stem) };
        let client = Client::new(SocketAddr::new(address, 2379), &authority, credentials);
        match client.and_then(|client| client.with_limits(LIMITS).ask("/health")) {
            Ok(answer) if answer.code == 200 => None,
            Ok(answer) => Some(format!("not healthy ({})", answer.code)),
            Err(error) => Some(error.to_string()),
        }
    };
    Ok(std::thread::scope(|scope| {
        let ask = &ask;
        let members = context.config.etcd_members();
        let threads: Vec<_> =
            members.iter().map(|member| (member.name.clone(), scope.spawn(|| ask(member.address)))).collect();
        let answered = threads.into_iter().map(|(name, thread)| {
            (name, thread.join().unwrap_or_else(|_| Some("the thread that asked it ended".to_owned())))
        });
        answered.collect()
    }))
}
