//! The pod network of this host: links, routes with our protocol number, our packet filter table, kube-proxy's rules.
//!
//! kube-proxy cleans up after itself as long as its program is there; what it and the kubelet leave is then looked for by name.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::rules;
use crate::agent::{cni, packet_filter, routes};
use crate::context::CURRENT;
use crate::host::{Command, Host};

const PATIENCE: Duration = Duration::from_secs(60);

/// Takes the network away. `nodes` says whether a kubelet, and so a CNI plugin, ever worked here. What stays goes to `left`.
pub(super) fn remove(host: &Host, nodes: bool, left: &mut Vec<String>) -> Result<Vec<String>> {
    let mut done = Vec::new();
    if nodes {
        done.extend(kube_proxy(host)?);
        done.extend(rules::remove(host, left)?);
        done.extend(links(host)?);
    }
    done.extend(own_routes(host)?);
    done.extend(tables(host, nodes)?);
    Ok(done)
}

/// `kube-proxy --cleanup`: ipvs above all, which nothing else here can take away. What it cannot do is not an error: without
/// ipvs in the kernel it always complains.
fn kube_proxy(host: &Host) -> Result<Vec<String>> {
    let program = Path::new(CURRENT).join("kube-proxy/bin/kube-proxy");
    if !host.exists(&program)? {
        return Ok(Vec::new());
    }
    let finished = host.try_run(&Command::new(&program).arg("--cleanup").timeout(PATIENCE));
    Ok(if finished.is_ok_and(|finished| finished.success()) {
        vec!["let kube-proxy remove its rules".to_owned()]
    } else {
        Vec::new()
    })
}

/// Bridge, tunnels and the ends of pods' cables that the network plugins of a bundle make.
fn links(host: &Host) -> Result<Vec<String>> {
    let mut done = Vec::new();
    for link in list(host)? {
        let name = link["ifname"].as_str().unwrap_or_default();
        let ours = [cni::BRIDGE, "kube-ipvs0", "flannel.1", "vxlan.calico"].contains(&name)
            || link["master"] == cni::BRIDGE
            || name.starts_with("cali") && link["link_netnsid"].is_number();
        if !ours {
            continue;
        }
        let deleted = host.try_run(&Command::new("ip").args(["link", "delete", name]))?;
        // The other end may have taken it along.
        if !deleted.success() && list(host)?.iter().any(|link| link["ifname"] == name) {
            bail!("deleting the network link `{name}`: {}", deleted.tail());
        }
        done.push(format!("delete link {name}"));
    }
    Ok(done)
}

fn list(host: &Host) -> Result<Vec<Value>> {
    let output = host.run(&Command::new("ip").args(["-j", "link", "show"]))?;
    serde_json::from_slice(&output.stdout).context("reading the list of network links")
}

fn own_routes(host: &Host) -> Result<Vec<String>> {
    let mut done = Vec::new();
    for family in ["-4", "-6"] {
        let shown = host.try_run(&Command::new("ip").args([family, "route", "show", "proto", routes::PROTOCOL]))?;
        let count = shown.text().lines().filter(|line| !line.trim().is_empty()).count();
        // A kernel without the family fails here, and has no routes of it.
        if !shown.success() || count == 0 {
            continue;
        }
        host.run(&Command::new("ip").args([family, "route", "flush", "proto", routes::PROTOCOL]))?;
        done.push(format!("delete {count} routes with protocol number {}", routes::PROTOCOL));
    }
    Ok(done)
}

fn tables(host: &Host, nodes: bool) -> Result<Vec<String>> {
    // A host without nftables has none.
    let Ok(listed) = host.try_run(&Command::new("nft").args(["list", "tables"])) else { return Ok(Vec::new()) };
    let mut done = Vec::new();
    for line in listed.text().lines() {
        let mut words = line.split_whitespace();
        let (Some("table"), Some(family), Some(name)) = (words.next(), words.next(), words.next()) else { continue };
        if name == packet_filter::TABLE || nodes && name == "kube-proxy" {
            host.run(&Command::new("nft").args(["delete", "table", family, name]))?;
            done.push(format!("delete packet filter table {family} {name}"));
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Reply;

    #[test]
    fn what_is_not_ours_stays() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        let fake = host.fake();
        fake.on(
            "ip -j link",
            Reply::ok(
                r#"[{"ifname":"lo"},{"ifname":"eth0"},{"ifname":"veth1","master":"cni0"},{"ifname":"docker0"},
                   {"ifname":"veth2","master":"docker0"},{"ifname":"cni0"},{"ifname":"calibration0"}]"#,
            ),
        );
        fake.on("ip link delete", Reply::ok(""));
        fake.on("ip -4 route", Reply::ok("10.244.1.0/24 via 192.0.2.2 dev eth0\n"));
        fake.on("ip -6 route", Reply::fail(2, "RTNETLINK answers: not supported"));
        fake.on("nft", Reply::ok("table ip sealift\ntable inet firewall\ntable ip6 kube-proxy\n"));
        fake.on("ip6tables-save", Reply::fail(3, "can't initialize"));
        remove(&host, true, &mut Vec::new()).unwrap();
        let changing = |line: &String| line.contains("delete") || line.contains("flush");
        let commands: Vec<String> = fake.commands().into_iter().filter(changing).collect();
        assert_eq!(
            commands,
            [
                "ip link delete veth1",
                "ip link delete cni0",
                "ip -4 route flush proto 119",
                "nft delete table ip sealift",
                "nft delete table ip6 kube-proxy"
            ]
        );
        fake.clear();
        remove(&host, false, &mut Vec::new()).unwrap();
        assert!(!fake.commands().iter().any(|line| line.contains("link") || line.contains("kube-proxy")));
    }
}
