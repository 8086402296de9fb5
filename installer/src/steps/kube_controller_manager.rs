//! kube-controller-manager on a master.

use std::time::Duration;

use super::lease;
use super::service::{Service, UnitText, nothing_before};

/// The step.
pub fn step() -> Service {
    Service {
        name: "kube-controller-manager",
        title: "Start the controller manager",
        unit: "kube-controller-manager.service",
        text: UnitText::Component("kube-controller-manager"),
        deadline: Duration::from_secs(120),
        probe: |context| lease::held(context, "kube-controller-manager", 10257),
        before_start: nothing_before,
        hint: "`journalctl -u kube-controller-manager` says more; it needs this host's apiserver",
    }
}
