//! Who founds the cluster, and whether the join file is for this host.
//!
//! Two clusters with the same nodes would be a disaster that shows late, so a host only founds one when it is asked to (or
//! is the first master of the config) and nobody answers who could be a cluster already.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Result;

use super::finding::{Finding, Verdict};
use crate::checks::CheckName;
use crate::cluster::founding::{Founding, PATH, may_found};
use crate::context::Context;
use crate::join::Join;
use crate::pki::files::{self, Origin, Wanted, certificate_path, joined};
use crate::pki::{AuthorityName, Inspection};
use crate::report::hints;
use crate::steps::api::APISERVER_PORT;

/// etcd's port for clients.
const ETCD_PORT: u16 = 2379;
/// How long a host gets to accept a connection.
const PATIENCE: Duration = Duration::from_secs(1);

/// All findings of this file.
pub(super) fn look(context: &Context<'_>) -> Result<Vec<Finding>> {
    let known = Founding::read(context.host)?;
    match (context.join, known) {
        (Some(join), known) => joins(context, join, known.as_ref()),
        (None, Some(known)) if known.made_here || !context.init => Ok(Vec::new()),
        (None, Some(_)) => Ok(vec![Finding::refused(
            CheckName::Founding,
            "founding",
            "a host of a cluster already",
            "a host without one, to found another",
            "leave `--init` out, or take this host out of its cluster: `installer reset`",
        )]),
        (None, None) => Ok(founds(context)?.into_iter().collect()),
    }
}

/// The join file has to be for this host, and for the cluster it is in, if it is in one.
fn joins(context: &Context<'_>, join: &Join, known: Option<&Founding>) -> Result<Vec<Finding>> {
    let mut findings: Vec<Finding> = join.warnings.iter().map(|text| warned(text)).collect();
    let mut refuse = |found: String, needed: String, advice: &str| {
        findings.push(Finding::refused(CheckName::JoinFile, "join file", found, needed, advice));
    };
    let node = context.node;
    let (config, theirs) = join.node()?;
    if join.node != node.name {
        refuse(
            format!("one for node `{}`", join.node),
            format!("one for `{}`, which this host is by its address", node.name),
            "give this host's own file, or correct the addresses in the cluster config",
        );
    } else if theirs.roles != node.roles {
        refuse(
            format!("one for the roles {}", theirs.roles),
            format!("one for {}, the node's roles in the cluster config", node.roles),
            "make another one with `installer join-file`, or leave `--config` out",
        );
    }
    if config.cluster != context.config.cluster {
        refuse(
            format!("one of cluster `{}`", config.cluster.name),
            format!("one of cluster `{}` with the same domain and networks", context.config.cluster.name),
            "leave `--config` out: the join file has the config inside",
        );
    }
    if known.is_some_and(|known| known.id != join.founding.id) {
        refuse(
            "one of another cluster than this host belongs to".to_owned(),
            "one of the same cluster".to_owned(),
            "to join the other cluster, first leave this one: `installer reset`",
        );
    }
    if findings.iter().all(|finding| finding.verdict != Verdict::Refused) {
        findings.extend(unfit(context, join));
    }
    Ok(findings)
}

/// Whatever else would stop the pki step: files on this host that are not those of the join file, above all.
fn unfit(context: &Context<'_>, join: &Join) -> Option<Finding> {
    let wanted = Wanted::of(context.config, context.node);
    let error = files::plan(context.host, &wanted, Origin::Join(join), context.host.now()).err()?;
    let advice = hints(&error).join("; ");
    Some(Finding::refused(
        CheckName::JoinFile,
        "join file",
        format!("{error:#}"),
        "one that fits what is on this host",
        advice,
    ))
}

fn warned(text: &str) -> Finding {
    Finding::limit(
        CheckName::Secrets,
        "secrets",
        text,
        "whoever read it can use it",
        "if somebody may have read it, make another one and revoke this one",
    )
}

/// A host without secrets and without a join file: it founds the cluster, or has to be given a file.
fn founds(context: &Context<'_>) -> Result<Option<Finding>> {
    let refused = |found: &str, advice: String| {
        Ok(Some(Finding::refused(
            CheckName::Secrets,
            "secrets of the cluster",
            found,
            "a join file, or to be the first master",
            advice,
        )))
    };
    let node = context.node;
    // Until there is a run of the pki step, an unfinished join shows itself there.
    if has_joined(context)? {
        return refused("certificates, but no founding", format!("restore `{PATH}`, or `installer reset`"));
    }
    if context.joined {
        let found = "none: the run has not ended, it was given a join file, and has not taken it in";
        return refused(found, "give the whole command with `--join FILE` again".to_owned());
    }
    if may_found(context.config, node, context.init) && context.roles.master() {
        let answering = answering(&others(context));
        let Some(one) = answering.first() else { return Ok(None) };
        return refused(
            &format!("another host of the config that answers already: {one}"),
            format!("on a master that runs: `installer join-file --node {}`, then `--join FILE` here", node.name),
        );
    }
    let first = context.config.masters().next();
    let dedicated = first.is_some_and(|first| !context.config.runs_etcd(first));
    let begins = node.roles.etcd() || first.is_some_and(|first| first.name == node.name);
    if dedicated && begins {
        return refused(
            "none; etcd has nodes of its own",
            "for a new cluster make them for all nodes with `installer secrets create --config …`, then `--join FILE` on \
             each host; for a host more `installer join-file` on a host of its kind"
                .to_owned(),
        );
    }
    refused(
        "none",
        format!(
            "on a master that runs: `installer join-file --node {}` (before the first host: `installer secrets create`), then \
             `--join FILE` here",
            node.name
        ),
    )
}

fn has_joined(context: &Context<'_>) -> Result<bool> {
    let path = certificate_path(AuthorityName::Cluster.stem());
    let Some(text) = context.host.read_text(&path)? else { return Ok(false) };
    let Ok(authority) = Inspection::of_pem(&text) else { return Ok(false) };
    joined(context.host, &context.node.name, &authority, context.host.now())
}

/// Where a cluster of this config would answer: the other masters' apiservers and the other etcd members.
fn others(context: &Context<'_>) -> Vec<SocketAddr> {
    let config = context.config;
    let masters = config.masters().map(|node| (node, APISERVER_PORT));
    let members = config.etcd_members().into_iter().map(|node| (node, ETCD_PORT));
    let other = masters.chain(members).filter(|(node, _)| node.name != context.node.name);
    other.map(|(node, port)| SocketAddr::new(node.address, port)).collect()
}

/// Those that accept a connection, asked all at once.
fn answering(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let accepts = |address: SocketAddr| TcpStream::connect_timeout(&address, PATIENCE).is_ok();
    std::thread::scope(|scope| {
        let asked: Vec<_> = addresses.iter().map(|address| (address, scope.spawn(move || accepts(*address)))).collect();
        let answers =
            asked.into_iter().filter_map(|(address, thread)| thread.join().is_ok_and(|yes| yes).then_some(*address));
        answers.collect()
    })
}
