//! What the base image has beside Debian's packages: a name, an address, a serial console, and the agent that runs what tests ask for.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Result;

use super::{ADDRESS, NAME};

/// All of it is part of the image's key: what changes here makes a new image.
pub(super) const FILES: &[(&str, &str, u32)] = &[
    ("etc/apt/sources.list", "", 0o644),
    ("etc/machine-id", "", 0o444),
    ("etc/resolv.conf", "", 0o644),
    ("etc/fstab", "LABEL=root / ext4 errors=remount-ro 0 1\n", 0o644),
    ("etc/initramfs-tools/conf.d/bed", INITRAMFS, 0o644),
    ("etc/initramfs-tools/modules", "virtio_pci\nvirtio_blk\next4\n", 0o644),
    ("etc/modprobe.d/bed.conf", MODULES, 0o644),
    ("etc/default/grub", GRUB, 0o644),
    ("etc/systemd/journald.conf.d/bed.conf", "[Journal]\nStorage=persistent\nSyncIntervalSec=5s\n", 0o644),
    (
        "etc/systemd/system.conf.d/bed.conf",
        "[Manager]\nDefaultTimeoutStartSec=15min\nDefaultDeviceTimeoutSec=15min\n",
        0o644,
    ),
    ("etc/systemd/system/systemd-journald.service.d/bed.conf", PATIENT, 0o644),
    ("etc/systemd/system/systemd-logind.service.d/bed.conf", PATIENT, 0o644),
    ("etc/systemd/system/systemd-networkd.service.d/bed.conf", PATIENT, 0o644),
    ("etc/systemd/system/systemd-udevd.service.d/bed.conf", PATIENT, 0o644),
    ("etc/systemd/system/bed-agent.service", AGENT_UNIT, 0o644),
    ("usr/local/sbin/bed-agent", AGENT, 0o755),
];

/// Units that only cost time here; the getty would hang the serial console up.
const MASKED: [&str; 7] = [
    "serial-getty@ttyS0.service",
    "getty@tty1.service",
    "e2scrub_reap.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
];

/// A list of modules is smaller and quicker to pack than what Debian guesses, and needs no look at the machine that makes the image.
const INITRAMFS: &str = "MODULES=list\nCOMPRESS=gzip\nCOMPRESSLEVEL=1\n";

/// What an emulated processor and board make Debian load, to no use.
const MODULES: &str = "blacklist powernow_k8\nblacklist bochs\nblacklist floppy\nblacklist pcspkr\nblacklist psmouse\nblacklist i2c_piix4\n";

/// Where the machine below is busy, an emulated one stands still for minutes: that is no failure of its services. Making their filters
/// of system calls is most of what they do at their start (seen: a minute for networkd's), and nothing here leans on them.
const PATIENT: &str = "[Service]\nWatchdogSec=0\nTimeoutStartSec=15min\nSystemCallFilter=\nSystemCallArchitectures=\n";

/// Debian's own file but for the console and the time-out.
const GRUB: &str = "GRUB_DEFAULT=0\nGRUB_TIMEOUT=1\nGRUB_DISTRIBUTOR=Debian\nGRUB_CMDLINE_LINUX_DEFAULT=\"\"\n\
    GRUB_CMDLINE_LINUX=\"console=ttyS0,115200\"\nGRUB_TERMINAL=serial\n\
    GRUB_SERIAL_COMMAND=\"serial --unit=0 --speed=115200\"\nGRUB_DISABLE_OS_PROBER=true\n";

/// Up early and down late, also where the rest of the boot hangs or fails.
const AGENT_UNIT: &str = "[Unit]\nDescription=Runs what the test bed asks for\nDefaultDependencies=no\n\
    After=local-fs.target systemd-tmpfiles-setup.service\nBefore=multi-user.target\n\n\
    [Service]\nExecStart=/usr/local/sbin/bed-agent\nEnvironment=HOME=/root LANG=C.UTF-8\nRestart=always\nRestartSec=1\n\
    OOMScoreAdjust=-900\n\n[Install]\nWantedBy=sysinit.target\n";

/// One line in: NUMBER BASE64(script). One line out: NUMBER CODE =BASE64(stdout) =BASE64(stderr).
const AGENT: &str = r#"#!/bin/bash
# Runs what the test bed asks for, one script at a time. See tests/src/machine/agent.rs.
port=/dev/virtio-ports/bed
cd /
while sleep 0.2; do
    [ -e "$port" ] || continue
    exec 3<>"$port" || continue
    while read -r number script <&3; do
        files=$(mktemp -d /run/bed.XXXXXX)
        base64 -d <<<"$script" >"$files/script" 2>/dev/null || continue
        code=0
        bash "$files/script" </dev/null >"$files/stdout" 2>"$files/stderr" 3>&- || code=$?
        printf '\n%s %s =%s =%s\n' "$number" "$code" "$(base64 -w0 "$files/stdout")" "$(base64 -w0 "$files/stderr")" >&3
        rm -rf "$files"
    done
    exec 3>&-
done
"#;

/// Writes all of it into a root that mmdebstrap made.
pub(super) fn furnish(root: &Path) -> Result<()> {
    for directory in ["etc/apt/sources.list.d", "etc/apt/apt.conf.d", "etc/dpkg/dpkg.cfg.d"] {
        for entry in fs_err::read_dir(root.join(directory))? {
            fs_err::remove_file(entry?.path())?;
        }
    }
    for (path, content, mode) in FILES {
        write(root, path, content, *mode)?;
    }
    write(root, "etc/hostname", &format!("{NAME}\n"), 0o644)?;
    write(root, "etc/hosts", &format!("127.0.0.1 localhost\n{ADDRESS} {NAME}\n"), 0o644)?;
    write(root, "etc/systemd/network/10-bed.network", &network(), 0o644)?;
    for unit in MASKED {
        link(root, "/dev/null", &format!("etc/systemd/system/{unit}"))?;
    }
    link(root, "../bed-agent.service", "etc/systemd/system/sysinit.target.wants/bed-agent.service")?;
    let networkd = "systemd-networkd.service";
    link(
        root,
        &format!("/lib/systemd/system/{networkd}"),
        &format!("etc/systemd/system/multi-user.target.wants/{networkd}"),
    )
}

/// A default route, as a server has one; it leads to the bed's bridge and no further.
fn network() -> String {
    let [a, b, c, _] = ADDRESS.octets();
    format!(
        "[Match]\nName=en*\n\n[Network]\nAddress={ADDRESS}/24\nGateway={a}.{b}.{c}.1\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
    )
}

fn write(root: &Path, path: &str, content: &str, mode: u32) -> Result<()> {
    let path = root.join(path);
    if let Some(parent) = path.parent() {
        fs_err::create_dir_all(parent)?;
    }
    fs_err::write(&path, content)?;
    Ok(fs_err::set_permissions(&path, std::fs::Permissions::from_mode(mode))?)
}

fn link(root: &Path, target: &str, path: &str) -> Result<()> {
    let path = root.join(path);
    if let Some(parent) = path.parent() {
        fs_err::create_dir_all(parent)?;
    }
    if path.symlink_metadata().is_ok() {
        fs_err::remove_file(&path)?;
    }
    Ok(fs_err::os::unix::fs::symlink(target, path)?)
}

/// All that an image depends on here, for its key.
pub(super) fn key() -> String {
    format!("{FILES:?} {MASKED:?} {}", network())
}
