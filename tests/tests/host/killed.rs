//! kill -9 of the installer in five different steps, then a run that completes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::master::{Master, events};
use e2e::{Host, Route, wait};

use super::stage::Stage;

/// What the first runs are killed in.
const STEPS: [&str; 5] = ["store", "pki", "etcd", "kube-apiserver", "kubelet"];

/// After each death everything under a final name is what it stays to the end: files are written whole or not at all.
pub(crate) fn a_killed_installer_is_resumed(stage: &Stage) -> Result<()> {
    let (_, product) = stage.product()?;
    let before = stage.bed()?.foreign()?;
    let master = Master::prepare(Host::boot(stage.bed()?, "master-2", 12, Route::Trap)?, product, "")?;
    let mut left = Vec::new();
    for step in STEPS {
        let running = master.start()?;
        let inside = |events: &[serde_json::Value]| {
            events.iter().any(|event| event["event"] == "step-changes" && event["step"] == step)
        };
        wait::until(step, Duration::from_secs(180), || {
            ensure!(inside(&events(&running.output()?)), "not yet there\n{}", running.output()?);
            Ok(())
        })?;
        std::thread::sleep(Duration::from_millis(150)); // some way into the step
        ensure!(running.alive(), "the installer ended before it was killed in {step}");
        running.kill()?;
        left.push((step, master.host.snapshot_of(&["/etc", "/opt"])?));
    }
    let finished = master.install()?;
    ensure!(finished.changes()? > 0);
    master.ready(Duration::from_secs(60))?;
    let end = master.host.snapshot_of(&["/etc", "/opt"])?;
    for (step, snapshot) in left {
        let changes = snapshot.changes(&end);
        let wrong: Vec<&String> =
            changes.iter().filter(|change| change.starts_with("changed ") && !expected(change)).collect();
        ensure!(wrong.is_empty(), "half-written after the death in {step}: {wrong:#?}");
    }
    ensure!(master.installer("install", "/root/x.bundle")?.changes()? == 0);
    // With a route to follow and a workload running: what dials out is counted.
    master.workload(&stage.image("busybox")?)?;
    let after = stage.bed()?.foreign().context("the counter of foreign packets")?;
    ensure!(after.packets == before.packets, "the installer or a component dialled out: {after:?}");
    Ok(())
}

/// Links and directories that a later step moves on with intent, and what scripts of OS packages add to.
fn expected(change: &str) -> bool {
    let by_packages = ["passwd", "group", "shadow", "gshadow", "ld.so.cache"];
    let name = change.strip_prefix("changed /etc/").and_then(|rest| rest.split(':').next()).unwrap_or_default();
    if by_packages.contains(&name.trim_end_matches('-')) {
        return true;
    }
    let moved = ["/opt/sealift/current:", "/opt/sealift/bin/installer:", "/etc/resolv.conf:", "/etc/hosts:"];
    moved.iter().any(|path| change.contains(path)) || change.contains("-> 0755 0:0 directory")
}
