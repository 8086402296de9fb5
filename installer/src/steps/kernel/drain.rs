//! A node that already works for its cluster: closed for new pods and emptied before its reboot, opened again afterwards.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::context::Context;
use crate::pki::KUBELET_CLIENT;
use crate::report::Explain as _;
use crate::reset::drain::{Bare, Drain};
use crate::steps::api;

/// How long pods may take to leave.
const LIMIT: Duration = Duration::from_secs(300);

/// Whether pods may run here that others would miss: a node of a cluster that has other nodes.
pub(super) fn is_needed(context: &Context<'_>) -> Result<bool> {
    let others = context.config.nodes.iter().filter(|node| node.roles.run_pods()).count() > 1;
    Ok(context.roles.run_pods() && others && context.host.exists(KUBELET_CLIENT.as_ref())?)
}

fn path(context: &Context<'_>) -> String {
    format!("/api/v1/nodes/{}", context.node.name)
}

/// Closes the node and moves its pods away. Says whether it was open before.
pub(super) fn close(context: &Context<'_>) -> Result<bool> {
    if !is_needed(context)? {
        return Ok(false);
    }
    let hint =
        "move the pods away first (`kubectl drain`), or make room for them elsewhere; then run the installer again";
    let client = api::client(context)?;
    let Some(found) = client.find(&path(context)).context("asking for this host's node").hint(hint)? else {
        return Ok(false);
    };
    let open = found.pointer("/spec/unschedulable") != Some(&Value::Bool(true));
    let drain =
        Drain { host: context.host, client: &client, node: &context.node.name, limit: LIMIT, bare: Bare::Leave };
    for done in drain.run().context("moving pods away before the reboot").hint(hint)? {
        context.note(done);
    }
    Ok(open)
}

/// Opens the node again; fine when the cluster does not know it.
pub(super) fn open(context: &Context<'_>) -> Result<()> {
    let client = api::client(context)?;
    if client.find(&path(context))?.is_some() {
        client.patch(&path(context), &json!({ "spec": { "unschedulable": null } })).context("opening the node")?;
    }
    Ok(())
}
