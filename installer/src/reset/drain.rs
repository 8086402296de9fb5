//! Moving the pods of a node away through the API, as `kubectl drain` does: the node takes no new ones, then each pod is
//! evicted, which respects PodDisruptionBudgets, within a time limit.
//!
//! Pods of DaemonSets, static pods and finished ones stay: they belong to the node or are over.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};

use crate::host::Host;
use crate::kubeapi::Client;
use crate::report::Explain as _;

const AGAIN: Duration = Duration::from_secs(2);

/// What to move, and how long it may take.
#[derive(Debug)]
pub(crate) struct Drain<'a> {
    pub(crate) host: &'a Host,
    pub(crate) client: &'a Client<'a>,
    /// The node's name.
    pub(crate) node: &'a str,
    pub(crate) limit: Duration,
    /// What becomes of pods that nothing will make anew elsewhere.
    pub(crate) bare: Bare,
}

/// What becomes of pods that nothing will make anew elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bare {
    /// They end.
    End,
    /// There must be none.
    Refuse,
    /// They stay: this node comes back.
    Leave,
}

/// A pod that has to go: its path in the API is the key where these are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pod {
    namespace: String,
    name: String,
    uid: String,
    /// Whether something will make it anew elsewhere.
    controlled: bool,
}

impl Drain<'_> {
    /// Moves all pods; says what was done.
    pub(crate) fn run(&self) -> Result<Vec<String>> {
        let node = format!("/api/v1/nodes/{}", self.node);
        let Some(found) = self.client.find(&node)? else { return Ok(Vec::new()) };
        let mut done = Vec::new();
        if found.pointer("/spec/unschedulable") != Some(&Value::Bool(true)) {
            self.client.patch(&node, &json!({ "spec": { "unschedulable": true } })).context("closing the node")?;
            done.push(format!("close node {} for new pods", self.node));
        }
        let mut pods = self.pods()?;
        let bare: Vec<String> = pods.values().filter(|pod| !pod.controlled).map(Pod::label).collect();
        if self.bare == Bare::Leave {
            pods.retain(|_, pod| pod.controlled);
        } else if !bare.is_empty() && self.bare == Bare::Refuse {
            return Err(anyhow!("pods that nothing makes anew elsewhere run here: {}", bare.join(", "))).hint(format!(
                "delete them, or end them with `--force`; `kubectl uncordon {}` opens the node again",
                self.node
            ));
        }
        let count = pods.len();
        self.evict(pods)?;
        if count > 0 {
            done.push(format!("move {count} pods away"));
        }
        Ok(done)
    }

    fn pods(&self) -> Result<BTreeMap<String, Pod>> {
        let mut found = BTreeMap::new();
        // A node may ask for its own pods only (`AuthorizeNodeWithSelectors`).
        let own = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}", self.node);
        self.client.pages(&own, |pods| {
            let here =
                pods.iter().filter(|pod| pod.pointer("/spec/nodeName").and_then(Value::as_str) == Some(self.node));
            found.extend(here.filter_map(Pod::to_move).map(|pod| (pod.path(), pod)));
        })?;
        Ok(found)
    }

    /// Asks for eviction until each pod is gone; a budget may refuse for a while.
    fn evict(&self, mut left: BTreeMap<String, Pod>) -> Result<()> {
        if left.is_empty() {
            return Ok(());
        }
        let version = self.eviction_version()?;
        let waited = self.host.wait_for("pods to leave", self.limit, AGAIN, || {
            let mut reasons = BTreeMap::new();
            for (path, pod) in left.clone() {
                match self.one(&path, &pod, &version)? {
                    None => drop(left.remove(&path)),
                    Some(reason) => drop(reasons.insert(path, format!("{} ({reason})", pod.label()))),
                }
            }
            Ok(if left.is_empty() { Ok(()) } else { Err(reasons.into_values().collect::<Vec<_>>().join(", ")) })
        });
        waited.hint(format!(
            "nothing of this host was removed; run it again when they can go, without `--drain` to end them, or \
             `kubectl uncordon {}`",
            self.node
        ))
    }

    /// One look at a pod: `None` when it is gone, else why it is still there.
    fn one(&self, path: &str, pod: &Pod, version: &str) -> Result<Option<String>> {
        let Some(found) = self.client.find(path)? else { return Ok(None) };
        if found.pointer("/metadata/uid").and_then(Value::as_str) != Some(&pod.uid) {
            return Ok(None);
        }
        if found.pointer("/metadata/deletionTimestamp").is_some() {
            return Ok(Some("ending".to_owned()));
        }
        let eviction = json!({
            "apiVersion": version,
            "kind": "Eviction",
            "metadata": { "name": pod.name, "namespace": pod.namespace },
            "deleteOptions": { "preconditions": { "uid": pod.uid } },
        });
        match self.client.post(&format!("{path}/eviction"), &eviction) {
            Ok(_) => Ok(Some("ending".to_owned())),
            Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(Some("changed meanwhile".to_owned())),
            Err(error) if error.code() == Some(429) => Ok(Some(error.message().to_owned())),
            Err(error) => Err(error).with_context(|| format!("moving pod {}", pod.label())),
        }
    }

    /// The version of `Eviction` that this API takes: `policy/v1` from 1.22 on, `policy/v1beta1` before.
    fn eviction_version(&self) -> Result<String> {
        let list = self.client.get("/api/v1")?;
        let resources = list["resources"].as_array().map(Vec::as_slice).unwrap_or_default();
        let Some(eviction) = resources.iter().find(|resource| resource["name"] == "pods/eviction") else {
            bail!("this API cannot evict pods");
        };
        let text = |key: &str| eviction[key].as_str().unwrap_or_default();
        Ok(format!("{}/{}", text("group"), text("version")))
    }
}

impl Pod {
    /// The pod, if it has to be moved.
    fn to_move(pod: &Value) -> Option<Self> {
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        let controller = owners.and_then(|owners| owners.iter().find(|owner| owner["controller"] == true));
        let mirror = pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some();
        let over = matches!(text("/status/phase").as_deref(), Some("Succeeded" | "Failed"));
        if mirror || over || controller.is_some_and(|owner| owner["kind"] == "DaemonSet") {
            return None;
        }
        Some(Self {
            namespace: text("/metadata/namespace")?,
            name: text("/metadata/name")?,
            uid: text("/metadata/uid")?,
            controlled: controller.is_some(),
        })
    }

    fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/pods/{}", self.namespace, self.name)
    }

    fn label(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubeapi::fake::Server;

    fn pod(name: &str, node: &str, owner: Option<&str>) -> Value {
        let mut pod = json!({
            "metadata": { "name": name, "namespace": "default", "uid": name },
            "spec": { "nodeName": node }, "status": { "phase": "Running" },
        });
        if let Some(kind) = owner {
            pod["metadata"]["ownerReferences"] = json!([{ "kind": kind, "controller": true }]);
        }
        pod
    }

    struct Cluster {
        _directory: tempfile::TempDir,
        host: Host,
        server: Server,
    }

    fn cluster(pods: &[Value]) -> Cluster {
        let directory = tempfile::tempdir().unwrap();
        let (host, server) = (Host::under(directory.path()), Server::start());
        server.put("/api/v1/nodes/w1", json!({ "spec": {} }));
        let eviction = json!({ "name": "pods/eviction", "kind": "Eviction", "group": "policy", "version": "v1beta1" });
        server.put("/api/v1", json!({ "resources": [eviction] }));
        server.put("/api/v1/pods", json!({ "items": pods, "metadata": {} }));
        for pod in pods {
            let name = pod["metadata"]["name"].as_str().unwrap();
            server.put(&format!("/api/v1/namespaces/default/pods/{name}"), pod.clone());
        }
        Cluster { _directory: directory, host, server }
    }

    fn drain(cluster: &Cluster, force: bool) -> Result<Vec<String>> {
        let client = cluster.server.client();
        let limit = Duration::from_secs(60);
        let bare = if force { Bare::End } else { Bare::Refuse };
        Drain { host: &cluster.host, client: &client, node: "w1", limit, bare }.run()
    }

    fn evictions(cluster: &Cluster) -> Vec<String> {
        cluster.server.changes().into_iter().filter(|change| change.contains("/eviction")).collect()
    }

    #[test]
    fn only_what_can_run_elsewhere_is_moved() {
        let mut over = pod("over", "w1", None);
        over["status"]["phase"] = "Succeeded".into();
        let pods = [
            pod("web", "w1", Some("ReplicaSet")),
            pod("elsewhere", "w2", Some("ReplicaSet")),
            pod("proxy", "w1", Some("DaemonSet")),
            over,
        ];
        let cluster = cluster(&pods);
        cluster.server.fault(|request| {
            let gone = json!({ "reason": "NotFound", "message": "not found" });
            (request == "GET /api/v1/namespaces/default/pods/web").then_some((404, gone))
        });
        let done = drain(&cluster, false).unwrap();
        assert_eq!(done, ["close node w1 for new pods", "move 1 pods away"]);
        assert_eq!(evictions(&cluster), Vec::<String>::new(), "it is gone already");
    }

    #[test]
    fn a_budget_is_respected_until_the_time_is_over() {
        let cluster = cluster(&[pod("web", "w1", Some("ReplicaSet"))]);
        cluster.server.fault(|request| {
            let refused = json!({ "reason": "TooManyRequests", "message": "it would violate the disruption budget" });
            request.ends_with("/eviction").then_some((429, refused))
        });
        let error = format!("{:#}", drain(&cluster, false).unwrap_err());
        assert!(error.contains("not so after 60 s: default/web (it would violate the disruption budget)"), "{error}");
        assert!(evictions(&cluster).len() > 10);
    }

    /// A StatefulSet's pod comes back under its name, elsewhere: that one is not moved again.
    #[test]
    fn a_pod_of_the_same_name_that_came_after_it_stays() {
        let cluster = cluster(&[pod("db-0", "w1", Some("StatefulSet"))]);
        let mut next = pod("db-0", "w2", Some("StatefulSet"));
        next["metadata"]["uid"] = "another".into();
        cluster.server.put("/api/v1/namespaces/default/pods/db-0", next);
        assert_eq!(drain(&cluster, false).unwrap(), ["close node w1 for new pods", "move 1 pods away"]);
        assert_eq!(evictions(&cluster), Vec::<String>::new());
    }

    #[test]
    fn pods_without_a_controller_need_force() {
        let cluster = cluster(&[pod("precious", "w1", None)]);
        let error = drain(&cluster, false).unwrap_err().to_string();
        assert!(error.contains("default/precious"), "{error}");
        assert_eq!(evictions(&cluster), Vec::<String>::new());
        let error = drain(&cluster, true).unwrap_err();
        assert!(format!("{error:#}").contains("pods to leave"), "it is evicted, and this API never ends it: {error:#}");
        assert!(!evictions(&cluster).is_empty());
    }
}
