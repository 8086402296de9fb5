//! kube-proxy: services on every node. It uses the kubelet's client certificate, so it comes after the kubelet.
//!
//! Each mode leaves rules of its own in the kernel. Those of a former mode would go on catching connections, so they are taken
//! away before kube-proxy starts in another one; which mode was last started is kept on disk.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::loopback;
use super::service::{Service, UnitText};
use super::unit::systemctl;
use crate::context::Context;
use crate::host::Command;
use crate::report::Explain as _;

const UNIT: &str = "kube-proxy.service";
/// The mode that kube-proxy was last started in.
pub const MODE: &str = "/var/lib/sealift/kube-proxy.mode";

/// The step.
pub fn step() -> Service {
    Service {
        name: "kube-proxy",
        title: "Start kube-proxy",
        unit: UNIT,
        text: UnitText::Component("kube-proxy"),
        deadline: Duration::from_secs(120),
        probe: |_| loopback::healthy(10256, "/healthz"),
        before_start: change_mode,
        hint: "`journalctl -u kube-proxy` says more; it needs the packet filter tools of the host",
    }
}

/// Takes the rules of a former mode away.
fn change_mode(context: &Context<'_>) -> Result<()> {
    let host = context.host;
    let wanted = wanted_mode(context)?;
    let former = host.read_text(Path::new(MODE))?.map(|text| text.trim().to_owned());
    if former.as_ref() == Some(&wanted) {
        return Ok(());
    }
    if let Some(former) = former {
        context.note(format!("kube-proxy works by {wanted} from now on: taking away its rules for {former}"));
        systemctl(host, &["stop", UNIT])?;
        let cleanup = Command::new(context.program("kube-proxy", "bin/kube-proxy")).arg("--cleanup");
        host.run(&cleanup).with_context(|| format!("taking away kube-proxy's rules for {former}")).hint(
            "run the same command again; if it fails again, disable kube-proxy.service and reboot this host first",
        )?;
    } else {
        context.note(format!("kube-proxy works by {wanted}"));
    }
    host.write(Path::new(MODE), format!("{wanted}\n").as_bytes(), 0o644)
}

fn wanted_mode(context: &Context<'_>) -> Result<String> {
    let path = context.etc("kube-proxy", "config.json");
    let text = context.host.read_text(&path)?.with_context(|| format!("`{}` does not exist", path.display()))?;
    let config: Value = serde_json::from_str(&text).with_context(|| format!("reading `{}`", path.display()))?;
    let mode = config["mode"].as_str().filter(|mode| !mode.is_empty());
    mode.map(str::to_owned).with_context(|| format!("`{}` names no mode", path.display()))
}
