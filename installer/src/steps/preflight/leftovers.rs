//! Remains of other installations: data, configuration and units that a second cluster would trip over.

use std::path::Path;

use anyhow::Result;

use super::finding::Finding;
use crate::context::Context;

/// Directories of other installers and of earlier clusters that a node trips over.
const NODE: &[(&str, &str)] = &[
    ("/etc/kubernetes", "files of kubeadm or another installer"),
    ("/etc/cni/net.d", "network configuration of another installation"),
    ("/var/lib/kubelet", "state of another kubelet"),
    ("/var/lib/containerd", "data of another containerd"),
    ("/var/lib/rancher", "state of k3s or RKE2"),
    ("/var/lib/k0s", "state of k0s"),
];
/// What an etcd member trips over.
const ETCD: &[(&str, &str)] = &[("/var/lib/etcd", "data of another etcd")];

/// All findings of this file.
pub(super) fn look(context: &Context<'_>) -> Result<Vec<Finding>> {
    let mut findings = units(context)?;
    // On a host where Sealift has begun, these directories are its own.
    if context.host.exists(Path::new("/etc/sealift/pki"))? {
        return Ok(findings);
    }
    let roles = context.roles;
    let member = context.config.runs_etcd(context.node) && (roles.master() || roles.etcd());
    let node = if roles.run_pods() { NODE } else { &[] };
    for (path, what) in node.iter().chain(if member { ETCD } else { &[] }) {
        let mut names = context.host.list(Path::new(path))?;
        // The directory may be a disk of its own.
        names.retain(|name| name != "lost+found");
        if names.is_empty() {
            continue;
        }
        findings.push(Finding::refused(
            format!("`{path}`"),
            format!("{what}: {}", some_of(&names)),
            "an empty or absent directory",
            "reset the other installation, then remove the directory",
        ));
    }
    Ok(findings)
}

/// Units that the bundle brings and that somebody else has put there.
fn units(context: &Context<'_>) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (unit, _) in context.desired.units() {
        for directory in ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"] {
            let path = Path::new(directory).join(unit);
            let Some(text) = context.host.read_text(&path)? else { continue };
            if !text.contains("/opt/sealift/") {
                findings.push(Finding::refused(
                    format!("unit `{unit}`"),
                    format!("`{}`, which is not Sealift's", path.display()),
                    "no other installation of that program",
                    "remove that package or unit",
                ));
                break;
            }
        }
    }
    Ok(findings)
}

/// At most three names.
fn some_of(names: &[String]) -> String {
    let shown = names.iter().take(3).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > 3 { format!("{shown} and {} more", names.len() - 3) } else { shown }
}
