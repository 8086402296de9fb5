//! kube-apiserver on a master, asked with a certificate at the address that everybody else uses.

use std::time::Duration;

use anyhow::Result;

use super::api;
use super::service::{Readiness, Service, UnitText, nothing_before};
use crate::context::Context;

/// The step.
pub fn step() -> Service {
    Service {
        name: "kube-apiserver",
        title: "Start the Kubernetes API server",
        unit: "kube-apiserver.service",
        text: UnitText::Component("kube-apiserver"),
        deadline: Duration::from_secs(240),
        probe: ready,
        before_start: nothing_before,
        hint: "`journalctl -u kube-apiserver` says more; it needs its etcd members",
    }
}

fn ready(context: &Context<'_>) -> Result<Readiness> {
    api::own_apiserver(context)?.healthy("/readyz")?;
    Ok(Readiness::Ready)
}
