//! ufw: one rule a port, and one for packets from pods to this host. What it does with forwarded packets (the policy of
//! `FORWARD`) is the pod network's own work: see the agent, flannel, calico.

use anyhow::Result;

use super::Wanted;
use crate::facts::which;
use crate::host::firewall::{Rule, ufw_added};
use crate::host::{Command, Host};

/// Whether it filters now.
pub(super) fn is_active(host: &Host) -> Result<bool> {
    if which(host, "ufw")?.is_none() {
        return Ok(false);
    }
    let said = host.try_run(&Command::new("ufw").arg("status"))?;
    Ok(said.text().lines().any(|line| line.trim() == "Status: active"))
}

/// What is not open yet, as `ufw show added` would list it.
pub(super) fn missing(host: &Host, wanted: &Wanted) -> Result<Vec<Rule>> {
    let added = ufw_added(host)?;
    let ports = wanted.ports.iter().map(|(port, protocol)| format!("allow {}/{protocol}", port.replace('-', ":")));
    let pods = wanted.pods.iter().map(|pods| format!("allow from {pods}"));
    Ok(ports.chain(pods).filter(|rule| !added.contains(rule)).map(Rule::Ufw).collect())
}
