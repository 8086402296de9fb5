//! The last look: every part of this host, asked by its own health endpoint, as a table.

use std::time::Duration;

use anyhow::Result;

use super::proxy;
use super::service::{Readiness, Service};
use super::unit::UnitState;
use super::{
    approver, containerd, etcd, kube_apiserver, kube_controller_manager, kube_proxy, kube_scheduler, kubelet, network,
};
use crate::context::Context;
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

impl Row {
    fn is_good(&self) -> bool {
        self.state == Readiness::Ready
    }
}

/// Asks everything that runs on this host.
pub fn table(context: &Context<'_>) -> Vec<Row> {
    services(context)
        .into_iter()
        .map(|service| {
            let state = match UnitState::read(context.host, service.unit) {
                Ok(state) if !state.is_active() => Readiness::NotYet(format!("the unit is {}", state.describe())),
                Ok(_) => service.readiness(context),
                Err(error) => Readiness::NotYet(format!("{error:#}")),
            };
            Row { name: service.name, state }
        })
        .collect()
}

fn services(context: &Context<'_>) -> Vec<Service> {
    let mut services = Vec::new();
    if context.config.runs_etcd(context.node) {
        services.push(etcd::service());
    }
    if context.roles.master() {
        services.extend([
            kube_apiserver::step(),
            kube_controller_manager::step(),
            kube_scheduler::step(),
            approver::step(),
        ]);
    }
    if context.roles.master() || context.roles.worker() {
        services.extend([containerd::step(), proxy::SERVICE, kubelet::step(), kube_proxy::step(), network::settled()]);
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
        let rows = table(context);
        if !rows.iter().all(Row::is_good) {
            // Looking changes nothing on the host, so there is nothing to list.
            return Ok(Check::Needed(Vec::new()));
        }
        let names: Vec<&str> = rows.iter().map(|row| row.name).collect();
        Ok(Check::Kept(format!("all well: {}", names.join(", "))))
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        context.host.wait_for(
            "every part of this host to work",
            Duration::from_secs(120),
            Duration::from_secs(1),
            || {
                let bad: Vec<String> = table(context)
                    .into_iter()
                    .filter(|row| !row.is_good())
                    .map(|row| match row.state {
                        Readiness::NotYet(reason) | Readiness::Waiting(reason) => format!("{}: {reason}", row.name),
                        Readiness::Ready => row.name.to_owned(),
                    })
                    .collect();
                Ok(if bad.is_empty() { Ok(()) } else { Err(bad.join("; ")) })
            },
        )
    }
}
