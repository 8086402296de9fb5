//! One small web server on every node behind a service and a NodePort, and who reaches what.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::Cluster;
use crate::master::{ANSWER, NODE_PORT};
use crate::{Host, wait};

/// A running pod of the workload.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// The node it is on.
    pub node: String,
    /// Its address.
    pub address: String,
}

impl Cluster {
    /// Starts the workload, or waits for it: one running pod on every node that has a host that is on.
    pub fn workload(&self, image: &str, limit: Duration) -> Result<()> {
        wait::until("the workload to be taken", limit, || self.apply(&workload(image)))?;
        self.pods_everywhere(limit).map(drop)
    }

    /// The pods of the workload, when each node that is on has a running one.
    pub fn pods_everywhere(&self, limit: Duration) -> Result<Vec<Pod>> {
        wait::until("a pod on every node", limit, || {
            let pods = self.pods()?;
            for seat in self.seats().iter().filter(|seat| seat.has_kubelet()) {
                let there = pods.iter().any(|pod| pod.node == seat.name);
                ensure!(there || !self.host(seat.name)?.alive(), "no pod is ready on {}: {pods:?}", seat.name);
            }
            Ok(pods)
        })
        .with_context(|| self.kubectl("describe pods").unwrap_or_default())
        .with_context(|| self.troubles())
    }

    fn pods(&self) -> Result<Vec<Pod>> {
        let list = self.get("pods --selector=app=web")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let ready = |pod: &&Value| {
            let conditions = pod["status"]["conditions"].as_array();
            let ready = conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True");
            ready && pod["metadata"]["deletionTimestamp"].is_null()
        };
        let items = list["items"].as_array().cloned().unwrap_or_default();
        Ok(items
            .iter()
            .filter(ready)
            .map(|pod| Pod {
                name: text(&pod["metadata"]["name"]),
                node: text(&pod["spec"]["nodeName"]),
                address: text(&pod["status"]["podIP"]),
            })
            .collect())
    }

    /// From every node that is on to every pod, to the service and to every node's NodePort; and from every pod to every pod and the service.
    pub fn everything_reaches_everything(&self, limit: Duration) -> Result<()> {
        let pods = self.pods_everywhere(limit)?;
        let service = self.kubectl("get service web -o jsonpath={.spec.clusterIP}")?;
        let mut hosts: Vec<Arc<Host>> = Vec::new();
        for seat in self.seats().iter().filter(|seat| seat.has_kubelet()) {
            hosts.push(self.host(seat.name)?);
        }
        hosts.retain(|host| host.alive());
        let pods: Vec<&Pod> = pods.iter().filter(|pod| hosts.iter().any(|host| host.name() == pod.node)).collect();
        let mut urls: Vec<String> = pods.iter().map(|pod| format!("http://{}:8080/", pod.address)).collect();
        urls.push(format!("http://{service}/"));
        let within = urls.clone();
        urls.extend(hosts.iter().map(|host| format!("http://{}:{NODE_PORT}/", host.address())));
        for host in &hosts {
            wait::until(&format!("{} to reach everything", host.name()), limit, || all_answer(host, &urls))
                .with_context(|| self.routes())?;
        }
        for pod in &pods {
            let script =
                format!("exec {} -- /bin/busybox timeout 20 /bin/busybox wget -q -O - {}", pod.name, within.join(" "));
            wait::until(&format!("the pod on {} to reach every pod", pod.node), limit, || {
                let said = self.kubectl(&script)?;
                ensure!(said.matches(ANSWER).count() == within.len(), "{said}");
                Ok(())
            })
            .with_context(|| self.routes())?;
        }
        Ok(())
    }

    /// A new pod on a node, by a controller or by name; waits until it runs, then takes it away.
    pub fn a_new_pod_runs(&self, image: &str, node: &str, limit: Duration) -> Result<()> {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "new"}, "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node}, "tolerations": [{"operator": "Exists"}],
            "terminationGracePeriodSeconds": 1, "containers": [{"name": "new", "image": image, "imagePullPolicy": "Never",
                "command": ["/bin/busybox", "sleep", "1000"]}]}});
        wait::until("a new pod to be taken", limit, || self.apply(&pod))?;
        wait::until("a new pod to run", limit, || {
            let phase = self.kubectl("get pod new -o jsonpath={.status.phase}")?;
            ensure!(phase == "Running", "it is {phase}");
            Ok(())
        })
        .with_context(|| self.kubectl("describe pod new").unwrap_or_default())?;
        wait::until("the new pod to go", limit, || self.kubectl("delete pod new --ignore-not-found=true").map(drop))
    }

    fn routes(&self) -> String {
        let mut text = String::new();
        for host in self.hosts().iter().filter(|host| host.alive()) {
            let routes = host.try_run("ip route").map(|finished| finished.stdout).unwrap_or_default();
            let _ = write!(text, "== routes of {}\n{routes}", host.name());
        }
        text
    }
}

/// Each of these must give the workload's answer to a host.
fn all_answer(host: &Host, urls: &[String]) -> Result<()> {
    for url in urls {
        let curl =
            host.beside("curl").args(["--silent", "--show-error", "--fail", "--max-time", "3", "--noproxy", "*"]);
        let finished = curl.arg(url).finish()?;
        if finished.stdout.trim_end() != ANSWER {
            bail!("{} does not reach {url}: {}", host.name(), finished.tail());
        }
    }
    Ok(())
}

fn workload(image: &str) -> Value {
    let script = format!(
        "/bin/busybox mkdir -p /www && echo {ANSWER} >/www/index.html && echo serving && exec /bin/busybox httpd -f -p 8080 -h /www"
    );
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "web", "namespace": "default"}, "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
                "tolerations": [{"operator": "Exists"}], "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
                "containers": [{"name": "web", "image": image, "imagePullPolicy": "Never",
                    "command": ["/bin/busybox", "sh", "-c", script], "ports": [{"containerPort": 8080}],
                    "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 2}}]}}}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"}, "spec": {
            "type": "NodePort", "selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": 8080, "nodePort": NODE_PORT}]}},
    ]})
}
