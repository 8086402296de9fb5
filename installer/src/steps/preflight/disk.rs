//! Disks: room and inodes by filesystem, from the bundle's signed sizes; mount options; how fast etcd's disk keeps what it is
//! given.
//!
//! Places on one filesystem are counted together: what `/var/lib/etcd` and `/var/lib/containerd` need has to be there once
//! when they are two disks, and twice when they are one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use bundle::Image;
use bundle::component::{Kind, Package};

use super::boot::{self, BOOT};
use super::finding::Finding;
use crate::checks::CheckName;
use crate::context::{CURRENT, Context, HOME, STATE};
use crate::host::Filesystem;
use crate::steps::images::blob_path;
use crate::steps::{kernel, os_packages};

const MIB: u64 = 1 << 20;
/// Where containerd keeps images and the writable layers of containers.
const CONTAINERD: &str = "/var/lib/containerd";
/// Where the kubelet keeps volumes and logs of pods.
const KUBELET: &str = "/var/lib/kubelet";
/// Writes that are measured, and for how long at most. etcd writes 2 KiB at a time.
const WRITES: usize = 100;
const MEASURING: Duration = Duration::from_secs(1);
/// The 99th percentile that etcd asks of its disk (etcd.io, "Hardware recommendations" and its alert on `wal_fsync`).
const FSYNC_LIMIT: Duration = Duration::from_millis(10);

/// What packages become when they are unpacked, at most: a Debian 12 kernel, whose modules are not compressed, grows sixfold, one with
/// packed modules not at all (Debian 13: 108 MB), other packages about fourfold. The bundle signs the size of the package alone.
const KERNEL_GROWS: u64 = 6;
const PACKED_KERNEL_GROWS: u64 = 2;
const PACKAGES_GROW: u64 = 4;
/// What dpkg and rpm keep of the packages, and new copies of their databases.
const DATABASE: u64 = 48 * MIB;
const DATABASES: [&str; 2] = ["/var/lib/dpkg", "/var/lib/rpm"];
/// Where `mkinitramfs` and `dracut` put an initramfs together.
const BUILDING: &str = "/var/tmp";
/// Bytes of a package's content for each file in it, about.
const PACKAGE_FILE: u64 = 32 << 10;

/// What one place will take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Need {
    bytes: u64,
    files: u64,
}

/// All findings of this file.
pub(super) fn look(context: &Context<'_>) -> Result<Vec<Finding>> {
    let mut filesystems: BTreeMap<String, (Filesystem, Vec<(PathBuf, Need)>)> = BTreeMap::new();
    for (place, need) in needs(context)? {
        let filesystem = context.host.filesystem(&place)?;
        let entry = filesystems.entry(filesystem.device.clone()).or_insert_with(|| (filesystem, Vec::new()));
        entry.1.push((place, need));
    }
    let mut findings = Vec::new();
    for (filesystem, places) in filesystems.values() {
        findings.push(room(filesystem, places));
        findings.extend(inodes(filesystem, places));
    }
    findings.extend(mount_options(context)?);
    findings.extend(etcd_disk(context)?);
    Ok(findings)
}

/// Whether etcd runs on this host, or will.
fn is_member(context: &Context<'_>) -> bool {
    context.config.runs_etcd(context.node) && (context.roles.master() || context.roles.etcd())
}

/// What every place will take: what the bundle still has to bring, at its peak, and room for what grows at work.
fn needs(context: &Context<'_>) -> Result<Vec<(PathBuf, Need)>> {
    let host = context.host;
    // A host that works has its data already; what is left has to do for a run.
    let share = if host.exists(Path::new(CURRENT))? { 8 } else { 1 };
    let room = |mib: u64| mib * MIB / share;
    let mut needs: BTreeMap<PathBuf, Need> = BTreeMap::new();
    let mut add = |place: &Path, bytes: u64, files: u64| {
        let need = needs.entry(place.to_owned()).or_default();
        need.bytes += bytes;
        need.files += files;
    };
    add(Path::new(STATE), room(64), 64);
    add(Path::new("/var/log"), room(256), 256);
    add(Path::new(HOME), room(128), 256);
    if context.roles.run_pods() {
        add(Path::new(CONTAINERD), room(768), 4096);
        add(Path::new(KUBELET), room(256), 1024);
    }
    if is_member(context) {
        let etcd = &context.config.etcd;
        add(&etcd.data_dir, room(512), 64);
        if let Some(wal) = &etcd.wal_dir {
            add(wal, room(256), 64);
        }
    }
    let packages = packages(context)?;
    for (place, packed, factor) in &packages {
        add(Path::new(place), packed * factor, packed * factor / PACKAGE_FILE);
    }
    for place in database(context)?.filter(|_| !packages.is_empty()) {
        add(Path::new(place), DATABASE, 256);
    }
    let coming = kernel::coming(context)?;
    if let Some(coming) = &coming {
        add(Path::new(BOOT), boot::need(host, &context.facts.kernel, coming)?, 8);
        add(Path::new(BUILDING), boot::unpacked_initramfs(host, &context.facts.kernel)?, 4096);
    }
    for image in context.images.iter().filter(|image| context.share().has(&image.component)) {
        if is_stored(context, image) {
            continue;
        }
        let (bytes, files) = (image.installed_size(), image.files.len() as u64);
        // Unpacked beside its place and renamed: nothing is there twice at any time.
        add(Path::new(HOME), bytes, files + image.blobs.len() as u64);
        // In containerd once as it is and once unpacked, which its signed size does not tell.
        if image.component.kind == Kind::Container && context.roles.run_pods() {
            add(Path::new(CONTAINERD), bytes * 3, bytes / (16 << 10) + 64);
        }
    }
    Ok(needs.into_iter().collect())
}

/// Where packages that are not on the host yet are unpacked to, their size in all, and how much they grow.
fn packages(context: &Context<'_>) -> Result<Vec<(&'static str, u64, u64)>> {
    let mut found = Vec::new();
    // A database that cannot be read is a finding of its own.
    if let Ok(Some((_, work))) = os_packages::work_on(context) {
        found.push(("/usr", packed(work.packages()), PACKAGES_GROW));
    }
    if let Some(coming) = kernel::coming(context)? {
        // What the distribution's running kernel is like, its next one is as well.
        let grows = context.facts.modules.compression.as_ref().map_or(KERNEL_GROWS, |_| PACKED_KERNEL_GROWS);
        found.push(("/lib/modules", packed(coming.packages.into_iter()), grows));
    }
    found.retain(|(_, packed, _)| *packed > 0);
    Ok(found)
}

/// The package database that this host has.
fn database(context: &Context<'_>) -> Result<impl Iterator<Item = &'static str>> {
    let mut found = Vec::new();
    for place in DATABASES {
        if context.host.exists(Path::new(place))? {
            found.push(place);
        }
    }
    Ok(found.into_iter())
}

fn packed<'a>(packages: impl Iterator<Item = &'a Package>) -> u64 {
    packages.map(|package| package.size).sum()
}

/// What is in the store already has been paid for.
fn is_stored(context: &Context<'_>, image: &Image) -> bool {
    // An error of the disk itself will come up where it matters.
    match image.component.kind {
        Kind::Program | Kind::Addon => context
            .desired
            .links
            .get(&image.component.name)
            .is_some_and(|name| context.host.exists(&Path::new("/opt/sealift/store").join(name)).unwrap_or(false)),
        Kind::Container | Kind::Packages | Kind::Kernel => {
            image.blobs.iter().all(|blob| context.host.exists(&blob_path(&blob.digest)).unwrap_or(false))
        }
    }
}

fn subject(filesystem: &Filesystem) -> String {
    let what = if filesystem.source.is_empty() { &filesystem.device } else { &filesystem.source };
    format!("{what} at `{}`", filesystem.mounted.display())
}

fn list(places: &[(PathBuf, Need)], measure: impl Fn(&Need) -> String) -> String {
    let parts: Vec<String> =
        places.iter().map(|(place, need)| format!("{} for `{}`", measure(need), place.display())).collect();
    parts.join(", ")
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(MIB)
}

fn room(filesystem: &Filesystem, places: &[(PathBuf, Need)]) -> Finding {
    let needed: u64 = places.iter().map(|(_, need)| need.bytes).sum();
    let subject = format!("disk {}", subject(filesystem));
    let free = filesystem.free / MIB;
    if filesystem.free < needed {
        let parts = list(places, |need| format!("{} MiB", mib(need.bytes)));
        let needed = format!("{} MiB: {parts}", mib(needed));
        return Finding::refused(CheckName::Disk, subject, format!("{free} MiB free"), needed, "make room there");
    }
    Finding::good(CheckName::Disk, subject, format!("{free} MiB free ({} needed)", mib(needed)))
}

fn inodes(filesystem: &Filesystem, places: &[(PathBuf, Need)]) -> Option<Finding> {
    // Filesystems that make inodes as they need them (btrfs, overlay on it) have none in all.
    if filesystem.inodes == 0 {
        return None;
    }
    let needed: u64 = places.iter().map(|(_, need)| need.files).sum();
    let subject = format!("inodes of {}", subject(filesystem));
    let left = format!("{} left", filesystem.inodes_free);
    if filesystem.inodes_free < needed {
        let needed = format!("{needed}: {}", list(places, |need| need.files.to_string()));
        return Some(Finding::refused(
            CheckName::Inodes,
            subject,
            left,
            needed,
            "remove files there, or make it anew with more",
        ));
    }
    Some(Finding::good(CheckName::Inodes, subject, format!("{left} ({needed} needed)")))
}

/// Places that are written to, whether programs are started from them, and whether setuid programs have to work there.
fn mount_options(context: &Context<'_>) -> Result<Vec<Finding>> {
    let mut places =
        vec![("/etc", false, false), (HOME, true, false), (STATE, false, false), ("/var/log", false, false)];
    places.extend([("/usr/local/bin", false, false), ("/etc/systemd/system", false, false)]);
    let etcd = &context.config.etcd;
    if is_member(context) {
        let directories = std::iter::once(&etcd.data_dir).chain(&etcd.wal_dir);
        places.extend(directories.filter_map(|directory| directory.to_str()).map(|place| (place, false, false)));
    }
    if context.roles.run_pods() {
        places.extend([(CONTAINERD, true, true), (KUBELET, true, true)]);
    }
    let comes = kernel::coming(context)?.is_some();
    if comes {
        places.extend([(BOOT, false, false), ("/lib/modules", false, false), (BUILDING, false, false)]);
    }
    if matches!(os_packages::work_on(context), Ok(Some((_, work))) if !work.is_empty()) {
        places.push(("/usr", true, false));
    }
    if comes || places.iter().any(|(place, ..)| *place == "/usr") {
        // Scripts of packages are started from there by dpkg; rpm hands them to the shell.
        places.extend(database(context)?.map(|place| (place, place == DATABASES[0], false)));
    }
    let mut findings = Vec::new();
    for (place, runs, setuid) in places {
        let filesystem = context.host.filesystem(Path::new(place))?;
        let at = format!("mount options of `{place}`");
        let remount =
            |option: &str| format!("remount `{}` with `{option}`, in /etc/fstab too", filesystem.mounted.display());
        let refused = |found: &str, needed: &str, option: &str| {
            Finding::refused(CheckName::MountOptions, at.clone(), found, needed, remount(option))
        };
        let finding = if filesystem.read_only {
            refused("read-only", "a filesystem that can be written", "rw")
        } else if filesystem.noexec && runs {
            refused("noexec", "a filesystem from which programs can be started", "exec")
        } else if filesystem.nosuid && setuid {
            let follows = "setuid programs in containers do not get their rights";
            Finding::limit(CheckName::MountOptions, at.clone(), "nosuid", follows, remount("suid"))
        } else {
            continue;
        };
        // One word for each mount is enough.
        if findings.iter().all(|known: &Finding| known.advice != finding.advice) {
            findings.push(finding);
        }
    }
    Ok(findings)
}

/// Measured before etcd has data: a member at work has its own metric (`etcd_disk_wal_fsync_duration_seconds`).
fn etcd_disk(context: &Context<'_>) -> Result<Option<Finding>> {
    let etcd = &context.config.etcd;
    if !is_member(context) || context.host.exists(&etcd.data_dir.join("member"))? {
        return Ok(None);
    }
    let place = etcd.wal_dir.as_ref().unwrap_or(&etcd.data_dir);
    let subject = format!("etcd's disk at `{}`", place.display());
    let mut taken = match context.host.fdatasync_latencies(place, WRITES, MEASURING) {
        Ok(taken) => taken,
        // A full or read-only disk is a finding of its own (`disk`, `mount-options`).
        Err(error) => {
            return Ok(Some(Finding::limit(
                CheckName::EtcdDisk,
                subject,
                format!("{error:#}"),
                "it is not measured",
                "look at that disk: it takes no writes",
            )));
        }
    };
    let Some(slow) = percentile(&mut taken, 99) else { return Ok(None) };
    let found = format!("99 % of {} small writes take less than {}", taken.len(), milliseconds(slow));
    if slow <= FSYNC_LIMIT {
        return Ok(Some(Finding::good(CheckName::EtcdDisk, subject, found)));
    }
    let follows = format!("etcd asks for {}: slow writes cost leaders their office", milliseconds(FSYNC_LIMIT));
    let advice =
        "give etcd an SSD of its own (`data_dir`, `wal_dir` in `[etcd]`), or raise `heartbeat_ms` and `election_ms`";
    Ok(Some(Finding::limit(CheckName::EtcdDisk, subject, found, follows, advice)))
}

/// The value that this many percent do not exceed; none of none.
fn percentile(taken: &mut [Duration], percent: usize) -> Option<Duration> {
    taken.sort_unstable();
    let rank = (taken.len() * percent).div_ceil(100);
    taken.get(rank.checked_sub(1)?).copied()
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentile_is_one_of_the_values() {
        let mut hundred: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&mut hundred, 99), Some(Duration::from_millis(99)));
        assert_eq!(percentile(&mut [Duration::from_millis(7)], 99), Some(Duration::from_millis(7)));
        assert_eq!(percentile(&mut [], 99), None);
        assert_eq!(milliseconds(Duration::from_micros(1250)), "1.2 ms");
    }
}
