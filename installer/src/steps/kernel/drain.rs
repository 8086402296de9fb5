//! A node that already works for its cluster: closed for new pods and emptied before its reboot, opened again afterwards.
//!
//! That Sealift is about to close it is on record first ([`State::closed`]) and stays there until it is open again: a drain
//! that takes too long, a run that dies and a kernel that fails all end there. A node that was closed before, by an
//! operator, is never opened.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::state::State;
use crate::context::Context;
use crate::kubeapi::{self, Client};
use crate::pki::KUBELET_CLIENT;
use crate::report::{Exit, Explain as _};
use crate::reset::drain::{Bare, Drain};
use crate::steps::api;

/// How long pods may take to leave.
const LIMIT: Duration = Duration::from_secs(300);
/// How long an API server is waited for that has been started with this host.
const API: Duration = Duration::from_secs(120);
/// How often it is asked.
const AGAIN: Duration = Duration::from_secs(5);

/// Whether pods may run here that others would miss: a node of a cluster that has other nodes.
pub(super) fn is_needed(context: &Context<'_>) -> Result<bool> {
    let others = context.config.nodes.iter().filter(|node| node.roles.run_pods()).count() > 1;
    Ok(context.roles.run_pods() && others && context.host.exists(KUBELET_CLIENT.as_ref())?)
}

fn path(node: &str) -> String {
    format!("/api/v1/nodes/{node}")
}

fn is_closed(node: &Value) -> bool {
    node.pointer("/spec/unschedulable") == Some(&Value::Bool(true))
}

/// Closes the node and moves its pods away.
pub(super) fn close(context: &Context<'_>, state: &mut State) -> Result<()> {
    if !is_needed(context)? {
        return Ok(());
    }
    let hint =
        "move the pods away first (`kubectl drain`), or make room for them elsewhere; then run the installer again";
    let (client, name) = (client(context)?, &context.node.name);
    let Some(found) = client.find(&path(name)).context("asking for this host's node").hint(hint)? else {
        return Ok(());
    };
    if !is_closed(&found) && state.closed.as_ref() != Some(name) {
        state.closed = Some(name.clone());
        state.write(context.host)?;
    }
    let drain = Drain { host: context.host, client: &client, node: name, limit: LIMIT, bare: Bare::Leave };
    // Not to be tried again by itself: each try would close the node, move what can be moved, and open it again.
    for done in drain.run().context("moving pods away before the reboot").exit(Exit::Preflight).hint(hint)? {
        context.note(done);
    }
    Ok(())
}

/// Opens the node again that was closed for a trial. Fine when the cluster does not know it any more.
pub(super) fn open(context: &Context<'_>, state: &mut State) -> Result<()> {
    let Some(node) = state.closed.clone() else { return Ok(()) };
    let client = client(context)?;
    context.host.wait_for("an API server", API, AGAIN, || match ask_to_open(&client, &node) {
        Ok(()) => Ok(Ok(())),
        Err(error) if error.passing() => Ok(Err(error.to_string())),
        Err(error) => Err(error.into()),
    })?;
    state.closed = None;
    state.write(context.host)?;
    context.note(format!("node {node} is open for new pods again"));
    Ok(())
}

/// Opens it, or says that it is still closed, which stays on record.
pub(super) fn open_or_say(context: &Context<'_>, state: &mut State) {
    if let Err(error) = open(context, state) {
        let node = state.closed.clone().unwrap_or_default();
        context.warn(format!(
            "node {node} is still closed for new pods ({error:#}): the next run opens it, or `kubectl uncordon {node}`"
        ));
    }
}

fn ask_to_open(client: &Client<'_>, node: &str) -> Result<(), kubeapi::Error> {
    let path = path(node);
    if client.find(&path)?.is_some_and(|found| is_closed(&found)) {
        client.patch(&path, &json!({ "spec": { "unschedulable": null } }))?;
    }
    Ok(())
}

#[cfg(not(test))]
fn client<'a>(context: &Context<'a>) -> Result<Client<'a>> {
    api::client(context)
}

#[cfg(test)]
use test_api::client;

/// The API server of a simulated machine, where it has one.
#[cfg(test)]
pub(super) mod test_api {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::{Client, Context, Result, api};
    use crate::kubeapi::fake::Server;

    thread_local! {
        static SERVER: RefCell<Option<Rc<Server>>> = const { RefCell::new(None) };
    }

    pub(in super::super) fn set(server: Option<Rc<Server>>) {
        SERVER.set(server);
    }

    pub(super) fn client<'a>(context: &Context<'a>) -> Result<Client<'a>> {
        SERVER.with_borrow(|server| server.as_ref().map_or_else(|| api::client(context), |server| Ok(server.client())))
    }
}
