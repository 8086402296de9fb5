//! The last look: every part of this host, asked by its own health endpoint, as a table.

use std::time::Duration;

use anyhow::{Result, anyhow};

use super::proxy;
use super::service::{Readiness, Service};
use super::unit::UnitState;
use super::{
    approver, containerd, etcd, kube_apiserver, kube_controller_manager, kube_proxy, kube_scheduler, kubelet, network,
    peers,
};
use crate::context::Context;
use crate::report::Explain as _;
use crate::step::{Check, Step};

/// The step.
#[derive(Clone, Copy, Debug)]
pub struct Health;

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What was asked.
    pub name: &'static str,
    /// What it said.
    pub state: Readiness,
}

/// Asks everything that runs on this host.
pub fn table(context: &Context<'_>) -> Vec<Row> {
    services(context)
        .into_iter()
        .map(|service| {
            let state = match UnitState::read(context.host, service.unit) {
                Ok(state) if !state.is_active() => match service.readiness(context) {
                    Readiness::Waiting(reason) if state.is_coming() => Readiness::Waiting(reason),
                    _ => Readiness::NotYet(format!("the unit is {}", state.describe())),
                },
                Ok(_) => service.readiness(context),
                Err(error) => Readiness::NotYet(format!("{error:#}")),
            };
            Row { name: service.name, state }
        })
        .collect()
}

fn services(context: &Context<'_>) -> Vec<Service> {
    let mut services = Vec::new();
    let roles = context.roles;
    if context.config.runs_etcd(context.node) && (roles.master() || roles.etcd()) {
        services.push(etcd::service());
    }
    if roles.master() {
        services.extend([
            kube_apiserver::step(),
            kube_controller_manager::step(),
            kube_scheduler::step(),
            approver::step(),
        ]);
    }
    if roles.run_pods() {
        services.extend([containerd::SERVICE, proxy::SERVICE, kubelet::step(), kube_proxy::step(), network::settled()]);
    }
    services
}

impl Step for Health {
    fn name(&self) -> &'static str {
        "health"
    }

    fn title(&self) -> &'static str {
        "Ask every part whether it works"
    }

    fn check(&self, context: &Context<'_>) -> Result<Check> {
        require_one_cluster(context)?;
        let rows = table(context);
        Ok(match bad(&rows) {
            None => {
                let names: Vec<&str> = rows.iter().map(|row| row.name).collect();
                Check::Kept(format!("all well: {}", names.join(", ")))
            }
            Some((Whose::Others, reasons)) => Check::Waiting(reasons),
            // Looking changes nothing on the host, so there is nothing to list.
            Some((Whose::Ours, _)) => Check::Needed(Vec::new()),
        })
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        context.host.wait_for(
            "every part of this host to work",
            Duration::from_secs(120),
            Duration::from_secs(1),
            || {
                Ok(match bad(&table(context)) {
                    // What waits for others is for the engine to wait for.
                    None | Some((Whose::Others, _)) => Ok(()),
                    Some((Whose::Ours, reasons)) => Err(reasons),
                })
            },
        )
    }
}

/// A master whose neighbour has founded a cluster of his own must not be called healthy.
fn require_one_cluster(context: &Context<'_>) -> Result<()> {
    let strangers = if context.roles.master() { peers::strangers(context.host, context.config)? } else { Vec::new() };
    if strangers.is_empty() {
        return Ok(());
    }
    Err(anyhow!("masters of the config belong to another cluster: {}", peers::named(&strangers))).hint(peers::HINT)
}

/// Who has to act for what is not well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Ours,
    Others,
}

/// What is not well, and whether all of it is for other hosts to do.
fn bad(rows: &[Row]) -> Option<(Whose, String)> {
    let mut whose = Whose::Others;
    let mut reasons = Vec::new();
    for row in rows {
        match &row.state {
            Readiness::Ready => {}
            Readiness::Waiting(reason) => reasons.push(format!("{}: {reason}", row.name)),
            Readiness::NotYet(reason) => {
                whose = Whose::Ours;
                reasons.push(format!("{}: {reason}", row.name));
            }
        }
    }
    (!reasons.is_empty()).then(|| (whose, reasons.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_to_do_is_waited_for_and_what_is_ours_is_not() {
        let row = |name, state| Row { name, state };
        let ready = || row("etcd", Readiness::Ready);
        let others = || row("kubelet", Readiness::Waiting("an API server".to_owned()));
        let ours = || row("network", Readiness::NotYet("no agent".to_owned()));
        assert_eq!(bad(&[ready()]), None);
        assert_eq!(bad(&[ready(), others()]), Some((Whose::Others, "kubelet: an API server".to_owned())));
        let (whose, text) = bad(&[others(), ours(), ready()]).unwrap();
        assert_eq!((whose, text.as_str()), (Whose::Ours, "kubelet: an API server; network: no agent"));
    }
}
