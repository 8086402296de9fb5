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

use super::kernel::{Kernel, RawKernel};
use super::{Addons, Certificates, Cluster, ClusterConfig, Etcd, Network, Node, Roles, host, network};

/// Everything that is wrong in a `cluster.toml`, each with the line it is in.
#[derive(Debug, thiserror::Error)]
#[error("reading `{path}`: {}", problems.join("\n\n"))]
pub struct ConfigError {
    path: String,
    /// As shown to people, in the order of the file.
    pub problems: Vec<String>,
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
    addons: Addons,
    #[serde(default)]
    kernel: RawKernel,
    #[serde(default)]
    host: Option<host::RawHost>,
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

/// Collects what is wrong, so that all of it can be said at once.
#[derive(Default)]
struct Wrongs(Vec<Wrong>);

impl Wrongs {
    fn good<T>(&mut self, result: Result<T, Wrong>) -> Option<T> {
        result.map_err(|wrong| self.0.push(wrong)).ok()
    }

    fn good_or<T>(&mut self, result: Result<T, Wrong>, default: T) -> T {
        self.good(result).unwrap_or(default)
    }
}

impl ClusterConfig {
    /// Reads the text of a `cluster.toml`; `path` is only for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let error = |problems| ConfigError { path: path.display().to_string(), problems };
        let raw: RawConfig =
            toml::from_str(text).map_err(|wrong| error(vec![wrong.to_string().trim_end().to_owned()]))?;
        check(raw, Digest::of(text.as_bytes())).map_err(|Wrongs(mut wrongs)| {
            wrongs.sort_by_key(|Wrong(span, _)| span.start);
            error(wrongs.into_iter().map(|Wrong(span, message)| show(text, span, &message)).collect())
        })
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

fn check(raw: RawConfig, digest: Digest) -> Result<ClusterConfig, Wrongs> {
    let mut wrongs = Wrongs::default();
    let cluster = check_cluster(raw.cluster, &mut wrongs);
    let nodes = check_nodes(raw.node, &cluster.networks, &mut wrongs);
    let etcd = wrongs.good_or(raw.etcd.map_or_else(|| Ok(Etcd::default()), check_etcd), Etcd::default());
    let certificates = raw.certificates.map_or_else(|| Ok(Certificates::default()), check_certificates);
    let certificates = wrongs.good_or(certificates, Certificates::default());
    let host = host::check(raw.host, &mut wrongs.0);
    let kernel = wrongs.good_or(raw.kernel.check(), Kernel::default());
    let (network, addons) = (raw.network, raw.addons);
    let Checked { cluster, api_names, api_addresses, .. } = cluster;
    match cluster {
        Some(cluster) if wrongs.0.is_empty() => Ok(ClusterConfig {
            cluster,
            api_names,
            api_addresses,
            nodes,
            etcd,
            network,
            addons,
            kernel,
            host,
            certificates,
            digest,
        }),
        _ => Err(wrongs),
    }
}

/// `[cluster]`, as far as it is right.
struct Checked {
    cluster: Option<Cluster>,
    api_names: BTreeSet<String>,
    api_addresses: BTreeSet<IpAddr>,
    networks: Vec<(&'static str, IpNet)>,
}

fn check_cluster(raw: RawCluster, wrongs: &mut Wrongs) -> Checked {
    let name = wrongs.good(check_name(raw.name));
    let domain = wrongs.good(check_domain(raw.domain));
    let service = wrongs.good(network(raw.service_cidr, [10, 96, 0, 0], 12..=26, "service_cidr"));
    let pod = wrongs.good(network(raw.pod_cidr, [10, 244, 0, 0], 8..=ClusterConfig::NODE_CIDR_MASK, "pod_cidr"));
    let mut networks = Vec::new();
    networks.extend(service.as_ref().map(|(_, network)| ("service_cidr", *network)));
    networks.extend(pod.as_ref().map(|(_, network)| ("pod_cidr", *network)));
    if let (Some((service_span, service)), Some((pod_span, pod))) = (&service, &pod)
        && overlap(service, pod)
    {
        let span = pod_span.clone().or(service_span.clone()).unwrap_or(0..0);
        wrongs.0.push(Wrong(span, format!("pod_cidr {pod} and service_cidr {service} overlap")));
    }
    let api_names = check_api_names(raw.api_names, wrongs);
    let api_addresses = check_api_addresses(raw.api_addresses, &networks, wrongs);
    let parts = name.zip(domain).zip(service.zip(pod));
    let cluster = parts.map(|((name, domain), ((_, service_cidr), (_, pod_cidr)))| Cluster {
        name,
        domain,
        service_cidr,
        pod_cidr,
    });
    Checked { cluster, api_names, api_addresses, networks }
}

fn check_name(name: Spanned<String>) -> Result<String, Wrong> {
    if is_label(name.get_ref()) {
        return Ok(name.into_inner());
    }
    let message = "the cluster's name must be 1 to 63 of `a-z 0-9 -`, a letter or digit at both ends";
    Err(Wrong(name.span(), message.to_owned()))
}

fn check_domain(domain: Option<Spanned<String>>) -> Result<String, Wrong> {
    let Some(domain) = domain else { return Ok("cluster.local".to_owned()) };
    if domain.get_ref().len() <= 180 && domain.get_ref().split('.').all(is_label) {
        return Ok(domain.into_inner());
    }
    Err(Wrong(domain.span(), "not a lower-case DNS domain".to_owned()))
}

fn check_api_names(raw: Vec<Spanned<String>>, wrongs: &mut Wrongs) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for name in raw {
        let (span, name) = (name.span(), name.into_inner());
        let message = if name.len() > 253 || !name.split('.').all(is_label) || name.parse::<IpAddr>().is_ok() {
            "a name of the API must be a lower-case DNS name"
        } else if names.insert(name) {
            continue;
        } else {
            "this name of the API is given twice"
        };
        wrongs.0.push(Wrong(span, message.to_owned()));
    }
    names
}

fn check_api_addresses(
    raw: Vec<Spanned<IpAddr>>,
    networks: &[(&'static str, IpNet)],
    wrongs: &mut Wrongs,
) -> BTreeSet<IpAddr> {
    let mut addresses = BTreeSet::new();
    for address in raw {
        let (span, address) = (address.span(), address.into_inner());
        let message = if !address.is_ipv4() || address.is_unspecified() || address.is_multicast() {
            format!("{address} cannot be an address of the API")
        } else if let Some(message) = inside(address, networks) {
            message
        } else if addresses.insert(address) {
            continue;
        } else {
            "this address of the API is given twice".to_owned()
        };
        wrongs.0.push(Wrong(span, message));
    }
    addresses
}

/// An address of a host that lies in a network which exists inside the cluster only.
fn inside(address: IpAddr, networks: &[(&'static str, IpNet)]) -> Option<String> {
    let (key, network) = networks.iter().find(|(_, network)| network.contains(&address))?;
    Some(format!("{address} lies in {key} {network}, which is only for use inside the cluster"))
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

fn check_nodes(raw: Spanned<Vec<RawNode>>, networks: &[(&'static str, IpNet)], wrongs: &mut Wrongs) -> Vec<Node> {
    let list_span = raw.span();
    let (mut names, mut addresses) = (BTreeSet::new(), BTreeMap::new());
    let (mut nodes, mut masters) = (Vec::new(), 0);
    for raw in raw.into_inner() {
        masters += usize::from(raw.roles.get_ref().contains(&Role::Master));
        let span = raw.address.span();
        let name = wrongs.good(check_node_name(raw.name, &mut names));
        let address =
            wrongs.good(check_address(raw.address.into_inner(), networks).map_err(|m| Wrong(span.clone(), m)));
        if let (Some(name), Some(address)) = (&name, address)
            && let Some(other) = addresses.insert(address, name.clone())
        {
            wrongs.0.push(Wrong(span, format!("{address} is already the address of `{other}`")));
        }
        let roles = wrongs.good(check_roles(raw.roles));
        let interface = wrongs.good(network::interface(raw.interface));
        if let (Some(name), Some(address), Some(roles), Some(interface)) = (name, address, roles, interface) {
            nodes.push(Node { name, address, interface, roles });
        }
    }
    if masters == 0 {
        wrongs.0.push(Wrong(list_span, "no node has the role `master`".to_owned()));
    }
    nodes
}

fn check_node_name(name: Spanned<String>, names: &mut BTreeSet<String>) -> Result<String, Wrong> {
    let (span, name) = (name.span(), name.into_inner());
    if name.len() > 63 || !name.split('.').all(is_label) {
        let message = "a node's name must be lower case: `a-z 0-9 - .`, at most 63 characters (RFC 1123)";
        return Err(Wrong(span, message.to_owned()));
    }
    if !names.insert(name.clone()) {
        return Err(Wrong(span, format!("two nodes are called `{name}`")));
    }
    Ok(name)
}

fn check_address(address: IpAddr, networks: &[(&'static str, IpNet)]) -> Result<IpAddr, String> {
    let IpAddr::V4(v4) = address else {
        return Err("a node's address must be IPv4: IPv6 is not supported yet".to_owned());
    };
    if v4.is_loopback() || v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast() || v4.is_link_local() {
        return Err(format!("{address} cannot be the address of a node"));
    }
    inside(address, networks).map_or(Ok(address), Err)
}

fn check_roles(roles: Spanned<Vec<Role>>) -> Result<Roles, Wrong> {
    let (span, given) = (roles.span(), roles.into_inner());
    let roles = Roles::new(given.iter().copied());
    if roles.is_empty() || roles.iter().count() != given.len() {
        return Err(Wrong(span, "a node needs at least one role, each named once".to_owned()));
    }
    Ok(roles)
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
        if is_systems(path) {
            return wrong("data_dir and wal_dir become etcd's alone (mode 0700): name a directory of their own");
        }
    }
    Ok(etcd)
}

/// Whether a directory is needed by others: one at the top, or a well-known one below `/var`; all of some trees.
fn is_systems(path: &Path) -> bool {
    let whole = ["/etc", "/usr", "/boot", "/run", "/tmp", "/dev", "/proc", "/sys", "/bin", "/sbin", "/lib", "/lib64"];
    let shared = ["/var/lib", "/var/log", "/var/tmp", "/var/cache", "/var/spool", "/var/run", "/opt/sealift"];
    path.components().filter(|part| matches!(part, std::path::Component::Normal(_))).count() < 2
        || whole.iter().any(|directory| path.starts_with(directory))
        || shared.iter().any(|directory| path == Path::new(directory))
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
pub(super) fn is_label(text: &str) -> bool {
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
    fn all_that_is_wrong_is_said_at_once_in_the_order_of_the_file() {
        let text = "[cluster]\nname = \"Site\"\npod_cidr = \"10.96.0.0/16\"\napi_addresses = [\"10.96.0.1\"]\n\n\
            [[node]]\nname = \"m1\"\naddress = \"10.96.0.9\"\nroles = []\n\n\
            [[node]]\nname = \"m1\"\naddress = \"127.0.0.1\"\nroles = [\"worker\"]\n\n[etcd]\nheartbeat_ms = 0\n";
        insta::assert_snapshot!(wrong(text));
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
            (GOOD.replace("\n\n", "\napi_addresses = [\"10.96.0.9\"]\n\n"), "10.96.0.9 lies in service_cidr"),
            (GOOD.replace("\n\n", "\npod_cidr = \"10.200.0.0/28\"\n\n"), "between /8 and /24"),
            (format!("{GOOD}[etcd]\nheartbeat_ms = 500\nelection_ms = 1000\n"), "five times heartbeat_ms"),
            (format!("{GOOD}[etcd]\ndata_dir = \"etcd\"\n"), "absolute paths"),
            (format!("{GOOD}[etcd]\nwal_dir = \"/srv/../etc\"\n"), "absolute paths"),
            (format!("{GOOD}[etcd]\ndata_dir = \"/\"\n"), "a directory of their own"),
            (format!("{GOOD}[etcd]\ndata_dir = \"/srv/.\"\n"), "a directory of their own"),
            (format!("{GOOD}[etcd]\ndata_dir = \"/var//lib/\"\n"), "a directory of their own"),
            (format!("{GOOD}[etcd]\nwal_dir = \"/etc/etcd/wal\"\n"), "a directory of their own"),
            (format!("{GOOD}[kernel]\npolicy = \"newest\"\n"), "unknown variant `newest`"),
            (format!("{GOOD}[kernel]\nrequire = \"6.12\"\n"), "comparisons with a kernel release"),
            (format!("{GOOD}[kernel]\nrequire = \">= 6.12\"\nexact = \"bundle\"\n"), "only one of"),
            (format!("{GOOD}[kernel]\nexact = \"../vmlinuz\"\n"), "expected `bundle`, or a kernel release"),
            (format!("{GOOD}[kernel]\ntrial = \"1m\"\n"), "between 2m and 60m"),
            (format!("{GOOD}[kernel]\ntrial = \"soon\"\n"), "not a time"),
            (format!("{GOOD}[kernel]\nwithout_fallback = \"\"\n"), "it is recorded"),
            (format!("{GOOD}[kernel]\non_failure = \"hope\"\n"), "unknown variant `hope`"),
            (format!("{GOOD}[certificates]\nleaf_hours = 0\n"), "at least 1"),
            ("[cluster]\nname = \"site\"\n".to_owned(), "missing field `node`"),
        ] {
            let found = wrong(&text);
            assert!(found.contains(message), "expected `{message}`, found:\n{found}");
        }
    }
}
