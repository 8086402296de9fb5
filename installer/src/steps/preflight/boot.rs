//! `/boot`, for hosts that get another kernel: room for it, mounted as it should be, and a menu that can be held at the kernel
//! that runs; and its packages.

use std::path::Path;

use anyhow::Result;

use super::finding::Finding;
use super::machine::misfit;
use crate::checks::CheckName;
use crate::context::Context;
use crate::host::boot::Initramfs;
use crate::host::{Host, mount_point};
use crate::report::hints;
use crate::steps::kernel::{self, Coming};
use crate::steps::os_packages::{self, Problem};

/// Where kernels are.
pub(super) const BOOT: &str = "/boot";
const MIB: u64 = 1 << 20;
/// Files of a kernel in `/boot`, on a host whose running one has none there to go by (Debian 13: 14 MiB).
const KERNEL: u64 = 24 * MIB;
/// Its initramfs there (Enterprise Linux 9, generic: 60 MiB).
const INITRAMFS: u64 = 72 * MIB;

/// All findings of this file but room.
pub(super) fn look(context: &Context<'_>) -> Result<Vec<Finding>> {
    if let Some(error) = kernel::unmet(context)? {
        return Ok(vec![wanted(&error)]);
    }
    let Some(coming) = kernel::coming(context)? else { return Ok(Vec::new()) };
    let mut findings = unmounted(context.host)?;
    findings.push(menu(context));
    findings.extend(packages(context, &coming)?);
    Ok(findings)
}

/// What the kernel's own step would refuse, when programs and packages are installed already.
fn wanted(error: &anyhow::Error) -> Finding {
    let advice = hints(error).join("; ");
    Finding::refused(CheckName::Kernel, "kernel", format!("{error:#}"), "what `[kernel]` of the config wants", advice)
}

/// The kernel's packages that this host cannot take.
fn packages(context: &Context<'_>, coming: &Coming<'_>) -> Result<Vec<Finding>> {
    let problems = os_packages::problems_of(context, &coming.packages)?.into_iter();
    let keep =
        |problem: Problem| Problem { hint: format!("{}; or `[kernel] policy = \"keep\"`", problem.hint), ..problem };
    Ok(problems.map(keep).map(misfit).collect())
}

/// Bytes that an initramfs takes where it is put together before it is packed, at most five times its size (Debian 12's by default: 40 MiB
/// of 190).
pub(super) fn unpacked_initramfs(host: &Host, running: &str) -> Result<u64> {
    Ok(initramfs(host, running)? * 5)
}

/// The size of the running kernel's initramfs, or one to go by.
fn initramfs(host: &Host, running: &str) -> Result<u64> {
    Ok(match Initramfs::path(host, running)? {
        Some(path) => host.entry(&path)?.map_or(0, |entry| entry.size),
        None => INITRAMFS,
    })
}

/// Bytes that a kernel takes in `/boot`: files as large as the running one's and a quarter more, and twice its initramfs,
/// because a new one is written beside the old one before it takes its place (`update-initramfs`, `dracut`).
pub(super) fn need(host: &Host, running: &str, coming: &Coming<'_>) -> Result<u64> {
    let size = |name: &str, release: &str| -> Result<u64> {
        let path = Path::new(BOOT).join(format!("{name}-{release}"));
        Ok(host.entry(&path)?.map_or(0, |entry| entry.size))
    };
    let mut files = 0;
    for name in ["vmlinuz", "System.map", "config"] {
        files += size(name, running)?;
    }
    let files = match (size("vmlinuz", &coming.release)?, files) {
        (0, 0) => KERNEL,
        (0, files) => files + files / 4,
        _ => 0,
    };
    let copies = if Initramfs::path(host, &coming.release)?.is_some() { 1 } else { 2 };
    Ok(files + initramfs(host, running)? * copies)
}

/// `/boot` that has a file system of its own, which is not there: the kernel would be put where no boot loader looks.
fn unmounted(host: &Host) -> Result<Vec<Finding>> {
    let table = host.read_lossy(Path::new("/etc/fstab"))?.unwrap_or_default();
    let mounts = host.read_text(Path::new("/proc/self/mountinfo"))?.unwrap_or_default();
    // One that systemd mounts when somebody looks is in the table too (autofs).
    let is_mounted = |place: &str| mounts.lines().any(|line| mount_point(line).as_deref() == Some(Path::new(place)));
    let lines = table.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    // One that its owner has said may be missing (a second EFI partition, say) is nobody's business.
    let listed: Vec<&str> = lines
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let options = fields.get(3).copied().unwrap_or_default();
            let may_miss = options.split(',').any(|option| matches!(option, "noauto" | "nofail"));
            fields.get(1).copied().filter(|place| *place == BOOT || !may_miss)
        })
        .collect();
    let missing = [BOOT, "/boot/efi"].into_iter().filter(|place| listed.contains(place) && !is_mounted(place));
    let findings = missing.map(|place| {
        let (found, needed) = ("not mounted, though /etc/fstab has it", "the file system that the boot loader reads");
        let subject = format!("file system of `{place}`");
        Finding::refused(CheckName::BootMount, subject, found, needed, format!("`mount {place}`"))
    });
    Ok(findings.collect())
}

/// Before anything is pinned: afterwards a menu that does not follow is a host whose default nobody knows.
fn menu(context: &Context<'_>) -> Finding {
    let (name, subject) = (CheckName::BootMenu, "boot menu");
    let found = match kernel::no_way_back(context) {
        Ok(None) => return Finding::good(name, subject, "the running kernel can be held as its default"),
        Ok(Some(found)) => found,
        Err(error) => format!("{error:#}"),
    };
    let needed = format!("a menu that boots Linux {} by default and another kernel once", context.facts.kernel);
    let advice = "put that right (`update-grub`, `grub2-mkconfig`), or set `[kernel] policy = \"keep\"`";
    Finding::refused(name, subject, found, needed, advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_for_a_kernel_goes_by_the_running_one() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        let coming = Coming { release: "2".to_owned(), packages: Vec::new() };
        let put = |name: &str, mib: u64| {
            let bytes = vec![0; usize::try_from(mib * MIB).unwrap()];
            host.write(&Path::new(BOOT).join(name), &bytes, 0o644).unwrap();
        };
        let needed = || need(&host, "1", &coming).unwrap() / MIB;
        assert_eq!(needed(), 24 + 2 * 72, "nothing to go by");
        put("vmlinuz-1", 5);
        put("System.map-1", 2);
        put("config-1", 1);
        put("initrd.img-1", 6);
        assert_eq!(needed(), 10 + 12);
        put("vmlinuz-2", 1);
        assert_eq!(needed(), 12, "unpacked already");
        put("initrd.img-2", 1);
        assert_eq!(needed(), 6, "only made anew");
    }
}
