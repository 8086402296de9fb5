//! `installer status`: what runs on this host, in one look. Reads only.

mod show;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::token::{self, Listed, State};
use crate::agent::backends;
use crate::approver;
use crate::background;
use crate::cluster::etcd::{self, Row};
use crate::cluster::{Known, administrator_anywhere};
use crate::context::CURRENT;
use crate::generation::current_images;
use crate::host::{Command, Host};
use crate::journal::Journal;
use crate::output::Output;
use crate::pki::{self, Inspection, KUBELET_CLIENT, status::TokenExpiry};
use crate::report::Exit;
use crate::steps;
use crate::steps::kernel;
use crate::steps::peers::{self, Stranger};
use crate::steps::unit::{UnitState, unit_path};
use crate::trust::ACCEPTED;
use crate::waiting::Waiting;

/// What is shown. Fields stay; new ones may come.
#[derive(Debug, Serialize)]
struct Status {
    generation: Option<String>,
    components: Vec<(String, String)>,
    /// The cluster as this host last heard of it.
    cluster: Option<Cluster>,
    /// Whether this host's node belongs to it.
    node: Node,
    /// What the pending run waits for.
    waiting: Option<Wait>,
    services: Vec<Service>,
    certificates: Vec<Certificate>,
    accepted: Option<serde_json::Value>,
    pending: Option<String>,
    /// Checks of preflight that the last run was told to ignore.
    ignored: Vec<String>,
    /// Which kernel runs, is on trial, failed.
    kernel: kernel::Shown,
    /// Certificate requests that are not approved, with the reasons; known on masters.
    requests: Vec<(String, String)>,
    /// Bootstrap tokens that have not been used: all of the cluster on a master, this node's own elsewhere.
    tokens: Vec<Listed>,
    /// API servers behind the local proxy, and whether they are up.
    backends: Vec<(SocketAddr, bool)>,
    /// etcd's members; empty on hosts that have no certificate for it.
    etcd: Vec<Row>,
    /// Masters of the config that belong to another cluster.
    strangers: Vec<Stranger>,
}

#[derive(Debug, Serialize)]
struct Cluster {
    name: String,
    /// Generation of the config; absent while only the file of the first run is known.
    generation: Option<u64>,
    nodes: usize,
    /// Where this is known from.
    source: PathBuf,
}

/// How far this host has come.
#[derive(Debug, Serialize)]
struct Node {
    /// Roles of its last run.
    roles: String,
    /// Name that its kubelet has.
    name: Option<String>,
    state: Membership,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Membership {
    /// No kubelet runs here.
    NoNode,
    /// Its kubelet has no certificate of the cluster yet.
    NotYet,
    /// It has.
    Joined,
}

#[derive(Debug, Serialize)]
struct Wait {
    #[serde(flatten)]
    waiting: Waiting,
    /// State of the unit that goes on by itself.
    background: String,
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

/// Shows generation, services, certificates, the cluster, accepted bundles and a pending run.
pub fn status(host: &Host, output: &Output) -> Result<Exit> {
    let status = gather(host)?;
    if output.is_json() {
        output.json(&status);
    } else {
        show::show(&status, output);
    }
    Ok(Exit::Done)
}

fn gather(host: &Host) -> Result<Status> {
    let journal = Journal::read(host)?;
    let pending = journal.pending();
    let known = Known::here(host)?;
    Ok(Status {
        generation: host.link_target(Path::new(CURRENT))?.map(|target| target.display().to_string()),
        components: components(host)?,
        cluster: known.as_ref().map(cluster),
        node: node(host, journal.last().map(|inputs| inputs.roles.clone()).unwrap_or_default())?,
        waiting: if pending.is_some() { waiting(host)? } else { None },
        services: services(host, pending.is_some())?,
        certificates: certificates(host)?,
        accepted: match host.read(Path::new(ACCEPTED))? {
            Some(bytes) => Some(serde_json::from_slice(&bytes).with_context(|| format!("reading `{ACCEPTED}`"))?),
            None => None,
        },
        kernel: kernel::shown(host)?,
        pending: pending.map(|run| {
            let at = run.interrupted.map(|step| format!(", last in step `{step}`")).unwrap_or_default();
            format!("a run that began at {} has not ended{at}", run.since)
        }),
        ignored: journal.last().map(|inputs| inputs.ignored.iter().cloned().collect()).unwrap_or_default(),
        requests: approver::pending(host)?
            .into_iter()
            .map(|request| (format!("{} by {} for {}", request.name, request.user, request.signer), request.reason))
            .collect(),
        tokens: tokens(host)?,
        backends: backends::read(host)?,
        etcd: etcd::table(host),
        strangers: known.map(|known| peers::strangers(host, &known.config)).transpose()?.unwrap_or_default(),
    })
}

fn cluster(known: &Known) -> Cluster {
    Cluster {
        name: known.config.cluster.name.clone(),
        generation: known.record.as_ref().map(|record| record.generation),
        nodes: known.config.nodes.len(),
        source: known.source.path(),
    }
}

/// A node is who its kubelet's certificate says, as long as it is valid.
fn node(host: &Host, roles: String) -> Result<Node> {
    let certificate = host.read_text(Path::new(KUBELET_CLIENT))?.and_then(|text| Inspection::of_pem(&text).ok());
    let named = certificate.filter(|found| host.now() < found.not_after);
    let name = named.and_then(|found| found.common_name.strip_prefix("system:node:").map(str::to_owned));
    let state = match &name {
        Some(_) => Membership::Joined,
        None if roles.split(',').any(|role| ["master", "worker"].contains(&role)) => Membership::NotYet,
        None => Membership::NoNode,
    };
    Ok(Node { roles, name, state })
}

fn waiting(host: &Host) -> Result<Option<Wait>> {
    let Some(waiting) = Waiting::read(host)? else { return Ok(None) };
    Ok(Some(Wait { waiting, background: UnitState::read(host, background::UNIT)?.describe() }))
}

/// Those of the cluster where this host may ask for them; else those it was given itself, for as long as it needs them.
fn tokens(host: &Host) -> Result<Vec<Listed>> {
    let asked = administrator_anywhere(host).and_then(|client| token::list(&client, host.now()));
    if let Ok(listed) = asked {
        return Ok(listed.into_iter().filter(|token| matches!(token.state, State::Valid | State::Expired)).collect());
    }
    let own = pki::status::tokens(host)?.into_iter();
    Ok(own
        .map(|TokenExpiry { node, id, expires }| Listed { node, id, expires: Some(expires), state: State::Valid })
        .collect())
}

fn components(host: &Host) -> Result<Vec<(String, String)>> {
    let images = current_images(host)?.unwrap_or_default();
    Ok(images.iter().map(|image| (image.component.name.to_string(), image.component.version.to_string())).collect())
}

/// The units of this host. A component may bring one that this host does not run (etcd on masters of a cluster with
/// dedicated members): as long as no run is pending, those are left out.
fn services(host: &Host, pending: bool) -> Result<Vec<Service>> {
    let mut services = Vec::new();
    let mut units = Vec::new();
    for unit in host.list(&Path::new(CURRENT).join("units"))? {
        if pending || host.exists(&unit_path(&unit))? {
            units.push(unit);
        }
    }
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
