//! Point 5: masters come, go and are replaced; nobody edits anything on the others.

use anyhow::{Result, ensure};
use e2e::cluster::{Cluster, How, INSTALLER, Seat};
use e2e::wait;

use super::stage::{LONG, SETTLED, Stage, report};

/// Every proxy must lead to these masters and no others: the agents see to it.
fn backends(cluster: &Cluster, wanted: &[&str]) -> Result<()> {
    let mut addresses: Vec<String> = Vec::new();
    for name in wanted {
        addresses.push(cluster.host(name)?.address().to_string());
    }
    addresses.sort();
    for seat in cluster.seats().iter().filter(|seat| seat.has_kubelet()) {
        let host = cluster.host(seat.name)?;
        wait::until(&format!("the proxy on {} to lead to {wanted:?}", seat.name), SETTLED, || {
            let text = fs_err::read_to_string(host.file("/var/lib/sealift/agent/backends.conf"))?;
            let mut found: Vec<String> = text
                .lines()
                .filter_map(|line| line.trim().strip_prefix("server "))
                .filter_map(|line| line.split_once(':').map(|(address, _)| address.to_owned()))
                .collect();
            found.sort();
            ensure!(found == addresses && !text.contains("down"), "{text}");
            Ok(())
        })?;
    }
    Ok(())
}

pub(crate) fn a_fourth_master_joins(stage: &Stage) -> Result<()> {
    let cluster = stage.five()?;
    cluster.add(&[Seat::master("m4", 14)])?;
    let address = cluster.host("m4")?.address();
    cluster.host("m1")?.run(&format!("{INSTALLER} node add m4 --address {address} --role master"))?;
    cluster.join_file("m1", "m4")?;
    let outcome = cluster.install("m4", &How::JOIN)?.ended(&[0])?;
    report("a fourth master", &[outcome]);
    cluster.ready(LONG)?;
    cluster.etcd_is(&["m1", "m2", "m3", "m4"], SETTLED)?;
    backends(&cluster, &["m1", "m2", "m3", "m4"])?;
    cluster.everything_reaches_everything(SETTLED)?;
    cluster.all_checks_green(SETTLED)
}

/// The founder of the cluster goes: reset on its host, then off the cluster's list.
pub(crate) fn the_first_master_is_removed(stage: &Stage) -> Result<()> {
    let cluster = stage.five()?;
    let host = cluster.host("m1")?;
    host.run("/opt/sealift/bin/installer reset --yes --drain")?;
    cluster.host("m2")?.run(&format!("{INSTALLER} node remove m1"))?;
    for path in
        ["/opt/sealift", "/etc/sealift", "/var/lib/etcd", "/var/lib/kubelet", "/etc/systemd/system/kubelet.service"]
    {
        ensure!(!host.try_run(&format!("test -e {path}"))?.success(), "{path} is still there");
    }
    let units =
        host.run("systemctl list-units --all --no-legend --plain 'kube*' 'etcd*' 'sealift*' 'containerd*'")?.stdout;
    ensure!(units.trim().is_empty(), "units are left:\n{units}");
    cluster.scrap("m1")?;
    cluster.ready(LONG)?;
    cluster.etcd_is(&["m2", "m3", "m4"], SETTLED)?;
    backends(&cluster, &["m2", "m3", "m4"])?;
    cluster.everything_reaches_everything(SETTLED)?;
    cluster.all_checks_green(SETTLED)
}

/// A master burns down; a new host takes its name and address.
pub(crate) fn a_dead_master_is_replaced(stage: &Stage) -> Result<()> {
    let cluster = stage.five()?;
    cluster.scrap("m4")?;
    cluster.host("m2")?.run(&format!("{INSTALLER} node replace m4"))?;
    cluster.add(&[Seat::master("m4", 14)])?;
    cluster.join_file("m2", "m4")?;
    let outcome = cluster.install("m4", &How::JOIN)?.ended(&[0])?;
    report("a replaced master", &[outcome]);
    cluster.ready(LONG)?;
    cluster.etcd_is(&["m2", "m3", "m4"], SETTLED)?;
    backends(&cluster, &["m2", "m3", "m4"])?;
    cluster.everything_reaches_everything(SETTLED)?;
    cluster.all_checks_green(SETTLED)
}

/// A worker leaves in order.
pub(crate) fn a_worker_is_removed(stage: &Stage) -> Result<()> {
    let cluster = super::refused::with_a_sixth(stage)?;
    let reset = cluster.host("w3")?.run(&format!("{INSTALLER} reset --yes 2>&1"))?.stdout;
    ensure!(reset.contains("tell the cluster that node w3 is away"), "{reset}");
    cluster.host("m3")?.run(&format!("{INSTALLER} node remove w3"))?;
    cluster.scrap("w3")?;
    cluster.ready(SETTLED)?;
    cluster.all_checks_green(SETTLED)
}
