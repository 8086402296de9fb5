//! A worker that has work already: closed and emptied before its reboot, opened again after it. The master is a host beside the machine.

use anyhow::{Context, Result, ensure};
use e2e::cluster::{Cluster, How, INSTALLER, Seat, config};
use e2e::machine::{BOOT, Firmware, Machine, NAME};
use e2e::product::{Programs, reference};
use e2e::{Bed, Process, Route, wait};
use serde_json::{Value, json};

use super::site::{LONG, Site};
use super::stage::{EXACT, Stage};

const MASTER: &str = "m1";
/// Tells the time to whoever asks.
const TELLS: &str = r"use Socket; $| = 1; socket(S, PF_INET, SOCK_DGRAM, 0) && bind(S, sockaddr_in(3737, INADDR_ANY)) or die;
while (my $from = recv(S, my $asked, 16, 0)) { send(S, time(), 0, $from) }";
/// Asks for it again and again and sets the clock: the machine's own counts instructions, and cannot keep up with the cluster's other hosts.
const ASKS: &str = r#"use Socket; socket(S, PF_INET, SOCK_DGRAM, 0) or die;
setsockopt(S, SOL_SOCKET, SO_RCVTIMEO, pack("qq", 1, 0));
my $place = sockaddr_in(3737, inet_aton($ARGV[0]));
while (1) { send(S, "?", 0, $place); my $now; recv(S, $now, 16, 0) && system("date -s \@$now >/dev/null"); select(undef, undef, undef, 0.5) }"#;
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
    follow_clock(cluster, machine)?;
    site.run("", 0)?;
    wait::patiently("the worker to be Ready", LONG, || open(cluster))?;
    Ok(site)
}

/// Lets the machine's clock follow the master's, also after a reboot.
fn follow_clock(cluster: &Cluster, machine: &Machine) -> Result<()> {
    let master = cluster.host(MASTER)?;
    master.write("/run/tells.pl", TELLS)?;
    master.run("systemd-run --quiet --unit=tells perl /run/tells.pl")?;
    machine.write("/root/asks.pl", ASKS)?;
    let unit = format!(
        "[Service]\nExecStart=perl /root/asks.pl {}\nRestart=always\n\n[Install]\nWantedBy=multi-user.target\n",
        master.address()
    );
    machine.write("/etc/systemd/system/clock.service", unit)?;
    machine.run("systemctl enable --quiet --now clock.service")?;
    wait::until("the clock to be set", BOOT, || {
        let here: i64 = machine.run("date +%s")?.stdout.trim().parse()?;
        let there: i64 = Process::new("date").arg("+%s").text()?.trim().parse()?;
        ensure!((here - there).abs() < 10, "{here} is not {there}");
        Ok(())
    })
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
