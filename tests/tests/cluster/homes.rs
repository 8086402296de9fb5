//! Point 7: hosts with several interfaces use the configured address, everywhere.

use anyhow::{Result, ensure};

use super::stage::{LONG, Stage};

pub(crate) fn only_configured_addresses_are_used(stage: &Stage) -> Result<()> {
    let cluster = stage.homes()?;
    cluster.ready(LONG)?;
    let wrong = "10.78.0.";
    for (what, arguments) in [
        ("nodes", "get nodes -o jsonpath={.items[*].status.addresses}"),
        ("endpoints of the API", "get endpoints kubernetes -o jsonpath={.subsets}"),
        ("pods", "get pods --all-namespaces -o jsonpath={.items[*].status.hostIP}"),
    ] {
        let said = cluster.kubectl(arguments)?;
        ensure!(said.contains("10.77.0.") && !said.contains(wrong), "{what}: {said}");
    }
    let members = cluster.etcdctl("m1", "member list")?;
    ensure!(members.contains("10.77.0.") && !members.contains(wrong), "members of etcd: {members}");
    for host in cluster.hosts() {
        let sockets = host.run("ss -Htn state established")?.stdout;
        ensure!(!sockets.contains(wrong), "{} has connections over the other interface:\n{sockets}", host.name());
    }
    // Not one packet from host to host over there, from the first boot on.
    let packets = cluster.bed().on_second()?;
    ensure!(packets == 0, "{packets} packets went over the second bridge");
    Ok(())
}
