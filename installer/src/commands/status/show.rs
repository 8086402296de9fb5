//! The status for people: what is well in few words, what is not in more.

use super::{Certificate, Cluster, Membership, Service, Status, Wait};
use crate::background;
use crate::cluster::etcd::Row;
use crate::commands::token::Listed;
use crate::output::Output;
use crate::steps::peers;

pub(super) fn show(status: &Status, output: &Output) {
    for line in text(status) {
        output.line(&line);
    }
}

pub(super) fn text(status: &Status) -> Vec<String> {
    let mut lines = Vec::new();
    let Some(generation) = &status.generation else {
        lines.push("Sealift has installed nothing on this host".to_owned());
        lines.extend(pending(status));
        return lines;
    };
    let components: Vec<String> = status.components.iter().map(|(name, version)| format!("{name} {version}")).collect();
    lines.push(format!("generation: {generation}"));
    lines.push(format!("components: {}", components.join(", ")));
    lines.extend(place(status));
    lines.extend(status.kernel.lines());
    lines.push("services:".to_owned());
    for Service { unit, state, enabled } in &status.services {
        lines.push(format!("  {unit:<34} {state:<12} {enabled}"));
    }
    lines.push("certificates:".to_owned());
    for Certificate { path, subject, days, due } in &status.certificates {
        let left = if *days < 0 { "EXPIRED".to_owned() } else { format!("{days} days") };
        lines.push(format!("  {:<52} {left:<10} {subject}", path.display()));
        if *due {
            lines.push("    ends soon: run the installer again to renew it".to_owned());
        }
    }
    if !status.etcd.is_empty() {
        lines.push("etcd members:".to_owned());
    }
    lines.extend(status.etcd.iter().map(member));
    for (address, up) in &status.backends {
        lines.push(format!("API server {address}: {}", if *up { "up" } else { "down" }));
    }
    for Listed { node, id, expires, state } in &status.tokens {
        let end = expires.map(|end| format!(", ends on {end}, or with the node's certificates")).unwrap_or_default();
        lines.push(format!("bootstrap token {id} of node {node}: {}{end}", state.word()));
    }
    for (request, reason) in &status.requests {
        lines.push(format!("certificate request {request} is left pending: {reason}"));
    }
    if !status.ignored.is_empty() {
        lines.push(format!("preflight ignored: {}", status.ignored.join(", ")));
    }
    if !status.strangers.is_empty() {
        lines.push(format!("OF ANOTHER CLUSTER: {}", peers::named(&status.strangers)));
        lines.push(format!("hint: {}", peers::HINT));
    }
    lines.extend(pending(status));
    lines
}

/// This host's place in the cluster.
fn place(status: &Status) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(Cluster { name, generation, nodes, source }) = &status.cluster {
        let generation = generation.map_or(format!("config of `{}`", source.display()), |generation| {
            format!("config generation {generation}")
        });
        lines.push(format!("cluster: {name}, {generation}, {nodes} {}", if *nodes == 1 { "node" } else { "nodes" }));
    }
    let node = &status.node;
    if !node.roles.is_empty() {
        let state = match (node.state, &node.name) {
            (Membership::Joined, Some(name)) => format!("joined as node {name}"),
            (Membership::NotYet, _) => "not joined yet".to_owned(),
            _ => "no node of Kubernetes".to_owned(),
        };
        lines.push(format!("this host: {}, {state}", node.roles));
    }
    lines
}

fn pending(status: &Status) -> Vec<String> {
    let Some(pending) = &status.pending else { return Vec::new() };
    let mut lines = vec![format!("pending: {pending}")];
    match &status.waiting {
        Some(Wait { waiting, background }) => {
            let (step, since) = (&waiting.step, waiting.since);
            let (word, reason) =
                if waiting.failed { ("FAILED", &waiting.reason) } else { ("waiting", &waiting.reason) };
            lines.push(format!("{word} in step `{step}` since {since}: {reason}"));
            lines.push(format!("in the background: {} is {background}", background::UNIT));
        }
        None => lines.push("hint: `installer resume` goes on with it".to_owned()),
    }
    lines
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
