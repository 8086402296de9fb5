//! Point 2: etcd on hosts of its own.

use anyhow::{Result, ensure};

use super::stage::{SETTLED, Stage};

pub(crate) fn dedicated_etcd_comes_up(stage: &Stage) -> Result<()> {
    let cluster = stage.dedicated()?;
    cluster.etcd_is(&["e1", "e2", "e3"], SETTLED)?;
    for name in ["m1", "m2"] {
        let host = cluster.host(name)?;
        ensure!(!host.try_run("systemctl is-active etcd")?.success(), "etcd runs on {name}");
        ensure!(
            !host.try_run("test -e /etc/sealift/pki/etcd/ca.key")?.success(),
            "{name} holds the key of etcd's authority"
        );
    }
    for name in ["e1", "e2", "e3"] {
        let host = cluster.host(name)?;
        for unit in ["kubelet", "kube-apiserver", "containerd"] {
            ensure!(!host.try_run(&format!("systemctl is-active {unit}"))?.success(), "{unit} runs on {name}");
        }
        ensure!(
            !host.try_run("test -e /etc/sealift/pki/ca.key")?.success(),
            "{name} holds the key of the cluster's authority"
        );
    }
    cluster.everything_reaches_everything(SETTLED)?;
    cluster.all_checks_green(SETTLED)
}

/// The masters' API goes on without the member that they might have asked.
pub(crate) fn a_lost_member_is_borne(stage: &Stage) -> Result<()> {
    let cluster = stage.dedicated()?;
    let leader = cluster.etcd_leader("e1")?;
    cluster.host(&leader)?.kill()?;
    let image = stage.image("busybox")?;
    cluster.a_new_pod_runs(&image, "w1", SETTLED)?;
    cluster.host(&leader)?.power_on()?;
    cluster.etcd_is(&["e1", "e2", "e3"], SETTLED)
}
