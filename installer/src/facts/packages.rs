//! What keeps package management busy, and what keeps files from being changed.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::host::Host;

/// Locks of dpkg, apt and rpm.
const LOCKS: &[&str] =
    &["/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/rpm/.rpm.lock", "/usr/lib/sysimage/rpm/.rpm.lock"];

/// Programs that install packages, and other installers of nodes. The kernel keeps 15 bytes of a name.
const PROGRAMS: &[&str] = &[
    "apt",
    "apt-get",
    "aptitude",
    "dpkg",
    "unattended-upgr",
    "dnf",
    "dnf5",
    "yum",
    "rpm",
    "zypper",
    "tdnf",
    "kubeadm",
    "kk",
    "k0s",
    "rpm-ostree",
];

/// Files and directories that the installation writes to and that an administrator may have made immutable.
const WRITTEN: &[&str] = &[
    "/boot",
    "/boot/grub/grub.cfg",
    "/boot/grub/grubenv",
    "/boot/grub2/grub.cfg",
    "/boot/grub2/grubenv",
    "/etc",
    "/etc/cni/net.d",
    "/etc/default/grub",
    "/etc/default/grub.d",
    "/etc/fstab",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/modules-load.d",
    "/etc/sysctl.d",
    "/etc/systemd/system",
    "/opt",
    "/usr/local/bin",
    "/usr/sbin",
    "/var/lib",
    "/var/lib/dpkg",
];

/// Who holds a lock of the package database or installs something: `dpkg (process 812)`.
pub(super) fn busy(host: &Host) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let name = |pid: i32| -> Option<String> {
        let text = host.read_text(&Path::new("/proc").join(pid.to_string()).join("comm")).ok()??;
        Some(text.trim().to_owned())
    };
    for lock in LOCKS {
        if let Some(pid) = host.record_lock_holder(Path::new(lock))? {
            let by = name(pid).unwrap_or_else(|| "another process".to_owned());
            found.push(format!("`{by}` (process {pid}) holds {lock}"));
        }
    }
    for pid in host.list(Path::new("/proc"))?.iter().filter_map(|name| name.parse::<i32>().ok()) {
        let Some(by) = name(pid).filter(|by| PROGRAMS.contains(&by.as_str())) else { continue };
        let said = format!("`{by}` (process {pid})");
        if !found.iter().any(|line| line.starts_with(&said)) {
            found.push(format!("{said} is running"));
        }
    }
    Ok(found)
}

/// Those of the files we write that nobody may change.
pub(super) fn immutable(host: &Host) -> Vec<PathBuf> {
    WRITTEN.iter().map(PathBuf::from).filter(|path| host.immutable(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_holds_a_lock_or_installs_is_named_once() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        assert!(busy(&host).unwrap().is_empty());
        for (pid, name) in [(11, "dpkg"), (12, "kubeadm"), (13, "sshd")] {
            host.write(&Path::new("/proc").join(pid.to_string()).join("comm"), format!("{name}\n").as_bytes(), 0o444)
                .unwrap();
        }
        host.fake().on_lock(|path| (path == Path::new("/var/lib/dpkg/lock")).then_some(11));
        let expected = ["`dpkg` (process 11) holds /var/lib/dpkg/lock", "`kubeadm` (process 12) is running"];
        assert_eq!(busy(&host).unwrap(), expected);
        host.fake().set_immutable("/etc/hosts");
        assert_eq!(immutable(&host), [Path::new("/etc/hosts")]);
    }
}
