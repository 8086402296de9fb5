//! kube-scheduler on a master.

use std::time::Duration;

use super::lease;
use super::service::{Service, UnitText, nothing_before};

/// The step.
pub fn step() -> Service {
    Service {
        name: "kube-scheduler",
        title: "Start the scheduler",
        unit: "kube-scheduler.service",
        text: UnitText::Component("kube-scheduler"),
        deadline: Duration::from_secs(120),
        probe: |context| lease::held(context, "kube-scheduler", 10259),
        before_start: nothing_before,
        hint: "`journalctl -u kube-scheduler` says more; it needs this host's apiserver",
    }
}
