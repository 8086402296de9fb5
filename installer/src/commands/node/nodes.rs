//! Adding, removing, replacing and moving nodes.

use std::net::IpAddr;

use anyhow::{Context as _, Result, anyhow};

use super::members::Members;
use super::signs::Watch;
use crate::cluster::{Record, nodes::dedicated};
use crate::config::{Node, Roles};
use crate::host::Host;
use crate::kubeapi::Client;
use crate::pki::tokens;
use crate::report::{Exit, Explain as _};

/// Whom a change goes through.
pub(super) struct Change<'a> {
    pub(super) host: &'a Host,
    pub(super) client: &'a Client<'a>,
    pub(super) members: &'a dyn Members,
    /// Addresses of the host that this runs on.
    pub(super) here: &'a [IpAddr],
    /// What people should know while they wait.
    pub(super) say: &'a dyn Fn(&str),
}

impl Change<'_> {
    pub(super) fn record(&self) -> Result<Record> {
        Record::read(self.client)?.context("the cluster has no record yet: its first master is not up")
    }

    /// Adds a node to the config. Gives what to say.
    pub(super) fn add(&self, node: &Node) -> Result<Vec<String>> {
        let Node { name, address, roles, .. } = node;
        let before = self.record()?.generation;
        let record = Record::change(self.client, |record| record.add_node(node).map(drop))?;
        let generation = record.generation;
        let what = if generation == before { "is there already" } else { "is added" };
        let mut said = vec![
            format!("node {name} ({address}, {roles}) {what}: generation {generation} of the cluster's config"),
            format!("next, here:    installer join-file --node {name}"),
            format!("then, on {name}: installer --bundle FILE --join {name}.join"),
        ];
        said.extend(record.config.warnings().iter().map(|warning| format!("warning: {warning}")));
        said.extend(masters_to_refresh(&record, roles));
        Ok(said)
    }

    /// Takes a node out of the cluster: etcd, tokens, node object, and last the config.
    pub(super) fn remove(&self, name: &str, force: bool) -> Result<Vec<String>> {
        let record = self.record()?;
        let Some(node) = record.node(name).cloned() else {
            return Ok(vec![format!("the cluster has no node {name} (any more): nothing to do")]);
        };
        // What would be refused at the end is refused before anything is taken away.
        record.clone().remove_node(name)?;
        self.elsewhere(&node, "remove")?;
        if !force && self.works(name)? {
            return Err(anyhow!("node `{name}` still works: its kubelet reports to the cluster"))
                .hint("run `installer reset --drain` on it first; or say `--force` and switch it off yourself");
        }
        if record.config.runs_etcd(&node) {
            self.members.remove(name, force)?;
        }
        self.forget(&record, name)?;
        let record = self.revoke(&record, name, |record| record.remove_node(name).map(drop))?;
        let mut said = vec![
            format!("node {name} is removed: generation {} of the cluster's config", record.generation),
            format!(
                "if {name} still runs: `installer reset` there takes Sealift off it (its certificates stay valid until they end)"
            ),
        ];
        said.extend(record.config.warnings().iter().map(|warning| format!("warning: {warning}")));
        said.extend(masters_to_refresh(&record, &node.roles));
        Ok(said)
    }

    /// Forgets what a dead host was to the cluster; its place in the config stays.
    pub(super) fn replace(&self, name: &str) -> Result<Vec<String>> {
        let record = self.record()?;
        let node = record.node(name).cloned().ok_or_else(|| unknown(&record, name)).exit(Exit::Usage)?;
        self.elsewhere(&node, "replace")?;
        if self.works(name)? {
            return Err(anyhow!(
                "node `{name}` works, its kubelet reports to the cluster: there is nothing to replace"
            ))
            .hint("switch the host off, then run this again; or `installer node remove` takes a node away for good");
        }
        if record.config.runs_etcd(&node) {
            self.members.replace(name)?;
        }
        self.forget(&record, name)?;
        let record = self.revoke(&record, name, Record::raise)?;
        Ok(vec![
            format!("node {name} is forgotten: generation {} of the cluster's config", record.generation),
            format!("next, here:    installer join-file --node {name}"),
            format!("then, on the new host at {}: installer --bundle FILE --join {name}.join", node.address),
        ])
    }

    /// Announces a node's other address: etcd first, so that its peers look for it there, then the config.
    pub(super) fn announce(&self, name: &str, address: IpAddr) -> Result<Record> {
        let record = self.record()?;
        let node = record.node(name).cloned().ok_or_else(|| unknown(&record, name)).exit(Exit::Usage)?;
        record.clone().move_node(name, address)?;
        if record.config.runs_etcd(&node) {
            self.members.update_address(name, address)?;
        }
        Record::change(self.client, |record| record.move_node(name, address).map(drop))
    }

    /// Deletes the node's bootstrap tokens and its node object.
    fn forget(&self, record: &Record, name: &str) -> Result<()> {
        record.tokens_of(name).iter().try_for_each(|id| self.delete_token(id))?;
        self.client.delete(&path(name))?;
        Ok(())
    }

    /// Changes the record, and takes the node's tokens out of it. One that has come in since `before` was read, whose tokens
    /// are gone, is deleted as well.
    fn revoke(&self, before: &Record, name: &str, mut edit: impl FnMut(&mut Record) -> Result<()>) -> Result<Record> {
        let mut revoked = Vec::new();
        let after = Record::change(self.client, |record| {
            revoked = record.tokens_of(name);
            for id in &revoked {
                record.revoke(id);
            }
            edit(record)
        })?;
        let mut late = revoked.iter().filter(|id| !before.tokens.contains_key(*id));
        late.try_for_each(|id| self.delete_token(id))?;
        Ok(after)
    }

    fn delete_token(&self, id: &str) -> Result<()> {
        self.client.delete(&format!("/api/v1/namespaces/kube-system/secrets/{}", tokens::object_name(id)))?;
        Ok(())
    }

    fn works(&self, name: &str) -> Result<bool> {
        Watch { host: self.host, client: self.client, say: self.say }.works(name)
    }

    fn elsewhere(&self, node: &Node, verb: &str) -> Result<()> {
        if !self.here.contains(&node.address) {
            return Ok(());
        }
        Err(anyhow!("`{}` is this host: it cannot {verb} itself", node.name))
            .exit(Exit::Usage)
            .hint("run the command on another master")
    }
}

pub(super) fn path(name: &str) -> String {
    format!("/api/v1/nodes/{name}")
}

fn unknown(record: &Record, name: &str) -> anyhow::Error {
    let nodes: Vec<&str> = record.config.nodes.iter().map(|node| node.name.as_str()).collect();
    anyhow!("the cluster has no node `{name}`; it has {}", nodes.join(", "))
}

/// API servers name dedicated etcd members on their command line; nothing else names other nodes there.
pub(super) fn masters_to_refresh(record: &Record, roles: &Roles) -> Option<String> {
    if !roles.etcd() || !dedicated(&record.config) {
        return None;
    }
    let masters: Vec<&str> = record.config.masters().map(|master| master.name.as_str()).collect();
    Some(format!("afterwards, one after the other on {}: installer refresh", masters.join(", ")))
}
