//! Several hosts that are to become one cluster: a layout, one bundle, join files, installations at once or one by one, and how to talk to
//! the cluster afterwards.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::master::KUBECTL;
use crate::process::{Finished, Process};
use crate::product::Product;
use crate::{Bed, Host, Route, wait};

mod etcd;
mod install;
pub mod loops;
mod workload;

pub use etcd::Member;
pub use install::{How, Outcome};

/// The installer on a host that has one.
pub const INSTALLER: &str = "/opt/sealift/bin/installer";
/// Opens every join file of the tests.
pub const PASSPHRASE: &str = "correct horse battery staple";
/// Several etcds on two busy cores: heartbeats of 500 ms, elections after 5 s.
const ETCD: &str = "[etcd]\nheartbeat_ms = 500\nelection_ms = 5000\n";

/// A node of the layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// Node name.
    pub name: &'static str,
    /// Its number on the bridges.
    pub number: u8,
    /// Its roles, separated by commas.
    pub roles: &'static str,
}

/// One host of the cluster and its place in it.
#[derive(Debug)]
struct Node {
    seat: Seat,
    host: Arc<Host>,
}

/// Hosts with one config.
#[derive(Debug)]
pub struct Cluster {
    nodes: RwLock<Vec<Node>>,
    bed: Arc<Bed>,
    product: Product,
    directory: PathBuf,
    route: Route,
}

impl Seat {
    /// A master.
    pub const fn master(name: &'static str, number: u8) -> Self {
        Self { name, number, roles: "master" }
    }

    /// A worker.
    pub const fn worker(name: &'static str, number: u8) -> Self {
        Self { name, number, roles: "worker" }
    }

    /// A dedicated etcd member.
    pub const fn etcd(name: &'static str, number: u8) -> Self {
        Self { name, number, roles: "etcd" }
    }

    /// Whether the control plane runs there.
    pub fn is_master(&self) -> bool {
        self.roles.contains("master")
    }

    /// Whether a kubelet runs there.
    pub fn has_kubelet(&self) -> bool {
        self.roles.contains("master") || self.roles.contains("worker")
    }
}

/// The config of a cluster of these nodes; `extra` is appended.
pub fn config(name: &str, bed: &Bed, seats: &[Seat], extra: &str) -> String {
    let mut text = format!("[cluster]\nname = \"{name}\"\n\n");
    for seat in seats {
        let roles: Vec<String> = seat.roles.split(',').map(|role| format!("{role:?}")).collect();
        let (address, roles) = (bed.address(seat.number), roles.join(", "));
        let _ = write!(text, "[[node]]\nname = \"{}\"\naddress = \"{address}\"\nroles = [{roles}]\n\n", seat.name);
    }
    text + ETCD + extra
}

impl Cluster {
    /// Boots all hosts at once and carries installer, bundle, key and the config to each. `directory` is for what the tests keep of it.
    pub fn boot(
        bed: &Arc<Bed>,
        product: &Product,
        directory: &Path,
        seats: &[Seat],
        config: &str,
        route: Route,
    ) -> Result<Self> {
        fs_err::create_dir_all(directory)?;
        fs_err::write(directory.join("cluster.toml"), config)?;
        let cluster = Self {
            nodes: RwLock::default(),
            bed: bed.clone(),
            product: product.clone(),
            directory: directory.to_owned(),
            route,
        };
        cluster.add(seats)?;
        for seat in seats {
            cluster.host(seat.name)?.write("/root/cluster.toml", config)?;
        }
        Ok(cluster)
    }

    /// Boots further hosts and carries installer, bundle and key there, but no config.
    pub fn add(&self, seats: &[Seat]) -> Result<()> {
        let wanted: Vec<(&str, u8)> = seats.iter().map(|seat| (seat.name, seat.number)).collect();
        let hosts = Host::boot_all(&self.bed, &wanted, self.route)?;
        for (seat, host) in seats.iter().zip(hosts) {
            host.copy(&self.product.bundle, "/root/x.bundle")?;
            host.copy(&self.product.installer, "/root/installer")?;
            host.copy(&self.product.key, "/root/key.pub")?;
            host.write("/root/passphrase", format!("{PASSPHRASE}\n"))?;
            host.run("chmod 755 /root/installer && chmod 600 /root/passphrase")?;
            self.nodes.write().unwrap_or_else(PoisonError::into_inner).push(Node { seat: *seat, host: Arc::new(host) });
        }
        Ok(())
    }

    /// Takes a host away with all its files.
    pub fn scrap(&self, name: &str) -> Result<()> {
        self.host(name)?.kill()?;
        self.nodes.write().unwrap_or_else(PoisonError::into_inner).retain(|node| node.seat.name != name);
        Ok(())
    }

    /// The nodes that have a host, in the order in which they came.
    pub fn seats(&self) -> Vec<Seat> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).iter().map(|node| node.seat).collect()
    }

    /// All hosts.
    pub fn hosts(&self) -> Vec<Arc<Host>> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).iter().map(|node| node.host.clone()).collect()
    }

    /// The host of a node.
    pub fn host(&self, name: &str) -> Result<Arc<Host>> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        let node = nodes.iter().find(|node| node.seat.name == name);
        Ok(node.with_context(|| format!("there is no host `{name}`"))?.host.clone())
    }

    /// The bed of all hosts.
    pub fn bed(&self) -> &Arc<Bed> {
        &self.bed
    }

    /// What is carried to the hosts.
    pub fn product(&self) -> &Product {
        &self.product
    }

    /// Where the tests keep files of this cluster.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The bundle's kubectl as this machine sees it, on a master: workers have none.
    pub fn kubectl_program(&self) -> Result<PathBuf> {
        let seats = self.seats();
        let master = self.host(seats.iter().find(|seat| seat.is_master()).context("no master")?.name)?;
        Ok(master.file(master.run(&format!("readlink -f {KUBECTL}"))?.stdout.trim()))
    }

    /// `kubectl` as the administrator on one master; arguments are separated by spaces.
    pub fn kubectl_on(&self, master: &str, arguments: &str) -> Result<Finished> {
        let kubectl =
            self.host(master)?.inside(KUBECTL).args(["--kubeconfig=/etc/sealift/admin.conf", "--request-timeout=20s"]);
        kubectl.args(arguments.split(' ')).finish()
    }

    /// `kubectl` as the administrator on the first master that answers.
    pub fn kubectl(&self, arguments: &str) -> Result<String> {
        let mut last = anyhow::anyhow!("no master is on");
        for seat in self.seats().iter().filter(|seat| seat.is_master()) {
            if !self.host(seat.name)?.alive() {
                continue;
            }
            let finished = self.kubectl_on(seat.name, arguments)?;
            if finished.success() {
                return Ok(finished.stdout.trim_end().to_owned());
            }
            last = anyhow::anyhow!("`kubectl {arguments}` on {}: {}", seat.name, finished.tail());
        }
        Err(last)
    }

    /// `kubectl … -o json`, read.
    pub fn get(&self, arguments: &str) -> Result<Value> {
        let text = self.kubectl(&format!("get {arguments} -o json"))?;
        serde_json::from_str(&text).with_context(|| format!("reading `kubectl get {arguments}`"))
    }

    /// Applies objects.
    pub fn apply(&self, objects: &Value) -> Result<()> {
        for seat in self.seats().iter().filter(|seat| seat.is_master()) {
            let host = self.host(seat.name)?;
            if host.alive() {
                host.write("/root/objects.json", objects.to_string())?;
            }
        }
        self.kubectl("apply -f /root/objects.json").map(drop)
    }

    /// Node names and whether each is Ready and alive: its condition outlives a power cut for 40 seconds, its lease is renewed every 10.
    pub fn nodes(&self) -> Result<Vec<(String, bool)>> {
        let (nodes, leases) = (self.get("nodes")?, self.get("leases --namespace=kube-node-lease")?);
        // In the form and the clock of the API: such times compare as text.
        let recently = Process::new("date").args(["--utc", "--date=20 seconds ago", "+%FT%T"]).text()?;
        let items = |list: &Value| list["items"].as_array().cloned().unwrap_or_default();
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let ready = |node: &Value| {
            let conditions = node["status"]["conditions"].as_array();
            conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
        };
        let leases = items(&leases);
        let alive = |node: &Value| {
            let lease = leases.iter().find(|lease| name(lease) == name(node));
            lease.and_then(|lease| lease["spec"]["renewTime"].as_str()).is_some_and(|time| time > recently.as_str())
        };
        Ok(items(&nodes).iter().map(|node| (name(node), ready(node) && alive(node))).collect())
    }

    /// Waits until exactly the nodes with a kubelet that have a host that is on are Ready.
    pub fn ready(&self, limit: Duration) -> Result<()> {
        let mut wanted = Vec::new();
        for seat in self.seats().iter().filter(|seat| seat.has_kubelet()) {
            if self.host(seat.name)?.alive() {
                wanted.push(seat.name.to_owned());
            }
        }
        wanted.sort();
        wait::until("all nodes to be Ready", limit, || {
            let nodes = self.nodes()?;
            let mut ready: Vec<String> = nodes.iter().filter(|node| node.1).map(|node| node.0.clone()).collect();
            ready.sort();
            ensure!(ready == wanted, "{nodes:?}");
            Ok(())
        })
        .with_context(|| self.troubles())
    }

    /// `installer check --json` on a host, whatever comes out.
    pub fn check(&self, name: &str) -> Result<Finished> {
        self.host(name)?.inside("timeout").args(["300", INSTALLER, "check", "--json"]).finish()
    }

    /// Every check on every host that is on must be green, within the limit: a cluster takes a moment to settle.
    pub fn all_checks_green(&self, limit: Duration) -> Result<()> {
        for seat in self.seats() {
            if !self.host(seat.name)?.alive() {
                continue;
            }
            wait::until(&format!("`installer check` on {} to be green", seat.name), limit, || {
                let finished = self.check(seat.name)?;
                ensure!(finished.success(), "exit code {:?}\n{}", finished.code, finished.tail());
                Ok(())
            })
            .with_context(|| self.troubles())?;
        }
        Ok(())
    }

    /// `installer status` of a host.
    pub fn status(&self, name: &str) -> Result<Finished> {
        self.host(name)?.inside("timeout").args(["60", INSTALLER, "status"]).finish()
    }

    /// What does not run on each host and what it said last, for a message about a failure.
    pub fn troubles(&self) -> String {
        let mut text = String::new();
        for host in self.hosts() {
            if !host.alive() {
                let _ = writeln!(text, "== {}: off", host.name());
                continue;
            }
            let line = "systemctl list-units --all --no-legend --plain --state=failed,activating,auto-restart; \
                        journalctl --no-pager -q -n 12 -o cat -u 'kube*' -u etcd -u sealift-*";
            let said = host.try_run(line).map(|finished| finished.stdout).unwrap_or_default();
            let said: Vec<String> = said.lines().map(|line| line.chars().take(300).collect()).collect();
            let _ = write!(text, "== {}\n{}\n", host.name(), said.join("\n"));
        }
        text
    }
}
