//! What else works on this host: firewalls, clocks, upgrades, proxies, other container engines, package managers.

use std::net::IpAddr;

use bundle::component::Kind;
use ipnet::IpNet;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::finding::Finding;
use super::ports;
use crate::checks::CheckName;
use crate::config::host::Firewall;
use crate::context::Context;

/// All findings of this file.
pub(super) fn look(context: &Context<'_>) -> Vec<Finding> {
    let mut findings = firewall(context);
    findings.extend(clock(context));
    findings.extend(time_sync(context));
    findings.extend(upgrades(context));
    findings.extend(proxies(context));
    findings.extend(engines(context));
    findings.extend(package_managers(context));
    findings
}

/// Chains that drop what no rule lets in. Which rules do is not judged: the ports to open are listed.
fn firewall(context: &Context<'_>) -> Vec<Finding> {
    let (facts, name) = (context.facts, CheckName::Firewall);
    let mut findings: Vec<Finding> =
        facts.services.firewalls.iter().map(|unit| Finding::good(name, "firewall", unit)).collect();
    // The step `host-settings` adds rules, unless the config says that the firewall stays as it is.
    let opened = context.config.host.firewall == Firewall::Open;
    for chain in facts.chains.iter().filter(|chain| chain.policy == "drop") {
        let (found, subject) =
            ("drops what no rule accepts", format!("packet filter `{} {} {}`", chain.family, chain.table, chain.name));
        match chain.hook.as_str() {
            "input" | "forward" if opened => {
                findings.push(Finding::good(name, subject, format!("{found}; the cluster's ports are added")));
            }
            "input" => {
                let follows = "other hosts do not reach this one where no rule lets them in";
                findings.push(Finding::limit(name, subject, found, follows, format!("let in {}", openings(context))));
            }
            "forward" if context.roles.run_pods() => {
                let follows = "packets of pods are not passed on where no rule lets them through";
                let cluster = &context.config.cluster;
                let advice = format!("accept what comes from and goes to {}", cluster.pod_cidr);
                findings.push(Finding::limit(name, subject, found, follows, advice));
            }
            _ => {}
        }
    }
    findings
}

fn openings(context: &Context<'_>) -> String {
    let openings = ports::openings(context.config, context.node, context.roles);
    let from_others = openings.iter().filter(|opening| opening.from != ports::HOST);
    let named = from_others.map(|opening| match opening.port.as_str() {
        "" => format!("{} from {}", opening.protocol, opening.from),
        port => format!("{port}/{}", opening.protocol),
    });
    named.collect::<Vec<_>>().join(", ")
}

/// A clock that is before the bundle was made is wrong by days: certificates would begin in the past of every other host.
fn clock(context: &Context<'_>) -> Option<Finding> {
    let created: Date = context.created?.parse().ok()?;
    let (name, now) = (CheckName::Clock, context.host.now());
    // Somewhere on earth it is that day up to fourteen hours earlier.
    let earliest = created.yesterday().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
    let shown = now.strftime("%Y-%m-%d %H:%M UTC").to_string();
    if now >= earliest {
        return Some(Finding::good(name, "clock", shown));
    }
    let needed = format!("the present day: the bundle was made on {created}");
    Some(Finding::refused(name, "clock", shown, needed, "set the clock: `date --set=…` and `hwclock --systohc`"))
}

/// A container has the clock of its machine.
fn time_sync(context: &Context<'_>) -> Option<Finding> {
    let (facts, name, subject) = (context.facts, CheckName::TimeSync, "time");
    if facts.container.is_some() {
        return None;
    }
    let services = facts.clock.services.join(", ");
    let follows = "clocks of hosts drift apart, and certificates and leases depend on them";
    if services.is_empty() && !context.config.host.time_servers.is_empty() {
        return Some(Finding::good(name, subject, "none yet; the bundle's is set up with `time_servers`"));
    }
    if services.is_empty() {
        let advice = "let a time service run, or name servers in `time_servers` of `[host]`";
        return Some(Finding::limit(name, subject, "no time service runs", follows, advice));
    }
    if facts.clock.synchronised == Some(false) {
        let found = format!("{services} runs, and the clock is not synchronised");
        return Some(Finding::limit(name, subject, found, follows, "give it a server that it can reach"));
    }
    Some(Finding::good(name, subject, services))
}

fn upgrades(context: &Context<'_>) -> Option<Finding> {
    let timers = context.facts.services.upgrades.join(", ");
    let follows = "packages change, services restart and kernels come in whenever it likes";
    let advice = format!("`systemctl disable --now {timers}`, and upgrade node by node");
    let (name, subject, found) = (CheckName::UnattendedUpgrades, "unattended upgrades", format!("{timers} is active"));
    (!timers.is_empty()).then(|| Finding::limit(name, subject, found, follows, advice))
}

/// Variables that systemd gives to kubelet, apiserver and the others: Go programs send what they fetch through the proxy,
/// unless `NO_PROXY` names the host. Loopback never goes through it.
fn proxies(context: &Context<'_>) -> Option<Finding> {
    let variables = &context.facts.proxy_variables;
    let is_exception = |name: &str| name.eq_ignore_ascii_case("no_proxy");
    let named: Vec<&str> = variables.keys().map(String::as_str).filter(|name| !is_exception(name)).collect();
    if named.is_empty() {
        return None;
    }
    let exceptions: Vec<&str> = variables
        .iter()
        .filter(|(name, _)| is_exception(name))
        .flat_map(|(_, list)| list.split(','))
        .map(str::trim)
        .collect();
    let mut missing: Vec<String> = context
        .config
        .nodes
        .iter()
        .map(|node| node.address)
        .filter(|address| !exceptions.iter().any(|exception| covers(exception, *address)))
        .map(|address| address.to_string())
        .collect();
    let services = context.config.cluster.service_cidr;
    if !exceptions.iter().any(|exception| covers(exception, services.addr())) {
        missing.push(services.to_string());
    }
    let subject = "proxy variables of systemd";
    let found = named.join(", ");
    let name = CheckName::ProxyVariables;
    if missing.is_empty() {
        return Some(Finding::good(name, subject, format!("{found}, with the cluster in NO_PROXY")));
    }
    let needed = format!("NO_PROXY with {}: the cluster's own traffic would go through the proxy", missing.join(", "));
    let advice = "take them out of `DefaultEnvironment=` (/etc/systemd/system.conf) or complete NO_PROXY there, then `systemctl daemon-reexec`";
    Some(Finding::refused(name, subject, found, needed, advice))
}

/// Whether an entry of `NO_PROXY` names an address, as Go reads it: `*`, an address, a network.
fn covers(entry: &str, address: IpAddr) -> bool {
    entry == "*"
        || entry.parse::<IpAddr>().is_ok_and(|found| found == address)
        || entry.parse::<IpNet>().is_ok_and(|network| network.contains(&address))
}

fn engines(context: &Context<'_>) -> Option<Finding> {
    let engines = context.facts.services.engines.join(", ");
    if engines.is_empty() || !context.roles.run_pods() {
        return None;
    }
    let follows = "it shares the packet filter and the disk with this node (Docker has what is forwarded dropped)";
    let advice = format!("`systemctl disable --now {engines}` if nothing needs it");
    Some(Finding::limit(
        CheckName::OtherRuntimes,
        "other container engines",
        format!("{engines} is active"),
        follows,
        advice,
    ))
}

/// Only where packages are to be installed.
fn package_managers(context: &Context<'_>) -> Option<Finding> {
    let busy = context.facts.package_managers.join("; ");
    if busy.is_empty() {
        return None;
    }
    let share = context.share();
    let installs = context
        .components
        .iter()
        .any(|component| matches!(component.kind, Kind::Packages | Kind::Kernel) && share.has(component));
    let (name, subject) = (CheckName::PackageManager, "package manager");
    if !installs {
        return Some(Finding::limit(
            name,
            subject,
            busy,
            "this run installs no packages",
            "nothing; it may change this host while the run does",
        ));
    }
    // It may end before packages are installed: that step waits, and refuses then.
    Some(Finding::limit(
        name,
        subject,
        busy,
        "the step os-packages waits for it, as long as `--wait` says",
        "let it end",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_from_the_proxy_are_addresses_and_networks() {
        let address: IpAddr = "10.1.2.3".parse().unwrap();
        for entry in ["*", "10.1.2.3", "10.0.0.0/8"] {
            assert!(covers(entry, address), "{entry}");
        }
        for entry in ["", "10.1.2.4", "10.2.0.0/16", ".example.com", "10.1.2"] {
            assert!(!covers(entry, address), "{entry}");
        }
    }
}
