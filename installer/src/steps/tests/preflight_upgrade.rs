//! What preflight finds on a machine on which the bundle's kernel will be installed.

use std::path::Path;

use bundle::component::{Kind, Role};

use super::preflight_checks::look;
use super::preflight_reasons::Reason;
use super::{Bed, disk};
use crate::checks::CheckName;
use crate::config::KernelPolicy;
use crate::facts::ForeignModule;
use crate::host::boot::tests::Simulated;
use crate::host::{Filesystem, Reply};
use crate::steps::preflight::{Finding, Verdict};

/// As the table of all hosts.
pub(super) const REASONS: &[Reason] = &[
    (
        CheckName::OutOfTreeModules,
        |bed| {
            upgrade(bed);
            bed.facts.foreign_modules = vec![foreign("raidcard", &["root disk"])];
        },
        Verdict::Refused,
        "it drives root disk, and is not of the kernel's own tree (taint OE); needed: a driver that Linux 6.12.9-amd64 has",
    ),
    (
        CheckName::OutOfTreeModules,
        |bed| {
            upgrade(bed);
            bed.facts.foreign_modules = vec![foreign("fastnic", &["eth0"])];
        },
        Verdict::Refused,
        "it drives eth0",
    ),
    (
        CheckName::OutOfTreeModules,
        |bed| {
            upgrade(bed);
            bed.facts.foreign_modules = vec![foreign("wifi", &["wlan0"])];
        },
        Verdict::Limit,
        "it drives wlan0",
    ),
    (
        CheckName::OutOfTreeModules,
        |bed| {
            upgrade(bed);
            let unsigned = ForeignModule { taint: "E".to_owned(), ..foreign("ext4", &["root disk"]) };
            bed.facts.foreign_modules = vec![unsigned];
        },
        Verdict::Limit,
        "it has to be built anew",
    ),
    (
        CheckName::BootMount,
        |bed| {
            upgrade(bed);
            bed.put(
                "/etc/fstab",
                "UUID=2 /boot ext4 defaults 0 2\nUUID=3 /boot/efi vfat noauto,x-systemd.automount 0 2\n",
            );
            bed.put("/proc/self/mountinfo", "30 23 0:30 / /boot/efi rw - autofs systemd-1 rw,fd=51\n");
        },
        Verdict::Refused,
        "file system of `/boot`",
    ),
    (
        CheckName::Disk,
        |bed| {
            upgrade(bed);
            bed.host.fake().set_filesystem("/boot", Filesystem { device: "8:2".to_owned(), ..disk(100) });
        },
        Verdict::Refused,
        "found 100 MiB free; needed: 145 MiB: 145 MiB for `/boot`",
    ),
    (
        CheckName::Disk,
        |bed| {
            upgrade(bed);
            bed.host.fake().set_filesystem("/lib/modules", Filesystem { device: "8:3".to_owned(), ..disk(500) });
        },
        Verdict::Refused,
        "600 MiB for `/lib/modules`",
    ),
    (
        CheckName::Disk,
        |bed| {
            upgrade(bed);
            bed.host.fake().set_filesystem("/var/tmp", Filesystem { device: "8:4".to_owned(), ..disk(300) });
        },
        Verdict::Refused,
        "360 MiB for `/var/tmp`",
    ),
    (
        CheckName::Disk,
        |bed| {
            upgrade(bed);
            bed.put("/var/lib/dpkg/status", "");
            bed.host.fake().set_filesystem("/var/lib/dpkg", Filesystem { device: "8:5".to_owned(), ..disk(40) });
        },
        Verdict::Refused,
        "48 MiB for `/var/lib/dpkg`",
    ),
    (
        CheckName::MountOptions,
        |bed| {
            upgrade(bed);
            bed.put("/var/lib/dpkg/status", "");
            bed.host.fake().set_filesystem("/var/lib/dpkg", Filesystem { noexec: true, ..disk(20_000) });
        },
        Verdict::Refused,
        "mount options of `/var/lib/dpkg`: found noexec",
    ),
    (
        CheckName::ImmutableFiles,
        |bed| {
            upgrade(bed);
            bed.facts.immutable = vec!["/boot/grub/grub.cfg".into()];
        },
        Verdict::Refused,
        "`chattr -i -a /boot/grub/grub.cfg`",
    ),
    (
        CheckName::Kernel,
        |bed| {
            upgrade(bed);
            bed.config.kernel.policy = KernelPolicy::Exact("6.12.10-amd64".to_owned());
        },
        Verdict::Refused,
        "and the bundle brings Linux 6.12.9-amd64; needed: what `[kernel]` of the config wants; do: take a bundle with such a kernel",
    ),
    (
        CheckName::Kernel,
        |bed| {
            upgrade(bed);
            bed.components.pop();
        },
        Verdict::Refused,
        "the bundle brings no kernel for debian-12",
    ),
    (
        CheckName::MountOptions,
        |bed| {
            upgrade(bed);
            bed.host.fake().set_filesystem("/boot", Filesystem { read_only: true, ..disk(20_000) });
        },
        Verdict::Refused,
        "mount options of `/boot`: found read-only",
    ),
    (
        CheckName::BootMount,
        |bed| {
            upgrade(bed);
            bed.put("/etc/fstab", "# /boot\nUUID=1 / ext4 defaults 0 1\nUUID=2 /boot ext4 defaults 0 2\n");
            bed.put("/proc/self/mountinfo", "23 1 254:1 / / rw - ext4 /dev/vda1 rw\n");
        },
        Verdict::Refused,
        "file system of `/boot`: found not mounted, though /etc/fstab has it",
    ),
    (
        CheckName::Packages,
        |bed| {
            upgrade(bed);
            let held = "Package: linux-image-6.12.9-amd64\nStatus: hold ok installed\nArchitecture: amd64\nVersion: 6.12.9-0\n";
            bed.put("/var/lib/dpkg/status", held);
        },
        Verdict::Refused,
        "found 6.12.9-0 is held, 6.12.9-1 would have to take its place",
    ),
    (
        CheckName::Packages,
        |bed| {
            upgrade(bed);
            bed.components.last_mut().unwrap().packages[0].relations.depends = "linux-base (>= 4.3)".to_owned();
            bed.put("/var/lib/dpkg/status", "Package: libc6\nStatus: install ok installed\nVersion: 2.36-9\n");
        },
        Verdict::Refused,
        "it needs linux-base (>= 4.3); the host has nothing of it",
    ),
    (
        CheckName::BootMenu,
        |bed| {
            upgrade(bed);
            bed.facts.kernel = "6.1.0-39-amd64".to_owned();
        },
        Verdict::Refused,
        "has no entry with an id for the running Linux 6.1.0-39-amd64",
    ),
    (
        CheckName::BootMenu,
        |bed| {
            upgrade(bed);
            bed.host.fake().on("grub-probe --target=fs /boot/grub", Reply::ok("btrfs\n"));
        },
        Verdict::Refused,
        "GRUB cannot write to /boot/grub (btrfs)",
    ),
    (
        CheckName::SecureBoot,
        |bed| {
            upgrade(bed);
            bed.facts.security.secure_boot = Some(true);
            bed.components.pop();
            bring_kernel(bed, "linux-image-6.12.9-amd64-unsigned", 1);
        },
        Verdict::Refused,
        "a kernel that this firmware starts",
    ),
];

pub(super) fn foreign(name: &str, drives: &[&str]) -> ForeignModule {
    ForeignModule {
        name: name.to_owned(),
        taint: "OE".to_owned(),
        drives: drives.iter().map(|what| (*what).to_owned()).collect(),
    }
}

/// The bundle brings a kernel of this many bytes.
pub(super) fn bring_kernel(bed: &mut Bed, package: &str, size: u64) {
    let mut kernel = bundle::fake::component("kernel-debian-12", "1", Kind::Kernel, &[Role::Master]).unwrap();
    kernel.distribution = Some("debian-12".to_owned());
    let package = serde_json::json!({"name": package, "version": "6.12.9-1", "file": format!("{package}.deb"),
        "sha256": bundle::Digest::of(b"x"), "size": size});
    kernel.packages.push(serde_json::from_value(package).unwrap());
    bed.components.push(kernel);
}

/// A machine with GRUB, on which the bundle's kernel will be installed.
fn upgrade(bed: &mut Bed) {
    bed.config.kernel.policy = KernelPolicy::Bundle;
    bed.put(&format!("/boot/vmlinuz-{}", bed.facts.kernel), "x");
    Simulated::install(&bed.host);
    bring_kernel(bed, "linux-image-6.12.9-amd64", 100 << 20);
}

#[test]
fn a_kernel_whose_modules_are_packed_does_not_grow() {
    let mut bed = Bed::new();
    upgrade(&mut bed);
    bed.host.fake().set_filesystem("/lib/modules", Filesystem { device: "8:3".to_owned(), ..disk(250) });
    let refused = |bed: &Bed| look(bed).iter().any(|finding| finding.verdict == Verdict::Refused);
    assert!(refused(&bed));
    bed.facts.modules.compression = Some("xz".to_owned());
    assert!(!refused(&bed));
}

#[test]
fn without_another_kernel_the_boot_loaders_files_are_not_looked_at() {
    let mut bed = Bed::new();
    bed.facts.immutable = vec!["/boot/grub/grub.cfg".into()];
    assert!(look(&bed).iter().all(|finding| finding.verdict == Verdict::Good));
}

#[test]
fn a_host_that_takes_another_kernel_gives_no_reason() {
    let mut bed = Bed::new();
    upgrade(&mut bed);
    bed.host.fake().set_filesystem("/boot", Filesystem { device: "8:2".to_owned(), ..disk(200) });
    // In an old encoding, and with an EFI partition that is not mounted on purpose.
    let table = b"# Gr\xfc\xdfe\nUUID=2 /boot ext4 defaults 0 2\nUUID=3 /boot/efi vfat umask=0077,noauto 0 1\n";
    bed.host.write(Path::new("/etc/fstab"), table, 0o644).unwrap();
    bed.put("/proc/self/mountinfo", "24 23 8:2 / /boot rw - ext4 /dev/vda2 rw\n");
    let bad: Vec<Finding> = look(&bed).into_iter().filter(|finding| finding.verdict != Verdict::Good).collect();
    assert_eq!(bad, []);
    // The same room is not enough when it is the root's as well.
    for place in ["/", "/boot"] {
        bed.host.fake().set_filesystem(place, disk(2400));
    }
    let refused = |bed: &Bed| look(bed).iter().any(|finding| finding.verdict == Verdict::Refused);
    assert!(refused(&bed));
    bed.config.kernel.policy = KernelPolicy::Keep;
    assert!(!refused(&bed));
}
