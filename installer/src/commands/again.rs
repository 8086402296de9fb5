//! A run from what is on the host already: the images of a generation, no bundle. `resume` and `refresh` are this.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use bundle::component::Role;
use bundle::{Digest, Image};

use super::install::finish;
use super::prepare::{Asked, Origin, Prepared};
use crate::background;
use crate::checks::CheckName;
use crate::config::{ClusterConfig, Roles, role_name};
use crate::engine::{self, Numbering, Record, Summary};
use crate::event::{Event, Events as _, Fan, Log};
use crate::facts::Facts;
use crate::generation::Switch;
use crate::host::Host;
use crate::journal::Journal;
use crate::output::Output;
use crate::plan::{Plan, StepsOf};
use crate::report::{Exit, Explain as _};
use crate::restart::Mode;
use crate::steps::kernel;
use crate::store::{Program, Store};

/// What is run again.
pub(super) struct Again {
    /// For people.
    pub(super) title: &'static str,
    /// Digest of the index of the bundle that the images are from.
    pub(super) index: Digest,
    /// The images.
    pub(super) images: Vec<Image>,
    /// Text of the cluster config.
    pub(super) config: String,
    /// Where it is from, for messages.
    pub(super) source: String,
    /// The roles; those of the node when not known.
    pub(super) roles: Option<Roles>,
    /// How long to wait for other hosts.
    pub(super) patience: Duration,
    /// Whether to reboot when that is needed.
    pub(super) reboot: Mode,
    /// Try a kernel again that has failed: how many had when that was said.
    pub(super) retry_kernel: Option<usize>,
}

impl Again {
    /// Runs all steps; each one's own check decides what is left to do. A pending run of other inputs is given up: who calls
    /// this has decided that. The lock is held.
    pub(super) fn run(self, host: &Host, journal: Journal<'_>, output: &Output, steps: StepsOf) -> Result<Exit> {
        let start = host.monotonic();
        let config = ClusterConfig::parse(&self.config, Path::new(&self.source))?;
        let facts = Facts::gather(host)?;
        let origin = Origin { title: self.title.to_owned(), index: self.index, created: None };
        let asked = Asked {
            config,
            text: self.config.clone(),
            roles: self.roles,
            join: None,
            joined: journal.joined(),
            init: false,
            // A run without a person goes on as the last one did.
            ignored: journal.last().map(|inputs| CheckName::of_record(&inputs.ignored)).unwrap_or_default(),
            patience: self.patience,
            reboot: self.reboot,
            retry_kernel: self.retry_kernel,
        };
        let prepared = Prepared::new(host, asked, facts, self.images, origin)?;
        let switch = Switch { acceptance: None, config: prepared.config_text.clone() };
        let plan =
            Plan::new(steps(&prepared.roles), Store::comparing(), Program { digest: prepared.installer }, switch);
        let log = Log::new(host);
        let events = Fan(vec![output, &log]);
        let context = prepared.context(host, &events);
        let (bundle, roles) = (prepared.title.clone(), prepared.roles.to_string());
        events.emit(&Event::RunStarted { roles, bundle, steps: plan.len() });
        let mut record = Record { journal, inputs: prepared.inputs(), config: self.config, log: &log };
        let mut summary = Summary::default();
        let result = (|| {
            let numbering = |before| Numbering { before, total: plan.len() };
            let looked = engine::run(&plan.preflight, &context, Some(&mut record), numbering(0), &mut summary);
            // What preflight finds may pass by itself (a clock, a route, room on a disk), so the run in the background tries
            // again; what a later step refuses with that exit code needs a person.
            if background::inside(host) { looked.exit(Exit::Failed) } else { looked }?;
            let mut before = plan.preflight.len();
            for part in [&plan.store, &plan.steps] {
                engine::run(part, &context, Some(&mut record), numbering(before), &mut summary)?;
                before += part.len();
            }
            Ok(())
        })();
        let result = match kernel::tidy(&context) {
            Some(node) if background::inside(host) => still_closed(&node, result),
            _ => result,
        };
        let result = result.and_then(|()| if summary.complete() { record.journal.end() } else { Ok(()) });
        finish(&context, start, result, &summary, output)
    }
}

/// Nobody watches a run in the background, so it comes back for a node that it could not open, also where the rest needs a person.
fn still_closed(node: &str, result: Result<()>) -> Result<()> {
    let closed = || {
        let error: Result<()> = Err(anyhow!("node {node} is still closed for new pods"));
        error.hint(format!("this is tried again until an API server answers; `kubectl uncordon {node}` opens it"))
    };
    result.and_then(|()| closed()).exit(Exit::Failed)
}

/// Roles as the journal has them.
pub(super) fn parse_roles(text: &str) -> Result<Roles> {
    let all = [Role::Master, Role::Worker, Role::Etcd];
    let parse = |name: &str| all.into_iter().find(|role| role_name(*role) == name);
    let roles: Option<Vec<Role>> = text.split(',').map(parse).collect();
    Ok(Roles::new(roles.with_context(|| format!("the journal names unknown roles: `{text}`"))?))
}
