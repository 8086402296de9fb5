//! `installer refresh`: this host as the cluster's present config wants it, from what it already has: no bundle needed.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use super::again::{Again, parse_roles};
use super::install::require_root;
use super::resume;
use crate::background::Foreground;
use crate::cli::cluster::Refresh;
use crate::cluster::Known;
use crate::config::Roles;
use crate::engine;
use crate::facts::Facts;
use crate::generation::{current_bundle, current_images};
use crate::host::Host;
use crate::journal::Journal;
use crate::lock::Lock;
use crate::output::Output;
use crate::plan::StepsOf;
use crate::report::{Exit, Explain as _};
use crate::store::Footprint;

/// Renders the present config and runs all steps. A pending run of the same bundle is finished with it.
pub fn refresh(host: &Host, arguments: &Refresh, output: &Output, steps: StepsOf) -> Result<Exit> {
    require_root(host)?;
    let (known, stale) = Known::freshest(host, arguments.from)?
        .context("Sealift has installed nothing on this host")
        .exit(Exit::Usage)?;
    if let Some(reason) = stale {
        output.error(&format!("warning: nobody could be asked for the cluster's present config: {reason}"));
    }
    run(host, &known, arguments.patience.wait, output, steps)
}

/// Runs all steps with a config that this host has learnt of.
pub(super) fn run(host: &Host, known: &Known, patience: Duration, output: &Output, steps: StepsOf) -> Result<Exit> {
    engine::stop_on_signals()?;
    let _foreground = Foreground::take_over(host, output)?;
    let mut footprint = Footprint::new(host);
    let _lock = Lock::take(host, &mut footprint)?;
    let journal = Journal::read(host)?;
    let pending = journal.pending();
    let (index, images) = match &pending {
        Some(pending) => (pending.inputs.index, resume::images(host, pending)?),
        None => current_bundle(host)?
            .zip(current_images(host)?)
            .context("no bundle has been installed on this host")
            .exit(Exit::Usage)
            .hint("`installer --bundle … --config …` installs one")?,
    };
    let facts = Facts::gather(host)?;
    let node =
        known.config.node_at(&facts.addresses()).ok_or_else(|| elsewhere(known, &facts)).exit(Exit::Preflight)?;
    // A host may have been given less than all roles of its node; it does not get more by itself.
    let given: Option<Roles> = journal.last().map(|inputs| parse_roles(&inputs.roles)).transpose()?;
    let again = Again {
        title: "what is installed",
        index,
        images,
        config: known.text.clone(),
        source: known.source.path().display().to_string(),
        roles: given.filter(|given| given.is_subset(&node.roles)),
        patience,
        reboot: journal.last().map(|inputs| inputs.reboot).unwrap_or_default(),
        retry_kernel: journal.retry_kernel(),
    };
    again.run(host, journal, output, steps)
}

/// The cluster has this host at an address that it does not have.
fn elsewhere(known: &Known, facts: &Facts) -> anyhow::Error {
    let list = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join(", ");
    let own = list(&mut facts.addresses().iter().map(ToString::to_string));
    let nodes = list(&mut known.config.nodes.iter().map(|node| format!("{} {}", node.name, node.address)));
    anyhow!("the cluster has no node at an address of this host (it has {own}; the cluster has {nodes})").hint(
        "if its address changes: give the host the address that the cluster knows, or tell a master of the other one \
         with `installer node set-address`",
    )
}
