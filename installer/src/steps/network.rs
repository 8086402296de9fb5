//! The pod network: `installer agent` keeps the CNI file, the routes and the proxy's backends; then the node gets Ready.
//!
//! With an addon as network a master's node gets Ready later: it is this master's own run that applies the addon, after this
//! step; the health step asks. A worker waits for the masters. With no network at all nobody waits: a person installs one.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::api;
use super::long_running::{self, Mode};
use super::service::{Readiness, Service, UnitText, nothing_before};
use crate::agent::cni;
use crate::config::Plugin;
use crate::context::Context;

/// The unit.
pub const UNIT: &str = "sealift-agent.service";

const MODE: Mode = Mode {
    unit: UNIT,
    mode: "agent",
    description: "Sealift node agent",
    after: "sealift-proxy.service",
    hardening: crate::agent::unit::HARDENING,
};

/// The step.
pub fn step() -> Service {
    Service {
        name: "network",
        title: "Connect the pods of this node",
        unit: UNIT,
        text: UnitText::Own(|context| long_running::unit(context, &MODE)),
        deadline: Duration::from_secs(240),
        probe: part_done,
        before_start: nothing_before,
        hint: "`journalctl -u sealift-agent` and `kubectl describe node` say more",
    }
}

/// The same service, asked whether the node is ready: for when everything of this host has been done.
pub fn settled() -> Service {
    Service { probe: node_ready, ..step() }
}

/// Whether this host has done its part of the network.
fn part_done(context: &Context<'_>) -> Result<Readiness> {
    let plugin = context.config.network.plugin;
    if plugin.addon().is_some() && context.roles.master() {
        return Ok(Readiness::Ready);
    }
    node_ready(context)
}

/// Ready when the node says so itself; with the built-in bridge, not before the agent has written its network.
pub fn node_ready(context: &Context<'_>) -> Result<Readiness> {
    let plugin = context.config.network.plugin;
    if plugin == Plugin::None {
        return Ok(Readiness::Ready);
    }
    let path = format!("/api/v1/nodes/{}", context.node.name);
    let node = match api::client(context)?.find(&path) {
        Ok(Some(node)) => node,
        Ok(None) => return Ok(Readiness::NotYet(format!("there is no node `{}`", context.node.name))),
        Err(error) => return api::unreachable(context, error),
    };
    if plugin == Plugin::Bridge && !context.host.exists(Path::new(cni::FILE))? {
        return Ok(no_network(context, &node));
    }
    Ok(match (judge(&node), plugin.addon()) {
        (Readiness::NotYet(reason), Some(addon)) => {
            Readiness::Waiting(format!("the masters have to apply the addon `{addon}`: {reason}"))
        }
        (readiness, _) => readiness,
    })
}

/// The agent writes what the controller-manager has decided.
fn no_network(context: &Context<'_>, node: &Value) -> Readiness {
    let given = node.pointer("/spec/podCIDR").and_then(Value::as_str).is_some_and(|network| !network.is_empty());
    if given || context.roles.master() {
        return Readiness::NotYet(format!("the agent has not written `{}` yet", cni::FILE));
    }
    Readiness::Waiting("the controller-manager of a master to give this node its pod network".to_owned())
}

fn judge(node: &Value) -> Readiness {
    let conditions =
        node.pointer("/status/conditions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text = |condition: &Value, key: &str| condition.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    match conditions.iter().find(|condition| text(condition, "type") == "Ready") {
        Some(ready) if text(ready, "status") == "True" => Readiness::Ready,
        Some(ready) => Readiness::NotYet(format!("the node is not ready: {}", text(ready, "message"))),
        None => Readiness::NotYet("the node has no status yet".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_itself_says_whether_it_is_ready() {
        let node = |status: &str| {
            serde_json::json!({"status": {"conditions": [
                {"type": "DiskPressure", "status": "False"},
                {"type": "Ready", "status": status, "message": "cni plugin not initialized"},
            ]}})
        };
        assert_eq!(judge(&node("True")), Readiness::Ready);
        let reason = "the node is not ready: cni plugin not initialized".to_owned();
        assert_eq!(judge(&node("False")), Readiness::NotYet(reason));
        assert!(matches!(judge(&serde_json::json!({})), Readiness::NotYet(_)));
    }
}
