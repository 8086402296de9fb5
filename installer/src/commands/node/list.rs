//! `installer node list`: the nodes of the config, and what the cluster says of each.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;

use super::signs::ready;
use crate::cluster::known::Known;
use crate::cluster::{Record, administrator_anywhere, require_master};
use crate::config::ClusterConfig;
use crate::host::Host;
use crate::output::Output;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) address: Option<IpAddr>,
    pub(super) roles: String,
    /// `ready`, `not ready`, `not joined`, `no kubelet` (a dedicated etcd member), `not in the config`, `unknown`.
    pub(super) state: String,
    /// Version of its kubelet.
    pub(super) kubelet: Option<String>,
    /// The address that a master is leaving.
    pub(super) leaves: Option<IpAddr>,
}

/// Shows the table.
pub(super) fn list(host: &Host, output: &Output) -> Result<()> {
    require_master(host)?;
    let known = Known::here(host)?.context("this host knows of no cluster")?;
    let asked =
        administrator_anywhere(host).and_then(|client| Ok((Record::read(&client)?, client.list("/api/v1/nodes")?)));
    let (record, nodes, trouble) = match asked {
        Ok((record, nodes)) => (record.or(known.record), Some(nodes), None),
        Err(error) => (known.record, None, Some(format!("{error:#}"))),
    };
    let config = record.as_ref().map_or(&known.config, |record| &record.config);
    let moving = record.as_ref().map(|record| record.moving.clone()).unwrap_or_default();
    let rows = rows(config, &moving, nodes.as_deref());
    let generation = record.as_ref().map(|record| record.generation);
    if output.is_json() {
        output.json(&serde_json::json!({ "generation": generation, "nodes": rows, "trouble": trouble }));
        return Ok(());
    }
    if let Some(trouble) = trouble {
        output.error(&format!("warning: this is the copy on this host: {trouble}"));
    }
    for line in table(&rows) {
        output.line(&line);
    }
    Ok(())
}

/// `nodes` are the node objects, `None` when nobody could be asked.
pub(super) fn rows(config: &ClusterConfig, moving: &BTreeMap<String, IpAddr>, nodes: Option<&[Value]>) -> Vec<Row> {
    let name = |object: &Value| object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut objects: BTreeMap<String, &Value> =
        nodes.unwrap_or_default().iter().map(|node| (name(node), node)).collect();
    let mut rows: Vec<Row> = config
        .nodes
        .iter()
        .map(|node| {
            let object = objects.remove(&node.name);
            let state = match object {
                Some(object) if ready(object) => "ready",
                Some(_) => "not ready",
                None if nodes.is_none() => "unknown",
                None if !node.roles.master() && !node.roles.worker() => "no kubelet",
                None => "not joined",
            };
            Row {
                name: node.name.clone(),
                address: Some(node.address),
                roles: node.roles.to_string(),
                state: state.to_owned(),
                kubelet: object.and_then(kubelet),
                leaves: moving.get(&node.name).copied(),
            }
        })
        .collect();
    rows.extend(objects.into_iter().map(|(name, object)| Row {
        name,
        address: None,
        roles: String::new(),
        state: "not in the config".to_owned(),
        kubelet: kubelet(object),
        leaves: None,
    }));
    rows
}

fn kubelet(object: &Value) -> Option<String> {
    object.pointer("/status/nodeInfo/kubeletVersion").and_then(Value::as_str).map(str::to_owned)
}

fn table(rows: &[Row]) -> Vec<String> {
    let line = |name: &str, address: &str, roles: &str, state: &str, kubelet: &str| {
        format!("{name:<20} {address:<16} {roles:<16} {state:<18} {kubelet}").trim_end().to_owned()
    };
    let mut lines = vec![line("NAME", "ADDRESS", "ROLES", "STATE", "KUBELET")];
    for row in rows {
        let address = row.address.map(|address| address.to_string()).unwrap_or_default();
        lines.push(line(&row.name, &address, &row.roles, &row.state, row.kubelet.as_deref().unwrap_or_default()));
        if let Some(leaves) = row.leaves {
            lines.push(format!("    has not been seen there yet; it was at {leaves}"));
        }
    }
    lines
}
