//! What the gate reads of a host.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::facts::{Facts, which};
use crate::host::{Command, Host, mount_point};

/// Beginnings of the names of interfaces that pods and services have: they come and go with those.
const OF_PODS: [&str; 10] =
    ["cni", "kube-", "flannel", "cali", "vxlan.", "tunl", "veth", "docker", "br-", "nodelocaldns"];
/// File systems of other hosts: whether they can be mounted is not this kernel's doing alone.
const REMOTE: [&str; 11] =
    ["nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "lustre", "beegfs", "9p", "fuse.sshfs", "fuse.glusterfs"];
/// Where the overlay is tried.
const OVERLAY: &str = "/run/sealift/overlay-trial";
/// A rule set that is gone again when the transaction ends; a kernel without nf_tables or connection tracking refuses it.
const RULES: &str = "add table inet sealift_trial\n\
    add chain inet sealift_trial probe { type filter hook input priority 0; policy accept; }\n\
    add rule inet sealift_trial probe ct state established counter accept\n\
    delete table inet sealift_trial\n";

/// All but loopback and those of pods.
pub(super) fn interfaces(host: &Host) -> Result<BTreeSet<String>> {
    let names = host.list(Path::new("/sys/class/net"))?.into_iter();
    Ok(names.filter(|name| name != "lo" && name != "bonding_masters" && !of_pods(name)).collect())
}

/// Those with hardware behind them and a cable in them. Reading the carrier of one that is down is an error.
pub(super) fn links(host: &Host, interfaces: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for name in interfaces {
        let place = Path::new("/sys/class/net").join(name);
        let carrier = host.read_text(&place.join("carrier")).ok().flatten();
        if host.exists(&place.join("device"))? && carrier.is_some_and(|text| text.trim() == "1") {
            found.insert(name.clone());
        }
    }
    Ok(found)
}

fn of_pods(interface: &str) -> bool {
    OF_PODS.iter().any(|pods| interface.starts_with(pods))
}

/// As they are now: facts of the run's beginning may be older than the host's DHCP lease.
pub(super) fn addresses(host: &Host, facts: &Facts) -> BTreeSet<String> {
    let now = Facts::addresses_now(host).unwrap_or_else(|_| facts.addresses.clone());
    let own = now.into_iter().filter(|found| !of_pods(&found.interface));
    // Link-local addresses are made anew by every kernel, some at random.
    let lasting = own.filter(|found| match found.address {
        std::net::IpAddr::V4(address) => !address.is_link_local(),
        std::net::IpAddr::V6(address) => !address.is_unicast_link_local(),
    });
    lasting.map(|found| format!("{} {}/{}", found.interface, found.address, found.prefix)).collect()
}

/// Default routes of an IP version, the one that is used first.
pub(super) fn routes(host: &Host, version: &str) -> Result<Vec<String>> {
    let text = host.run(&Command::new("ip").args([version, "route", "show", "default"]))?.text();
    let route = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |key: &str| words.iter().position(|word| *word == key).and_then(|at| words.get(at + 1)).copied();
        let via = after("via").map(|gateway| format!("via {gateway} ")).unwrap_or_default();
        after("dev").map(|device| format!("{via}dev {device}"))
    };
    Ok(text.lines().filter_map(route).collect())
}

/// Mounts of `/etc/fstab`.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    /// Those without which this host does not start as it should.
    pub required: BTreeSet<String>,
    /// Those that may be missing: `nofail`, and file systems of other hosts.
    pub optional: BTreeSet<String>,
}

/// Only what every boot mounts: the stick with the bundle may be pulled, and an automount comes when it is used.
pub(super) fn mounts(host: &Host) -> Result<Mounts> {
    let table = host.read_lossy(Path::new("/etc/fstab"))?.unwrap_or_default();
    let (mut required, mut optional) = (BTreeSet::from(["/"]), BTreeSet::new());
    for line in table.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[_, place, kind, ref rest @ ..] = fields.as_slice() else { continue };
        let options: Vec<&str> = rest.first().copied().unwrap_or_default().split(',').collect();
        let has = |option: &str| options.contains(&option);
        if place == "/" || !place.starts_with('/') || has("noauto") || has("x-systemd.automount") {
            continue;
        }
        if has("nofail") || has("_netdev") || REMOTE.contains(&kind) {
            optional.insert(place);
        } else {
            required.insert(place);
        }
    }
    let mounted = host.read_text(Path::new("/proc/self/mountinfo"))?.unwrap_or_default();
    let mut found = Mounts::default();
    for line in mounted.lines() {
        let kind = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').next());
        let (Some(place), Some(kind)) = (mount_point(line), kind) else { continue };
        let place = place.to_string_lossy();
        let of = if required.contains(&*place) {
            &mut found.required
        } else if optional.contains(&*place) {
            &mut found.optional
        } else {
            continue;
        };
        of.insert(format!("{place} ({kind})"));
    }
    Ok(found)
}

pub(super) fn failed_units(host: &Host) -> Result<BTreeSet<String>> {
    let command = Command::new("systemctl").args(["list-units", "--failed", "--plain", "--no-legend", "--no-pager"]);
    let text = host.run(&command).context("asking for failed units")?.text();
    Ok(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

/// Whether no boot starts a unit, but a timer or a path does, or a connection (an instance of its template): it fails of the
/// world outside (no internet, a client that goes away) as well as of the kernel. Socket-activated daemons count as of the
/// boot.
pub(super) fn is_started_by_events(host: &Host, unit: &str) -> Result<bool> {
    let properties = "--property=TriggeredBy,WantedBy,RequiredBy,UpheldBy";
    let text = host.run(&Command::new("systemctl").args(["show", properties, "--", unit]))?.text();
    let (mut triggered, mut wanted) = (false, false);
    for (name, units) in text.lines().filter_map(|line| line.split_once('=')) {
        let mut units = units.split_whitespace();
        match name {
            "TriggeredBy" => {
                triggered |= units.any(|of| match of.rsplit_once('.') {
                    Some((_, "timer" | "path")) => true,
                    Some((_, "socket")) => unit.contains('@'),
                    _ => false,
                });
            }
            "WantedBy" | "RequiredBy" | "UpheldBy" => wanted |= units.next().is_some(),
            _ => {}
        }
    }
    Ok(triggered && !wanted)
}

/// Mounts an overlay with an upper directory, and takes it away again.
pub(super) fn overlay(host: &Host) -> Result<()> {
    let place = Path::new(OVERLAY);
    for part in ["lower", "upper", "work", "merged"] {
        host.create_dir(&place.join(part), 0o700)?;
    }
    let options = format!("lowerdir={OVERLAY}/lower,upperdir={OVERLAY}/upper,workdir={OVERLAY}/work");
    let merged = place.join("merged");
    let mount = Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&merged);
    let done = host.run(&mount).and_then(|_| host.run(&Command::new("umount").arg(&merged)));
    host.remove_tree(place)?;
    done.map(drop)
}

/// Makes a rule that needs connection tracking, and takes it away again.
pub(super) fn packet_filter(host: &Host) -> Result<()> {
    if which(host, "nft")?.is_some() {
        return host.run(&Command::new("nft").args(["-f", "-"]).input(RULES)).map(drop);
    }
    let chain = "SEALIFT-TRIAL";
    host.run(&Command::new("iptables").args(["-w", "-t", "filter", "-N", chain]))?;
    let rule = ["-w", "-t", "filter", "-A", chain, "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT"];
    let made = host.run(&Command::new("iptables").args(rule));
    for flag in ["-F", "-X"] {
        host.try_run(&Command::new("iptables").args(["-w", "-t", "filter", flag, chain]))?;
    }
    made.map(drop)
}
