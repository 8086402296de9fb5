//! `installer status`: what runs on this host, in one look. Reads only.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::agent::backends;
use crate::approver;
use crate::cluster::etcd::{self, Row};
use crate::context::CURRENT;
use crate::generation::current_images;
use crate::host::{Command, Host};
use crate::journal::Journal;
use crate::output::Output;
use crate::pki::{self, status::TokenExpiry};
use crate::report::Exit;
use crate::steps::{self, unit::unit_path};

use crate::trust::ACCEPTED;

/// What is shown.
#[derive(Debug, Serialize)]
struct Status {
    generation: Option<String>,
    components: Vec<(String, String)>,
    services: Vec<Service>,
    certificates: Vec<Certificate>,
    accepted: Option<serde_json::Value>,
    pending: Option<String>,
    /// Certificate requests that are not approved, with the reasons.
    requests: Vec<(String, String)>,
    /// Bootstrap tokens that have not ended.
    tokens: Vec<TokenExpiry>,
    /// API servers behind the local proxy, and whether they are up.
    backends: Vec<(SocketAddr, bool)>,
    /// etcd's members; empty on hosts that have no certificate for it.
    etcd: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Service {
    unit: String,
    state: String,
    enabled: String,
}

#[derive(Debug, Serialize)]
struct Certificate {
    path: PathBuf,
    subject: String,
    /// Days until it ends; negative when it has ended.
    days: i64,
    /// Less than a third of its life is left, and only a run of the installer renews it.
    due: bool,
}

/// Shows generation, services, certificates, accepted bundles and a pending run.
pub fn status(host: &Host, output: &Output) -> Result<Exit> {
    let status = Status {
        generation: host.link_target(Path::new(CURRENT))?.map(|target| target.display().to_string()),
        components: components(host)?,
        services: services(host)?,
        certificates: certificates(host)?,
        accepted: match host.read(Path::new(ACCEPTED))? {
            Some(bytes) => Some(serde_json::from_slice(&bytes).with_context(|| format!("reading `{ACCEPTED}`"))?),
            None => None,
        },
        pending: Journal::read(host)?.pending().map(|run| {
            let at = run.interrupted.map(|step| format!(", interrupted in step `{step}`")).unwrap_or_default();
            format!("a run that began at {} has not ended{at}", run.since)
        }),
        requests: approver::pending(host)?
            .into_iter()
            .map(|request| (format!("{} by {} for {}", request.name, request.user, request.signer), request.reason))
            .collect(),
        tokens: pki::status::tokens(host)?,
        backends: backends::read(host)?,
        etcd: etcd::table(host),
    };
    if output.is_json() {
        output.json(&status);
    } else {
        show(&status, output);
    }
    Ok(Exit::Done)
}

fn show(status: &Status, output: &Output) {
    let Some(generation) = &status.generation else {
        output.line("Sealift has installed nothing on this host");
        if let Some(pending) = &status.pending {
            output.line(&format!("pending: {pending}"));
        }
        return;
    };
    let components: Vec<String> = status.components.iter().map(|(name, version)| format!("{name} {version}")).collect();
    output.line(&format!("generation: {generation}\ncomponents: {}\nservices:", components.join(", ")));
    for Service { unit, state, enabled } in &status.services {
        output.line(&format!("  {unit:<34} {state:<12} {enabled}"));
    }
    output.line("certificates:");
    for Certificate { path, subject, days, due } in &status.certificates {
        let left = if *days < 0 { "EXPIRED".to_owned() } else { format!("{days} days") };
        output.line(&format!("  {:<52} {left:<10} {subject}", path.display()));
        if *due {
            output.line("    ends soon: run the installer again to renew it");
        }
    }
    if !status.etcd.is_empty() {
        output.line("etcd members:");
    }
    for row in &status.etcd {
        output.line(&member(row));
    }
    for (address, up) in &status.backends {
        output.line(&format!("API server {address}: {}", if *up { "up" } else { "down" }));
    }
    for TokenExpiry { node, id, expires } in &status.tokens {
        output.line(&format!("bootstrap token {id} of node {node} ends on {expires}, or with the node's certificates"));
    }
    for (request, reason) in &status.requests {
        output.line(&format!("certificate request {request} is left pending: {reason}"));
    }
    if let Some(pending) = &status.pending {
        output.line(&format!("pending: {pending}\nhint: `installer resume` goes on with it"));
    }
}

fn member(row: &Row) -> String {
    let role = match (row.leader, row.learner) {
        (true, _) => "leader",
        (_, true) => "learner",
        _ => "member",
    };
    let state = if row.healthy { "healthy".to_owned() } else { format!("UNHEALTHY: {}", row.error) };
    format!("  {:<20} {:<16} {:<34} {role:<8} {state}", row.name, row.id, row.peer_url)
}

fn components(host: &Host) -> Result<Vec<(String, String)>> {
    let images = current_images(host)?.unwrap_or_default();
    Ok(images.iter().map(|image| (image.component.name.to_string(), image.component.version.to_string())).collect())
}

fn services(host: &Host) -> Result<Vec<Service>> {
    let mut services = Vec::new();
    let mut units = host.list(&Path::new(CURRENT).join("units"))?;
    for own in [steps::approver::UNIT, steps::network::UNIT] {
        if host.exists(&unit_path(own))? {
            units.push(own.to_owned());
        }
    }
    for unit in units {
        let ask = |verb: &str| -> Result<String> {
            Ok(host.try_run(&Command::new("systemctl").arg(verb).arg(&unit))?.text().trim().to_owned())
        };
        let (state, enabled) = (ask("is-active")?, ask("is-enabled")?);
        services.push(Service { unit, state, enabled });
    }
    Ok(services)
}

/// Every certificate of this host, the soonest end first.
fn certificates(host: &Host) -> Result<Vec<Certificate>> {
    let now = host.now().as_second();
    Ok(pki::status::certificates(host)?
        .into_iter()
        .map(|found| Certificate {
            due: found.due(host.now()),
            path: found.path,
            subject: found.subject,
            days: found.not_after.map_or(-1, |end| (end.as_second() - now).div_euclid(86_400)),
        })
        .collect())
}
