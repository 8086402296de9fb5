//! `/etc/hosts`: all nodes of the config by name and address, in a block of our own at the end. Nothing of Sealift looks a
//! node up by its name; people, and programs that call their own host by its name, do.
//!
//! Every run and `installer refresh` renew it. Lines of others are read first and never touched; one that says otherwise is
//! reported.

use anyhow::Result;

use super::part::{Edited, Found, Part, without_us};
use crate::config::{ClusterConfig, Node};
use crate::context::Context;
use crate::host::marks::{Marks, NONE_OUT};
use crate::step::Target;

const FILE: &str = "/etc/hosts";

/// The part.
pub(super) struct Hosts;

impl Part for Hosts {
    fn touches(&self, _: &Context<'_>) -> Result<Vec<Target>> {
        Ok(vec![Target::Marks(FILE.into())])
    }

    fn look(&self, context: &Context<'_>) -> Result<Found> {
        let mut found = Found::default();
        let lines = lines(context);
        found.changes.extend(edited(context, &lines).change(context.host)?);
        if context.config.host.hosts {
            let text = without_us(context.host, FILE.as_ref())?;
            found.limits = foreign(&text, context.config, context.node);
        }
        Ok(found)
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        edited(context, &lines(context)).write(context.host).map(drop)
    }
}

fn lines(context: &Context<'_>) -> Vec<String> {
    let nodes = context.config.nodes.iter().filter(|_| context.config.host.hosts);
    nodes.map(|node| format!("{} {}", node.address, node.name)).collect()
}

fn edited<'a>(context: &Context<'_>, lines: &'a [String]) -> Edited<'a> {
    let what = match context.config.nodes.len() {
        _ if lines.is_empty() => "no names of nodes any more".to_owned(),
        1 => "the name of this node".to_owned(),
        count => format!("the names of {count} nodes"),
    };
    Edited { path: FILE.into(), marks: Marks { block: lines, out: NONE_OUT }, what }
}

/// Lines of others that give a node's name to another address (hosts(5)). A host's own name on loopback is common.
fn foreign(text: &str, config: &ClusterConfig, own: &Node) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse::<std::net::IpAddr>().ok()) else { continue };
        for name in words {
            let Some(node) = config.nodes.iter().find(|node| node.name.eq_ignore_ascii_case(name)) else { continue };
            let usual = node.name == own.name && address.is_loopback();
            if address.is_ipv4() && address != node.address && !usual {
                let (line, wanted) = (number + 1, node.address);
                found.push(format!("`{FILE}` line {line} has `{name}` at {address}, the cluster at {wanted}"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn only_another_address_for_a_nodes_name_is_reported() {
        let text = "[cluster]\nname = \"x\"\n[[node]]\nname = \"m1\"\naddress = \"192.0.2.1\"\nroles = [\"master\"]\n\
            [[node]]\nname = \"w1\"\naddress = \"192.0.2.2\"\nroles = [\"worker\"]\n";
        let config = ClusterConfig::parse(text, Path::new("x")).unwrap();
        let hosts = "127.0.0.1 localhost\n127.0.1.1 m1.example m1\n::1 w1\n192.0.2.2 w1 # 10.0.0.1 w1\n#10.0.0.2 w1\n";
        assert_eq!(foreign(hosts, &config, &config.nodes[0]), Vec::<String>::new());
        let wrong = "\n10.0.0.9\tprinter W1\n127.0.1.1 m1\n";
        let said = foreign(wrong, &config, &config.nodes[1]);
        assert_eq!(
            said,
            [
                "`/etc/hosts` line 2 has `W1` at 10.0.0.9, the cluster at 192.0.2.2",
                "`/etc/hosts` line 3 has `m1` at 127.0.1.1, the cluster at 192.0.2.1",
            ]
        );
    }
}
