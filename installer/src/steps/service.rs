//! The step that most of a node is made of: a systemd unit that runs the wanted program with the wanted configuration.
//!
//! Done means: unit file equal to the generation's, enabled, active, *started* with this configuration (the started stamp,
//! so a rerun restarts exactly what changed, also after reboots), and ready by the component's own health endpoint.
//! Units are started with `--no-block`: a `Type=notify` unit without its quorum must not hold the run.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::file::writing;
use super::unit::{UnitState, last_lines, stamp_path, systemctl, unit_path};
use crate::context::Context;
use crate::report::Explain as _;
use crate::step::{Change, Check, Step, Target};

/// How often a readiness probe is asked.
const EVERY: Duration = Duration::from_millis(500);

/// What a readiness probe says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It does its work.
    Ready,
    /// Not yet, for this reason.
    NotYet(String),
    /// This host has done its part; another host has to act first.
    Waiting(String),
}

/// Asks a component whether it does its work. An error counts as "not yet": right after a start nothing listens.
pub type Probe = fn(&Context<'_>) -> Result<Readiness>;

/// Where a unit's text comes from, and with it the content of its started stamp.
#[derive(Clone, Copy)]
pub enum UnitText {
    /// A component of the bundle: the generation's unit and its `digest` file.
    Component(&'static str),
    /// Made by the installer: the unit copies its own file as stamp.
    Own(fn(&Context<'_>) -> String),
}

impl std::fmt::Debug for UnitText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Component(component) => f.debug_tuple("Component").field(component).finish(),
            Self::Own(_) => f.write_str("Own"),
        }
    }
}

/// A service as a step.
#[derive(Clone, Copy)]
pub struct Service {
    /// Step name.
    pub name: &'static str,
    /// Title for people.
    pub title: &'static str,
    /// The unit, with suffix.
    pub unit: &'static str,
    /// Its text.
    pub text: UnitText,
    /// How long it may take to become ready after a start.
    pub deadline: Duration,
    /// Readiness.
    pub probe: Probe,
    /// Runs before every (re)start, for example a syntax check of the configuration.
    pub before_start: fn(&Context<'_>) -> Result<()>,
    /// What a person can do when it does not become ready.
    pub hint: &'static str,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("unit", &self.unit).finish_non_exhaustive()
    }
}

/// For services that need no preparation.
pub fn nothing_before(_: &Context<'_>) -> Result<()> {
    Ok(())
}

impl Service {
    /// What has to change for the unit itself, in the order it will be done; empty when it runs as wanted.
    pub fn changes(&self, context: &Context<'_>) -> Result<Vec<Change>> {
        let host = context.host;
        let mut changes = Vec::new();
        let path = unit_path(self.unit);
        let wanted = self.wanted_unit(context)?;
        let found = host.read(&path)?;
        let differs = found.as_deref() != Some(wanted.as_slice());
        if differs {
            changes.push(writing(&path, &wanted));
        }
        let state = UnitState::read(host, self.unit)?;
        if !state.is_enabled() {
            changes.push(Change::new(format!("enable {}", self.unit)));
        }
        // A unit that comes up with the wanted configuration is waited for.
        if !self.is_up(context, &state) {
            changes.push(Change::new(format!("start {}", self.unit)));
        } else if differs || self.is_stale(context)? {
            changes.push(Change::new(format!("restart {} with its new configuration", self.unit)));
        }
        Ok(changes)
    }

    /// Running or on its way; also between two attempts while it cannot come up because others have to act first.
    fn is_up(&self, context: &Context<'_>, state: &UnitState) -> bool {
        state.is_active()
            || state.is_starting()
            || (state.is_coming() && matches!(self.readiness(context), Readiness::Waiting(_)))
    }

    /// Whether it was started with another configuration than the wanted one.
    fn is_stale(&self, context: &Context<'_>) -> Result<bool> {
        let started = context.host.read(&stamp_path(self.unit))?;
        Ok(match self.text {
            UnitText::Component(component) => started.as_deref() != context.desired.stamp(component),
            UnitText::Own(text) => started != Some(text(context).into_bytes()),
        })
    }

    fn wanted_unit(&self, context: &Context<'_>) -> Result<Vec<u8>> {
        match self.text {
            UnitText::Own(text) => Ok(text(context).into_bytes()),
            UnitText::Component(component) => context
                .desired
                .unit(self.unit)
                .map(<[u8]>::to_vec)
                .with_context(|| format!("the bundle's component `{component}` brings no unit `{}`", self.unit)),
        }
    }

    /// Asks the probe; errors are reasons.
    pub fn readiness(&self, context: &Context<'_>) -> Readiness {
        (self.probe)(context).unwrap_or_else(|error| Readiness::NotYet(format!("{error:#}")))
    }

    /// Starts or restarts what is not as wanted and waits until it is ready.
    pub fn start(&self, context: &Context<'_>) -> Result<()> {
        let host = context.host;
        let path = unit_path(self.unit);
        let wanted = self.wanted_unit(context)?;
        let differs = host.read(&path)?.as_deref() != Some(wanted.as_slice());
        if differs {
            host.write(&path, &wanted, 0o644)?;
        }
        let state = UnitState::read(host, self.unit)?;
        if differs || state.reload_needed {
            systemctl(host, &["daemon-reload"])?;
        }
        if !state.is_enabled() {
            systemctl(host, &["enable", self.unit])?;
        }
        if differs || !self.is_up(context, &state) || self.is_stale(context)? {
            (self.before_start)(context)?;
            // A unit in `failed` or with a start limit reached would refuse.
            if state.active == "failed" {
                systemctl(host, &["reset-failed", self.unit])?;
            }
            systemctl(host, &["--no-block", "restart", self.unit])?;
        }
        self.wait(context)
    }

    fn wait(&self, context: &Context<'_>) -> Result<()> {
        let host = context.host;
        let waited = host.wait_for(&format!("{} to be ready", self.unit), self.deadline, EVERY, || {
            let state = UnitState::read(host, self.unit)?;
            if !state.is_active() {
                // A `Type=notify` unit that needs others stays `activating` until they are there.
                return Ok(match self.readiness(context) {
                    Readiness::Waiting(_) if state.is_coming() => Ok(()),
                    _ => Err(format!("the unit is {}", state.describe())),
                });
            }
            if self.is_stale(context)? {
                return Ok(Err("the unit has not been restarted yet".to_owned()));
            }
            // What waits for another host is not waited for here: the next check says so, and the engine has the patience.
            Ok(match self.readiness(context) {
                Readiness::Ready | Readiness::Waiting(_) => Ok(()),
                Readiness::NotYet(reason) => Err(reason),
            })
        });
        waited.map_err(|error| {
            let lines = last_lines(host, self.unit, 20);
            let said = if lines.is_empty() {
                "its journal holds nothing".to_owned()
            } else {
                format!("its last lines were:\n{lines}")
            };
            error.context(format!("{} did not become ready; {said}", self.unit)).hint(self.hint)
        })
    }

    /// Stops and disables the unit, before its file is restored to what was there before.
    pub fn stop(&self, context: &Context<'_>) -> Result<()> {
        if context.host.entry(&unit_path(self.unit))?.is_some() {
            systemctl(context.host, &["disable", "--now", self.unit])?;
        }
        Ok(())
    }
}

impl Step for Service {
    fn name(&self) -> &'static str {
        self.name
    }

    fn title(&self) -> &'static str {
        self.title
    }

    fn touches(&self, _: &Context<'_>) -> Result<Vec<Target>> {
        Ok(vec![Target::File(unit_path(self.unit)), Target::Unit(self.unit.to_owned())])
    }

    fn check(&self, context: &Context<'_>) -> Result<Check> {
        let changes = self.changes(context)?;
        if !changes.is_empty() {
            return Ok(Check::Needed(changes));
        }
        Ok(match self.readiness(context) {
            Readiness::Ready => Check::Done,
            Readiness::Waiting(reason) => Check::Waiting(reason),
            Readiness::NotYet(reason) => {
                // Waiting changes nothing on the host, so it is said, but not counted as a change.
                context.note(format!("runs, but is not ready yet: {reason}"));
                Check::Needed(Vec::new())
            }
        })
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        self.start(context)
    }

    fn undo(&self, context: &Context<'_>) -> Result<()> {
        self.stop(context)
    }
}
