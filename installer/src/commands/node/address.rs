//! `installer node set-address`: before an address changes, or after. docs/cluster.md has the sequences as a table.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use super::keep_copy;
use super::members::Bundled;
use super::nodes::{Change, masters_to_refresh};
use crate::agent::RECORD;
use crate::cluster::known::{Known, Moved, Source};
use crate::cluster::{Record, administrator_anywhere, administrator_soon, require_master};
use crate::commands::refresh;
use crate::config::{ClusterConfig, edit};
use crate::facts::Facts;
use crate::host::Host;
use crate::output::Output;
use crate::pki::AuthorityName;
use crate::pki::files::key_path;
use crate::plan::StepsOf;
use crate::report::{Exit, Explain as _};

/// How long the run that follows on this host waits for others.
const PATIENCE: Duration = Duration::from_secs(120);

/// Tells the cluster, and goes on with this host when it is the one that has moved.
pub(super) fn set_address(host: &Host, name: &str, address: IpAddr, output: &Output, steps: StepsOf) -> Result<Exit> {
    let here = Facts::gather(host)?.addresses();
    let master = host.exists(&key_path(AuthorityName::Cluster.stem()))?;
    let known = if master { tell(host, name, address, &here, output)? } else { follow(host, name, address, &here)? };
    if here.contains(&address) {
        return refresh::run(host, &known, PATIENCE, output, steps);
    }
    output.line(&format!("next: give {name} the address {address}, then run `installer refresh` on it"));
    let node = known.config.nodes.iter().find(|node| node.name == name);
    let further = known.record.as_ref().zip(node).and_then(|(record, node)| masters_to_refresh(record, &node.roles));
    if let Some(line) = further {
        output.line(&line);
    }
    Ok(Exit::Done)
}

/// On a master: through whichever API server answers. When none can, because this host's etcd is the only member and has
/// lost its address, the change is noted here and told to the API as soon as that runs again.
fn tell(host: &Host, name: &str, address: IpAddr, here: &[IpAddr], output: &Output) -> Result<Known> {
    let say = |line: &str| output.notice(line);
    let client = match administrator_anywhere(host) {
        Ok(client) => client,
        Err(_) => match note(host, name, address, here)? {
            Some(known) => return Ok(known),
            None => administrator_soon(host, &say)?,
        },
    };
    let record =
        Change { host, client: &client, members: &Bundled { host }, here, say: &say }.announce(name, address)?;
    keep_copy(host, &client)?;
    let generation = record.generation;
    output.line(&format!("the cluster knows {name} at {address}: generation {generation} of its config"));
    Ok(Known::of_record(record, Source::Cluster))
}

/// The only etcd member has lost its address: nobody but this host can tell.
fn note(host: &Host, name: &str, address: IpAddr, here: &[IpAddr]) -> Result<Option<Known>> {
    let known = Known::here(host)?.context("this host knows of no cluster")?;
    let alone = known.config.etcd_members().iter().all(|member| member.name == name);
    if !alone || !here.contains(&address) {
        return Ok(None);
    }
    let mut record = known.record.clone().map_or_else(|| Record::new(&known.text, 0, BTreeMap::new()), Ok)?;
    record.move_node(name, address)?;
    Moved { node: name.to_owned(), address, generation: record.generation }.write(host)?;
    if known.record.is_some() {
        // The agent finds the API server of this host by it.
        record.keep(host, Path::new(RECORD))?;
    }
    Ok(Some(Known::of_record(record, known.source)))
}

/// On a host that is no master, when its own address has changed: a master has been told; a dedicated etcd member, which
/// cannot ask the API, takes it from the command line.
fn follow(host: &Host, name: &str, address: IpAddr, here: &[IpAddr]) -> Result<Known> {
    if !here.contains(&address) {
        require_master(host)?;
    }
    let (known, stale) = Known::freshest(host, None)?.context("this host knows of no cluster").exit(Exit::Usage)?;
    let node = known.config.nodes.iter().find(|node| node.name == name);
    let node = node.with_context(|| format!("the cluster has no node `{name}`")).exit(Exit::Usage)?;
    if node.address == address {
        return Ok(known);
    }
    if !node.roles.etcd() || node.roles.iter().count() > 1 {
        let reason = stale.map(|reason| format!(" (as this host knows it: {reason})")).unwrap_or_default();
        return Err(anyhow!("the cluster has {name} at {}{reason}", node.address)).hint(format!(
            "run `installer node set-address {name} {address}` on a master first, then `installer refresh` here"
        ));
    }
    let text = edit::set_address(&known.text, name, address)?;
    let config = ClusterConfig::parse(&text, Path::new("the changed cluster.toml"))?;
    Ok(Known { config, text, record: None, source: known.source })
}
