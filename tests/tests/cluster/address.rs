//! Point 8: a master's address changes, announced before and noticed after, in a cluster with one master and in one with three.

use anyhow::{Result, ensure};
use e2e::When;
use e2e::cluster::{Cluster, INSTALLER};

use super::stage::{LONG, SETTLED, Stage};

/// What must hold after a change: all Ready, data kept, certificates and members with the new address, nothing with the old one.
fn followed(cluster: &Cluster, name: &str, old: &str, masters: &[&str]) -> Result<()> {
    let new = cluster.host(name)?.address().to_string();
    cluster.ready(LONG)?;
    cluster.etcd_is(masters, SETTLED)?;
    ensure!(cluster.kubectl("get configmap before-the-move -o jsonpath={.data.key}")? == "value", "data is lost");
    let members = cluster.etcdctl(name, "member list")?;
    ensure!(members.contains(&new) && !members.contains(&format!("{old}:")), "{members}");
    let host = cluster.host(name)?;
    for certificate in ["apiserver.crt", "etcd/server.crt", "etcd/peer.crt"] {
        let path = host.file(&format!("/etc/sealift/pki/{certificate}"));
        let text =
            e2e::Process::new("openssl").args(["x509", "-noout", "-ext", "subjectAltName", "-in"]).arg(path).text()?;
        ensure!(text.contains(&format!("IP Address:{new}")), "{certificate}: {text}");
    }
    for host in cluster.hosts() {
        e2e::wait::until("the proxy to follow", SETTLED, || {
            let text = fs_err::read_to_string(host.file("/var/lib/sealift/agent/backends.conf"))?;
            ensure!(text.contains(&format!("{new}:")) && !text.contains(&format!("{old}:")), "{}: {text}", host.name());
            Ok(())
        })?;
    }
    cluster.everything_reaches_everything(SETTLED)?;
    cluster.all_checks_green(SETTLED)
}

fn remember(cluster: &Cluster) -> Result<()> {
    if cluster.kubectl("get configmap before-the-move -o name").is_err() {
        cluster.kubectl("create configmap before-the-move --from-literal=key=value")?;
    }
    Ok(())
}

/// Waits until every other host's proxy knows the address that a master will have: before that, the master would move unannounced.
fn heard(cluster: &Cluster, name: &str, new: &str) -> Result<()> {
    for host in cluster.hosts().iter().filter(|host| host.name() != name) {
        e2e::wait::until("the announcement to be heard", SETTLED, || {
            let text = fs_err::read_to_string(host.file("/var/lib/sealift/agent/backends.conf"))?;
            ensure!(text.contains(&format!("{new}:")), "{}: {text}", host.name());
            Ok(())
        })?;
    }
    Ok(())
}

/// First the cluster is told, then the host gets its address and boots.
pub(crate) fn one_of_three_announced(stage: &Stage) -> Result<()> {
    let cluster = stage.five()?;
    let masters = masters(&cluster);
    remember(&cluster)?;
    let host = cluster.host("m3")?;
    let old = host.address().to_string();
    cluster.host("m2")?.run(&format!("{INSTALLER} node set-address m3 {}", cluster.bed().address(43)))?;
    heard(&cluster, "m3", "10.77.0.43")?;
    host.set_address(43, When::NextBoot)?;
    host.kill()?;
    host.power_on()?;
    host.run(&format!("{INSTALLER} refresh --wait 10m"))?;
    followed(&cluster, "m3", &old, &masters)
}

/// The host has another address, and the cluster is told afterwards.
pub(crate) fn one_of_three_noticed(stage: &Stage) -> Result<()> {
    let cluster = stage.five()?;
    let masters = masters(&cluster);
    remember(&cluster)?;
    let host = cluster.host("m2")?;
    let old = host.address().to_string();
    host.set_address(42, When::Now)?;
    cluster.host("m3")?.run(&format!("{INSTALLER} node set-address m2 {}", cluster.bed().address(42)))?;
    host.run(&format!("{INSTALLER} refresh --wait 10m"))?;
    followed(&cluster, "m2", &old, &masters)
}

pub(crate) fn the_only_master_announced(stage: &Stage) -> Result<()> {
    let cluster = stage.small()?;
    remember(&cluster)?;
    let host = cluster.host("m1")?;
    let old = host.address().to_string();
    host.run(&format!("{INSTALLER} node set-address m1 {}", cluster.bed().address(41)))?;
    heard(&cluster, "m1", "10.77.0.41")?;
    host.set_address(41, When::NextBoot)?;
    host.kill()?;
    host.power_on()?;
    host.run(&format!("{INSTALLER} refresh --wait 10m"))?;
    followed(&cluster, "m1", &old, &["m1"])
}

pub(crate) fn the_only_master_noticed(stage: &Stage) -> Result<()> {
    let cluster = stage.small()?;
    remember(&cluster)?;
    let host = cluster.host("m1")?;
    let old = host.address().to_string();
    host.set_address(51, When::NextBoot)?;
    host.kill()?;
    host.power_on()?;
    host.run(&format!("{INSTALLER} node set-address m1 {}", cluster.bed().address(51)))?;
    host.run(&format!("{INSTALLER} refresh --wait 10m"))?;
    // Nobody told the worker where to ask.
    cluster.host("w1")?.run(&format!("{INSTALLER} refresh --from {} --wait 10m", cluster.bed().address(51)))?;
    followed(&cluster, "m1", &old, &["m1"])
}

fn masters(cluster: &Cluster) -> Vec<&'static str> {
    cluster.seats().iter().filter(|seat| seat.is_master()).map(|seat| seat.name).collect()
}
