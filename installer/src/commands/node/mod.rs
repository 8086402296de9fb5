//! `installer node …`: the nodes of the cluster, changed in one place.
//!
//! A change goes through etcd, the API's objects and the cluster's record, in an order that lets the same command finish
//! after a crash anywhere: what is refused is refused first, the record is changed last, and each part is a no-op when it
//! is done already.

mod address;
mod list;
mod members;
mod nodes;
mod signs;
#[cfg(test)]
mod tests;

use std::path::Path;

use anyhow::{Context as _, Result};

use self::members::Bundled;
use self::nodes::Change;
use super::install::require_root;
use crate::agent::RECORD;
use crate::cli::cluster::Node;
use crate::cluster::administrator_soon;
use crate::config::{self, Roles};
use crate::facts::Facts;
use crate::host::Host;
use crate::output::Output;
use crate::plan::StepsOf;
use crate::report::Exit;

/// Runs the command.
pub fn node(host: &Host, arguments: &Node, output: &Output, steps: StepsOf) -> Result<Exit> {
    require_root(host)?;
    let said = match arguments {
        Node::List(_) => return list::list(host, output).map(|()| Exit::Done),
        Node::SetAddress { name, address } => return address::set_address(host, name, *address, output, steps),
        Node::Add { name, address, roles, interface } => {
            let (name, roles) = (name.clone(), Roles::new(roles.iter().copied()));
            let node = config::Node { name, address: *address, interface: interface.clone(), roles };
            change(host, output, |change| change.add(&node))?
        }
        Node::Remove { name, force } => change(host, output, |change| change.remove(name, *force))?,
        Node::Replace { name } => change(host, output, |change| change.replace(name))?,
    };
    for line in said {
        output.line(&line);
    }
    Ok(Exit::Done)
}

/// Makes a change and keeps the copy of the record that follows from it; gives what to say.
fn change(host: &Host, output: &Output, make: impl FnOnce(&Change<'_>) -> Result<Vec<String>>) -> Result<Vec<String>> {
    let say = |line: &str| output.notice(line);
    let client = administrator_soon(host, &say)?;
    let here = Facts::gather(host)?.addresses();
    let said = make(&Change { host, client: &client, members: &Bundled { host }, here: &here, say: &say })?;
    keep_copy(host, &client)?;
    Ok(said)
}

fn keep_copy(host: &Host, client: &crate::kubeapi::Client<'_>) -> Result<()> {
    let record = crate::cluster::Record::read(client)?.context("the cluster has no record")?;
    record.keep(host, Path::new(RECORD))
}
