//! The same again: a plan touches nothing, a second run changes nothing and says so.

use anyhow::{Result, ensure};

use super::stage::Stage;

/// On a bare host the plan names what would be done, and not a file is different afterwards.
pub(crate) fn plan_touches_nothing(stage: &Stage) -> Result<()> {
    let master = stage.bare()?;
    let before = master.host.snapshot()?;
    let plan = master.plainly("plan")?;
    ensure!(plan.success(), "{}", plan.tail());
    for word in ["etcd", "kube-apiserver", "kubelet", "containerd"] {
        ensure!(plan.stdout.contains(word), "the plan does not name {word}:\n{}", plan.stdout);
    }
    let changes = before.changes(&master.host.snapshot()?);
    ensure!(changes.is_empty(), "the plan changed {changes:#?}");
    Ok(())
}

pub(crate) fn a_second_run_changes_nothing(stage: &Stage) -> Result<()> {
    let master = stage.master()?;
    let directories = ["/etc", "/opt", "/usr", "/root", "/var/lib/etcd/member/snap/none"];
    let before = master.host.snapshot_of(&directories)?;
    let units = "systemctl show --property=Id,ActiveEnterTimestampMonotonic,MainPID etcd kube-apiserver kube-controller-manager \
                 kube-scheduler containerd kubelet kube-proxy sealift-proxy sealift-agent sealift-approver";
    let running = master.host.run(units)?.stdout;

    let plan = master.installer("plan", "/root/x.bundle")?;
    ensure!(plan.finished.success(), "{}", plan.finished.tail());
    let changes = plan.events.last().map(|total| &total["changes"]);
    ensure!(changes == Some(&0.into()), "the plan of a finished host:\n{}", plan.finished.stdout);
    ensure!(plan.events.iter().all(|step| step["check"] != "needed"), "not ready:\n{}", plan.finished.stdout);

    let again = master.install()?;
    ensure!(again.changes()? == 0, "{}", again.finished.tail());
    let said = master.plainly("install")?;
    ensure!(said.success() && said.stdout.to_lowercase().contains("nothing"), "it does not say so:\n{}", said.tail());

    let changes = before.changes(&master.host.snapshot_of(&directories)?);
    ensure!(changes.is_empty(), "changed: {changes:#?}");
    ensure!(master.host.run(units)?.stdout == running, "a service was restarted");
    Ok(())
}
