//! Remains of other installations: data, configuration and units that a second cluster would trip over.

use std::path::Path;

use anyhow::Result;

use super::finding::Finding;
use crate::checks::CheckName;
use crate::context::Context;
use crate::reset::places::is_members;

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

/// Interfaces that networks of pods and proxies leave behind, until somebody deletes them or the next boot. Addresses on them are taken
/// for this host's own.
const INTERFACES: &[&str] =
    &["cni0", "flannel.1", "vxlan.calico", "kube-ipvs0", "cilium_host", "cilium_net", "weave", "kube-bridge"];

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
            CheckName::Leftovers,
            format!("`{path}`"),
            format!("{what}: {}", some_of(&names)),
            "an empty or absent directory",
            "reset the other installation, then remove the directory",
        ));
    }
    if member {
        findings.extend(configured(context)?);
    }
    findings.extend(interfaces(context).filter(|_| roles.run_pods()));
    Ok(findings)
}

/// What another cluster's network left.
fn interfaces(context: &Context<'_>) -> Option<Finding> {
    let names = context.facts.interfaces.iter().map(|interface| interface.name.as_str());
    let left: Vec<&str> = names.filter(|name| INTERFACES.contains(name)).collect();
    let first = left.first()?;
    let advice = format!("reset the other installation, then reboot or `ip link delete {first}`");
    let (name, subject, found) = (CheckName::Leftovers, "interfaces of another cluster", left.join(", "));
    Some(Finding::refused(name, subject, found, "none", advice))
}

/// Where the config puts etcd's data. Other things may be on that disk, another member's files may not.
fn configured(context: &Context<'_>) -> Result<Vec<Finding>> {
    let etcd = &context.config.etcd;
    let mut findings = Vec::new();
    for (key, path) in [("data_dir", Some(&etcd.data_dir)), ("wal_dir", etcd.wal_dir.as_ref())] {
        let Some(path) = path.filter(|path| !ETCD.iter().any(|(known, _)| Path::new(known) == path.as_path())) else {
            continue;
        };
        let mut names = context.host.list(path)?;
        names.retain(|name| is_members(name));
        if !names.is_empty() {
            findings.push(Finding::refused(
                CheckName::Leftovers,
                format!("`{}`", path.display()),
                format!("data of another etcd: {}", some_of(&names)),
                "no member's data there",
                format!("move it away, or name another directory as `{key}` in `[etcd]`"),
            ));
        }
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
                    CheckName::Units,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::tests::Bed;

    fn subjects(bed: &Bed) -> Vec<String> {
        look(&bed.context()).unwrap().into_iter().map(|finding| finding.subject).collect()
    }

    #[test]
    fn a_member_where_the_config_puts_etcd_is_found_and_nothing_else_there() {
        let mut bed = Bed::new();
        bed.config.etcd.data_dir = "/disk/etcd".into();
        bed.config.etcd.wal_dir = Some("/fast/wal".into());
        bed.put("/disk/etcd/photos/1", "x");
        bed.put("/fast/wal/backup.wal", "x");
        assert_eq!(subjects(&bed), [""; 0]);
        bed.put("/disk/etcd/member/snap/db", "x");
        bed.put("/fast/wal/0000000000000000-0000000000000000.wal", "x");
        assert_eq!(subjects(&bed), ["`/disk/etcd`", "`/fast/wal`"]);
        // On a host where Sealift has begun, it is its own.
        bed.put("/etc/sealift/pki/ca.crt", "x");
        assert_eq!(subjects(&bed), [""; 0]);
    }

    #[test]
    fn a_host_without_a_member_is_not_asked_for_room() {
        let mut bed = Bed::new();
        bed.config.etcd.data_dir = "/disk/etcd".into();
        bed.put("/disk/etcd/member/snap/db", "x");
        bed.become_member(&[bundle::component::Role::Worker]);
        assert_eq!(subjects(&bed), [""; 0]);
    }
}
