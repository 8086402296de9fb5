//! firewalld: ports in the zone of the node's interface; the pods' network as a source of the zone `trusted`; with Sealift's
//! own pod network its bridge in the same zone as the interface, and forwarding inside that zone.
//!
//! Each element is added to the running configuration and to the one on disk by itself: a reload would drop what somebody
//! else has only added to the running one.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use super::Wanted;
use crate::agent::cni::BRIDGE;
use crate::context::Context;
use crate::facts::which;
use crate::host::firewall::Rule;
use crate::host::{Command, Host};

const TRUSTED: &str = "trusted";

/// firewalld as it is.
#[derive(Debug)]
pub(super) struct Firewalld {
    zone: String,
    /// What zones have, by zone and whether on disk.
    zones: BTreeMap<(String, bool), Zone>,
}

/// `firewall-cmd --list-all`: words by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Zone(BTreeMap<String, Vec<String>>);

impl Firewalld {
    /// `None` when it does not run.
    pub(super) fn of(context: &Context<'_>) -> Result<Option<Self>> {
        let host = context.host;
        let running = || host.try_run(&Command::new("firewall-cmd").arg("--state")).is_ok_and(|said| said.success());
        if which(host, "firewall-cmd")?.is_none() || !running() {
            return Ok(None);
        }
        let own = context.facts.addresses.iter().find(|found| found.address == context.node.address);
        let interface = own.map_or("lo", |found| found.interface.as_str());
        let said = host.try_run(&Command::new("firewall-cmd").arg(format!("--get-zone-of-interface={interface}")))?;
        let zone = match said.text().trim() {
            zone if said.success() && !zone.is_empty() => zone.to_owned(),
            _ => host.run(&Command::new("firewall-cmd").arg("--get-default-zone"))?.text().trim().to_owned(),
        };
        let mut zones = BTreeMap::new();
        for name in [zone.as_str(), TRUSTED] {
            for permanent in [true, false] {
                zones.insert((name.to_owned(), permanent), Zone::read(host, name, permanent)?);
            }
        }
        Ok(Some(Self { zone, zones }))
    }

    /// What is not open yet.
    pub(super) fn missing(&self, wanted: &Wanted) -> Vec<Rule> {
        let mut rules = Vec::new();
        for permanent in [true, false] {
            let mut lacks = |zone: &str, element: String| {
                let has = self.zones.get(&(zone.to_owned(), permanent)).is_some_and(|found| found.has(&element));
                if !has {
                    rules.push(Rule::Firewalld { zone: zone.to_owned(), permanent, element });
                }
            };
            for (port, protocol) in &wanted.ports {
                lacks(&self.zone, format!("port={port}/{protocol}"));
            }
            for protocol in &wanted.protocols {
                lacks(&self.zone, format!("protocol={protocol}"));
            }
            if let Some(pods) = &wanted.pods {
                lacks(TRUSTED, format!("source={pods}"));
            }
            if wanted.bridge {
                lacks(&self.zone, format!("interface={BRIDGE}"));
                lacks(&self.zone, "forward".to_owned());
            }
        }
        rules
    }
}

impl Zone {
    fn read(host: &Host, name: &str, permanent: bool) -> Result<Self> {
        let permanent = permanent.then_some("--permanent");
        let command = Command::new("firewall-cmd").args(permanent).arg(format!("--zone={name}")).arg("--list-all");
        let said = host.run(&command).with_context(|| format!("asking firewalld for its zone `{name}`"))?;
        Ok(Self::parse(&said.text()))
    }

    fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.strip_prefix("  ")?.split_once(':'));
        Self(
            pairs.map(|(key, words)| (key.to_owned(), words.split_whitespace().map(str::to_owned).collect())).collect(),
        )
    }

    fn words(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    fn has(&self, element: &str) -> bool {
        let (key, value) = element.split_once('=').unwrap_or((element, ""));
        let listed = |key: &str| self.words(key).iter().any(|word| word == value);
        let accepts = self.words("target") == ["ACCEPT"];
        match key {
            "port" => accepts || self.words("ports").iter().any(|open| contains(open, value)),
            // `ipencap` is how /etc/protocols calls number 4.
            "protocol" => {
                accepts || listed("protocols") || self.words("protocols").iter().any(|name| name == "ipencap")
            }
            // Before 0.9 there is no such thing, and a zone forwards between its interfaces by itself or not at all.
            "forward" => self.words("forward") != ["no"],
            "interface" => listed("interfaces"),
            _ => listed("sources"),
        }
    }
}

/// Whether an open port or range covers a wanted one: firewalld joins what touches.
fn contains(open: &str, wanted: &str) -> bool {
    let parse = |text: &str| -> Option<(u16, u16, String)> {
        let (ports, protocol) = text.split_once('/')?;
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        Some((first.parse().ok()?, last.parse().ok()?, protocol.to_owned()))
    };
    match (parse(open), parse(wanted)) {
        (Some(open), Some(wanted)) => open.2 == wanted.2 && open.0 <= wanted.0 && wanted.1 <= open.1,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // As firewalld 1.3 prints it.
    const PUBLIC: &str = "public (active)\n  target: default\n  icmp-block-inversion: no\n  interfaces: eth0\n  sources: \n\
        \x20 services: dhcpv6-client ssh\n  ports: 2379-2380/tcp 6443/tcp\n  protocols: \n  forward: no\n  masquerade: no\n\
        \x20 forward-ports: \n  source-ports: \n  icmp-blocks: \n  rich rules: \n";

    fn firewalld(zone: &str, text: &str) -> Firewalld {
        let zones = [zone, TRUSTED].into_iter().flat_map(|name| [true, false].map(|permanent| (name, permanent)));
        let trusted = "trusted\n  target: ACCEPT\n  sources: \n  forward: yes\n";
        let parse = |name: &str| Zone::parse(if name == zone { text } else { trusted });
        let zones = zones.map(|(name, permanent)| ((name.to_owned(), permanent), parse(name)));
        Firewalld { zone: zone.to_owned(), zones: zones.collect() }
    }

    fn wanted() -> Wanted {
        let ports = ["2379", "2380", "6443", "10250"].map(|port| (port.to_owned(), "tcp")).to_vec();
        Wanted { ports, protocols: vec![], pods: Some("10.244.0.0/16".to_owned()), bridge: true }
    }

    #[test]
    fn only_what_is_not_open_is_opened_now_and_at_boot() {
        let missing = firewalld("public", PUBLIC).missing(&wanted());
        let lines: Vec<String> = missing.iter().map(ToString::to_string).collect();
        let one = |when: &str| {
            ["public|port=10250/tcp", "trusted|source=10.244.0.0/16", "public|interface=cni0", "public|forward"].map(
                |rule| {
                    let (zone, element) = rule.split_once('|').unwrap();
                    format!("firewalld zone {zone}, {when}: {element}")
                },
            )
        };
        assert_eq!(lines, [one("at boot"), one("now")].concat());
    }

    #[test]
    fn a_zone_that_accepts_everything_needs_no_ports() {
        let missing = firewalld("home", "home\n  target: ACCEPT\n  interfaces: cni0\n").missing(&wanted());
        assert!(missing.iter().all(|rule| rule.to_string().contains("source=")), "{missing:?}");
    }

    #[test]
    fn a_range_covers_a_port_of_its_protocol_only() {
        assert!(contains("30000-32767/tcp", "30000-32767/tcp") && contains("2379-2380/tcp", "2380/tcp"));
        assert!(!contains("2379-2380/udp", "2380/tcp") && !contains("2379/tcp", "2379-2380/tcp"));
    }
}
