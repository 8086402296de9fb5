//! What a host has before its first boot: name, addresses, resolver, and the units that stand for its distribution's network.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Result;

use super::Route;

/// The v1 controllers come up read-only in a container; kubelet and runc make cgroups there, also after a boot that nobody attends.
const CGROUPS: &str = "[Unit]\nDescription=Writable cgroup controllers of a test host\nDefaultDependencies=no\nBefore=sysinit.target\n\
    [Service]\nType=oneshot\nRemainAfterExit=yes\n\
    ExecStart=/bin/sh -c \"grep -E ' /sys/fs/cgroup(/[^ ]*)? (cgroup|tmpfs)' /proc/self/mounts | cut -d' ' -f2 | \
    xargs -r -n1 mount -o remount,rw,bind\"\n\
    [Install]\nWantedBy=sysinit.target\n";

/// A host's addresses and where its default route leads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Legs {
    /// On the first bridge.
    pub(super) address: Ipv4Addr,
    /// On the second bridge, for hosts that have an interface there.
    pub(super) second: Ipv4Addr,
    /// The first bridge itself.
    pub(super) gateway: Ipv4Addr,
    /// The second bridge itself.
    pub(super) second_gateway: Ipv4Addr,
    /// What of this is used.
    pub(super) route: Route,
}

/// Writes all of it into a host's tree.
pub(super) fn furnish(tree: &Path, name: &str, legs: &Legs) -> Result<()> {
    address(tree, legs)?;
    enable(tree, "bed-address.service", &["multi-user.target", "network-online.target"])?;
    fs_err::write(tree.join("etc/systemd/system/bed-cgroups.service"), CGROUPS)?;
    enable(tree, "bed-cgroups.service", &["sysinit.target"])?;
    if legs.route == Route::Trap {
        fs_err::write(tree.join("etc/resolv.conf"), "nameserver 192.0.2.53\n")?;
    }
    // A host with several interfaces often knows itself by the wrong one.
    let own = if legs.route == Route::Second { legs.second } else { legs.address };
    fs_err::write(tree.join("etc/hostname"), format!("{name}\n"))?;
    Ok(fs_err::write(tree.join("etc/hosts"), format!("127.0.0.1 localhost\n{own} {name}\n"))?)
}

/// Writes the unit that sets the addresses: networkd waits for udev, which a container does not have.
pub(super) fn address(tree: &Path, legs: &Legs) -> Result<()> {
    let mut unit = format!(
        "[Unit]\nDescription=Static address of a test host\nDefaultDependencies=no\nBefore=network.target network-online.target\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\n\
         ExecStart=/usr/sbin/ip addr replace {}/24 dev host0\nExecStart=/usr/sbin/ip link set host0 up\n",
        legs.address
    );
    match legs.route {
        Route::None => {}
        Route::Trap => writeln!(unit, "ExecStart=/usr/sbin/ip route replace default via {}", legs.gateway)?,
        Route::Second => {
            writeln!(unit, "ExecStart=/usr/sbin/ip addr replace {}/24 dev host1", legs.second)?;
            writeln!(unit, "ExecStart=/usr/sbin/ip link set host1 up")?;
            writeln!(unit, "ExecStart=/usr/sbin/ip route replace default via {}", legs.second_gateway)?;
        }
    }
    unit.push_str("[Install]\nWantedBy=multi-user.target network-online.target\n");
    Ok(fs_err::write(tree.join("etc/systemd/system/bed-address.service"), unit)?)
}

fn enable(tree: &Path, unit: &str, targets: &[&str]) -> Result<()> {
    for target in targets {
        let directory = tree.join("etc/systemd/system").join(format!("{target}.wants"));
        fs_err::create_dir_all(&directory)?;
        fs_err::os::unix::fs::symlink(format!("../{unit}"), directory.join(unit))?;
    }
    Ok(())
}
