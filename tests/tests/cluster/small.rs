//! The way without secrets made beforehand: the first master founds the cluster, nobody else does, somebody in between is refused, and a
//! worker joins with a plain file and a pin.

use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::cluster::{Cluster, How, INSTALLER, Seat, config};
use e2e::{Process, wait};

use super::stage::{LONG, SETTLED, Stage, report};

pub(crate) fn the_first_master_founds(stage: &Stage) -> Result<()> {
    let cluster = stage.small()?;
    // A worker has nothing to begin with, and is told what to do.
    let refused = cluster.install("w1", &How::FOUND)?.ended(&[3])?;
    ensure!(refused.install.finished.tail().contains("join-file --node w1"), "{}", refused.install.finished.tail());
    let outcome = cluster.install("m1", &How::FOUND)?.ended(&[0])?;
    report("the first master", &[outcome]);
    cluster.etcd_is(&["m1"], SETTLED)
}

pub(crate) fn a_worker_joins_with_a_plain_file_and_a_pin(stage: &Stage) -> Result<()> {
    let cluster = stage.small()?;
    let (master, worker) = (cluster.host("m1")?, cluster.host("w1")?);
    let path = "/root/plain.join";
    // The scenario before this one may have stopped the API server for a moment.
    wait::until("the API server to be ready", SETTLED, || cluster.kubectl("get --raw /readyz"))?;
    let said = master.run(&format!("{INSTALLER} join-file --node w1 --plain --output {path}"))?;
    let text = said.stdout + &said.stderr;
    let pin =
        text.split_whitespace().find(|word| word.starts_with("sha256:")).with_context(|| format!("no pin: {text}"))?;
    worker.copy(&master.file(path), path)?;
    let extra = ["--join", path, "--ca-pin", pin.trim_end_matches(['.', ',', '`'])];
    let outcome = cluster.install("w1", &How { joins: false, patience: "10m", extra: &extra })?.ended(&[0])?;
    stage.worker_took(1, &outcome);
    cluster.ready(LONG)?;
    cluster.workload(&stage.image("busybox")?, LONG)?;
    cluster.everything_reaches_everything(SETTLED)?;
    cluster.all_checks_green(SETTLED)
}

/// A further host whose config says that it is a master beside the first.
fn another_founder(cluster: &Cluster) -> Result<()> {
    let second = Seat::master("m2", 12);
    cluster.add(&[second])?;
    let text = config("small", cluster.bed(), &[Seat::master("m1", 11), second, Seat::worker("w1", 21)], "");
    cluster.host("m2")?.write("/root/cluster.toml", text)
}

/// The first master answers, so nobody founds a second cluster beside it, not even when told to.
pub(crate) fn a_second_founder_is_refused(stage: &Stage) -> Result<()> {
    let cluster = stage.small()?;
    another_founder(&cluster)?;
    for extra in [&["--init"][..], &[][..]] {
        let refused = cluster.install("m2", &How { joins: false, patience: "1m", extra })?.ended(&[3])?;
        let said = refused.install.finished.tail();
        ensure!(said.contains("join-file"), "{said}");
    }
    Ok(())
}

/// It cannot see the first master, founds a cluster, and later sees that there are two: the next run says so, and which one to reset.
pub(crate) fn two_founders_are_noticed(stage: &Stage) -> Result<()> {
    let cluster = stage.small()?;
    let host = cluster.host("m2")?;
    host.blackhole()?;
    let how = How { joins: false, patience: "10m", extra: &["--init"] };
    cluster.install("m2", &how)?.ended(&[0])?;
    host.end_blackhole()?;
    let ping = format!("ping -c1 -W1 {}", cluster.host("m1")?.address());
    wait::until("the network to be back", Duration::from_secs(20), || host.run(&ping))?;
    let noticed = cluster.install("m2", &how)?.ended(&[1, 3])?;
    let said = noticed.install.finished.tail();
    ensure!(said.contains("10.77.0.11") && said.contains("reset"), "{said}");
    cluster.scrap("m2")
}

/// Ends when dropped.
struct Impostor<'a> {
    cluster: &'a Cluster,
    server: Child,
}

impl Drop for Impostor<'_> {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = self.cluster.bed().outside("ip").args(["addr", "del", "10.77.0.11/32", "dev", "bridge0"]).finish();
    }
}

impl<'a> Impostor<'a> {
    /// Has the master's address and port, and a certificate for both from an authority of its own.
    fn appear(cluster: &'a Cluster) -> Result<Self> {
        let (key, certificate) = (cluster.directory().join("impostor.key"), cluster.directory().join("impostor.crt"));
        Process::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
            .args([
                "-subj",
                "/CN=kube-apiserver",
                "-addext",
                "subjectAltName=IP:10.77.0.11,IP:127.0.0.1,DNS:kubernetes",
                "-keyout",
            ])
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .run()?;
        cluster.bed().outside("ip").args(["addr", "add", "10.77.0.11/32", "dev", "bridge0"]).run()?;
        let server = cluster
            .bed()
            .outside("openssl")
            .args(["s_server", "-www", "-accept", "10.77.0.11:6443", "-key"])
            .arg(&key)
            .arg("-cert")
            .arg(&certificate)
            .spawn(&cluster.directory().join("impostor.log"))?;
        Ok(Self { cluster, server })
    }
}

/// While the master is off, somebody else answers at its address: the worker does not hand out its token.
pub(crate) fn somebody_in_the_middle_is_refused(stage: &Stage) -> Result<()> {
    let cluster = stage.small()?;
    cluster.join_file("m1", "w1")?;
    let master = cluster.host("m1")?;
    master.kill()?;
    let impostor = Impostor::appear(&cluster)?;
    let refused = cluster.install("w1", &How { joins: true, patience: "3m", extra: &[] })?.ended(&[1, 3])?;
    let said = refused.install.finished.tail();
    ensure!(said.contains("10.77.0.11") && said.contains("authority"), "{said}");
    drop(impostor);
    // The neighbours must forget where the address was.
    for host in cluster.hosts().iter().filter(|host| host.alive()) {
        host.run("ip neigh flush all")?;
    }
    master.power_on()?;
    wait::until("the master to be back", SETTLED, || cluster.kubectl("get --raw=/readyz").map(drop))
}
