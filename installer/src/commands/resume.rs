//! `installer resume`: goes on with a run that waits or was interrupted, from what is on the host: no bundle, no arguments.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use bundle::Image;
use bundle::component::Role;

use super::install::{finish, require_root};
use super::prepare::{Asked, Origin, Prepared};
use crate::cli::cluster::Refresh;
use crate::config::{ClusterConfig, Roles, role_name};
use crate::engine::{self, Numbering, Record, Summary};
use crate::event::{Event, Events as _, Fan, Log};
use crate::facts::Facts;
use crate::generation::{Switch, current_bundle, current_images};
use crate::host::Host;
use crate::journal::{Journal, Pending};
use crate::lock::Lock;
use crate::output::Output;
use crate::plan::{Plan, StepsOf};
use crate::report::Exit;
use crate::report::Explain as _;
use crate::store::{Footprint, Program, Store};

/// Runs the steps of the pending run again; each step's own check decides what is left to do.
pub fn resume(host: &Host, arguments: &Refresh, output: &Output, steps: StepsOf) -> Result<Exit> {
    require_root(host)?;
    engine::stop_on_signals()?;
    let start = host.monotonic();
    if Journal::read(host)?.pending().is_none() {
        output.line("nothing to resume: the last run has ended");
        return Ok(Exit::Done);
    }
    let mut footprint = Footprint::new(host);
    let _lock = Lock::take(host, &mut footprint)?;
    // Only now: the pending run may have ended while this one waited.
    let journal = Journal::read(host)?;
    let Some(pending) = journal.pending() else {
        output.line("nothing to resume: the last run has ended");
        return Ok(Exit::Done);
    };
    let images = images(host, &pending)?;
    let config = ClusterConfig::parse(&pending.config, Path::new("the journal"))?;
    let roles = parse_roles(&pending.inputs.roles)?;
    let facts = Facts::gather(host)?;
    let origin = Origin { title: "the pending run".to_owned(), index: pending.inputs.index };
    let asked = Asked {
        config,
        text: pending.config.clone(),
        roles: Some(roles),
        join: None,
        init: false,
        patience: arguments.patience.wait,
    };
    let prepared = Prepared::new(host, asked, facts, images, origin)?;
    journal.require(&prepared.inputs())?;

    let switch = Switch { acceptance: None, config: prepared.config_text.clone() };
    let plan = Plan::new(steps(&prepared.roles), Store::comparing(), Program { digest: prepared.installer }, switch);
    let log = Log::new(host);
    let events = Fan(vec![output, &log]);
    let context = prepared.context(host, &events);
    let (bundle, roles) = (prepared.title.clone(), prepared.roles.to_string());
    events.emit(&Event::RunStarted { roles, bundle, steps: plan.len() });
    let mut record = Record { journal, inputs: pending.inputs, config: pending.config, log: &log };
    let mut summary = Summary::default();
    let result = (|| {
        let mut before = 0;
        for part in [&plan.preflight, &plan.store, &plan.steps] {
            let numbering = Numbering { before, total: plan.len() };
            engine::run(part, &context, Some(&mut record), numbering, &mut summary)?;
            before += part.len();
        }
        if summary.waiting.is_none() {
            record.journal.end()?;
        }
        Ok(())
    })();
    finish(host, start, result, &summary, &events, output)
}

/// The images of the pending run's bundle. What is current may still be the generation of an earlier one.
fn images(host: &Host, pending: &Pending) -> Result<Vec<Image>> {
    let found = if current_bundle(host)? == Some(pending.inputs.index) { current_images(host)? } else { None };
    found
        .ok_or_else(|| anyhow!("the run that began at {} ended before its bundle was in place", pending.since))
        .exit(Exit::Usage)
        .hint(format!("give the bundle again: `installer --role {} --bundle … --config …`", pending.inputs.roles))
}

fn parse_roles(text: &str) -> Result<Roles> {
    let all = [Role::Master, Role::Worker, Role::Etcd];
    let parse = |name: &str| all.into_iter().find(|role| role_name(*role) == name);
    let roles: Option<Vec<Role>> = text.split(',').map(parse).collect();
    Ok(Roles::new(roles.with_context(|| format!("the journal names unknown roles: `{text}`"))?))
}
