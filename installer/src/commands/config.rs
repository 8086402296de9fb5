//! `installer config …`: begin, check and show a cluster config.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use ipnet::IpNet;
use serde_json::{Value, json};

use crate::cli::cluster::Config;
use crate::cluster::known::{Known, Source};
use crate::config::ClusterConfig;
use crate::facts::{Address, Facts};
use crate::host::{Command, Host};
use crate::output::Output;
use crate::report::{Exit, Explain as _};

/// Interfaces of the cluster itself, rightly in its own networks.
const OWN_INTERFACES: [&str; 4] = ["cni0", "kube-ipvs0", "flannel.1", "docker0"];
const NAME: &str = "/proc/sys/kernel/hostname";

/// Runs the command.
pub fn config(host: &Host, arguments: &Config, output: &Output) -> Result<Exit> {
    match arguments {
        Config::Init { output: file, name } => init(host, file.as_deref(), name, output),
        Config::Check { file, .. } => check(host, file, output),
        Config::Show(_) => show(host, output),
    }
}

fn init(host: &Host, file: Option<&Path>, cluster: &str, output: &Output) -> Result<Exit> {
    let facts = Facts::gather(host)?;
    let address = default_address(host, &facts)
        .context("this host has no IPv4 address that others could reach")
        .hint("give it one first; or write the file on another host")?;
    let node = node_name(&host.read_text(Path::new(NAME))?.unwrap_or_default());
    let text = template(cluster, &node, address, &facts);
    // What is offered is what the installer takes.
    ClusterConfig::parse(&text, Path::new("the new cluster.toml")).exit(Exit::Usage)?;
    let Some(file) = file else {
        output.line(text.trim_end());
        return Ok(Exit::Done);
    };
    let file = absolute(file)?;
    if host.exists(&file)? {
        return Err(anyhow!("`{}` is already there", file.display())).exit(Exit::Usage).hint("choose another name");
    }
    host.write(&file, text.as_bytes(), 0o644)?;
    output.line(&format!(
        "wrote {}: add the other nodes, then `installer config check {}`",
        file.display(),
        file.display()
    ));
    Ok(Exit::Done)
}

/// The address towards the default route, else the first.
fn default_address(host: &Host, facts: &Facts) -> Option<IpAddr> {
    let usable = |found: &&Address| found.address.is_ipv4() && !OWN_INTERFACES.contains(&found.interface.as_str());
    let command = Command::new("ip").args(["-4", "-json", "route", "show", "default"]).timeout(Duration::from_secs(5));
    let routes = host.try_run(&command).ok().and_then(|found| serde_json::from_str::<Value>(&found.text()).ok());
    let device = routes.as_ref().and_then(|routes| routes.pointer("/0/dev")?.as_str());
    let towards = facts.addresses.iter().filter(usable).find(|found| Some(found.interface.as_str()) == device);
    towards.or_else(|| facts.addresses.iter().find(usable)).map(|found| found.address)
}

/// The first label of the host's name, as far as it can be a node's name.
fn node_name(host_name: &str) -> String {
    let label = host_name.trim().split('.').next().unwrap_or_default().to_ascii_lowercase();
    let label: String = label.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    let label = label.trim_matches('-');
    if label.is_empty() || label == "localhost" { "m1".to_owned() } else { label.to_owned() }
}

/// The first of some networks that this host is not in; the first of all when it is in each.
fn free<'a>(candidates: [&'a str; 3], facts: &Facts) -> &'a str {
    let taken = |candidate: &&str| {
        let candidate: Option<IpNet> = candidate.parse().ok();
        candidate.is_some_and(|candidate| facts.addresses.iter().any(|found| meets(found, &candidate)))
    };
    candidates.into_iter().find(|candidate| !taken(candidate)).unwrap_or(candidates[0])
}

/// Whether the network of an address and another one overlap.
fn meets(found: &Address, other: &IpNet) -> bool {
    IpNet::new(found.address, found.prefix)
        .is_ok_and(|network| network.contains(&other.network()) || other.contains(&network.network()))
}

fn template(cluster: &str, node: &str, address: IpAddr, facts: &Facts) -> String {
    let service = free(["10.96.0.0/16", "10.196.0.0/16", "172.30.0.0/16"], facts);
    let pod = free(["10.244.0.0/16", "10.144.0.0/16", "172.29.0.0/16"], facts);
    format!(
        r#"# The whole cluster, the same file for every host. `installer config check FILE` reads it as a whole.
# After the first master is up, the cluster itself holds the config: `installer config show`, `installer node …`.

[cluster]
# These four can never change.
name = "{cluster}"
domain = "cluster.local"
# Networks that exist inside the cluster only; no host may have an address in them.
service_cidr = "{service}"
pod_cidr = "{pod}"
# Further names and addresses of the API, for its certificates (a load balancer's, say).
# api_names = ["k8s.example"]
# api_addresses = ["192.0.2.10"]

# One for each host. Roles: master (control plane, and etcd unless nodes have the role etcd), worker, etcd; or several.
[[node]]
name = "{node}"
address = "{address}"
roles = ["master"]
# interface = "eth0"        # on hosts with several: it must carry the address

# [[node]]
# name = "w1"
# address = "192.0.2.11"
# roles = ["worker"]

# [network]
# plugin = "bridge"         # bridge (all nodes on one L2 network), flannel, calico, none
# kube_proxy = "auto"       # auto, iptables, ipvs, nftables

# [etcd]
# data_dir = "/var/lib/etcd"
# wal_dir = "/srv/etcd-wal" # its log on a disk of its own
# heartbeat_ms = 100
# election_ms = 1000
# quota_bytes = 2147483648

# [host]
# hostname = "keep"         # keep, set (to the node's name)
# hosts = true              # the nodes' names in /etc/hosts
# swap = "off"              # off, keep (preflight refuses a host with swap in use)
# selinux = "keep"          # keep, permissive
# firewall = "open"         # open (let through what the roles need), keep
# time_servers = ["192.0.2.123"] # where nothing keeps the time; without any, the masters keep it for all

# [kernel]
# require = ">= 6.12"       # a host whose kernel does not fit gets the bundle's; or exact = "bundle"; none: kernels stay
# on_failure = "stop"       # after a kernel that failed: stop, or continue (with the old one)
# trial = "10m"             # time until a kernel that nobody accepts is given up
"#
    )
}

fn check(host: &Host, file: &Path, output: &Output) -> Result<Exit> {
    let path = absolute(file)?;
    let missing = || format!("`{}` does not exist", path.display());
    let text = host.read_text(&path).and_then(|text| text.with_context(missing)).exit(Exit::Usage)?;
    let config = match ClusterConfig::parse(&text, &path) {
        Ok(config) => config,
        Err(error) if output.is_json() => {
            output.json(&json!({ "valid": false, "errors": error.problems, "warnings": [], "node": null }));
            return Ok(Exit::Usage);
        }
        Err(error) => return Err(error).exit(Exit::Usage),
    };
    let facts = Facts::gather(host)?;
    let mut warnings = config.warnings();
    warnings.extend(of_this_host(&config, &facts));
    warnings.extend(unresolved(host, &config));
    let node = config.node_at(&facts.addresses());
    if output.is_json() {
        let node = node.map(|node| node.name.as_str());
        output.json(&json!({ "valid": true, "errors": [], "warnings": warnings, "node": node }));
        return Ok(Exit::Done);
    }
    for warning in &warnings {
        output.line(&format!("warning: {warning}"));
    }
    let members: Vec<&str> = config.etcd_members().iter().map(|member| member.name.as_str()).collect();
    output.line(&format!(
        "{} is good: cluster {}, {} nodes, {} masters, etcd on {}",
        path.display(),
        config.cluster.name,
        config.nodes.len(),
        config.masters().count(),
        members.join(", ")
    ));
    output.line(&match node {
        Some(node) => format!("this host is node {} ({}, {})", node.name, node.address, node.roles),
        None => "this host is none of its nodes".to_owned(),
    });
    Ok(Exit::Done)
}

/// What does not fit the host that this runs on.
fn of_this_host(config: &ClusterConfig, facts: &Facts) -> Vec<String> {
    let mut warnings = Vec::new();
    for (key, network) in [("service_cidr", config.cluster.service_cidr), ("pod_cidr", config.cluster.pod_cidr)] {
        let own = |found: &&Address| !OWN_INTERFACES.contains(&found.interface.as_str());
        for found in facts.addresses.iter().filter(own).filter(|found| meets(found, &network)) {
            let Address { interface, address, prefix } = found;
            warnings.push(format!(
                "{key} {network} overlaps the network of {address}/{prefix} on {interface} of this host"
            ));
        }
    }
    if let Some(node) = config.node_at(&facts.addresses())
        && let Some(wanted) = &node.interface
        && !facts.addresses.iter().any(|found| found.address == node.address && found.interface == *wanted)
    {
        warnings.push(format!("{} is not on interface {wanted} of this host", node.address));
    }
    warnings
}

/// Names of the API that this host cannot resolve. The cluster itself needs no name: its users do.
fn unresolved(host: &Host, config: &ClusterConfig) -> Vec<String> {
    let resolves = |name: &String| {
        let command = Command::new("getent").args(["ahosts", name]).timeout(Duration::from_secs(10));
        host.try_run(&command).is_ok_and(|found| found.success())
    };
    let names = config.api_names.iter().filter(|name| !resolves(name));
    names
        .map(|name| format!("`{name}` of api_names cannot be resolved on this host: users of the API need it"))
        .collect()
}

fn show(host: &Host, output: &Output) -> Result<Exit> {
    let (known, stale) = Known::look(host, None)?
        .context("this host knows of no cluster")
        .exit(Exit::Usage)
        .hint("`installer config init` begins a config; `installer config check FILE` reads one")?;
    let generation = known.record.as_ref().map(|record| record.generation);
    let source = match known.source {
        Source::Cluster => "cluster",
        Source::Copy => "copy",
        Source::Seed => "seed",
    };
    if output.is_json() {
        output.json(&json!({ "generation": generation, "source": source, "trouble": stale, "config": known.text }));
        return Ok(Exit::Done);
    }
    // The text alone on stdout: it can be written to a file as it is.
    output.line(known.text.strip_suffix('\n').unwrap_or(&known.text));
    let generation = generation.map(|number| format!("generation {number}, ")).unwrap_or_default();
    output.error(&match (&known.source, stale) {
        (Source::Cluster, _) => format!("{generation}as the cluster has it now"),
        (_, reason) => {
            let reason = reason.unwrap_or_default();
            format!("warning: {generation}from {}: nobody could be asked: {reason}", known.source.path().display())
        }
    });
    Ok(Exit::Done)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("`{}` is not a path", path.display())).exit(Exit::Usage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::tests::debian;

    fn at(interface: &str, address: [u8; 4], prefix: u8) -> Address {
        Address { interface: interface.to_owned(), address: address.into(), prefix }
    }

    #[test]
    fn what_is_offered_is_taken_and_avoids_the_networks_of_this_host() {
        let mut facts = debian();
        facts.addresses.push(at("eth1", [10, 96, 7, 1], 24));
        facts.addresses.push(at("eth2", [10, 1, 2, 3], 8));
        let text = template("site", "m1", [192, 0, 2, 1].into(), &facts);
        let config = ClusterConfig::parse(&text, Path::new("x")).unwrap();
        assert_eq!(config.cluster.service_cidr.to_string(), "172.30.0.0/16");
        assert_eq!(config.cluster.pod_cidr.to_string(), "172.29.0.0/16");
        assert_eq!(config.nodes[0].address.to_string(), "192.0.2.1");
        // Every commented line is valid too.
        let all = text.lines().map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with('[') || rest.contains(" = ") => format!("{rest}\n"),
            _ => format!("{line}\n"),
        });
        let config = ClusterConfig::parse(&all.collect::<String>(), Path::new("x")).unwrap();
        assert_eq!((config.nodes.len(), config.api_names.len()), (2, 1));
        assert!(config.etcd.wal_dir.is_some());
    }

    #[test]
    fn a_host_name_becomes_a_node_name() {
        for (host, node) in [("Rack1_A.example.org\n", "rack1-a"), ("localhost", "m1"), ("", "m1"), ("m2", "m2")] {
            assert_eq!(node_name(host), node);
        }
    }

    #[test]
    fn the_address_towards_the_default_route_is_this_hosts() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::under(directory.path());
        let mut facts = debian();
        facts.addresses =
            vec![at("cni0", [10, 244, 0, 1], 24), at("eth0", [10, 0, 0, 1], 24), at("eth1", [10, 9, 0, 1], 24)];
        assert_eq!(default_address(&host, &facts).unwrap().to_string(), "10.0.0.1", "without `ip`");
        let reply = crate::host::Reply::ok(r#"[{"dst":"default","gateway":"10.9.0.254","dev":"eth1"}]"#);
        host.fake().on("ip -4 -json route show default", reply);
        assert_eq!(default_address(&host, &facts).unwrap().to_string(), "10.9.0.1");
    }

    fn bed() -> (tempfile::TempDir, Host) {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::under(directory.path());
        let addresses = r#"[{"ifname":"eth0","addr_info":[{"local":"192.0.2.1","prefixlen":24}]}]"#;
        host.fake().on("ip -j addr", crate::host::Reply::ok(addresses));
        (directory, host)
    }

    #[test]
    fn a_config_that_is_there_is_not_overwritten_and_a_bad_one_is_wrong_usage() {
        let (_directory, host) = bed();
        let (file, silent) = (Path::new("/cluster.toml"), Output::silent());
        let code = |result: Result<Exit>| result.unwrap_or_else(|error| crate::report::exit_of(&error));
        assert_eq!(code(check(&host, file, &silent)), Exit::Usage, "it does not exist");
        assert_eq!(code(init(&host, Some(file), "site", &silent)), Exit::Done);
        assert_eq!(code(check(&host, file, &silent)), Exit::Done);
        assert_eq!(code(init(&host, Some(file), "other", &silent)), Exit::Usage);
        let text = host.read_text(file).unwrap().unwrap();
        assert!(text.contains("name = \"site\""));
        for bad in ["\"master\"", "[["] {
            host.write(file, text.replacen(bad, "\"x\"", 1).as_bytes(), 0o644).unwrap();
            assert_eq!(code(check(&host, file, &silent)), Exit::Usage, "without `{bad}`");
        }
    }

    #[test]
    fn only_a_host_that_knows_a_cluster_can_show_its_config() {
        let (_directory, host) = bed();
        assert_eq!(crate::report::exit_of(&show(&host, &Output::silent()).unwrap_err()), Exit::Usage);
        host.create_dir(Path::new("/etc/sealift"), 0o755).unwrap();
        init(&host, Some(Path::new("/etc/sealift/cluster.toml")), "site", &Output::silent()).unwrap();
        assert_eq!(show(&host, &Output::silent()).unwrap(), Exit::Done);
    }

    #[test]
    fn what_does_not_fit_this_host_is_said() {
        let text = "[cluster]\nname = \"site\"\npod_cidr = \"10.0.0.0/16\"\n\n[[node]]\nname = \"m1\"\n\
            address = \"192.0.2.1\"\nroles = [\"master\"]\ninterface = \"eth9\"\n";
        let config = ClusterConfig::parse(text, Path::new("x")).unwrap();
        let mut facts = debian();
        facts.addresses.push(at("eth1", [10, 0, 3, 1], 24));
        facts.addresses.push(at("cni0", [10, 0, 0, 1], 24));
        let warnings = of_this_host(&config, &facts);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("pod_cidr 10.0.0.0/16 overlaps the network of 10.0.3.1/24 on eth1"));
        assert!(warnings[1].contains("not on interface eth9"));
    }
}
