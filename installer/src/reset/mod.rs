//! Taking Sealift off a host, and nothing else.
//!
//! The order leaves enough to go on after a power cut at any point: units keep their files until they are stopped, data goes
//! while the journal still says what was there before, the journal goes when everything else has, the installer's own copy
//! last. Nothing is deleted while something runs in it or is mounted in it. Deleting needs no space; what is noted goes into
//! the space that the journal set aside.

pub(crate) mod drain;
mod farewell;
mod finish;
mod mounts;
mod network;
pub mod places;
mod processes;
mod rules;
pub mod survey;
mod undo;
mod units;

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use crate::background;
use crate::cluster;
use crate::cluster::etcd::{self, Left};
use crate::config::Etcd;
use crate::engine::interrupted;
use crate::event::{Event, Events, Outcome};
use crate::facts::Facts;
use crate::host::Host;
use crate::journal::{BeforeImage, Journal};
use crate::pki::files::Wanted;
use crate::report::{Exit, Explain as _};
use crate::step::{Change, Target};
use crate::steps::kernel;
use drain::{Bare, Drain};
use places::Place;

pub use survey::Survey;

/// Says in the journal that nothing but `reset` may go on here.
const BEGUN: &str = "begun";
/// Says that etcd no longer counts on this host.
const LEFT_ETCD: &str = "etcd";

/// What the operator asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Move pods away first, at most for this time.
    pub drain: Option<Duration>,
    /// Go on where data of this host or the order of others is at stake.
    pub force: bool,
}

/// The work, and what it knows.
pub struct Reset<'a> {
    host: &'a Host,
    events: &'a dyn Events,
    /// `None` when it is damaged and the operator goes on all the same.
    journal: Option<Journal<'a>>,
    survey: &'a Survey,
    options: Options,
    part: &'static str,
    /// What stays although it was not there before, for people.
    left: Vec<String>,
}

impl std::fmt::Debug for Reset<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reset").field("survey", &self.survey).field("part", &self.part).finish_non_exhaustive()
    }
}

/// One part of the work: its changes, for people.
type Part<'a> = (&'static str, &'static str, fn(&mut Reset<'a>) -> Result<Vec<String>>);

impl<'a> Reset<'a> {
    /// Prepares a reset of what the survey found. Reads only.
    pub fn new(host: &'a Host, events: &'a dyn Events, survey: &'a Survey, options: Options) -> Result<Self> {
        let journal = match Journal::read(host) {
            Ok(journal) => Some(journal),
            Err(_) if options.force => None,
            Err(error) => {
                return Err(error).hint("`--force` resets without it: settings of the host are then not put back");
            }
        };
        Ok(Self { host, events, journal, survey, options, part: "", left: Vec::new() })
    }

    /// Stops a run that goes on in the background: it holds the lock.
    pub fn stop_resuming(host: &Host, survey: &Survey) -> Result<()> {
        let resume: Vec<String> = survey.units.iter().filter(|unit| *unit == background::UNIT).cloned().collect();
        units::stop(host, &resume).map(drop)
    }

    /// Does everything, in order. Gives what is left on the host, for people.
    pub fn run(mut self) -> Result<Vec<String>> {
        let parts: [Part<'a>; 10] = [
            ("drain", "Move pods away", Self::drain),
            ("etcd", "Leave etcd", Self::etcd),
            ("units", "Stop the services", Self::units),
            ("containers", "End all containers", |reset| processes::end(reset.host)),
            ("mounts", "Unmount what pods and containers mounted", |reset| mounts::unmount(reset.host)),
            ("network", "Take the pod network away", |reset| {
                network::remove(reset.host, reset.nodes(), &mut reset.left)
            }),
            ("data", "Delete data", Self::data),
            ("kernel", "Give the boot menu back", Self::kernel),
            ("settings", "Put settings of the host back", Self::undo),
            ("installation", "Delete the installation", Self::finish),
        ];
        let total = parts.len();
        for (index, (name, title, work)) in parts.into_iter().enumerate() {
            if interrupted() {
                return Err(anyhow!("interrupted before part `{name}`")).hint("run `installer reset` again to go on");
            }
            self.part = name;
            let (step, title) = (name.to_owned(), title.to_owned());
            self.events.emit(&Event::StepStarted { step, title, index: index + 1, total });
            self.one(name, work)?;
        }
        Ok(self.left)
    }

    fn one(&mut self, name: &'static str, work: fn(&mut Self) -> Result<Vec<String>>) -> Result<()> {
        let start = self.host.monotonic();
        let result = work(self);
        let elapsed = self.host.monotonic().saturating_sub(start).as_millis();
        let (outcome, detail, changes) = match &result {
            Ok(done) if done.is_empty() => (Outcome::Unchanged, String::new(), 0),
            Ok(done) => (Outcome::Applied, String::new(), done.len()),
            Err(error) => (Outcome::Failed, format!("{error:#}"), 0),
        };
        if let Ok(done) = &result {
            let changes = done.iter().map(Change::new).collect();
            self.events.emit(&Event::StepChanges { step: name.to_owned(), changes });
        }
        let milliseconds = u64::try_from(elapsed).unwrap_or(u64::MAX);
        self.events.emit(&Event::StepFinished { step: name.to_owned(), outcome, detail, changes, milliseconds });
        match result {
            Ok(_) => Ok(()),
            // Behind a mount or below a running program is somebody's data: there is no going on.
            Err(error) if self.options.force && matches!(name, "network" | "settings") => {
                self.warn(format!("{error:#}"));
                Ok(())
            }
            Err(error) => Err(error.context(format!("part `{name}` failed")))
                .exit(Exit::Failed)
                .hint("run `installer reset` again when the cause is gone; it goes on where it ended"),
        }
    }

    fn warn(&self, text: String) {
        self.events.emit(&Event::Warning { step: self.part.to_owned(), text });
    }

    /// Whether containers and pods ever ran here.
    fn nodes(&self) -> bool {
        self.attempted("containerd", "containerd.service")
    }

    /// Whether a program of Sealift ever ran here: its step began, or, without a journal, its unit is ours.
    fn attempted(&self, step: &str, unit: &str) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.attempted(step))
            || self.survey.units.iter().any(|found| found == unit)
    }

    /// Moves pods away, when asked. Only a master has the rights.
    fn drain(&mut self) -> Result<Vec<String>> {
        let Some(limit) = self.options.drain else { return Ok(Vec::new()) };
        let begun = self.journal.as_ref().is_some_and(|journal| journal.was_reset(BEGUN));
        if begun || !self.nodes() {
            return Ok(Vec::new());
        }
        let known = self.survey.config.as_ref().and_then(|known| Some((&known.config, known.node.as_ref()?)));
        let (config, node) = known.context("this host does not know its cluster")?;
        if !node.roles.master() {
            return Err(anyhow!("a worker's certificate may not move pods away"))
                .hint(format!("`kubectl drain {}` on a master does it; then reset without `--drain`", node.name));
        }
        let client = cluster::administrator(self.host, &Wanted::of(config, node))?;
        let bare = if self.options.force { Bare::End } else { Bare::Refuse };
        Drain { host: self.host, client: &client, node: &node.name, limit, bare }.run()
    }

    /// Kernels stay; what holds the boot menu's default goes, unless that would boot a kernel that nobody has accepted.
    fn kernel(&mut self) -> Result<Vec<String>> {
        let (done, left) = kernel::forget(self.host)?;
        self.left.extend(left);
        Ok(done)
    }

    /// While it still runs: the others must not count on a member that is gone.
    fn etcd(&mut self) -> Result<Vec<String>> {
        let done = self.journal.as_ref().is_some_and(|journal| journal.was_reset(LEFT_ETCD));
        if done || !self.attempted("etcd", "etcd.service") {
            return Ok(Vec::new());
        }
        let addresses = Facts::gather(self.host).map(|facts| facts.addresses());
        let left = match addresses.and_then(|addresses| etcd::leave(self.host, &addresses)) {
            Ok(left) => left,
            // A member that never worked is missed by nobody.
            Err(error) if self.options.force || !self.has_member()? => {
                self.warn(format!("{error:#}; `installer node remove` on a master takes its member out"));
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        self.remember(LEFT_ETCD);
        Ok(match left {
            Left::Out => vec!["leave etcd".to_owned()],
            Left::NoMember | Left::Last => Vec::new(),
        })
    }

    fn has_member(&self) -> Result<bool> {
        let data = self.survey.config.as_ref().map(|known| known.config.etcd.data_dir.clone());
        self.host.exists(&data.unwrap_or_else(|| Etcd::default().data_dir).join("member"))
    }

    /// Notes in the journal what must not be done again. Best effort: the disk may be full.
    fn remember(&mut self, part: &str) {
        if let Some(journal) = &mut self.journal
            && !journal.is_empty()
            && let Err(error) = journal.reset(part)
        {
            self.warn(format!("{error:#}"));
        }
    }

    fn units(&mut self) -> Result<Vec<String>> {
        // From here on no run may go on: it would start again what is stopped here.
        self.remember(BEGUN);
        let mut done = units::stop(self.host, &self.survey.units)?;
        done.extend(self.farewell());
        Ok(done)
    }

    /// Tells the cluster that this node is away. Best effort: otherwise the cluster finds out within a minute.
    fn farewell(&mut self) -> Option<String> {
        let node = self.survey.node_among_others().filter(|_| self.nodes())?;
        match cluster::anyone(self.host).and_then(|client| farewell::tell(&client, node, self.host.now())) {
            Ok(told) => told.then(|| format!("tell the cluster that node {node} is away")),
            Err(error) => {
                self.warn(format!("the cluster is not told that this node is away, it finds out itself: {error:#}"));
                None
            }
        }
    }

    fn places(&self) -> Vec<Place> {
        let places = places::of(self.survey.config.as_ref().map_or("", |config| config.text.as_str()));
        let unit = |step: &str| format!("{step}.service");
        places.into_iter().filter(|place| self.attempted(place.step, &unit(place.step))).collect()
    }

    fn data(&mut self) -> Result<Vec<String>> {
        let mut done = Vec::new();
        for place in self.places() {
            let before = self.journal.as_ref().and_then(|journal| journal.before(&Target::File(place.path.clone())));
            let cleared = place.clear(self.host, before);
            if cleared.with_context(|| format!("deleting `{}`", place.path.display()))? {
                done.push(format!("delete {}", place.path.display()));
            }
            if self.host.exists(&place.path)? && before.is_none_or(BeforeImage::is_absent) {
                self.left.push(format!("{}: not empty, or a mount point", place.path.display()));
            }
        }
        Ok(done)
    }
}
