//! A host that is to become a master: bundle, installer, key and cluster config on it, and how to talk to the cluster afterwards.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::host::Running;
use crate::process::Finished;
use crate::product::Product;
use crate::{Host, wait};

/// NodePort of the test workload.
pub const NODE_PORT: u16 = 30080;
/// What the test workload answers.
pub const ANSWER: &str = "hello from a pod";
/// Where the bundle's kubectl is on a host.
pub const KUBECTL: &str = "/opt/sealift/current/kubectl/bin/kubectl";

/// A host with everything beside it that a person would carry there.
#[derive(Debug)]
pub struct Master {
    /// The host.
    pub host: Host,
}

/// One run of the installer.
#[derive(Debug)]
pub struct Install {
    /// Exit code and output.
    pub finished: Finished,
    /// Its `--json` lines.
    pub events: Vec<Value>,
}

impl Master {
    /// Carries a product to the host and writes the cluster's config; `extra` is appended to it.
    pub fn prepare(host: Host, product: &Product, extra: &str) -> Result<Self> {
        host.copy(&product.bundle, "/root/x.bundle")?;
        host.copy(&product.installer, "/root/installer")?;
        host.copy(&product.key, "/root/key.pub")?;
        host.run("chmod 755 /root/installer")?;
        let config = format!(
            "[cluster]\nname = \"test\"\n\n[[node]]\nname = \"{}\"\naddress = \"{}\"\nroles = [\"master\"]\n\n{extra}",
            host.name(),
            host.address()
        );
        host.write("/root/cluster.toml", config)?;
        Ok(Self { host })
    }

    /// The installer's argument vector for a subcommand (`install`, `plan`).
    pub fn command<'a>(&self, command: &'a str, bundle: &'a str) -> Vec<&'a str> {
        vec![
            "/root/installer",
            command,
            "--role",
            "master",
            "--bundle",
            bundle,
            "--config",
            "/root/cluster.toml",
            "--key",
            "/root/key.pub",
        ]
    }

    /// Runs a subcommand of the installer with `--json`, whatever comes out.
    pub fn installer(&self, command: &str, bundle: &str) -> Result<Install> {
        let argv = self.command(command, bundle);
        let finished = self.host.inside(argv[0]).args(&argv[1..]).arg("--json").finish()?;
        let events = events(&finished.stdout);
        Ok(Install { finished, events })
    }

    /// Runs a subcommand as a person would, whatever comes out.
    pub fn plainly(&self, command: &str) -> Result<Finished> {
        let argv = self.command(command, "/root/x.bundle");
        self.host.inside(argv[0]).args(&argv[1..]).finish()
    }

    /// Installs; anything but exit code 0 is an error with the host's journal.
    pub fn install(&self) -> Result<Install> {
        let install = self.installer("install", "/root/x.bundle")?;
        ensure!(
            install.finished.success(),
            "the installer ended with {:?}\n{}\njournal:\n{}",
            install.finished.code,
            install.finished.tail(),
            self.host.journal(60)
        );
        Ok(install)
    }

    /// Starts an installation and leaves it running.
    pub fn start(&self) -> Result<Running> {
        let mut argv = self.command("install", "/root/x.bundle");
        argv.push("--json");
        self.host.start(&argv)
    }

    /// `kubectl` as the administrator, on the host; arguments are separated by spaces.
    pub fn kubectl(&self, arguments: &str) -> Result<String> {
        self.host.inside(KUBECTL).args(["--kubeconfig", "/etc/sealift/admin.conf"]).args(arguments.split(' ')).text()
    }

    /// Waits until the node is Ready.
    pub fn ready(&self, limit: Duration) -> Result<()> {
        let what = r#"get nodes -o jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#;
        wait::until("the node to be Ready", limit, || {
            let status = self.kubectl(what)?;
            ensure!(status == "True", "Ready is `{status}`");
            Ok(())
        })
    }

    /// Starts the test workload, a web server of one line behind a NodePort, and waits until it runs.
    pub fn workload(&self, image: &str) -> Result<()> {
        self.host.write("/root/workload.json", workload(image).to_string())?;
        wait::until("the default service account", Duration::from_secs(60), || {
            self.kubectl("get serviceaccount default")
        })?;
        self.kubectl("apply -f /root/workload.json")?;
        self.kubectl("wait pod/web --for=condition=Ready --timeout=120s")
            .with_context(|| self.kubectl("describe pod web").unwrap_or_default())?;
        Ok(())
    }
}

/// Lines of `--json` output.
pub fn events(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

impl Install {
    /// The last event of a kind.
    pub fn last(&self, kind: &str) -> Result<&Value> {
        self.events.iter().rev().find(|event| event["event"] == kind).with_context(|| format!("no event `{kind}`"))
    }

    /// Changes made by the whole run.
    pub fn changes(&self) -> Result<u64> {
        self.last("run-finished")?["changes"].as_u64().context("no number of changes")
    }

    /// Steps with their duration, the slowest first.
    pub fn slowest(&self) -> Vec<(String, u64)> {
        let finished = self.events.iter().filter(|event| event["event"] == "step-finished");
        let mut steps: Vec<(String, u64)> = finished
            .filter_map(|event| Some((event["step"].as_str()?.to_owned(), event["milliseconds"].as_u64()?)))
            .collect();
        steps.sort_by_key(|(_, milliseconds)| std::cmp::Reverse(*milliseconds));
        steps
    }
}

/// A busybox web server that tolerates a master, and its NodePort.
fn workload(image: &str) -> Value {
    let script = format!(
        "/bin/busybox mkdir -p /www && echo {ANSWER} >/www/index.html && echo serving && exec /bin/busybox httpd -f -v -p 8080 -h /www"
    );
    serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web"}}, "spec": {
            "tolerations": [{"operator": "Exists"}], "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
            "containers": [{"name": "web", "image": image, "imagePullPolicy": "Never", "command": ["/bin/busybox", "sh", "-c", script],
                "ports": [{"containerPort": 8080}], "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}}]}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"type": "NodePort", "selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": 8080, "nodePort": NODE_PORT}]}},
    ]})
}
