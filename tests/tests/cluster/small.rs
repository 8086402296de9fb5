//! The way without secrets made beforehand: the first master founds the cluster, a worker joins with a plain file and a pin.

use anyhow::{Context, Result, ensure};
use e2e::cluster::{How, INSTALLER};

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
