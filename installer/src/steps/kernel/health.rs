//! The gate: the host on the new kernel held against the host before the reboot.
//!
//! Only what was well before counts: interfaces, addresses, default routes, mounts of `/etc/fstab`, units that did not fail,
//! modules that were there. Two acts prove what no list says: an overlay mount and a packet-filter rule.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::context::proxy_mode::IPVS_MODULES;
use crate::facts::{Facts, which};
use crate::host::{Command, Host, mount_point};

/// Beginnings of the names of interfaces that pods and services have: they come and go with those.
const OF_PODS: [&str; 10] =
    ["cni", "kube-", "flannel", "cali", "vxlan.", "tunl", "veth", "docker", "br-", "nodelocaldns"];
/// Where the overlay is tried.
const OVERLAY: &str = "/run/sealift/overlay-trial";
/// A rule set that is gone again when the transaction ends; a kernel without nf_tables or connection tracking refuses it.
const RULES: &str = "add table inet sealift_trial\n\
    add chain inet sealift_trial probe { type filter hook input priority 0; policy accept; }\n\
    add rule inet sealift_trial probe ct state established counter accept\n\
    delete table inet sealift_trial\n";

/// What of a host can be compared before and after a reboot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Snapshot {
    /// Interfaces.
    pub interfaces: BTreeSet<String>,
    /// `eth0 192.0.2.1/24`.
    pub addresses: BTreeSet<String>,
    /// `via 192.0.2.254 dev eth0`.
    pub routes: BTreeSet<String>,
    /// Mounted directories of `/etc/fstab`, with their file systems.
    pub mounts: BTreeSet<String>,
    /// Units that have failed.
    pub failed_units: BTreeSet<String>,
    /// Modules of the plan that the kernel had, or had built in.
    pub modules: BTreeSet<String>,
    /// Whether an overlay could be mounted.
    pub overlay: bool,
    /// Whether a packet-filter rule could be made.
    pub packet_filter: bool,
}

impl Snapshot {
    /// Looks at the host as it is now. Loads no module for good that it did not find; the two acts leave nothing behind.
    pub(super) fn take(context: &Context<'_>) -> Result<Self> {
        let host = context.host;
        Ok(Self {
            interfaces: interfaces(host)?,
            addresses: addresses(context.host, context.facts),
            routes: routes(host)?,
            mounts: mounts(host)?,
            failed_units: failed_units(host)?,
            modules: modules(context).into_iter().filter(|name| context.facts.modules.available(name)).collect(),
            overlay: overlay(host).is_ok(),
            packet_filter: packet_filter(host).is_ok(),
        })
    }

    /// What is worse now than it was; empty on a healthy host.
    pub(super) fn worse(&self, now: &Self) -> Vec<String> {
        let gone = |what: &str, before: &BTreeSet<String>, now: &BTreeSet<String>| {
            before.difference(now).map(|name| format!("{what} {name} is gone")).collect::<Vec<_>>()
        };
        let mut worse = gone("interface", &self.interfaces, &now.interfaces);
        worse.extend(gone("address", &self.addresses, &now.addresses));
        worse.extend(gone("default route", &self.routes, &now.routes));
        worse.extend(gone("mount", &self.mounts, &now.mounts));
        let units = now.failed_units.difference(&self.failed_units).filter(|unit| !unit.starts_with("sealift-"));
        worse.extend(units.map(|unit| format!("unit {unit} has failed")));
        worse.extend(gone("kernel module", &self.modules, &now.modules));
        if self.overlay && !now.overlay {
            worse.push("an overlay cannot be mounted".to_owned());
        }
        if self.packet_filter && !now.packet_filter {
            worse.push("a packet-filter rule cannot be made".to_owned());
        }
        worse
    }
}

/// Modules that the plan of this host needs.
pub(super) fn modules(context: &Context<'_>) -> BTreeSet<String> {
    let components = context.components.iter().filter(|component| context.share().has(component));
    let named = components.flat_map(|component| component.modules.iter().cloned());
    let base = ["overlay", "br_netfilter", "nf_conntrack", "nf_tables", "veth", "bridge"];
    let pods = context.roles.run_pods();
    let further = base.into_iter().chain(IPVS_MODULES).filter(|_| pods).map(str::to_owned);
    named.chain(further).collect()
}

/// Loads what the plan needs, so that modules that are there and do not work show it; `Snapshot::take` must have been told
/// by facts that were gathered on the running kernel. Gives what does not load.
pub(super) fn load(context: &Context<'_>, before: &Snapshot) -> Result<Vec<String>> {
    let mut refused = Vec::new();
    for name in before.modules.iter().filter(|name| context.facts.modules.loadable.contains(*name)) {
        let finished = context.host.try_run(&Command::new("modprobe").arg("--").arg(name))?;
        if !finished.success() {
            refused.push(format!("kernel module {name} does not load: {}", finished.tail()));
        }
    }
    Ok(refused)
}

/// Waits until systemd has no more to start, at most so long: units that still start have not failed yet.
pub(super) fn settle(host: &Host, at_most: Duration) -> Result<()> {
    let settled = host.wait("the host to have started", at_most, Duration::from_secs(2), || {
        let state = host.try_run(&Command::new("systemctl").arg("is-system-running"))?.text();
        Ok((!["starting", "initializing"].contains(&state.trim())).then_some(()))
    });
    // A host that takes longer is looked at as it is.
    let interrupted = crate::engine::interrupted();
    settled.or_else(|error| if interrupted { Err(error) } else { Ok(()) })
}

fn interfaces(host: &Host) -> Result<BTreeSet<String>> {
    let names = host.list(Path::new("/sys/class/net"))?.into_iter();
    Ok(names.filter(|name| name != "lo" && name != "bonding_masters" && !of_pods(name)).collect())
}

fn of_pods(interface: &str) -> bool {
    OF_PODS.iter().any(|pods| interface.starts_with(pods))
}

/// As they are now: facts of the run's beginning may be older than the host's DHCP lease.
fn addresses(host: &Host, facts: &Facts) -> BTreeSet<String> {
    let now = Facts::addresses_now(host).unwrap_or_else(|_| facts.addresses.clone());
    let own = now.into_iter().filter(|found| !of_pods(&found.interface));
    // Link-local addresses are made anew by every kernel, some at random.
    let lasting = own.filter(|found| match found.address {
        std::net::IpAddr::V4(address) => !address.is_link_local(),
        std::net::IpAddr::V6(address) => !address.is_unicast_link_local(),
    });
    lasting.map(|found| format!("{} {}/{}", found.interface, found.address, found.prefix)).collect()
}

fn routes(host: &Host) -> Result<BTreeSet<String>> {
    let text = host.run(&Command::new("ip").args(["route", "show", "default"]))?.text();
    let route = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |key: &str| words.iter().position(|word| *word == key).and_then(|at| words.get(at + 1)).copied();
        let via = after("via").map(|gateway| format!("via {gateway} ")).unwrap_or_default();
        after("dev").map(|device| format!("{via}dev {device}"))
    };
    Ok(text.lines().filter_map(route).collect())
}

/// Only what every boot mounts: the stick with the bundle may be pulled.
fn mounts(host: &Host) -> Result<BTreeSet<String>> {
    let table = host.read_text(Path::new("/etc/fstab"))?.unwrap_or_default();
    let lines = table.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let wanted: BTreeSet<String> = lines
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let options = fields.get(3).copied().unwrap_or_default();
            let every_boot = !options.split(',').any(|option| matches!(option, "noauto" | "x-systemd.automount"));
            (every_boot && fields.get(1)?.starts_with('/')).then(|| fields[1].to_owned())
        })
        .chain(["/".to_owned()])
        .collect();
    let mounted = host.read_text(Path::new("/proc/self/mountinfo"))?.unwrap_or_default();
    let found = mounted.lines().filter_map(|line| {
        let place = mount_point(line)?.to_string_lossy().into_owned();
        let kind = line.split(" - ").nth(1)?.split(' ').next()?;
        wanted.contains(&place).then(|| format!("{place} ({kind})"))
    });
    Ok(found.collect())
}

fn failed_units(host: &Host) -> Result<BTreeSet<String>> {
    let command = Command::new("systemctl").args(["list-units", "--failed", "--plain", "--no-legend", "--no-pager"]);
    let text = host.run(&command).context("asking for failed units")?.text();
    Ok(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

/// Mounts an overlay with an upper directory, and takes it away again.
fn overlay(host: &Host) -> Result<()> {
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

fn packet_filter(host: &Host) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn healthy() -> Snapshot {
        Snapshot {
            interfaces: set(&["eth0"]),
            addresses: set(&["eth0 192.0.2.1/24"]),
            routes: set(&["via 192.0.2.254 dev eth0"]),
            mounts: set(&["/ (ext4)", "/data (xfs)"]),
            failed_units: set(&["old.service"]),
            modules: set(&["overlay", "ip_vs"]),
            overlay: true,
            packet_filter: true,
        }
    }

    #[test]
    fn only_what_was_well_before_counts_and_each_loss_is_named() {
        let before = healthy();
        assert_eq!(before.worse(&before), Vec::<String>::new());
        let more = Snapshot { interfaces: set(&["eth0", "eth1"]), failed_units: set(&[]), ..healthy() };
        assert_eq!(before.worse(&more), Vec::<String>::new(), "better is no reason to go back");
        assert_eq!(before.worse(&Snapshot { failed_units: set(&["sealift-resume.service"]), ..healthy() }), [""; 0]);
        for (now, expected) in [
            (Snapshot { interfaces: set(&[]), ..healthy() }, "interface eth0 is gone"),
            (Snapshot { addresses: set(&[]), ..healthy() }, "address eth0 192.0.2.1/24 is gone"),
            (Snapshot { routes: set(&["dev eth0"]), ..healthy() }, "default route via 192.0.2.254 dev eth0 is gone"),
            (Snapshot { mounts: set(&["/ (ext4)"]), ..healthy() }, "mount /data (xfs) is gone"),
            (Snapshot { failed_units: set(&["ssh.service"]), ..healthy() }, "unit ssh.service has failed"),
            (Snapshot { modules: set(&["overlay"]), ..healthy() }, "kernel module ip_vs is gone"),
            (Snapshot { overlay: false, ..healthy() }, "an overlay cannot be mounted"),
            (Snapshot { packet_filter: false, ..healthy() }, "a packet-filter rule cannot be made"),
        ] {
            assert_eq!(before.worse(&now), [expected]);
        }
    }
}
