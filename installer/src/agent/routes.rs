//! Routes to the pods of other nodes. They carry a protocol number of their own; no other route is ever touched.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

/// The routing protocol number that marks our routes (rtnetlink(7): above `RTPROT_STATIC` they are the administrator's).
pub const PROTOCOL: &str = "119";

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
pub fn parse(text: &str) -> BTreeMap<IpNet, Option<IpAddr>> {
    let routes: Vec<Value> = serde_json::from_str(text).unwrap_or_default();
    let network = |text: &str| text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    routes
        .iter()
        .filter_map(|route| {
            let gateway = route["gateway"].as_str().and_then(|gateway| gateway.parse().ok());
            Some((network(route["dst"].as_str()?)?, gateway))
        })
        .collect()
}

/// What has to change: `replace` for missing and different routes, `del` for those that are no longer wanted.
pub fn changes(wanted: &BTreeMap<IpNet, IpAddr>, found: &BTreeMap<IpNet, Option<IpAddr>>) -> RouteChanges {
    let command = |network: &IpNet, verb: &str, via: Option<&IpAddr>| -> Vec<String> {
        let mut arguments = vec![family(*network).to_owned(), "route".to_owned(), verb.to_owned(), network.to_string()];
        if let Some(via) = via {
            arguments.extend(["via".to_owned(), via.to_string()]);
        }
        arguments.extend(["proto".to_owned(), PROTOCOL.to_owned()]);
        arguments
    };
    let obsolete = found.keys().filter(|network| !wanted.contains_key(network));
    let mut changes: Vec<_> = obsolete.map(|network| command(network, "del", None)).collect();
    for (network, via) in wanted {
        if found.get(network) != Some(&Some(*via)) {
            changes.push(command(network, "replace", Some(via)));
        }
    }
    RouteChanges(changes)
}
