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
    let missing = ports.chain(pods).filter(|rule| !added.iter().any(|found| subject(found) == subject(rule)));
    Ok(missing.map(Rule::Ufw).collect())
}

/// Rules of the operator for what is wanted that do something else than let it through. ufw would replace them, and
/// their like would be gone after a reset: they stay.
pub(super) fn otherwise(host: &Host, wanted: &Wanted) -> Result<Vec<String>> {
    let ports: Vec<String> =
        wanted.ports.iter().map(|(port, protocol)| format!("{}/{protocol}", port.replace('-', ":"))).collect();
    let pods = wanted.pods.iter().map(|pods| format!("from {pods}"));
    let subjects: Vec<String> = ports.into_iter().chain(pods).collect();
    let mut rules = ufw_added(host)?;
    rules.retain(|rule| !rule.starts_with("allow ") && subjects.iter().any(|wanted| subject(rule) == wanted));
    Ok(rules)
}

/// A rule without its action: `limit 6443/tcp` → `6443/tcp`.
fn subject(rule: &str) -> &str {
    rule.split_once(' ').map_or("", |(_, subject)| subject)
}
