//! Changes of the cluster's nodes, as changes of its record. Pure: whoever calls this writes the record.

use std::net::IpAddr;

use anyhow::{Context as _, Result, anyhow};
use bundle::component::Role;

use super::Record;
use crate::config::{ClusterConfig, Node, edit};
use crate::report::Explain as _;

impl Record {
    /// A node of the config.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.config.nodes.iter().find(|node| node.name == name)
    }

    /// Adds a node. One that is there just so is no change; says whether it is one.
    pub fn add_node(&mut self, added: &Node) -> Result<bool> {
        let name = &added.name;
        if let Some(node) = self.node(name) {
            if node == added {
                return Ok(false);
            }
            return Err(anyhow!(
                "the cluster already has a node `{name}`: {} with the roles {}",
                node.address,
                node.roles
            ))
            .hint("choose another name; for another address of this node: `installer node set-address`");
        }
        if added.roles.etcd() && !dedicated(&self.config) {
            return Err(anyhow!(
                "this cluster has its etcd on the masters; a node with the role `etcd` would move it away"
            ))
            .hint("to have one more etcd member, add a master");
        }
        self.set_config(&edit::add_node(self.text(), added)?)?;
        Ok(true)
    }

    /// Takes a node out of the config. The last master and the last etcd member stay.
    pub fn remove_node(&mut self, name: &str) -> Result<bool> {
        if self.node(name).is_none() {
            return Ok(false);
        }
        if self.config.masters().all(|master| master.name == name) {
            return Err(anyhow!("`{name}` is the last master")).hint("add another master first");
        }
        if self.config.etcd_members().iter().all(|member| member.name == name) {
            return Err(anyhow!("`{name}` is the last etcd member")).hint("add another one first: it holds all data");
        }
        let text = edit::remove_node(self.text(), name)?;
        self.set_config(&text)?;
        self.moving.remove(name);
        Ok(true)
    }

    /// Gives a node another address. A master's old one stays known until it has [arrived](Record::arrived), so that the
    /// others find it wherever it is.
    pub fn move_node(&mut self, name: &str, address: IpAddr) -> Result<bool> {
        let node = self.node(name).with_context(|| format!("the cluster has no node `{name}`"))?;
        let (leaves, master) = (node.address, node.roles.master());
        if leaves == address {
            return Ok(false);
        }
        self.set_config(&edit::set_address(self.text(), name, address)?)?;
        if master {
            let left = *self.moving.entry(name.to_owned()).or_insert(leaves);
            if left == address {
                self.moving.remove(name);
            }
        }
        Ok(true)
    }

    /// A node works at its address: the one it left is forgotten.
    pub fn arrived(&mut self, name: &str) {
        self.moving.remove(name);
    }

    /// A new generation of the same config, so that everybody looks.
    pub fn raise(&mut self) -> Result<()> {
        let text = self.text().to_owned();
        self.set_config(&text)
    }
}

/// Whether etcd has nodes of its own.
pub fn dedicated(config: &ClusterConfig) -> bool {
    config.nodes.iter().any(|node| node.roles.contains(Role::Etcd))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Roles;

    const TEXT: &str =
        "[cluster]\nname = \"site\"\n\n[[node]]\nname = \"m1\"\naddress = \"192.0.2.1\"\nroles = [\"master\"]\n";

    fn record(more: &str) -> Record {
        Record::new(&format!("{TEXT}{more}"), 1, BTreeMap::new()).unwrap()
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn node(name: &str, last: u8, role: Role) -> Node {
        Node { name: name.to_owned(), address: address(last), interface: None, roles: Roles::new([role]) }
    }

    #[test]
    fn adding_checks_the_whole_config_and_can_be_repeated() {
        let mut record = record("");
        assert!(record.add_node(&node("w1", 7, Role::Worker)).unwrap());
        assert!(!record.add_node(&node("w1", 7, Role::Worker)).unwrap());
        assert_eq!((record.generation, record.config.nodes.len()), (2, 2));
        for (name, last, role, words) in [
            ("w1", 8, Role::Worker, "already has a node `w1`"),
            ("w2", 7, Role::Worker, "already the address of `w1`"),
            ("W2", 9, Role::Worker, "lower case"),
            ("e1", 9, Role::Etcd, "on the masters"),
        ] {
            let error = record.add_node(&node(name, last, role)).unwrap_err();
            assert!(format!("{error:#}").contains(words), "{error:#}");
        }
        assert_eq!(record.generation, 2);
    }

    #[test]
    fn the_last_master_and_the_last_member_stay() {
        let second = "[[node]]\nname = \"m2\"\naddress = \"192.0.2.2\"\nroles = [\"master\"]\n";
        let member = "[[node]]\nname = \"e1\"\naddress = \"192.0.2.3\"\nroles = [\"etcd\"]\n";
        let mut record = record(&format!("{second}{member}"));
        assert!(record.remove_node("e1").unwrap_err().to_string().contains("last etcd member"));
        assert!(record.remove_node("m2").unwrap());
        assert!(!record.remove_node("m2").unwrap(), "gone already");
        assert!(record.remove_node("m1").unwrap_err().to_string().contains("last master"));
    }

    #[test]
    fn a_moving_master_is_looked_for_at_both_addresses() {
        let mut record = record("[[node]]\nname = \"w1\"\naddress = \"192.0.2.7\"\nroles = [\"worker\"]\n");
        let servers = |record: &Record| -> Vec<String> {
            record.api_servers().iter().map(|server| server.ip().to_string()).collect()
        };
        assert!(record.move_node("m1", address(20)).unwrap());
        assert!(!record.move_node("m1", address(20)).unwrap());
        assert_eq!(servers(&record), ["192.0.2.20", "192.0.2.1"]);
        record.move_node("m1", address(21)).unwrap();
        assert_eq!(servers(&record), ["192.0.2.21", "192.0.2.1"], "it is still where it was");
        let mut back = record.clone();
        back.move_node("m1", address(1)).unwrap();
        assert_eq!(servers(&back), ["192.0.2.1"]);
        record.arrived("m1");
        assert_eq!(servers(&record), ["192.0.2.21"]);
        record.move_node("w1", address(8)).unwrap();
        assert_eq!(servers(&record), ["192.0.2.21"]);
        assert!(record.move_node("w1", address(21)).unwrap_err().to_string().contains("already the address"));
    }
}
