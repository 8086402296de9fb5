//! `installer resume`: goes on with a run that waits or was interrupted, from what is on the host: no bundle, no arguments.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, anyhow};
use bundle::{Digest, Image};

use super::again::{Again, parse_roles};
use super::install::require_root;
use super::prepare::{require_installer, retry_kernel};
use crate::background::{self, Foreground};
use crate::cli::cluster::Resume;
use crate::cluster::Known;
use crate::engine::{self, interrupted};
use crate::generation::{current_bundle, current_images};
use crate::host::Host;
use crate::journal::{Journal, Pending};
use crate::lock::Lock;
use crate::output::Output;
use crate::plan::StepsOf;
use crate::report::{Exit, Explain as _};
use crate::store::Footprint;
use crate::waiting;

/// How long the run in the background waits for one that an operator has started.
const LOCK_WITHIN: Duration = Duration::from_secs(60);

/// Runs the steps of the pending run again; each step's own check decides what is left to do.
pub fn resume(host: &Host, arguments: &Resume, output: &Output, steps: StepsOf) -> Result<Exit> {
    require_root(host)?;
    engine::stop_on_signals()?;
    let inside = background::inside(host);
    if Journal::read(host)?.pending().is_none() {
        return nothing(host, output);
    }
    let _foreground = Foreground::take_over(host, output)?;
    let mut footprint = Footprint::new(host);
    let patience = if inside { LOCK_WITHIN } else { Duration::ZERO };
    let _lock = Lock::take_within(host, &mut footprint, patience)?;
    let result = go_on(host, arguments, output, steps);
    if let Err(error) = &result
        && inside
        && !interrupted()
    {
        // Nobody sees it otherwise: systemd tries again.
        waiting::failed(host, &format!("{error:#}"));
    }
    result
}

fn nothing(host: &Host, output: &Output) -> Result<Exit> {
    background::remove(host)?;
    output.line("nothing to resume: the last run has ended");
    Ok(Exit::Done)
}

fn go_on(host: &Host, arguments: &Resume, output: &Output, steps: StepsOf) -> Result<Exit> {
    // Only now: the pending run may have ended while this one waited.
    let journal = Journal::read(host)?;
    let Some(pending) = journal.pending() else { return nothing(host, output) };
    require_installer(host, &pending)?;
    let images = images(host, &pending)?;
    let (config, source) = match newer(host, &pending, arguments.refresh.from)? {
        Some(text) => (text, "the cluster's record"),
        None => (pending.config.clone(), "the journal"),
    };
    let again = Again {
        title: "the pending run",
        index: pending.inputs.index,
        images,
        config,
        source: source.to_owned(),
        roles: Some(parse_roles(&pending.inputs.roles)?),
        patience: arguments.refresh.patience.wait,
        reboot: arguments.reboot.unwrap_or(pending.inputs.reboot),
        retry_kernel: retry_kernel(host, arguments.retry_kernel, Some(&journal))?,
    };
    again.run(host, journal, output, steps)
}

/// The cluster's config, when it has replaced the one that the pending run began with: somebody has changed the cluster
/// while this host waited.
fn newer(host: &Host, pending: &Pending, from: Option<IpAddr>) -> Result<Option<String>> {
    let begun = Digest::of(pending.config.as_bytes());
    let known = Known::freshest(host, from)?.and_then(|(known, _)| known.record);
    Ok(known.filter(|record| record.replaced(begun)).map(|record| record.text().to_owned()))
}

/// The images of the pending run's bundle. What is current may still be the generation of an earlier one.
pub(super) fn images(host: &Host, pending: &Pending) -> Result<Vec<Image>> {
    let found = if current_bundle(host)? == Some(pending.inputs.index) { current_images(host)? } else { None };
    found
        .ok_or_else(|| anyhow!("the run that began at {} ended before its bundle was in place", pending.since))
        .exit(Exit::Usage)
        .hint(format!("give the bundle again: `installer --role {} --bundle … --config …`", pending.inputs.roles))
}
