//! Whether the bundle has all that the roles of this host need, and what of a cluster can never change.

use std::path::Path;

use anyhow::Result;

use super::finding::Finding;
use crate::checks::CheckName;
use crate::config::{ClusterConfig, role_name};
use crate::context::{Context, ETC};

/// All findings of this file.
pub(super) fn look(context: &Context<'_>) -> Result<Vec<Finding>> {
    let mut findings = complete(context);
    findings.extend(unchanged(context)?);
    Ok(findings)
}

/// The components that the roles of this host cannot do without.
fn required(context: &Context<'_>) -> Vec<&'static str> {
    let (roles, mut names) = (context.roles, Vec::new());
    if context.config.runs_etcd(context.node) && (roles.master() || roles.etcd()) {
        names.push("etcd");
    }
    if roles.master() {
        names.extend(["kube-apiserver", "kube-controller-manager", "kube-scheduler"]);
    }
    if roles.run_pods() {
        names.extend(["containerd", "runc", "cni", "pause", "nginx", "kubelet", "kube-proxy"]);
    }
    names
}

/// A bundle may be made for some roles only; one that lacks a part of this host's is refused before anything is unpacked.
fn complete(context: &Context<'_>) -> Vec<Finding> {
    let share = context.share();
    let lacking = required(context).into_iter().filter_map(|name| {
        let found = match context.component(name) {
            None => "none in the bundle".to_owned(),
            Some(component) if !share.has(component) => {
                let roles: Vec<&str> = component.roles.iter().copied().map(role_name).collect();
                format!("one for {} only", roles.join(", "))
            }
            Some(_) => return None,
        };
        let needed = format!("it, for the role {}", context.roles);
        Some(Finding::refused(
            CheckName::BundleComponents,
            format!("component `{name}`"),
            found,
            needed,
            "use a bundle that has it",
        ))
    });
    lacking.collect()
}

/// The cluster's identity and the node's name are in certificates, in etcd and in every running pod.
fn unchanged(context: &Context<'_>) -> Result<Vec<Finding>> {
    let path = Path::new(ETC).join("cluster.toml");
    let Some(text) = context.host.read_text(&path)? else { return Ok(Vec::new()) };
    let subject = format!("`{}`", path.display());
    let Ok(before) = ClusterConfig::parse(&text, &path) else {
        let needed = "the config this host was installed with";
        return Ok(vec![Finding::refused(
            CheckName::Identity,
            subject,
            "a file that cannot be read",
            needed,
            "restore it",
        )]);
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
            Finding::refused(
                CheckName::Identity,
                what,
                format!("`{new}` in the new config"),
                needed,
                "keep it: it can never change",
            )
        })
        .collect())
}
