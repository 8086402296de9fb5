//! Routes to the pods of other nodes and to the services. They carry a protocol number of their own; no other route is ever
//! touched.
//!
//! The services need one, because programs on the host itself ask for a route *before* kube-proxy's rules turn a service
//! address into a pod's: behind an air gap there may be no default route that would do. It leads to loopback, so that what
//! no rule takes ends on this host.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

/// The routing protocol number that marks our routes (rtnetlink(7): above `RTPROT_STATIC` they are the administrator's).
pub const PROTOCOL: &str = "119";

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// To another node.
    Via(IpAddr),
    /// To loopback, with this node's address as source.
    Loopback(IpAddr),
}

impl Hop {
    fn arguments(self) -> Vec<String> {
        match self {
            Self::Via(node) => vec!["via".to_owned(), node.to_string()],
            Self::Loopback(source) => {
                vec!["dev".to_owned(), "lo".to_owned(), "src".to_owned(), source.to_string()]
            }
        }
    }
}

/// Changes to the routes, each the arguments of `ip`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteChanges(pub Vec<Vec<String>>);

/// The arguments of `ip` that list our routes of one family.
pub fn list_arguments(cluster: IpNet) -> [&'static str; 6] {
    [family(cluster), "-j", "route", "show", "proto", PROTOCOL]
}

fn family(network: IpNet) -> &'static str {
    match network {
        IpNet::V4(_) => "-4",
        IpNet::V6(_) => "-6",
    }
}

/// Our routes, from the output of `ip -j route show proto …`. A destination without prefix length is one address.
pub fn parse(text: &str) -> BTreeMap<IpNet, Option<Hop>> {
    let routes: Vec<Value> = serde_json::from_str(text).unwrap_or_default();
    let network = |text: &str| text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    routes
        .iter()
        .filter_map(|route| {
            let address = |key: &str| route[key].as_str().and_then(|address| address.parse().ok());
            let hop = match address("gateway") {
                Some(gateway) => Some(Hop::Via(gateway)),
                None if route["dev"] == "lo" => address("prefsrc").map(Hop::Loopback),
                None => None,
            };
            Some((network(route["dst"].as_str()?)?, hop))
        })
        .collect()
}

/// What has to change: `replace` for missing and different routes, `del` for those that are no longer wanted.
pub fn changes(wanted: &BTreeMap<IpNet, Hop>, found: &BTreeMap<IpNet, Option<Hop>>) -> RouteChanges {
    let command = |network: &IpNet, verb: &str, hop: Option<Hop>| -> Vec<String> {
        let mut arguments = vec![family(*network).to_owned(), "route".to_owned(), verb.to_owned(), network.to_string()];
        arguments.extend(hop.into_iter().flat_map(Hop::arguments));
        arguments.extend(["proto".to_owned(), PROTOCOL.to_owned()]);
        arguments
    };
    let obsolete = found.keys().filter(|network| !wanted.contains_key(network));
    let mut changes: Vec<_> = obsolete.map(|network| command(network, "del", None)).collect();
    for (network, hop) in wanted {
        if found.get(network) != Some(&Some(*hop)) {
            changes.push(command(network, "replace", Some(*hop)));
        }
    }
    RouteChanges(changes)
}
