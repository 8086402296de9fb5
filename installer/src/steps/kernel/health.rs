//! The gate: the host on the new kernel held against the host before the reboot.
//!
//! Only what was well before counts. What this host cannot be reached or work without sends it back: the node's address, the
//! default route in use, interfaces with a cable in them, mounts that every boot needs, units that a boot starts, modules.
//! What may be another cause's (an address that floats, a bridge, a `nofail` mount, a timer's job that needs the internet) is
//! said and does not count. Two acts prove what no list says: an overlay mount and a packet-filter rule.

mod look;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::context::proxy_mode::IPVS_MODULES;
use crate::host::{Command, Host};

/// What of a host can be compared before and after a reboot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Snapshot {
    /// Interfaces.
    pub interfaces: BTreeSet<String>,
    /// Those with hardware behind them and a cable in them.
    pub links: BTreeSet<String>,
    /// The node's address, when this host has it.
    pub node: Option<IpAddr>,
    /// `eth0 192.0.2.1/24`.
    pub addresses: BTreeSet<String>,
    /// `via 192.0.2.254 dev eth0`, the one in use first; of the version of the node's address.
    pub routes: Vec<String>,
    /// Mounted directories of `/etc/fstab`, with their file systems.
    pub mounts: BTreeSet<String>,
    /// Those of them that a boot can do without.
    pub optional_mounts: BTreeSet<String>,
    /// Units that have failed.
    pub failed_units: BTreeSet<String>,
    /// Those of them that no boot starts.
    pub event_units: BTreeSet<String>,
    /// Modules of the plan that the kernel had, or had built in.
    pub modules: BTreeSet<String>,
    /// Whether an overlay could be mounted.
    pub overlay: bool,
    /// Whether a packet-filter rule could be made.
    pub packet_filter: bool,
}

/// What is not as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Reasons to go back.
    pub bad: Vec<String>,
    /// No reasons.
    pub other: Vec<String>,
}

impl Snapshot {
    /// Looks at the host as it is now. Loads no module for good that it did not find; the two acts leave nothing behind.
    pub(super) fn take(context: &Context<'_>) -> Result<Self> {
        let host = context.host;
        let interfaces = look::interfaces(host)?;
        let addresses = look::addresses(host, context.facts);
        let node = context.node.address;
        let is_node = |text: &String| text.contains(&format!(" {node}/"));
        let mounts = look::mounts(host)?;
        let failed_units = look::failed_units(host)?;
        let mut event_units = BTreeSet::new();
        for unit in &failed_units {
            if look::is_started_by_events(host, unit)? {
                event_units.insert(unit.clone());
            }
        }
        Ok(Self {
            links: look::links(host, &interfaces)?,
            interfaces,
            node: addresses.iter().any(is_node).then_some(node),
            addresses,
            routes: look::routes(host, if node.is_ipv4() { "-4" } else { "-6" })?,
            mounts: mounts.required,
            optional_mounts: mounts.optional,
            failed_units,
            event_units,
            modules: modules(context).into_iter().filter(|name| context.facts.modules.available(name)).collect(),
            overlay: look::overlay(host).is_ok(),
            packet_filter: look::packet_filter(host).is_ok(),
        })
    }

    /// What is worse now than it was; empty on a healthy host.
    pub(super) fn difference(&self, now: &Self) -> Difference {
        let gone = |what: &str, before: &BTreeSet<String>, now: &BTreeSet<String>| {
            before.difference(now).map(|name| format!("{what} {name} is gone")).collect::<Vec<_>>()
        };
        let (mut bad, mut other) = (Vec::new(), Vec::new());
        for link in self.links.difference(&now.links) {
            let there = now.interfaces.contains(link);
            bad.push(format!("interface {link} {}", if there { "has no carrier" } else { "is gone" }));
        }
        let named = gone("interface", &self.interfaces, &now.interfaces);
        other.extend(named.into_iter().filter(|reason| !bad.contains(reason)));
        let lost = self.node.filter(|_| now.node != self.node);
        bad.extend(lost.map(|node| format!("the node's address {node} is gone")));
        let of_node = |text: &String| lost.is_some_and(|node| text.contains(&format!(" {node}/")));
        let lost = self.addresses.iter().filter(|address| !of_node(address)).cloned().collect();
        other.extend(gone("address", &lost, &now.addresses));
        for (index, route) in self.routes.iter().enumerate().filter(|(_, route)| !now.routes.contains(route)) {
            // Another gateway by the same interface is the network's doing.
            let device = |route: &str| route.rsplit(' ').next().map(str::to_owned);
            let same = now.routes.iter().any(|found| device(found) == device(route));
            let of = if index == 0 && !same { &mut bad } else { &mut other };
            of.push(format!("default route {route} is gone"));
        }
        bad.extend(gone("mount", &self.mounts, &now.mounts));
        other.extend(gone("mount", &self.optional_mounts, &now.optional_mounts));
        let units = now.failed_units.difference(&self.failed_units).filter(|unit| !unit.starts_with("sealift-"));
        for unit in units {
            let of = if now.event_units.contains(unit) { &mut other } else { &mut bad };
            of.push(format!("unit {unit} has failed"));
        }
        bad.extend(gone("kernel module", &self.modules, &now.modules));
        if self.overlay && !now.overlay {
            bad.push("an overlay cannot be mounted".to_owned());
        }
        if self.packet_filter && !now.packet_filter {
            bad.push("a packet-filter rule cannot be made".to_owned());
        }
        Difference { bad, other }
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

#[cfg(test)]
mod tests;
