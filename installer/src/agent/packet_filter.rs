//! The nftables table `sealift`: pods that talk to the world outside borrow the node's address; pods and nodes see each
//! other's real ones. A pod cannot send under an address that is not of its node's pod network.
//!
//! The table is always replaced whole, in one transaction. No other table is touched.

use std::fmt::Write as _;

use ipnet::IpNet;

use super::cni::BRIDGE;
use super::network::Network;

/// Name of the table.
pub const TABLE: &str = "sealift";

/// The family of the table: `ip` or `ip6` (masquerading in `inet` needs Linux 5.2).
pub fn family(network: &Network) -> &'static str {
    match network.cluster {
        IpNet::V4(_) => "ip",
        IpNet::V6(_) => "ip6",
    }
}

/// The input of `nft -f -` that takes the table away.
pub fn removal(network: &Network) -> String {
    let family = family(network);
    format!("table {family} {TABLE} {{ }}\ndelete table {family} {TABLE}\n")
}

/// The input of `nft -f -`. The first `table` line makes sure that there is something to delete.
pub fn ruleset(network: &Network) -> String {
    let family = family(network);
    let cluster = network.cluster;
    let mut elements = cluster.to_string();
    for address in
        network.nodes.iter().filter(|node| node.is_ipv4() == cluster.addr().is_ipv4() && !cluster.contains(*node))
    {
        // Writing to a String cannot fail.
        let _ = write!(elements, ", {address}");
    }
    let own = network
        .own
        .map_or_else(String::new, |own| format!("        iifname \"{BRIDGE}\" {family} saddr != {own} drop\n"));
    format!(
        "table {family} {TABLE} {{ }}\n\
         delete table {family} {TABLE}\n\
         table {family} {TABLE} {{\n\
         \x20   set inside {{\n\
         \x20       type {kind}\n\
         \x20       flags interval\n\
         \x20       elements = {{ {elements} }}\n\
         \x20   }}\n\
         \x20   chain postrouting {{\n\
         \x20       type nat hook postrouting priority 100; policy accept;\n\
         \x20       {family} saddr {cluster} {family} daddr != @inside masquerade\n\
         \x20   }}\n\
         \x20   chain forward {{\n\
         \x20       type filter hook forward priority 0; policy accept;\n\
         {own}\
         \x20   }}\n\
         }}\n",
        kind = if family == "ip" { "ipv4_addr" } else { "ipv6_addr" },
    )
}
