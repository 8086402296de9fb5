//! `installer approver` on a master: approves the certificates of nodes by the rules of KUBERNETES.md, for years.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::long_running::{self, Mode};
use super::service::{Readiness, Service, UnitText, nothing_before};
use crate::approver::READY;
use crate::context::Context;

/// The unit.
pub const UNIT: &str = "sealift-approver.service";

const MODE: Mode = Mode {
    unit: UNIT,
    mode: "approver",
    description: "Sealift approver of node certificates",
    after: "kube-apiserver.service",
    hardening: crate::approver::unit::HARDENING,
};

/// The step.
pub fn step() -> Service {
    Service {
        name: "approver",
        title: "Start the approver of node certificates",
        unit: UNIT,
        text: UnitText::Own(|context| long_running::unit(context, &MODE)),
        deadline: Duration::from_secs(60),
        probe: first_round,
        before_start: nothing_before,
        hint: "`journalctl -u sealift-approver` says more",
    }
}

/// It has read the requests and the cluster's record, and was allowed all that it needs.
fn first_round(context: &Context<'_>) -> Result<Readiness> {
    Ok(if context.host.exists(Path::new(READY))? {
        Readiness::Ready
    } else {
        Readiness::NotYet("it has not come through its first round yet".to_owned())
    })
}
