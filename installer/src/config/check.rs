//! Reading `cluster.toml` strictly: what the types cannot say is checked here, and each error shows its line.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;
use std::path::Path;

use bundle::Digest;
use bundle::component::Role;
use ipnet::IpNet;
use serde::Deserialize;
use toml::Spanned;

use super::{Certificates, Cluster, ClusterConfig, Etcd, Kernel, Network, Node, Roles, network};

/// What is wrong in a `cluster.toml`, with the line it is in.
#[derive(Debug, thiserror::Error)]
#[error("reading `{path}`: {place}")]
pub struct ConfigError {
    path: String,
    place: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    cluster: RawCluster,
    node: Spanned<Vec<RawNode>>,
    #[serde(default)]
    etcd: Option<Spanned<Etcd>>,
    #[serde(default)]
    network: Network,
    #[serde(default)]
    kernel: Kernel,
    #[serde(default)]
    certificates: Option<Spanned<Certificates>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCluster {
    name: Spanned<String>,
    domain: Option<Spanned<String>>,
    service_cidr: Option<Spanned<IpNet>>,
    pod_cidr: Option<Spanned<IpNet>>,
    #[serde(default)]
    api_names: Vec<Spanned<String>>,
    #[serde(default)]
    api_addresses: Vec<Spanned<IpAddr>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNode {
    name: Spanned<String>,
    address: Spanned<IpAddr>,
    interface: Option<Spanned<String>>,
    roles: Spanned<Vec<Role>>,
}

/// Something wrong at a place of the text.
pub(super) struct Wrong(pub(super) Range<usize>, pub(super) String);

impl ClusterConfig {
    /// Reads the text of a `cluster.toml`; `path` is only for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let error = |place: String| ConfigError { path: path.display().to_string(), place };
        let raw: RawConfig = toml::from_str(text).map_err(|wrong| error(wrong.to_string().trim_end().to_owned()))?;
        check(raw, Digest::of(text.as_bytes())).map_err(|Wrong(span, message)| error(show(text, span, &message)))
    }
}

/// The line of a span with a caret under its start, as `toml` shows its own errors.
fn show(text: &str, span: Range<usize>, message: &str) -> String {
    let start = span.start.min(text.len());
    let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[line_start..].lines().next().unwrap_or_default();
    let number = text[..start].matches('\n').count() + 1;
    let column = text[line_start..start].chars().count();
    let width =
        text.get(span.start..span.end.min(line_start + line.len())).map_or(1, |part| part.chars().count().max(1));
    let margin = " ".repeat(number.to_string().len());
    format!(
        "line {number}, column {}\n{margin} |\n{number} | {line}\n{margin} | {}{}\n{message}",
        column + 1,
        " ".repeat(column),
        "^".repeat(width),
    )
}

fn check(mut raw: RawConfig, digest: Digest) -> Result<ClusterConfig, Wrong> {
    let api_names = check_api_names(std::mem::take(&mut raw.cluster.api_names))?;
    let api_addresses = check_api_addresses(std::mem::take(&mut raw.cluster.api_addresses))?;
    let cluster = check_cluster(raw.cluster)?;
    let nodes = check_nodes(raw.node, &cluster)?;
    let etcd = raw.etcd.map_or_else(|| Ok(Etcd::default()), check_etcd)?;
    let certificates = raw.certificates.map_or_else(|| Ok(Certificates::default()), check_certificates)?;
    let (network, kernel) = (raw.network, raw.kernel);
    Ok(ClusterConfig { cluster, api_names, api_addresses, nodes, etcd, network, kernel, certificates, digest })
}

fn check_cluster(raw: RawCluster) -> Result<Cluster, Wrong> {
    let label = |text: &Spanned<String>, what: &str| {
        let good = is_label(text.get_ref());
        let message = || format!("{what} must be 1 to 63 of `a-z 0-9 -`, a letter or digit at both ends");
        if good { Ok(()) } else { Err(Wrong(text.span(), message())) }
    };
    label(&raw.name, "the cluster's name")?;
    let domain = match raw.domain {
        Some(domain) if domain.get_ref().len() <= 180 && domain.get_ref().split('.').all(is_label) => {
            domain.into_inner()
        }
        Some(domain) => return Err(Wrong(domain.span(), "not a lower-case DNS domain".to_owned())),
        None => "cluster.local".to_owned(),
    };
    let service_cidr = network(raw.service_cidr, [10, 96, 0, 0], 12..=26, "service_cidr")?;
    let pod_cidr = network(raw.pod_cidr, [10, 244, 0, 0], 8..=ClusterConfig::NODE_CIDR_MASK, "pod_cidr")?;
    let (service_span, service_cidr) = service_cidr;
    let (pod_span, pod_cidr) = pod_cidr;
    if overlap(&service_cidr, &pod_cidr) {
        let message = format!("pod_cidr {pod_cidr} and service_cidr {service_cidr} overlap");
        return Err(Wrong(pod_span.or(service_span).unwrap_or(0..0), message));
    }
    Ok(Cluster { name: raw.name.into_inner(), domain, service_cidr, pod_cidr })
}

fn check_api_names(raw: Vec<Spanned<String>>) -> Result<BTreeSet<String>, Wrong> {
    let mut names = BTreeSet::new();
    for name in raw {
        let (span, name) = (name.span(), name.into_inner());
        if name.len() > 253 || !name.split('.').all(is_label) || name.parse::<IpAddr>().is_ok() {
            return Err(Wrong(span, "a name of the API must be a lower-case DNS name".to_owned()));
        }
        if !names.insert(name) {
            return Err(Wrong(span, "this name of the API is given twice".to_owned()));
        }
    }
    Ok(names)
}

fn check_api_addresses(raw: Vec<Spanned<IpAddr>>) -> Result<BTreeSet<IpAddr>, Wrong> {
    let mut addresses = BTreeSet::new();
    for address in raw {
        let (span, address) = (address.span(), address.into_inner());
        if !address.is_ipv4() || address.is_unspecified() || address.is_multicast() {
            return Err(Wrong(span, format!("{address} cannot be an address of the API")));
        }
        if !addresses.insert(address) {
            return Err(Wrong(span, "this address of the API is given twice".to_owned()));
        }
    }
    Ok(addresses)
}

fn network(
    given: Option<Spanned<IpNet>>,
    default: [u8; 4],
    bits: std::ops::RangeInclusive<u8>,
    key: &str,
) -> Result<(Option<Range<usize>>, IpNet), Wrong> {
    let Some(given) = given else {
        let [a, b, c, d] = default;
        let network = ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(a, b, c, d), 16);
        return Ok((None, IpNet::V4(network)));
    };
    let (span, network) = (given.span(), given.into_inner());
    if matches!(network, IpNet::V6(_)) {
        return Err(Wrong(span, format!("{key} must be an IPv4 network: IPv6 is not supported yet")));
    }
    if network != network.trunc() {
        return Err(Wrong(span, format!("{key} has host bits set: did you mean {}?", network.trunc())));
    }
    if !bits.contains(&network.prefix_len()) {
        return Err(Wrong(span, format!("{key} must be between /{} and /{}", bits.start(), bits.end())));
    }
    Ok((Some(span), network))
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

fn check_nodes(raw: Spanned<Vec<RawNode>>, cluster: &Cluster) -> Result<Vec<Node>, Wrong> {
    let list_span = raw.span();
    let mut names = BTreeSet::new();
    let mut addresses = BTreeMap::new();
    let mut nodes = Vec::new();
    for raw in raw.into_inner() {
        let name = raw.name.get_ref();
        if name.len() > 63 || !name.split('.').all(is_label) {
            let message = "a node's name must be lower case: `a-z 0-9 - .`, at most 63 characters (RFC 1123)";
            return Err(Wrong(raw.name.span(), message.to_owned()));
        }
        if !names.insert(name.clone()) {
            return Err(Wrong(raw.name.span(), format!("two nodes are called `{name}`")));
        }
        let address = *raw.address.get_ref();
        let wrong = |message: String| Err(Wrong(raw.address.span(), message));
        let IpAddr::V4(v4) = address else {
            return wrong("a node's address must be IPv4: IPv6 is not supported yet".to_owned());
        };
        if v4.is_loopback() || v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast() || v4.is_link_local() {
            return wrong(format!("{address} cannot be the address of a node"));
        }
        if let Some(other) = addresses.insert(address, name.clone()) {
            return wrong(format!("{address} is already the address of `{other}`"));
        }
        for (key, network) in [("service_cidr", cluster.service_cidr), ("pod_cidr", cluster.pod_cidr)] {
            if network.contains(&address) {
                return wrong(format!("{address} lies in {key} {network}, which is only for use inside the cluster"));
            }
        }
        let roles_span = raw.roles.span();
        let given = raw.roles.into_inner();
        let roles = Roles::new(given.iter().copied());
        if roles.is_empty() || roles.iter().count() != given.len() {
            return Err(Wrong(roles_span, "a node needs at least one role, each named once".to_owned()));
        }
        let interface = network::interface(raw.interface)?;
        nodes.push(Node { name: raw.name.into_inner(), address, interface, roles });
    }
    if !nodes.iter().any(|node| node.roles.master()) {
        return Err(Wrong(list_span, "no node has the role `master`".to_owned()));
    }
    Ok(nodes)
}

fn check_etcd(raw: Spanned<Etcd>) -> Result<Etcd, Wrong> {
    let span = raw.span();
    let etcd = raw.into_inner();
    let wrong = |message: &str| Err(Wrong(span.clone(), message.to_owned()));
    // The limits are etcd's own (server/embed/config.go): election at least five heartbeats and at most 50 s.
    if etcd.heartbeat_ms == 0 || etcd.election_ms < etcd.heartbeat_ms.saturating_mul(5) || etcd.election_ms > 50_000 {
        return wrong("election_ms must be at least five times heartbeat_ms and at most 50000");
    }
    if !(64 << 20..=8 << 30).contains(&etcd.quota_bytes) {
        return wrong("quota_bytes must be between 64 MiB and 8 GiB");
    }
    for path in std::iter::once(&etcd.data_dir).chain(&etcd.wal_dir) {
        let plain =
            path.to_str().is_some_and(|text| text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c)));
        if !path.is_absolute() || !plain || path.components().any(|part| part == std::path::Component::ParentDir) {
            return wrong("data_dir and wal_dir must be absolute paths of `A-Z a-z 0-9 / . _ -`");
        }
    }
    Ok(etcd)
}

fn check_certificates(raw: Spanned<Certificates>) -> Result<Certificates, Wrong> {
    let span = raw.span();
    let certificates = raw.into_inner();
    if certificates.leaf_hours == Some(0) {
        return Err(Wrong(span, "a lifetime must be at least 1".to_owned()));
    }
    // The controller-manager's signer backdates by five minutes and counts them in; with less nothing is ever valid.
    if certificates.kubelet_minutes.is_some_and(|minutes| minutes < 7) {
        return Err(Wrong(
            span,
            "kubelet certificates must last at least 7 minutes: 5 of them are in the past".to_owned(),
        ));
    }
    Ok(certificates)
}

/// RFC 1123 label, lower case.
fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    (1..=63).contains(&bytes.len())
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "[cluster]\nname = \"site\"\n\n[[node]]\nname = \"m1\"\naddress = \"192.0.2.1\"\nroles = [\"master\"]\n";

    fn wrong(text: &str) -> String {
        ClusterConfig::parse(text, Path::new("/media/cluster.toml")).unwrap_err().to_string()
    }

    #[test]
    fn defaults() {
        let config = ClusterConfig::parse(GOOD, Path::new("x")).unwrap();
        assert_eq!(config.cluster.domain, "cluster.local");
        assert_eq!(config.api_service_ip().to_string(), "10.96.0.1");
        assert_eq!(config.dns_ip().to_string(), "10.96.0.10");
        assert_eq!(config.etcd, Etcd::default());
        assert!(config.runs_etcd(&config.nodes[0]));
    }

    #[test]
    fn dedicated_etcd_nodes_take_etcd_off_the_masters() {
        let text = format!("{GOOD}\n[[node]]\nname = \"e1\"\naddress = \"192.0.2.2\"\nroles = [\"etcd\"]\n");
        let config = ClusterConfig::parse(&text, Path::new("x")).unwrap();
        let members: Vec<&str> = config.etcd_members().iter().map(|node| node.name.as_str()).collect();
        assert_eq!(members, ["e1"]);
    }

    #[test]
    fn an_unknown_key_shows_its_line() {
        insta::assert_snapshot!(wrong(&GOOD.replace("address", "adress")));
    }

    #[test]
    fn an_address_inside_a_cluster_network_shows_its_line() {
        insta::assert_snapshot!(wrong(&GOOD.replace("192.0.2.1", "10.244.3.1")));
    }

    #[test]
    fn host_bits_show_their_line() {
        insta::assert_snapshot!(wrong(&GOOD.replace("\n\n", "\npod_cidr = \"10.200.1.0/16\"\n\n")));
    }

    #[test]
    fn everything_else_that_is_wrong() {
        let second = |text: &str| format!("{GOOD}\n[[node]]\n{text}\n");
        for (text, message) in [
            (GOOD.replace("\"site\"", "\"Site\""), "the cluster's name must be"),
            (GOOD.replace("[\"master\"]", "[\"worker\"]"), "no node has the role `master`"),
            (GOOD.replace("[\"master\"]", "[]"), "at least one role"),
            (GOOD.replace("[\"master\"]", "[\"master\", \"master\"]"), "each named once"),
            (GOOD.replace("[\"master\"]", "[\"boss\"]"), "unknown variant `boss`"),
            (GOOD.replace("\"m1\"", "\"M1\""), "lower case"),
            (GOOD.replace("192.0.2.1", "2001:db8::1"), "IPv6 is not supported yet"),
            (GOOD.replace("192.0.2.1", "127.0.0.1"), "cannot be the address of a node"),
            (GOOD.replace("192.0.2.1", "master.example"), "invalid IP address"),
            (second("name = \"m1\"\naddress = \"192.0.2.2\"\nroles = [\"worker\"]"), "two nodes are called `m1`"),
            (second("name = \"m2\"\naddress = \"192.0.2.1\"\nroles = [\"worker\"]"), "already the address of `m1`"),
            (GOOD.replace("\n\n", "\npod_cidr = \"10.96.0.0/17\"\n\n"), "overlap"),
            (GOOD.replace("\n\n", "\napi_names = [\"K8s.example\"]\n\n"), "lower-case DNS name"),
            (GOOD.replace("\n\n", "\napi_names = [\"10.0.0.9\"]\n\n"), "lower-case DNS name"),
            (GOOD.replace("\n\n", "\napi_names = [\"a.b\", \"a.b\"]\n\n"), "given twice"),
            (GOOD.replace("\n\n", "\napi_addresses = [\"0.0.0.0\"]\n\n"), "cannot be an address of the API"),
            (GOOD.replace("\n\n", "\npod_cidr = \"10.200.0.0/28\"\n\n"), "between /8 and /24"),
            (format!("{GOOD}[etcd]\nheartbeat_ms = 500\nelection_ms = 1000\n"), "five times heartbeat_ms"),
            (format!("{GOOD}[etcd]\ndata_dir = \"etcd\"\n"), "absolute paths"),
            (format!("{GOOD}[etcd]\nwal_dir = \"/srv/../etc\"\n"), "absolute paths"),
            (format!("{GOOD}[kernel]\npolicy = \"newest\"\n"), "unknown variant `newest`"),
            (format!("{GOOD}[certificates]\nleaf_hours = 0\n"), "at least 1"),
            ("[cluster]\nname = \"site\"\n".to_owned(), "missing field `node`"),
        ] {
            let found = wrong(&text);
            assert!(found.contains(message), "expected `{message}`, found:\n{found}");
        }
    }
}
