//! Addresses, interfaces, routes, listening sockets and the resolver.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use serde_json::Value;

use super::{Address, Chain, DefaultRoute, Interface, Resolver};
use crate::host::{Command, Host};
use crate::report::Explain as _;

/// All interfaces but loopback, and their addresses.
pub(super) fn interfaces(host: &Host) -> Result<(Vec<Interface>, Vec<Address>)> {
    let text = host.run(&Command::new("ip").args(["-j", "addr"])).context("asking for the host's addresses");
    let text =
        text.hint("`ip` has to be on the host: install the package iproute2 (Enterprise Linux: iproute)")?.text();
    parse_interfaces(&text).context("reading the output of `ip -j addr`")
}

fn parse_interfaces(json: &str) -> Result<(Vec<Interface>, Vec<Address>)> {
    #[derive(serde::Deserialize)]
    struct Shown {
        ifname: Option<String>,
        #[serde(default)]
        mtu: u32,
        #[serde(default)]
        flags: Vec<String>,
        #[serde(default)]
        addr_info: Vec<Info>,
    }
    #[derive(serde::Deserialize)]
    struct Info {
        local: Option<IpAddr>,
        prefixlen: Option<u8>,
    }
    let shown: Vec<Shown> = serde_json::from_str(json)?;
    let (mut interfaces, mut addresses) = (Vec::new(), Vec::new());
    for interface in shown {
        let Some(name) = interface.ifname else { continue };
        let has = |flag: &str| interface.flags.iter().any(|found| found == flag);
        if !has("LOOPBACK") {
            interfaces.push(Interface { name: name.clone(), mtu: interface.mtu, up: has("UP") });
        }
        for info in interface.addr_info {
            if let (Some(address), Some(prefix)) = (info.local, info.prefixlen)
                && !address.is_loopback()
            {
                addresses.push(Address { interface: name.clone(), address, prefix });
            }
        }
    }
    addresses.sort();
    Ok((interfaces, addresses))
}

/// Default routes of both families, as `ip -j route show default` lists them.
pub(super) fn default_routes(host: &Host) -> Vec<DefaultRoute> {
    let ask = |family: &str| {
        let command = Command::new("ip").args([family, "-j", "route", "show", "default"]);
        host.try_run(&command).map(|finished| parse_routes(&finished.text())).unwrap_or_default()
    };
    [ask("-4"), ask("-6")].concat()
}

fn parse_routes(json: &str) -> Vec<DefaultRoute> {
    #[derive(serde::Deserialize)]
    struct Shown {
        dev: Option<String>,
        gateway: Option<IpAddr>,
        metric: Option<u32>,
    }
    let shown: Vec<Shown> = serde_json::from_str(json).unwrap_or_default();
    let routes = shown.into_iter().filter_map(|Shown { dev, gateway, metric }| {
        Some(DefaultRoute { interface: dev?, gateway, metric: metric.unwrap_or(0) })
    });
    routes.collect()
}

/// Search domains of the resolver (resolv.conf(5): the last `search` or `domain` line counts), and whether it has a
/// nameserver to ask, also one of this host's own.
pub(super) fn resolver(host: &Host) -> Result<Resolver> {
    let text = host.read_text(Path::new("/etc/resolv.conf"))?.unwrap_or_default();
    Ok(parse_resolver(&text))
}

fn parse_resolver(text: &str) -> Resolver {
    let mut resolver = Resolver::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                resolver.nameservers.extend(words.next().and_then(|address| address.parse::<IpAddr>().ok()));
            }
            Some("search" | "domain") => resolver.search = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    resolver
}

/// Base chains of the packet filter: those with a hook and a policy (`nft -j list chains` shows iptables' as well).
pub(super) fn chains(host: &Host) -> Vec<Chain> {
    let command = Command::new("nft").args(["-j", "list", "chains"]).timeout(Duration::from_secs(5));
    host.try_run(&command).map(|finished| parse_chains(&finished.text())).unwrap_or_default()
}

fn parse_chains(json: &str) -> Vec<Chain> {
    let listed: Value = serde_json::from_str(json).unwrap_or_default();
    let chains = listed["nftables"].as_array().into_iter().flatten().map(|item| &item["chain"]);
    chains
        .filter_map(|chain| {
            let word = |key: &str| chain[key].as_str().map(str::to_owned);
            Some(Chain {
                family: word("family")?,
                table: word("table")?,
                name: word("name")?,
                hook: word("hook")?,
                policy: word("policy")?,
            })
        })
        .collect()
}

/// The file for the kubelet's `resolvConf`, and whether it names a resolver at all. systemd-resolved's stub cannot serve
/// pods, so its real file is taken; a host without any resolver gets a file of our own.
pub(super) fn resolv_conf(host: &Host) -> Result<(PathBuf, bool)> {
    let usable = |path: &str| -> Result<bool> {
        let text = host.read_text(Path::new(path))?.unwrap_or_default();
        let mut servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
        // Loopback resolvers are another network namespace's loopback inside a pod.
        Ok(servers.any(|server| server.trim().parse::<IpAddr>().is_ok_and(|server| !server.is_loopback())))
    };
    for path in ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"] {
        if usable(path)? {
            return Ok((PathBuf::from(path), true));
        }
    }
    Ok((PathBuf::from(super::OWN_RESOLV_CONF), false))
}

/// Listening sockets of `/proc/net/tcp` and `tcp6` (proc(5): state `0A`).
pub(super) fn listening(tcp: &str, tcp6: &str) -> BTreeSet<(u16, IpAddr)> {
    let lines = tcp.lines().chain(tcp6.lines());
    lines
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, _, state) = (fields.next()?, fields.next()?, fields.next()?);
            if state != "0A" {
                return None;
            }
            let (address, port) = local.split_once(':')?;
            Some((u16::from_str_radix(port, 16).ok()?, parse_proc_address(address)?))
        })
        .collect()
}

/// Addresses are 32-bit words in the byte order of the machine; both architectures are little-endian.
fn parse_proc_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.swap_bytes());
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let bits = words.iter().fold(0u128, |bits, word| bits << 32 | u128::from(*word));
            Some(Ipv6Addr::from(bits).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_ports_and_their_addresses() {
        let tcp = "  sl  local_address rem_address   st\n   0: 0100007F:20FB 00000000:0000 0A 0\n   1: 0100007F:E5DC 0100007F:86AF 06 0\n";
        let tcp6 = "  sl\n   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0\n";
        let expected = [(8443, "127.0.0.1".parse().unwrap()), (8080, "::".parse().unwrap())];
        assert_eq!(listening(tcp, tcp6), BTreeSet::from(expected));
    }

    #[test]
    fn resolvers_that_pods_can_use() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        assert_eq!(resolv_conf(&host).unwrap(), (PathBuf::from(super::super::OWN_RESOLV_CONF), false));
        host.write(Path::new("/etc/resolv.conf"), b"nameserver 127.0.0.53\n", 0o644).unwrap();
        assert!(!resolv_conf(&host).unwrap().1, "the stub of systemd-resolved cannot serve pods");
        host.write(Path::new("/run/systemd/resolve/resolv.conf"), b"nameserver 192.0.2.53\n", 0o644).unwrap();
        assert_eq!(resolv_conf(&host).unwrap(), (PathBuf::from("/run/systemd/resolve/resolv.conf"), true));
        host.write(Path::new("/etc/resolv.conf"), b"# x\nnameserver 192.0.2.1\n", 0o644).unwrap();
        assert_eq!(resolv_conf(&host).unwrap().0, PathBuf::from("/etc/resolv.conf"));
    }

    #[test]
    fn interfaces_and_default_routes() {
        let json = r#"[{"ifname":"lo","flags":["LOOPBACK","UP"],"mtu":65536,"addr_info":[{"local":"127.0.0.1","prefixlen":8}]},
            {"ifname":"eth0","flags":["BROADCAST","UP"],"mtu":1500,"addr_info":[{"local":"192.0.2.1","prefixlen":24}]},{}]"#;
        let (interfaces, addresses) = parse_interfaces(json).unwrap();
        assert_eq!(interfaces, [Interface { name: "eth0".to_owned(), mtu: 1500, up: true }]);
        assert_eq!(addresses.len(), 1);
        let json = r#"[{"dst":"default","gateway":"192.0.2.254","dev":"eth0","metric":100,"flags":[]},
            {"dst":"default","dev":"wg0","scope":"link","flags":[]}]"#;
        let routes = parse_routes(json);
        assert_eq!(routes[0].gateway, Some("192.0.2.254".parse().unwrap()));
        assert_eq!((routes[1].interface.as_str(), routes[1].metric), ("wg0", 0));
        assert!(parse_routes("").is_empty());
    }

    #[test]
    fn the_resolver_and_the_packet_filter() {
        let found = parse_resolver(
            "# x\nnameserver 127.0.0.53\nsearch a.example\nsearch b.example c.example\noptions ndots:1\n",
        );
        assert_eq!(found.nameservers, ["127.0.0.53".parse::<IpAddr>().unwrap()]);
        assert_eq!(found.search, ["b.example", "c.example"]);
        let json = r#"{"nftables":[{"metainfo":{"version":"1.0.6"}},
            {"chain":{"family":"inet","table":"filter","name":"input","handle":1,"type":"filter","hook":"input","prio":0,"policy":"drop"}},
            {"chain":{"family":"inet","table":"filter","name":"extra","handle":2}}]}"#;
        let chains = parse_chains(json);
        assert_eq!(chains.len(), 1);
        assert_eq!((chains[0].hook.as_str(), chains[0].policy.as_str()), ("input", "drop"));
    }
}
