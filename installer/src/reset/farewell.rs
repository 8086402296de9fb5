//! What a node's kubelet would say if it could: that it no longer works. The others move its pods and stop sending them
//! requests at once, and `installer node remove` need not wait until they miss it.

use anyhow::Result;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kubeapi::Client;

/// Sets the node's condition Ready to False, which its own certificate may do. Says whether there was anything to tell.
pub(super) fn tell(client: &Client<'_>, node: &str, now: Timestamp) -> Result<bool> {
    let path = format!("/api/v1/nodes/{node}");
    let Some(mut found) = client.find(&path)? else { return Ok(false) };
    let Some(conditions) = found.pointer_mut("/status/conditions").and_then(Value::as_array_mut) else {
        return Ok(false);
    };
    let Some(ready) = conditions.iter_mut().find(|found| found["type"] == "Ready" && found["status"] == "True") else {
        return Ok(false);
    };
    // RFC 3339 in whole seconds: what the API takes for a time.
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    *ready = json!({
        "type": "Ready",
        "status": "False",
        "reason": "Reset",
        "message": "Sealift was taken off this host",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    });
    // A merge patch replaces lists as a whole; the version guards against a kubelet that still writes.
    let version = found.pointer("/metadata/resourceVersion").cloned();
    let mut change = json!({ "status": { "conditions": found["status"]["conditions"] } });
    if let Some(version) = version {
        change["metadata"] = json!({ "resourceVersion": version });
    }
    client.patch(&format!("{path}/status"), &change)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubeapi::fake::Server;

    #[test]
    fn the_node_says_that_it_is_away_and_once_is_enough() {
        let server = Server::start();
        let other = json!({ "type": "DiskPressure", "status": "False" });
        let node = json!({ "status": { "conditions": [other, { "type": "Ready", "status": "True" }] } });
        server.put("/api/v1/nodes/w1", node.clone());
        server.put("/api/v1/nodes/w1/status", json!({}));
        let told = || tell(&server.client(), "w1", "2026-01-02T03:04:05.6Z".parse().unwrap()).unwrap();
        assert!(told());
        let conditions = server.object("/api/v1/nodes/w1/status").unwrap()["status"]["conditions"].take();
        assert_eq!(conditions[0], other);
        assert_eq!(
            (&conditions[1]["status"], &conditions[1]["lastTransitionTime"]),
            (&json!("False"), &json!("2026-01-02T03:04:05Z"))
        );
        server.put("/api/v1/nodes/w1", json!({ "status": { "conditions": conditions } }));
        assert!(!told());
        assert!(!tell(&server.client(), "w2", Timestamp::UNIX_EPOCH).unwrap());
        assert_eq!(server.changes(), ["PATCH /api/v1/nodes/w1/status"]);
    }
}
