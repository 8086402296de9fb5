//! Addresses and ports: the configured address is on this host, and nobody else holds the ports of its roles.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use bundle::component::Role;

use super::finding::Finding;
use super::ports::{self, Holder, Port};
use crate::checks::CheckName;
use crate::context::Context;
use crate::host::Command;

/// Interfaces that a node of ours has inside the cluster's networks, rightly: the bridge of the pods has an address in the
/// pod network, and kube-proxy in ipvs mode puts every service address on its dummy interface.
const OWN_INTERFACES: &[&str] = &["cni0", "kube-ipvs0"];

/// How long a name may take to be resolved.
const RESOLVING: Duration = Duration::from_secs(2);
/// Names that are asked for at the same time. The first of these groups with an unknown name ends the asking.
const NAMES_AT_ONCE: usize = 16;

/// All findings of this file.
pub(super) fn look(context: &Context<'_>) -> Result<Vec<Finding>> {
    let mut findings = vec![address(context)];
    // A dedicated etcd member has no part in these networks.
    if context.roles.run_pods() {
        findings.extend(overlaps(context));
    }
    findings.extend(taken_ports(context)?);
    findings.extend(default_routes(context));
    findings.extend(mtu_of_pods(context));
    findings.extend(unresolved(context));
    Ok(findings)
}

/// Names of the API that this host cannot resolve. The cluster itself needs no name: its users do. All are asked at once,
/// because a name server that is away costs its whole timeout.
fn unresolved(context: &Context<'_>) -> Option<Finding> {
    let resolves = |name: &String| {
        let command = Command::new("getent").args(["ahosts", name]).timeout(RESOLVING);
        context.host.try_run(&command).is_ok_and(|found| found.success())
    };
    let names: Vec<&String> = context.config.api_names.iter().collect();
    let mut unknown: Vec<&str> = Vec::new();
    for some in names.chunks(NAMES_AT_ONCE) {
        let known: Vec<bool> = std::thread::scope(|scope| {
            let asked: Vec<_> = some.iter().map(|name| scope.spawn(|| resolves(name))).collect();
            asked.into_iter().map(|asked| asked.join().unwrap_or_default()).collect()
        });
        unknown.extend(some.iter().zip(known).filter(|(_, known)| !known).map(|(name, _)| name.as_str()));
        if !unknown.is_empty() {
            break;
        }
    }
    let first = "users of the API need them (`api_names`)";
    let advice = "put them into the name server, or into /etc/hosts where the API is used";
    (!unknown.is_empty()).then(|| {
        Finding::limit(CheckName::ApiNames, "names", format!("cannot resolve {}", unknown.join(", ")), first, advice)
    })
}

fn address(context: &Context<'_>) -> Finding {
    let wanted = context.node.address;
    if let Some(found) = context.facts.addresses.iter().find(|found| found.address == wanted) {
        return Finding::good(CheckName::Address, "address", format!("{wanted} on {}", found.interface));
    }
    let found: Vec<String> = context.facts.addresses().iter().map(ToString::to_string).collect();
    Finding::refused(
        CheckName::Address,
        "address",
        if found.is_empty() { "none".to_owned() } else { found.join(", ") },
        format!("{wanted}, the address of node `{}` in the cluster config", context.node.name),
        "correct the config or the host's network",
    )
}

/// With several of the same weight, which one a packet takes is not decided by anybody.
fn default_routes(context: &Context<'_>) -> Option<Finding> {
    let routes = &context.facts.default_routes;
    for family in [true, false] {
        // Routes without a router have no family of their own; `ip -4` comes first.
        let of: Vec<_> =
            routes.iter().filter(|route| route.gateway.is_none_or(|gateway| gateway.is_ipv4()) == family).collect();
        let Some(lowest) = of.iter().map(|route| route.metric).min() else { continue };
        let equal: Vec<&str> =
            of.iter().filter(|route| route.metric == lowest).map(|route| route.interface.as_str()).collect();
        if equal.len() > 1 {
            let found = format!("{} of the same metric: {}", equal.len(), equal.join(", "));
            let follows = "packets to elsewhere leave over any of them, and answers may not come back";
            let advice = "give them different metrics";
            return Some(Finding::limit(CheckName::DefaultRoutes, "default routes", found, follows, advice));
        }
    }
    None
}

/// The bridge of the pods must not take larger packets than the interface they leave by.
fn mtu_of_pods(context: &Context<'_>) -> Option<Finding> {
    let facts = context.facts;
    let mtu = |name: &str| facts.interfaces.iter().find(|found| found.name == name).map(|found| found.mtu);
    let own = facts.addresses.iter().find(|found| found.address == context.node.address)?;
    let (bridge, outside) = (mtu(OWN_INTERFACES[0])?, mtu(&own.interface)?);
    let found = format!("{bridge} on {}, {outside} on {}", OWN_INTERFACES[0], own.interface);
    let follows = "large packets of pods are lost on their way to other nodes";
    let advice = format!("`ip link set {} mtu {outside}`, or a larger MTU on {}", OWN_INTERFACES[0], own.interface);
    (bridge > outside).then(|| Finding::limit(CheckName::Mtu, "MTU of pods", found, follows, advice))
}

/// Addresses of this host inside the networks that the cluster uses for itself.
fn overlaps(context: &Context<'_>) -> Vec<Finding> {
    let cluster = &context.config.cluster;
    let mut findings = Vec::new();
    for (what, network) in [("service", cluster.service_cidr), ("pod", cluster.pod_cidr)] {
        for found in &context.facts.addresses {
            if OWN_INTERFACES.contains(&found.interface.as_str()) || !network.contains(&found.address) {
                continue;
            }
            findings.push(Finding::refused(
                CheckName::OverlappingNetworks,
                format!("{what} network"),
                format!("{} on {}, inside {network}", found.address, found.interface),
                "a network of its own",
                format!("choose another `{what}_cidr`"),
            ));
        }
    }
    findings
}

fn taken_ports(context: &Context<'_>) -> Result<Vec<Finding>> {
    let roles: Vec<Role> = context.roles.iter().collect();
    let wanted = ports::of_roles(&roles, context.config.runs_etcd(context.node));
    let held: Vec<Port> = wanted
        .into_iter()
        .filter(|port| {
            context.facts.listening.iter().any(|(number, at)| *number == port.number && concerns(*at, context))
        })
        .collect();
    if held.is_empty() {
        return Ok(Vec::new());
    }
    // Only now is it worth asking who: most hosts have none of them in use.
    let command = Command::new("ss").args(["--listening", "--tcp", "--numeric", "--processes", "--no-header"]);
    let listeners =
        context.host.try_run(&command).map(|finished| ports::listeners(&finished.text())).unwrap_or_default();
    let mut findings = Vec::new();
    for port in held {
        let holder = listeners.get(&port.number).cloned().flatten();
        if !is_ours(context, &holder, port.unit)? {
            let by = holder.map_or("an unknown process".to_owned(), |(name, pid)| format!("`{name}` (process {pid})"));
            findings.push(Finding::refused(
                CheckName::Ports,
                format!("port {}", port.number),
                format!("in use by {by}"),
                format!("free for {}", port.purpose),
                "stop that program, or use another host",
            ));
        }
    }
    Ok(findings)
}

/// Whether a listener there is in the way of ours: on all addresses, on loopback, or on the node's own.
fn concerns(at: IpAddr, context: &Context<'_>) -> bool {
    at.is_unspecified() || at.is_loopback() || at == context.node.address
}

/// Whether the process belongs to the unit of ours that this port is for.
fn is_ours(context: &Context<'_>, holder: &Holder, unit: &str) -> Result<bool> {
    let Some((_, pid)) = holder else { return Ok(false) };
    let cgroup = context.host.read_text(&Path::new("/proc").join(pid.to_string()).join("cgroup"))?.unwrap_or_default();
    Ok(cgroup.lines().any(|line| line.ends_with(&format!("/{unit}"))))
}
