//! Filesystems as the kernel tells of them: room, inodes, mount options, attributes of files, and how long the disk
//! takes to keep what it was given.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::fs::{IFlags, Mode, OFlags, StatVfsMountFlags};
use serde::Serialize;

use super::Host;
use super::kernel::mount_fields;

/// The filesystem below a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Filesystem {
    /// Where it is mounted.
    pub mounted: PathBuf,
    /// `MAJOR:MINOR`: the same for all mounts of one filesystem.
    pub device: String,
    /// `ext4`, `xfs`, `overlay` …; empty when the mount table does not say.
    pub kind: String,
    /// What is mounted: `/dev/sda1`.
    pub source: String,
    /// Bytes in all.
    pub size: u64,
    /// Bytes that may still be written.
    pub free: u64,
    /// Inodes in all; 0 where they are made as needed.
    pub inodes: u64,
    /// Inodes left.
    pub inodes_free: u64,
    /// Nothing can be written.
    pub read_only: bool,
    /// No program can be started from there.
    pub noexec: bool,
    /// Setuid bits do not count there.
    pub nosuid: bool,
}

impl Host {
    /// The filesystem where `path` is, or will be. Links on the way are followed.
    pub fn filesystem(&self, path: &Path) -> Result<Filesystem> {
        if let Some(scripted) = self.script().and_then(|fake| fake.filesystem(path)) {
            return Ok(scripted);
        }
        let there = self.nearest(path);
        let asking = || format!("asking for the filesystem of `{}`", path.display());
        let stat = rustix::fs::statvfs(&there).with_context(asking)?;
        let table = self.read_text(Path::new("/proc/self/mountinfo"))?.unwrap_or_default();
        let mount = mount_of(&table, &there).unwrap_or_default();
        let flag = |flag| stat.f_flag.contains(flag);
        Ok(Filesystem {
            size: stat.f_blocks.saturating_mul(stat.f_frsize),
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            inodes: stat.f_files,
            inodes_free: stat.f_favail,
            read_only: flag(StatVfsMountFlags::RDONLY),
            noexec: flag(StatVfsMountFlags::NOEXEC),
            nosuid: flag(StatVfsMountFlags::NOSUID),
            ..mount
        })
    }

    /// The nearest directory on the way to `path` that exists, without links.
    fn nearest(&self, path: &Path) -> PathBuf {
        let existing = path.ancestors().find_map(|part| fs_err::canonicalize(self.real_path(part)).ok());
        existing.unwrap_or_else(|| self.real_path(Path::new("/")))
    }

    /// How long each of `count` writes of 2 KiB takes until the disk has it (`fdatasync`), at most for `limit` altogether,
    /// in the filesystem where `path` is or will be. As etcd writes its log: one after the other into one file. The file has
    /// no name (or loses it at once), so nothing is left even by a power cut.
    pub fn fdatasync_latencies(&self, path: &Path, count: usize, limit: Duration) -> Result<Vec<Duration>> {
        if let Some(fake) = self.script() {
            return Ok(fake.latencies());
        }
        let directory = self.nearest(path);
        let mut file = nameless(&directory).with_context(|| format!("measuring the disk of `{}`", path.display()))?;
        let (start, block, mut taken) = (Instant::now(), [0x5a_u8; 2048], Vec::new());
        while taken.len() < count && start.elapsed() < limit {
            let before = Instant::now();
            file.write_all(&block)?;
            file.sync_data()?;
            taken.push(before.elapsed());
        }
        Ok(taken)
    }

    /// Whether nobody, root included, may change a file (`chattr +i`) or may only append to it (`+a`). Filesystems without
    /// such attributes have none set.
    pub fn immutable(&self, path: &Path) -> bool {
        if let Some(fake) = self.script() {
            return fake.immutable(path);
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(file) = rustix::fs::open(self.real_path(path), flags, Mode::empty()) else { return false };
        rustix::fs::ioctl_getflags(&file).is_ok_and(|flags| flags.intersects(IFlags::IMMUTABLE | IFlags::APPEND))
    }
}

/// A file without a name; where the filesystem cannot do that, one that loses it at once.
fn nameless(directory: &Path) -> Result<std::fs::File> {
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR) {
        return Ok(file.into());
    }
    Ok(tempfile::tempfile_in(directory)?)
}

/// The mount that `path` is on: the last one with the longest mount point on the way to it (proc(5), mountinfo).
fn mount_of(table: &str, path: &Path) -> Option<Filesystem> {
    let mounts = table.lines().filter_map(mount_fields).filter(|mount| path.starts_with(&mount.mounted));
    mounts.max_by_key(|mount| mount.mounted.as_os_str().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_point_on_the_way_counts_and_the_last_of_them() {
        let table = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
            30 22 8:2 / /var rw - xfs /dev/sda2 rw\n\
            31 22 0:40 / /var/lib/my\\040data rw - tmpfs tmpfs rw\n\
            32 22 8:3 / /var rw master:2 - ext4 /dev/sda3 rw\n";
        let mount = |path: &str| mount_of(table, Path::new(path)).unwrap();
        assert_eq!((mount("/etc").device.as_str(), mount("/etc").kind.as_str()), ("8:1", "ext4"));
        assert_eq!(mount("/var/lib").source, "/dev/sda3");
        assert_eq!(mount("/var/lib/my data/x").device, "0:40");
        assert_eq!(mount("/variable").device, "8:1");
    }

    #[test]
    fn a_real_disk_is_measured_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::real();
        let target = dir.path().join("not/there/yet");
        let taken = host.fdatasync_latencies(&target, 3, Duration::from_secs(5)).unwrap();
        assert_eq!(taken.len(), 3);
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 0);
        let filesystem = host.filesystem(&target).unwrap();
        assert!(filesystem.size > 0 && !filesystem.device.is_empty(), "{filesystem:?}");
        assert!(!host.immutable(dir.path()));
    }
}
