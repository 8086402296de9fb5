//! Disks of a machine: its own, in layers, and small read-only ones that carry files to it.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use anyhow::{Context, Result};

use crate::process::Process;

/// Where the one partition begins: GRUB has its core image before it.
pub(super) const START: u64 = 1024 * 1024;
/// The root file system's, always the same: GRUB's menu is written before the disk is there.
pub(super) const UUID: &str = "5ea11f70-0000-4000-8000-000000000001";
const SECTOR: u64 = 512;

/// A raw disk with one partition, an ext4 file system of the label `root` that holds a tree.
pub(super) fn root_disk(tree: &Path, disk: &Path, bytes: u64) -> Result<()> {
    fs_err::File::create(disk)?.set_len(bytes)?;
    Process::new("mkfs.ext4")
        .args(["-q", "-L", "root", "-U", UUID, "-E", &format!("offset={START}"), "-d"])
        .arg(tree)
        .arg(disk)
        .arg(format!("{}k", (bytes - START) / 1024))
        .run()
        .context("making a disk (scripts/prerequisites.sh installs e2fsprogs)")?;
    let mut file = fs_err::OpenOptions::new().write(true).open(disk)?;
    file.seek(SeekFrom::Start(446))?;
    file.write_all(&partition(bytes)?)?;
    Ok(())
}

/// The first entry of a DOS partition table, three empty ones, and the signature.
fn partition(bytes: u64) -> Result<Vec<u8>> {
    // Active, Linux; cylinders, heads and sectors beyond what their three bytes can say.
    let mut table = vec![0x80, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff];
    table.extend(u32::try_from(START / SECTOR)?.to_le_bytes());
    table.extend(u32::try_from((bytes - START) / SECTOR)?.to_le_bytes());
    table.extend([0; 48]);
    table.extend([0x55, 0xaa]);
    Ok(table)
}

/// A read-only disk: one ext4 file system without a partition, with these files in its root.
pub fn carrier(disk: &Path, files: &[(&Path, &str)]) -> Result<()> {
    let tree = tempfile::tempdir_in(disk.parent().context("a disk lies in a directory")?)?;
    let mut bytes = 16 << 20;
    for (from, name) in files {
        // A second name of the same file, where that can be had.
        let to = tree.path().join(name);
        if fs_err::hard_link(from, &to).is_err() {
            fs_err::copy(from, &to)?;
        }
        bytes += fs_err::metadata(from)?.len() * 21 / 20;
    }
    if disk.exists() {
        fs_err::remove_file(disk)?;
    }
    Process::new("mkfs.ext4")
        .args(["-q", "-O", "^has_journal", "-m", "0", "-d"])
        .arg(tree.path())
        .arg(disk)
        .arg(format!("{}k", bytes / 1024))
        .run()?;
    Ok(())
}

/// A disk whose content is that of `base` until it is written to.
pub(super) fn layer(base: &Path, format: &str, disk: &Path) -> Result<()> {
    Process::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", format, "-b"])
        .arg(base)
        .arg(disk)
        .run()
        .context("making a disk's layer (scripts/prerequisites.sh installs qemu-utils)")?;
    Ok(())
}
