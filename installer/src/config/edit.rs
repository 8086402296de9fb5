//! Changes of a `cluster.toml`'s text that keep everything else in it: comments, order, spaces. The result is not checked
//! here: whoever uses it parses it as a whole.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value, value};

use super::{Node, role_name};

/// The text with another node at its end.
pub fn add_node(text: &str, node: &Node) -> Result<String> {
    let mut document = parse(text)?;
    let roles: Array = node.roles.iter().map(role_name).collect();
    let (name, address) = (node.name.as_str(), node.address);
    match nodes(&mut document)? {
        Nodes::Tables(tables) => {
            let mut table = Table::new();
            table.insert("name", value(name));
            table.insert("address", value(address.to_string()));
            table.insert("roles", value(roles));
            if let Some(interface) = &node.interface {
                table.insert("interface", value(interface));
            }
            table.decor_mut().set_prefix("\n");
            tables.push(table);
        }
        Nodes::Inline(array) => {
            let mut table = InlineTable::new();
            table.insert("name", name.into());
            table.insert("address", address.to_string().into());
            table.insert("roles", Value::Array(roles));
            if let Some(interface) = &node.interface {
                table.insert("interface", interface.into());
            }
            array.push(table);
        }
    }
    Ok(document.to_string())
}

/// The text without a node; comments right above it go too.
pub fn remove_node(text: &str, name: &str) -> Result<String> {
    let mut document = parse(text)?;
    let is = |found: Option<&str>| found == Some(name);
    match nodes(&mut document)? {
        Nodes::Tables(tables) => tables.retain(|table| !is(table.get("name").and_then(Item::as_str))),
        Nodes::Inline(array) => array.retain(|node| !is(name_of(node))),
    }
    Ok(document.to_string())
}

/// The text with another address of a node; a comment behind the old one stays.
pub fn set_address(text: &str, name: &str, address: IpAddr) -> Result<String> {
    let mut document = parse(text)?;
    let found = match nodes(&mut document)? {
        Nodes::Tables(tables) => tables
            .iter_mut()
            .find(|table| table.get("name").and_then(Item::as_str) == Some(name))
            .and_then(|table| table.get_mut("address")?.as_value_mut()),
        Nodes::Inline(array) => array
            .iter_mut()
            .find(|node| name_of(node) == Some(name))
            .and_then(|node| node.as_inline_table_mut()?.get_mut("address")),
    };
    let found = found.with_context(|| format!("the config has no node `{name}` with an address"))?;
    let decor = found.decor().clone();
    *found = address.to_string().into();
    *found.decor_mut() = decor;
    Ok(document.to_string())
}

/// The two ways TOML has for a list of tables.
enum Nodes<'a> {
    Tables(&'a mut ArrayOfTables),
    Inline(&'a mut Array),
}

fn nodes(document: &mut DocumentMut) -> Result<Nodes<'_>> {
    match document.get_mut("node") {
        Some(Item::ArrayOfTables(tables)) => Ok(Nodes::Tables(tables)),
        Some(Item::Value(Value::Array(array))) => Ok(Nodes::Inline(array)),
        _ => bail!("the config has no list of nodes"),
    }
}

fn name_of(node: &Value) -> Option<&str> {
    node.as_inline_table()?.get("name")?.as_str()
}

fn parse(text: &str) -> Result<DocumentMut> {
    text.parse().context("reading the cluster config to change it")
}

#[cfg(test)]
mod tests {
    use bundle::component::Role;

    use super::*;
    use crate::config::Roles;

    const TEXT: &str = "# Our site.\n[cluster]\nname = \"site\"   # short\n\n# Rack 1\n[[node]]\nname = \"m1\"\n\
        address = \"192.0.2.1\" # top\nroles = [\"master\"]\n\n# Rack 2\n[[node]]\nname = \"w1\"\n\
        address = \"192.0.2.7\"\nroles = [\"worker\"]\n\n[etcd]\nheartbeat_ms = 100\n";
    const INLINE: &str = "[cluster]\nname = \"site\"\n";

    fn w2(interface: Option<&str>) -> Node {
        let roles = Roles::new([Role::Worker]);
        let interface = interface.map(str::to_owned);
        Node { name: "w2".to_owned(), address: "192.0.2.8".parse().unwrap(), interface, roles }
    }

    #[test]
    fn a_node_is_added_behind_the_others() {
        let added = add_node(TEXT, &w2(None)).unwrap();
        let (before, after) = TEXT.split_once("\n[etcd]").unwrap();
        let node = "\n[[node]]\nname = \"w2\"\naddress = \"192.0.2.8\"\nroles = [\"worker\"]\n";
        assert_eq!(added, format!("{before}{node}\n[etcd]{after}"));
        assert_eq!(remove_node(&added, "w2").unwrap(), TEXT);
        assert!(add_node(TEXT, &w2(Some("eth1"))).unwrap().contains("roles = [\"worker\"]\ninterface = \"eth1\"\n"));
    }

    #[test]
    fn only_the_named_node_goes_or_moves() {
        let without = remove_node(TEXT, "w1").unwrap();
        assert!(!without.contains("w1") && !without.contains("Rack 2") && without.contains("# Rack 1"), "{without}");
        let moved = set_address(TEXT, "m1", "192.0.2.99".parse().unwrap()).unwrap();
        assert_eq!(moved, TEXT.replace("192.0.2.1\"", "192.0.2.99\""));
        assert!(set_address(TEXT, "x", "192.0.2.99".parse().unwrap()).is_err());
        assert_eq!(remove_node(TEXT, "x").unwrap(), TEXT);
    }

    #[test]
    fn nodes_written_in_one_line_are_changed_too() {
        let text = format!("node = [{{ name = \"m1\", address = \"192.0.2.1\", roles = [\"master\"] }}]\n{INLINE}");
        let added = add_node(&text, &w2(None)).unwrap();
        let moved = set_address(&added, "w2", "192.0.2.9".parse().unwrap()).unwrap();
        assert!(moved.contains("{ name = \"w2\", address = \"192.0.2.9\", roles = [\"worker\"] }"), "{moved}");
        assert_eq!(remove_node(&added, "w2").unwrap(), text);
        assert!(add_node(INLINE, &w2(None)).is_err());
    }
}
