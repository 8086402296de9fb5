//! Role labels and taints of masters. The kubelet may not set `node-role.kubernetes.io/…` itself, so the approver does.
//!
//! Kubernetes renamed `master` to `control-plane`: labels have both names through 1.24, taints `master` through 1.23,
//! both in 1.24, `control-plane` from 1.25 (sig-release notes of 1.20, 1.24 and 1.25). The node's own kubelet version
//! decides. Taints are set together with the label, once: an administrator who removes a taint later is not overruled.

use serde_json::{Map, Value, json};

const MASTER: &str = "node-role.kubernetes.io/master";
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// Whether a master also runs ordinary workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workloads {
    /// It is also a worker: no taint.
    Run,
    /// It is kept free of them: tainted.
    KeptOut,
}

/// The minor version in a kubelet's `v1.20.2`.
fn minor(version: &str) -> Option<u32> {
    version.strip_prefix("v1.")?.split('.').next()?.parse().ok()
}

fn labels(minor: u32) -> &'static [&'static str] {
    if minor <= 24 { &[MASTER, CONTROL_PLANE] } else { &[CONTROL_PLANE] }
}

fn taints(minor: u32) -> &'static [&'static str] {
    match minor {
        ..=23 => &[MASTER],
        24 => &[MASTER, CONTROL_PLANE],
        _ => &[CONTROL_PLANE],
    }
}

/// The merge patch that makes a node object a master's; `None` if it is one already, or its version cannot be told.
pub fn patch(node: &Value, workloads: Workloads) -> Option<Value> {
    let minor = minor(node.pointer("/status/nodeInfo/kubeletVersion")?.as_str()?)?;
    let found = |name: &str| node.pointer("/metadata/labels").and_then(|labels| labels.get(name)).is_some();
    let mut changes = Map::new();
    for name in [MASTER, CONTROL_PLANE] {
        match (labels(minor).contains(&name), found(name)) {
            (true, false) => changes.insert(name.to_owned(), json!("")),
            (false, true) => changes.insert(name.to_owned(), Value::Null),
            _ => None,
        };
    }
    if changes.is_empty() {
        return None;
    }
    let ours = |taint: &Value| taint["key"] == MASTER || taint["key"] == CONTROL_PLANE;
    let existing = node.pointer("/spec/taints").and_then(Value::as_array);
    let mut kept: Vec<Value> = existing.into_iter().flatten().filter(|taint| !ours(taint)).cloned().collect();
    if workloads == Workloads::KeptOut {
        kept.extend(taints(minor).iter().map(|key| json!({ "key": key, "effect": "NoSchedule" })));
    }
    let mut metadata = json!({ "labels": changes });
    // Lists are replaced whole: only if nobody changed the node in between.
    metadata["resourceVersion"] = node.pointer("/metadata/resourceVersion")?.clone();
    Some(json!({ "metadata": metadata, "spec": { "taints": kept } }))
}
