//! Mounts of pods and containers: taken away before anything is deleted, because behind a mount lies somebody's data.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};

use crate::host::{Host, mount_point};
use crate::report::Explain as _;

/// Directories below which only the kubelet and containerd mount. They themselves may be mounts of the operator.
const ABOVE: [&str; 4] = ["/var/lib/kubelet", "/var/lib/containerd", "/run/containerd", "/var/run/containerd"];
/// Network namespaces of pods, by prefix.
const NAMESPACES: &str = "/run/netns";
const NAMESPACE_PREFIX: &str = "cni-";

/// The mount points of this host, in the order in which they were mounted.
#[derive(Debug)]
pub(super) struct Mounts(Vec<PathBuf>);

impl Mounts {
    /// Reads `/proc/self/mountinfo` (proc(5)).
    pub(super) fn read(host: &Host) -> Result<Self> {
        let text = host.read_text(Path::new("/proc/self/mountinfo"))?.unwrap_or_default();
        Ok(Self(text.lines().filter_map(mount_point).collect()))
    }

    /// Whether something is mounted exactly there. The kernel knows mount points by their real paths.
    pub(super) fn is_mounted(&self, host: &Host, path: &Path) -> Result<bool> {
        let path = host.resolve(path)?;
        Ok(self.0.contains(&path))
    }

    /// Refuses to delete a tree with a mount at its top or in it, wherever links lead to it.
    pub(super) fn require_none_below(&self, host: &Host, path: &Path) -> Result<()> {
        let path = host.resolve(path)?;
        match self.0.iter().find(|mount| mount.starts_with(&path)) {
            None => Ok(()),
            Some(mount) => Err(anyhow!("`{}` is still mounted: nothing is deleted there", mount.display()))
                .hint(format!("`umount {}`, then run `installer reset` again", mount.display())),
        }
    }
}

/// Unmounts what pods and containers left, last mounted first.
pub(super) fn unmount(host: &Host) -> Result<Vec<String>> {
    let mut done = Vec::new();
    // Below a mount there may be others that only show when it is gone.
    for _ in 0..16 {
        let ours = ours(host)?;
        if ours.is_empty() {
            remove_namespaces(host)?;
            return Ok(done);
        }
        for path in ours.iter().rev() {
            host.unmount(path)?;
            done.push(format!("unmount {}", path.display()));
        }
    }
    bail!("mounts below /var/lib/kubelet and /run/containerd come back after every unmount")
}

fn ours(host: &Host) -> Result<Vec<PathBuf>> {
    let above = ABOVE.iter().map(|path| host.resolve(Path::new(path))).collect::<Result<Vec<_>>>()?;
    let namespaces = host.resolve(Path::new(NAMESPACES))?;
    let is_ours = |mount: &Path| {
        above.iter().any(|above| mount != above && mount.starts_with(above))
            || mount.strip_prefix(&namespaces).is_ok_and(|name| name.to_string_lossy().starts_with(NAMESPACE_PREFIX))
    };
    Ok(Mounts::read(host)?.0.into_iter().filter(|mount| is_ours(mount)).collect())
}

/// The files on which containerd mounted the namespaces.
fn remove_namespaces(host: &Host) -> Result<()> {
    for name in host.list(Path::new(NAMESPACES))? {
        if name.starts_with(NAMESPACE_PREFIX) {
            host.remove(&Path::new(NAMESPACES).join(name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
40 22 8:2 / /var/lib/kubelet rw - ext4 /dev/sda2 rw\n\
41 40 0:50 / /var/lib/kubelet/pods/a/volumes/x\\040y rw - nfs 192.0.2.9:/data rw\n\
42 22 0:51 / /run/containerd/io.containerd.runtime.v2.task/k8s.io/b/rootfs rw - overlay overlay rw\n\
43 22 0:4 net:[1] /run/netns/cni-1 rw - nsfs nsfs rw\n\
44 22 0:4 net:[2] /run/netns/theirs rw - nsfs nsfs rw\n\
45 22 8:3 / /var/lib/etcd rw - ext4 /dev/sda3 rw\n";

    #[test]
    fn only_what_pods_and_containers_mounted_is_unmounted() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        host.write(Path::new("/proc/self/mountinfo"), TABLE.as_bytes(), 0o644).unwrap();
        host.write(Path::new("/run/netns/cni-1"), b"", 0o644).unwrap();
        let mounts = Mounts::read(&host).unwrap();
        let error = mounts.require_none_below(&host, Path::new("/var/lib/kubelet/pods")).unwrap_err().to_string();
        assert!(error.contains("/volumes/x y` is still mounted"), "{error}");
        let done = unmount(&host).unwrap();
        assert_eq!(done[0], "unmount /run/netns/cni-1", "last mounted first");
        assert_eq!(done[2], "unmount /var/lib/kubelet/pods/a/volumes/x y");
        assert!(!host.exists(Path::new("/run/netns/cni-1")).unwrap());
        let left = Mounts::read(&host).unwrap();
        for kept in ["/", "/var/lib/kubelet", "/run/netns/theirs", "/var/lib/etcd"] {
            assert!(left.is_mounted(&host, Path::new(kept)).unwrap(), "{kept}");
        }
    }

    /// `/var` on another disk, by a link: the kernel writes the real paths.
    #[test]
    fn mounts_are_found_behind_links_anywhere_on_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        host.symlink(Path::new("/var"), Path::new("big/var")).unwrap();
        host.create_dir(Path::new("/big/var/lib/kubelet/pods/a"), 0o755).unwrap();
        let table = "22 1 8:1 / / rw - ext4 a rw\n41 22 0:50 / /big/var/lib/kubelet/pods/a rw - nfs b rw\n";
        host.write(Path::new("/proc/self/mountinfo"), table.as_bytes(), 0o644).unwrap();
        let mounts = Mounts::read(&host).unwrap();
        assert!(mounts.is_mounted(&host, Path::new("/var/lib/kubelet/pods/a")).unwrap());
        mounts.require_none_below(&host, Path::new("/var/lib/kubelet")).unwrap_err();
        mounts.require_none_below(&host, Path::new("/var/lib/containerd")).unwrap();
        assert_eq!(unmount(&host).unwrap(), ["unmount /big/var/lib/kubelet/pods/a"]);
    }
}
