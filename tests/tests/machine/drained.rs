//! A worker that has work already: closed and emptied before its reboot, opened again after it. The master is a host beside the machine.

use anyhow::{Context, Result, ensure};
use e2e::cluster::{Cluster, How, INSTALLER, Seat, config};
use e2e::machine::{Firmware, Machine, NAME};
use e2e::product::{Programs, reference};
use e2e::{Bed, Process, Route, wait};
use serde_json::{Value, json};

use super::site::{LONG, Site};
use super::stage::{EXACT, Stage};

const MASTER: &str = "m1";
const SEATS: [Seat; 2] = [Seat::master(MASTER, 11), Seat::worker(NAME, 31)];

pub(crate) fn a_working_node_is_emptied_first(stage: &Stage) -> Result<()> {
    let bed = Bed::new()?;
    let text = config("drained", &bed, &SEATS, "");
    let cluster = Cluster::boot(&bed, stage.product()?, &stage.path("drained")?, &SEATS[..1], &text, Route::None)?;
    cluster.install(MASTER, &How::FOUND)?.ended(&[0])?;
    let site = joined(stage, &bed, &cluster, &text)?;
    works(stage, &cluster)?;

    let machine = &site.machine;
    machine.write("/root/cluster.toml", format!("{text}{EXACT}"))?;
    set_clock(machine)?;
    site.run("--reboot=never", 5)?;
    let (node, pods) = (node(&cluster)?, pods(&cluster)?);
    ensure!(node["spec"]["unschedulable"] == true, "the node is open: {}", node["spec"]);
    ensure!(pods.iter().all(|place| place == MASTER), "pods are still there: {pods:?}");

    let boot = machine.boot_id()?;
    machine.run("systemctl reboot --no-block")?;
    machine.rebooted(&boot, LONG)?;
    wait::patiently("the node to be open again", LONG, || {
        open(&cluster)?;
        let info = self::node(&cluster)?["status"]["nodeInfo"].take();
        ensure!(info["kernelVersion"] == stage.newest()?.as_str(), "{info}");
        Ok(())
    })
    .with_context(|| site.log())
}

/// The machine as a worker of the cluster, on its old kernel.
fn joined(stage: &Stage, bed: &std::sync::Arc<Bed>, cluster: &Cluster, text: &str) -> Result<Site> {
    let master = cluster.host(MASTER)?;
    let said = master.run(&format!("{INSTALLER} join-file --node {NAME} --plain --output /root/plain.join"))?;
    let said = said.stdout + &said.stderr;
    let pin = said.split_whitespace().find(|word| word.starts_with("sha256:")).context("no pin")?;
    let machine = Machine::boot(bed, stage.image()?, Firmware::Bios)?;
    let mut site = Site::prepare(stage, machine, stage.product()?, "")?;
    site.role = format!("worker --join /root/plain.join --ca-pin {}", pin.trim_end_matches(['.', ',', '`']));
    let machine = &site.machine;
    machine.write("/root/cluster.toml", text)?;
    machine.write("/root/plain.join", fs_err::read(master.file("/root/plain.join"))?)?;
    machine.run("chmod 600 /root/plain.join")?;
    set_clock(machine)?;
    site.run("", 0)?;
    wait::patiently("the worker to be Ready", LONG, || open(cluster))?;
    Ok(site)
}

/// The machine's clock lags behind when the computer is busy, and the cluster's other hosts go by the computer's.
fn set_clock(machine: &Machine) -> Result<()> {
    let now = Process::new("date").arg("+%s").text()?;
    machine.run(&format!("date -s @{now}")).map(drop)
}

/// Starts pods that may go to either host, and waits until some are on the machine.
fn works(stage: &Stage, cluster: &Cluster) -> Result<()> {
    let image = reference(&stage.product()?.inspect(&Programs::build()?)?, "busybox")?;
    cluster.apply(&json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "work"},
        "spec": {"replicas": 4, "selector": {"matchLabels": {"app": "work"}}, "template": {
            "metadata": {"labels": {"app": "work"}},
            "spec": {
                "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 1,
                "tolerations": [{"key": "node-role.kubernetes.io/master", "operator": "Exists"}],
                "containers": [{"name": "work", "image": image, "imagePullPolicy": "Never",
                    "command": ["/bin/busybox", "sleep", "100000"]}],
            },
        }},
    }))?;
    wait::patiently("pods on the machine", LONG, || {
        let pods = pods(cluster)?;
        ensure!(pods.len() == 4 && pods.iter().any(|place| place == NAME), "they are on {pods:?}");
        Ok(())
    })
}

/// The node of the machine, as the cluster sees it.
fn node(cluster: &Cluster) -> Result<Value> {
    cluster.get(&format!("node {NAME}"))
}

/// Ready, and pods may come.
fn open(cluster: &Cluster) -> Result<()> {
    let node = node(cluster)?;
    let mut conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.any(|one| one["type"] == "Ready" && one["status"] == "True");
    ensure!(ready && node["spec"]["unschedulable"].is_null(), "{} {}", node["spec"], node["status"]["conditions"]);
    Ok(())
}

/// Where the running pods are.
fn pods(cluster: &Cluster) -> Result<Vec<String>> {
    let list = cluster.get("pods --selector=app=work")?;
    let running = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|pod| pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null());
    Ok(running.map(|pod| pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned()).collect())
}
