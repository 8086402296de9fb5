//! `installer approver` on a master: approves the certificates of nodes by the rules of KUBERNETES.md, for years.

use std::time::Duration;

use super::long_running::{self, Mode};
use super::service::{Readiness, Service, UnitText, nothing_before};

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
        deadline: Duration::from_secs(30),
        // It shows that it works by what it approves; the kubelet's step waits for that.
        probe: |_| Ok(Readiness::Ready),
        before_start: nothing_before,
        hint: "`journalctl -u sealift-approver` says more",
    }
}
