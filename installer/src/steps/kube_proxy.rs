//! kube-proxy: services on every node. It uses the kubelet's client certificate, so it comes after the kubelet.

use std::time::Duration;

use super::loopback;
use super::service::{Service, UnitText, nothing_before};

/// The step.
pub fn step() -> Service {
    Service {
        name: "kube-proxy",
        title: "Start kube-proxy",
        unit: "kube-proxy.service",
        text: UnitText::Component("kube-proxy"),
        deadline: Duration::from_secs(120),
        probe: |_| loopback::healthy(10256, "/healthz"),
        before_start: nothing_before,
        hint: "`journalctl -u kube-proxy` says more; it needs the packet filter tools of the host",
    }
}
