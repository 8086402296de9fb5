//! Directories that the programs of a node fill by themselves, and what of them belongs to Sealift.
//!
//! How each was before is recorded when the first run begins. Preflight refuses a host where those of [`Keep::Nothing`]
//! hold anything, so all that is in them later came with Sealift.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::mounts::Mounts;
use crate::config::ClusterConfig;
use crate::host::{FileKind, Host};
use crate::journal::BeforeImage;
use crate::step::Target;

/// What stays of a directory that was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The empty directory: it was empty.
    Nothing,
    /// Everything: others may have put things there.
    Everything,
    /// Everything but a member's data: it is named by the cluster config, and may be a disk with other things on it.
    NotEtcd,
}

/// One such directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where.
    pub path: PathBuf,
    /// The step whose program fills it.
    pub step: &'static str,
    /// What stays.
    pub keep: Keep,
}

const PLACES: &[(&str, &str, Keep)] = &[
    ("/etc/cni/net.d", "containerd", Keep::Nothing),
    ("/var/lib/kubelet", "kubelet", Keep::Nothing),
    ("/var/lib/containerd", "containerd", Keep::Nothing),
    ("/run/containerd", "containerd", Keep::Nothing),
    ("/var/lib/cni", "containerd", Keep::Everything),
    ("/opt/cni", "containerd", Keep::Everything),
    // containerd makes it for plugins, even when there are none.
    ("/opt/containerd", "containerd", Keep::Everything),
    ("/var/log/pods", "kubelet", Keep::Everything),
    ("/var/log/containers", "kubelet", Keep::Everything),
    // The kubelet makes the directory of volume plugins, even when there are none.
    ("/usr/libexec/kubernetes", "kubelet", Keep::Everything),
    // What flannel and calico leave on a host.
    ("/run/flannel", "kubelet", Keep::Everything),
    ("/run/calico", "kubelet", Keep::Everything),
    ("/var/lib/calico", "kubelet", Keep::Everything),
    ("/var/log/calico", "kubelet", Keep::Everything),
];

/// All of them, for a host of the cluster with this `cluster.toml`.
pub fn of(config: &str) -> Vec<Place> {
    let fixed = PLACES.iter().map(|(path, step, keep)| Place { path: path.into(), step, keep: *keep });
    let etcd = ClusterConfig::parse(config, Path::new("cluster.toml")).map(|config| config.etcd).unwrap_or_default();
    let etcd = std::iter::once(etcd.data_dir).chain(etcd.wal_dir);
    fixed.chain(etcd.map(|path| Place { path, step: "etcd", keep: Keep::NotEtcd })).collect()
}

impl Place {
    /// What would be removed here; empty when nothing is there.
    pub(super) fn content(&self, host: &Host, before: Option<&BeforeImage>) -> Result<Vec<PathBuf>> {
        // Operators move large ones to another disk with a link.
        let directory = host.resolve(&self.path)?;
        let below = |wanted: &dyn Fn(&str) -> bool| -> Result<Vec<PathBuf>> {
            let names = host.list(&directory)?;
            Ok(names.into_iter().filter(|name| wanted(name)).map(|name| directory.join(name)).collect())
        };
        match (self.keep, before) {
            (Keep::NotEtcd, _) => below(&is_members),
            (Keep::Everything, Some(BeforeImage::Directory { .. } | BeforeImage::Link { .. })) => Ok(Vec::new()),
            _ => below(&|name| name != "lost+found"),
        }
    }

    /// Removes what is Sealift's, never through a mount: a volume that is still mounted below holds somebody's data.
    pub(super) fn clear(&self, host: &Host, before: Option<&BeforeImage>) -> Result<bool> {
        let content = self.content(host, before)?;
        let mounts = Mounts::read(host)?;
        for path in &content {
            mounts.require_none_below(host, path)?;
            host.remove_tree(path)?;
        }
        let target = Target::File(self.path.clone());
        let removed = match before {
            Some(image) => image.restore(host, &target)?.is_none() && !host.exists(&self.path)?,
            // Without a record: what is left of it is removed when nothing is in it and it is no mount point.
            None if self.is_bare(host)? => {
                host.remove(&self.path)?;
                true
            }
            None => false,
        };
        Ok(removed || !content.is_empty())
    }

    fn is_bare(&self, host: &Host) -> Result<bool> {
        let directory = host.entry(&self.path)?.is_some_and(|entry| entry.kind == FileKind::Directory);
        Ok(directory && host.list(&self.path)?.is_empty() && !Mounts::read(host)?.is_mounted(host, &self.path)?)
    }
}

/// Whether an entry of `data_dir` or `wal_dir` is of an etcd member.
pub(crate) fn is_members(name: &str) -> bool {
    name == "member" || is_log(name)
}

/// A member's write-ahead log in a directory of its own (etcd, server/wal: `SEQUENCE-INDEX.wal`, `N.tmp`).
fn is_log(name: &str) -> bool {
    [".wal", ".wal.broken", ".tmp"].iter().any(|suffix| name.strip_suffix(suffix).is_some_and(is_number))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_members_files_are_etcds() {
        for name in ["0000000000000000-0000000000000000.wal", "0.tmp", "00000000000000a1-000000000000f00d.wal.broken"] {
            assert!(is_log(name), "{name}");
        }
        for name in ["backup.wal", ".tmp", "notes.tmp", "photos"] {
            assert!(!is_log(name), "{name}");
        }
    }
}
