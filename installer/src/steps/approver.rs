//! `installer approver` on a master: approves the certificates of nodes by the rules of KUBERNETES.md, for years.

use std::time::Duration;

use super::long_running;
use super::service::{Readiness, Service, UnitText, nothing_before};

/// The step.
pub fn step() -> Service {
    Service {
        name: "approver",
        title: "Start the approver of node certificates",
        unit: "sealift-approver.service",
        text: UnitText::Own(|context| {
            let after = "kube-apiserver.service";
            long_running::unit(context, "sealift-approver.service", "approver", "Sealift certificate approver", after)
        }),
        deadline: Duration::from_secs(30),
        // It shows that it works by what it approves; the kubelet's step waits for that.
        probe: |_| Ok(Readiness::Ready),
        before_start: nothing_before,
        hint: "`journalctl -u sealift-approver` says more",
    }
}
