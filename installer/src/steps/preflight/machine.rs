//! The machine itself: architecture, init system, control groups, tools, processors, memory, limits.

use std::path::Path;

use super::finding::Finding;
use crate::checks::CheckName;
use crate::config::host::Swap;
use crate::context::Context;
use crate::facts::Cgroup;
use crate::host::swap::too_full;
use crate::steps::file::size;
use crate::steps::os_packages::{self, Problem};

/// A tool of the distribution, who needs it, and the packages that have it on Debian and on EL.
type Tool = (&'static str, &'static str, &'static str);

/// What every host needs.
const TOOLS: &[Tool] = &[("ip", "addresses, routes and the bridge of the pods", "iproute2 / iproute")];

/// What the programs of a node call.
const NODE_TOOLS: &[Tool] = &[
    ("iptables", "kube-proxy and the CNI plugins program the packet filter with it", "iptables / iptables-nft"),
    ("nft", "the agent keeps its own table for pod traffic that leaves the cluster", "nftables / nftables"),
    ("mount", "the kubelet mounts volumes with it", "mount / util-linux"),
    ("modprobe", "kernel modules", "kmod / kmod"),
];

/// The oldest systemd whose unit options the components use (EL8 has 239).
const SYSTEMD_NEEDED: u32 = 239;

/// All findings of this file.
pub(super) fn look(context: &Context<'_>) -> Vec<Finding> {
    let facts = context.facts;
    let mut findings = vec![
        match facts.architecture {
            Some(architecture) => Finding::good(CheckName::Architecture, "architecture", architecture.to_string()),
            None => Finding::refused(
                CheckName::Architecture,
                "architecture",
                "one Sealift does not know",
                "amd64 or arm64",
                "use another host",
            ),
        },
        init(context),
        processors(context),
        memory(context),
    ];
    let mut tools = TOOLS.to_vec();
    if context.roles.run_pods() {
        findings.push(cgroup(context));
        findings.extend(swap(context));
        tools.extend_from_slice(NODE_TOOLS);
    }
    for (tool, purpose, packages) in tools {
        if !facts.tools.contains_key(tool) {
            findings.push(Finding::refused(
                CheckName::Tools,
                format!("tool `{tool}`"),
                "nothing by that name",
                format!("it on the PATH ({purpose})"),
                format!("install the distribution's package (Debian / EL: {packages})"),
            ));
        }
    }
    findings.extend(packaged(context));
    findings.extend(packages(context));
    findings.extend(limits(context));
    findings
}

/// Programs that components expect from OS packages of this distribution.
fn packaged(context: &Context<'_>) -> Vec<Finding> {
    let share = context.share();
    let components = context.components.iter().filter(|component| share.has(component));
    let expected = components.flat_map(|component| {
        let programs = component.host_programs.get(share.distribution).into_iter().flatten();
        programs.map(|(_, path)| (&component.name, path))
    });
    // A bundle whose packages do not bring them is not built.
    let comes = matches!(os_packages::work_on(context), Ok(Some(_)));
    let expected = expected.filter(|_| !comes);
    let missing = expected.filter(|(_, path)| !context.host.exists(Path::new(path)).unwrap_or(false));
    let refused = missing.map(|(name, path)| {
        Finding::refused(
            CheckName::Programs,
            format!("program `{path}`"),
            "no such file",
            format!("it, for the component `{name}`"),
            format!("install the package that brings it; the bundle has it in `packages-{}`", share.distribution),
        )
    });
    refused.collect()
}

/// Packages of the bundle that this host cannot take, by its own package database.
fn packages(context: &Context<'_>) -> Vec<Finding> {
    let name = CheckName::Packages;
    let (_, work) = match os_packages::work_on(context) {
        Ok(Some(work)) => work,
        Ok(None) => return Vec::new(),
        Err(error) => {
            let needed = "one that can be read";
            let advice = "repair it with the distribution's tools";
            return vec![Finding::refused(name, "package database", format!("{error:#}"), needed, advice)];
        }
    };
    work.problems.into_iter().map(misfit).collect()
}

/// A package that does not fit.
pub(super) fn misfit(problem: Problem) -> Finding {
    let subject = format!("package `{}`", problem.package);
    Finding::refused(CheckName::Packages, subject, problem.text, "a host that the bundle's packages fit", problem.hint)
}

fn init(context: &Context<'_>) -> Finding {
    if !context.facts.systemd {
        return Finding::refused(
            CheckName::Systemd,
            "systemd",
            "another init system",
            "systemd as process 1",
            "use another host",
        );
    }
    // `systemd 252 (252.39-1~deb12u2)` or a bare number.
    let version = context.facts.tools.get("systemctl").map(String::as_str).unwrap_or_default();
    let number: u32 = version
        .split(|character: char| !character.is_ascii_digit())
        .find_map(|digits| digits.parse().ok())
        .unwrap_or(SYSTEMD_NEEDED);
    if number < SYSTEMD_NEEDED {
        return Finding::refused(
            CheckName::Systemd,
            "systemd",
            format!("version {number}"),
            format!("{SYSTEMD_NEEDED} or newer"),
            "use a newer distribution",
        );
    }
    Finding::good(CheckName::Systemd, "systemd", version)
}

fn cgroup(context: &Context<'_>) -> Finding {
    let kubelet = context.component("kubelet").map(|component| component.version.as_str()).unwrap_or_default();
    let minor = minor_of(kubelet);
    match context.facts.cgroup {
        Cgroup::Missing => Finding::refused(
            CheckName::Cgroup,
            "control groups",
            "none mounted",
            "version 1 or 2 below /sys/fs/cgroup",
            "mount them, or boot with systemd's defaults",
        ),
        // Since 1.35 the kubelet does not start on version 1 (release notes 1.35, #134298).
        Cgroup::V1 if minor.is_some_and(|minor| minor >= 35) => Finding::refused(
            CheckName::Cgroup,
            "control groups",
            "version 1",
            format!("version 2 for Kubernetes {kubelet}"),
            "boot with `systemd.unified_cgroup_hierarchy=1`",
        ),
        found => Finding::good(CheckName::Cgroup, "control groups", found.as_str()),
    }
}

/// `1.20.2` → 20.
fn minor_of(version: &str) -> Option<u32> {
    version.trim_start_matches('v').split('.').nth(1)?.parse().ok()
}

fn processors(context: &Context<'_>) -> Finding {
    let found = context.facts.cpus;
    let wanted = if context.roles.master() { 2 } else { 1 };
    if found < wanted {
        return Finding::limit(
            CheckName::Processors,
            "processors",
            found.to_string(),
            format!("{wanted} are better for this role"),
            "give the host another one",
        );
    }
    Finding::good(CheckName::Processors, "processors", found.to_string())
}

/// Memory in MiB that the programs of the roles take at rest, with room to work: measured values, rounded up.
fn memory_needed(context: &Context<'_>) -> u64 {
    let mut needed = 256;
    if context.config.runs_etcd(context.node) && (context.roles.master() || context.roles.etcd()) {
        needed += 256;
    }
    if context.roles.master() {
        needed += 768;
    }
    if context.roles.run_pods() {
        needed += 384;
    }
    needed
}

fn memory(context: &Context<'_>) -> Finding {
    let (found, needed) = (context.facts.memory_mib, memory_needed(context));
    if found < needed {
        return Finding::refused(
            CheckName::Memory,
            "memory",
            format!("{found} MiB"),
            format!("{needed} MiB for {}", context.roles),
            "give the host more memory",
        );
    }
    Finding::good(CheckName::Memory, "memory", format!("{found} MiB ({needed} needed)"))
}

/// What a capped host will be missing, in words.
fn limits(context: &Context<'_>) -> Vec<Finding> {
    let facts = context.facts;
    let mut limits = Vec::new();
    if let Some(container) = &facts.container {
        limits.push(Finding::limit(
            CheckName::Container,
            "container",
            container.clone(),
            "the kernel and its settings are the machine's",
            "settings and modules are made there; nothing to do where that is meant",
        ));
    }
    if !facts.oom_score_adj {
        limits.push(Finding::limit(
            CheckName::OomScore,
            "negative OOM score",
            "not allowed here",
            "services are not protected from the out-of-memory killer",
            "give this container CAP_SYS_RESOURCE",
        ));
    }
    if facts.nofile < 1 << 20 {
        limits.push(Finding::limit(
            CheckName::OpenFiles,
            "open files",
            facts.nofile.to_string(),
            "services get this hard limit",
            "raise the hard limit of what starts this host's systemd, or give it CAP_SYS_RESOURCE",
        ));
    }
    limits
}

/// The kubelet does not start with swap (`failSwapOn`); etcd alone runs. The host-settings step turns it off where it may and
/// can.
fn swap(context: &Context<'_>) -> Option<Finding> {
    let swap = &context.facts.swap;
    if swap.is_empty() {
        return None;
    }
    let found = format!("in use: {}", swap.join(", "));
    let refused = |advice: &str| {
        let needed = "none: the kubelet does not start with it";
        Some(Finding::refused(CheckName::Swap, "swap", found.clone(), needed, advice))
    };
    if context.facts.container.is_some() {
        return refused("on the machine that this container runs on: `swapoff -a`, and take it out of /etc/fstab");
    }
    if context.config.host.swap == Swap::Keep {
        return refused("`swap = \"off\"` in `[host]` of the cluster config, or turn it off yourself");
    }
    // What cannot be read is not refused: swapoff will say so.
    if let Ok(Some((used, available))) = too_full(context.host) {
        let needed = format!("memory for the {} in it, to turn it off; {} are available", size(used), size(available));
        return Some(Finding::refused(
            CheckName::Swap,
            "swap",
            found,
            needed,
            "end programs that this host does not need",
        ));
    }
    Some(Finding::good(CheckName::Swap, "swap", format!("{found}; it will be turned off")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minor_version_decides_about_control_groups() {
        assert_eq!(minor_of("1.20.2"), Some(20));
        assert_eq!(minor_of("v1.35.0+build"), Some(35));
        assert_eq!(minor_of(""), None);
    }
}
