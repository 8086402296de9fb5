//! Routes to the pods of other nodes and to the services. They carry a protocol number of their own; no other route is ever
//! touched or replaced.
//!
//! The services need one, because programs on the host itself ask for a route *before* kube-proxy's rules turn a service
//! address into a pod's: behind an air gap there may be no default route that would do. It leads to loopback, so that what
//! no rule takes ends on this host.
//!
//! A peer's pods are only routed to the peer itself, over the interface with this node's address. Behind a router the route
//! would be wrong: the router knows no pods.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

/// The routing protocol number that marks our routes (rtnetlink(7): above `RTPROT_STATIC` they are the administrator's).
pub const PROTOCOL: &str = "119";

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hop {
    /// To another node.
    Via {
        /// The node's address.
        node: IpAddr,
        /// The interface with this node's address.
        device: String,
        /// This node's address, so that others see this one and no other of this host.
        source: IpAddr,
    },
    /// To loopback, with this node's address as source.
    Loopback(IpAddr),
}

impl Hop {
    fn arguments(&self) -> Vec<String> {
        match self {
            Self::Via { node, device, source } => {
                ["via", &node.to_string(), "dev", device, "src", &source.to_string()].map(str::to_owned).to_vec()
            }
            Self::Loopback(source) => ["dev", "lo", "src", &source.to_string()].map(str::to_owned).to_vec(),
        }
    }
}

/// Changes to the routes, each the arguments of `ip`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteChanges(pub Vec<Vec<String>>);

/// The arguments of `ip` that list the main table of one family.
pub fn list_arguments(cluster: IpNet) -> [&'static str; 6] {
    [family(cluster), "-j", "route", "show", "table", "main"]
}

/// The arguments of `ip` that list addresses of one family.
pub fn address_arguments(cluster: IpNet) -> [&'static str; 4] {
    [family(cluster), "-j", "addr", "show"]
}

fn family(network: IpNet) -> &'static str {
    match network {
        IpNet::V4(_) => "-4",
        IpNet::V6(_) => "-6",
    }
}

/// The interface with this node's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// The largest packet it takes, bytes.
    pub mtu: u32,
}

/// The interface that has an address, from the output of `ip -j addr show`.
pub fn interface(text: &str, address: IpAddr) -> Option<Interface> {
    let interfaces: Vec<Value> = serde_json::from_str(text).unwrap_or_default();
    let wanted = address.to_string();
    let found = interfaces.iter().find(|interface| {
        interface["addr_info"].as_array().is_some_and(|list| list.iter().any(|info| info["local"] == wanted.as_str()))
    })?;
    let mtu = found["mtu"].as_u64().and_then(|mtu| u32::try_from(mtu).ok()).unwrap_or(1500);
    Some(Interface { name: found["ifname"].as_str()?.to_owned(), mtu })
}

/// The main routing table: our routes, and how everything else is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    ours: BTreeMap<IpNet, Option<Hop>>,
    others: Vec<Other>,
}

/// A route that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Other {
    network: IpNet,
    metric: u64,
    device: Option<String>,
    direct: bool,
}

/// How an address is reached without our routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// On the network of this interface.
    OnLink(String),
    /// Through a router.
    Routed,
    /// Not at all.
    Nowhere,
}

impl Table {
    /// Reads the output of `ip -j route show table main`. A destination without prefix length is one address.
    pub fn parse(text: &str) -> Self {
        let routes: Vec<Value> = serde_json::from_str(text).unwrap_or_default();
        let mut table = Self::default();
        for route in &routes {
            let Some(network) = route["dst"].as_str().and_then(destination) else { continue };
            if route["protocol"] == PROTOCOL {
                table.ours.insert(network, hop(route));
                continue;
            }
            let device = route["dev"].as_str().map(str::to_owned);
            let direct = device.is_some() && route["gateway"].is_null() && route["via"].is_null();
            let metric = route["metric"].as_u64().unwrap_or(0);
            table.others.push(Other { network, metric, device, direct: direct && route["type"].is_null() });
        }
        table
    }

    /// How an address is reached: the longest prefix decides, then the lowest metric.
    pub fn reach(&self, address: IpAddr) -> Reach {
        let fitting = self.others.iter().filter(|route| route.network.contains(&address));
        match fitting.max_by_key(|route| (route.network.prefix_len(), std::cmp::Reverse(route.metric))) {
            None => Reach::Nowhere,
            Some(Other { device: Some(device), direct: true, .. }) => Reach::OnLink(device.clone()),
            Some(_) => Reach::Routed,
        }
    }

    /// What has to change: `add` for missing and `replace` for different routes, `del` for those that are no longer wanted.
    /// A missing one is never put in the place of somebody else's: `add` fails there, and says so.
    pub fn changes(&self, wanted: &BTreeMap<IpNet, Hop>) -> RouteChanges {
        let command = |network: &IpNet, verb: &str, hop: Option<&Hop>| -> Vec<String> {
            let mut arguments =
                vec![family(*network).to_owned(), "route".to_owned(), verb.to_owned(), network.to_string()];
            arguments.extend(hop.into_iter().flat_map(Hop::arguments));
            arguments.extend(["proto".to_owned(), PROTOCOL.to_owned()]);
            arguments
        };
        let obsolete = self.ours.keys().filter(|network| !wanted.contains_key(network));
        let mut changes: Vec<_> = obsolete.map(|network| command(network, "del", None)).collect();
        for (network, hop) in wanted {
            match self.ours.get(network) {
                Some(Some(found)) if found == hop => {}
                Some(_) => changes.push(command(network, "replace", Some(hop))),
                None => changes.push(command(network, "add", Some(hop))),
            }
        }
        RouteChanges(changes)
    }
}

fn destination(text: &str) -> Option<IpNet> {
    if text == "default" {
        return Some(IpNet::V4(ipnet::Ipv4Net::default()));
    }
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn hop(route: &Value) -> Option<Hop> {
    let address = |key: &str| route[key].as_str().and_then(|address| address.parse().ok());
    let (source, device) = (address("prefsrc")?, route["dev"].as_str()?);
    match address("gateway") {
        Some(node) => Some(Hop::Via { node, device: device.to_owned(), source }),
        None if device == "lo" => Some(Hop::Loopback(source)),
        None => None,
    }
}
