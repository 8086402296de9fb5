//! Whether a node still works: what its kubelet reports, and the lease that it renews.
//!
//! The cluster holds a node for Ready until its lease is 40 s old. So a node that looks well is watched: a renewed lease
//! proves that it works, one that is not renewed for longer than that proves that it does not. Only this host's clock counts.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::engine::interrupted;
use crate::host::Host;
use crate::kubeapi::{Client, Error};

/// A kubelet renews every 10 s, and counts as dead after 40 s (its default, and the controller-manager's).
const SILENCE: Duration = Duration::from_secs(45);
/// The longest look, questions that nobody answered included.
const LONGEST: Duration = Duration::from_secs(120);
const AGAIN: Duration = Duration::from_secs(2);

/// Who is watched, and from where.
pub(super) struct Watch<'a> {
    pub(super) host: &'a Host,
    pub(super) client: &'a Client<'a>,
    pub(super) say: &'a dyn Fn(&str),
}

/// One look at a node.
enum Look {
    /// There is no such node object, or it is not Ready.
    Away,
    /// It is Ready as far as the cluster knows; when the lease was renewed last, in the kubelet's words.
    Ready(Option<String>),
}

impl Watch<'_> {
    /// Whether the node works. Takes a moment when the cluster says that it does.
    pub(super) fn works(&self, name: &str) -> Result<bool> {
        let Look::Ready(mut first) = self.look(name)? else { return Ok(false) };
        let seconds = SILENCE.as_secs();
        (self.say)(&format!(
            "node {name} is Ready as far as the cluster knows: looking for a sign of life, up to {seconds} s"
        ));
        let (start, mut since) = (self.host.monotonic(), Some(self.host.monotonic()));
        while self.host.monotonic().saturating_sub(start) < LONGEST {
            if interrupted() {
                bail!("interrupted while looking for a sign of life of node `{name}`");
            }
            self.host.pause(AGAIN);
            let now = self.host.monotonic();
            match self.look(name) {
                Ok(Look::Away) => return Ok(false),
                Ok(Look::Ready(renewed)) => match since {
                    Some(_) if renewed != first => return Ok(true),
                    Some(since) if now.saturating_sub(since) >= SILENCE => return Ok(false),
                    Some(_) => {}
                    None => (first, since) = (renewed, Some(now)),
                },
                // Nobody could renew anything meanwhile: the silence begins anew.
                Err(error) if error.passing() => since = None,
                Err(error) => return Err(error.into()),
            }
        }
        bail!("whether node `{name}` works: the API server did not say so within {} s", LONGEST.as_secs())
    }

    fn look(&self, name: &str) -> Result<Look, Error> {
        if !self.client.find(&super::nodes::path(name))?.is_some_and(|node| ready(&node)) {
            return Ok(Look::Away);
        }
        let lease = self.client.find(&lease(name))?;
        let renewed = lease.as_ref().and_then(|lease| lease.pointer("/spec/renewTime")).and_then(Value::as_str);
        Ok(Look::Ready(renewed.map(str::to_owned)))
    }
}

/// Path of the lease that a node's kubelet renews.
pub(super) fn lease(name: &str) -> String {
    format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}")
}

/// Whether a node object says that its kubelet works.
pub(super) fn ready(node: &Value) -> bool {
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|found| found["type"] == "Ready" && found["status"] == "True")
}
