//! What this version installs, and what of a cluster can never change.

use std::path::Path;

use anyhow::Result;

use super::finding::Finding;
use crate::config::ClusterConfig;
use crate::context::{Context, ETC};

/// All findings of this file.
pub(super) fn look(context: &Context<'_>) -> Result<Vec<Finding>> {
    let mut findings = supported(context);
    findings.extend(unchanged(context)?);
    Ok(findings)
}

fn supported(context: &Context<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut refuse = |subject: &str, found: String, advice: &str| {
        findings.push(Finding::refused(subject, found, "this version installs one master and nothing else", advice));
    };
    if !context.roles.master() {
        refuse("role", format!("`{}`", context.roles), "use `--role master` on the master");
    }
    let masters = context.config.masters().count();
    if masters != 1 {
        refuse("masters", format!("{masters} in the cluster config"), "give exactly one node the role `master`");
    }
    let etcd = context.config.nodes.iter().filter(|node| node.roles.etcd() && !node.roles.master());
    let etcd: Vec<&str> = etcd.map(|node| node.name.as_str()).collect();
    if !etcd.is_empty() {
        refuse("etcd", format!("dedicated nodes: {}", etcd.join(", ")), "leave them out: etcd runs on the master");
    }
    findings
}

/// The cluster's identity and the node's name are in certificates, in etcd and in every running pod.
fn unchanged(context: &Context<'_>) -> Result<Vec<Finding>> {
    let path = Path::new(ETC).join("cluster.toml");
    let Some(text) = context.host.read_text(&path)? else { return Ok(Vec::new()) };
    let subject = format!("`{}`", path.display());
    let Ok(before) = ClusterConfig::parse(&text, &path) else {
        let needed = "the config this host was installed with";
        return Ok(vec![Finding::refused(subject, "a file that cannot be read", needed, "restore it")]);
    };
    let (old, new) = (&before.cluster, &context.config.cluster);
    let mut pairs = vec![
        ("name", old.name.clone(), new.name.clone()),
        ("domain", old.domain.clone(), new.domain.clone()),
        ("service_cidr", old.service_cidr.to_string(), new.service_cidr.to_string()),
        ("pod_cidr", old.pod_cidr.to_string(), new.pod_cidr.to_string()),
    ];
    if let Some(node) = before.node_at(&context.facts.addresses()) {
        pairs.push(("name of this node", node.name.clone(), context.node.name.clone()));
    }
    let changed = pairs.into_iter().filter(|(_, old, new)| old != new);
    Ok(changed
        .map(|(what, old, new)| {
            let needed = format!("`{old}`, as this cluster was installed");
            Finding::refused(what, format!("`{new}` in the new config"), needed, "keep it: it can never change")
        })
        .collect())
}
