//! Runs steps: capture, check, apply, check again.
//!
//! A step's own check decides; the journal explains and orders. Nothing is journalled (and nothing created for it) before
//! the first step that has to change the host, so a run that finds everything as wanted leaves no trace.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::context::Context;
use crate::event::{Event, Log, Outcome};
use crate::journal::{Inputs, Journal};
use crate::report::{Exit, Explain as _, exit_of, has_exit};
use crate::restart::Restart;
use crate::step::{Change, Check, Step};
use crate::waiting;

/// Set by signal handlers, so it has to be reachable from everywhere.
static ASKED_TO_STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Whether the operator or the system asked the program to stop: waits end and no further step begins.
pub fn interrupted() -> bool {
    ASKED_TO_STOP.get().is_some_and(|asked| asked.load(Ordering::Relaxed))
}

/// From now on SIGINT and SIGTERM ask the program to stop at the next safe point; a second one ends it at once, which is
/// as safe as a power cut.
pub fn stop_on_signals() -> Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let asked = ASKED_TO_STOP.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        // Order matters: the first signal finds `asked` unset, the second one ends the process.
        signal_hook::flag::register_conditional_default(signal, Arc::clone(asked)).context("handling signals")?;
        signal_hook::flag::register(signal, Arc::clone(asked)).context("handling signals")?;
    }
    Ok(())
}

/// How often a step that waits for another host is asked again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How often a step may need other changes than those it has just made.
const ROUNDS: usize = 5;

/// How a run of steps went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Changes made to the host.
    pub changes: usize,
    /// Every step that took time, with its duration in milliseconds.
    pub durations: Vec<(String, u64)>,
    /// What another host has to do first.
    pub waiting: Option<String>,
    /// The reboot after which the run goes on.
    pub reboot: Option<Restart>,
}

impl Summary {
    /// Whether every step has been gone through.
    pub fn complete(&self) -> bool {
        self.waiting.is_none() && self.reboot.is_none()
    }
}

impl Summary {
    /// The steps that took longest, at most `count`, at least 100 ms each.
    pub fn slowest(&self, count: usize) -> Vec<(&str, u64)> {
        let mut all: Vec<(&str, u64)> = self.durations.iter().map(|(name, time)| (name.as_str(), *time)).collect();
        all.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
        all.into_iter().filter(|(_, time)| *time >= 100).take(count).collect()
    }
}

/// What a run is recorded in, once it has to change something.
#[derive(Debug)]
pub struct Record<'a> {
    /// The journal.
    pub journal: Journal<'a>,
    /// What the run was asked for.
    pub inputs: Inputs,
    /// Text of `cluster.toml`, for resuming.
    pub config: String,
    /// The log file; it keeps events from before it is opened.
    pub log: &'a Log<'a>,
}

impl Record<'_> {
    fn begin(&mut self) -> Result<()> {
        self.journal.begin(&self.inputs, &self.config)?;
        self.log.open();
        Ok(())
    }
}

/// Where the steps of a part stand in the whole run, for `3/17`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbering {
    /// Steps before this part.
    pub before: usize,
    /// Steps in the whole run.
    pub total: usize,
}

/// Runs steps in order until one fails or waits; the summary also tells what a failed run did. Without a record nothing is journalled: for what comes before the
/// bundle is proven.
pub fn run(
    steps: &[Box<dyn Step>],
    context: &Context<'_>,
    mut record: Option<&mut Record<'_>>,
    numbering: Numbering,
    summary: &mut Summary,
) -> Result<()> {
    for (index, step) in steps.iter().enumerate() {
        if interrupted() {
            let error: Result<()> = Err(anyhow!("interrupted before step `{}`", step.name()));
            error.hint("run the same command again to go on")?;
        }
        let context = Context { step: step.name(), ..*context };
        let name = step.name().to_owned();
        context.events.emit(&Event::StepStarted {
            step: name.clone(),
            title: step.title().to_owned(),
            index: numbering.before + index + 1,
            total: numbering.total,
        });
        let start = context.host.monotonic();
        let result = run_step(step.as_ref(), &context, record.as_deref_mut());
        let milliseconds = milliseconds(context.host.monotonic().saturating_sub(start));
        let (outcome, detail, changes) = match &result {
            Ok(End::Unchanged) => (Outcome::Unchanged, String::new(), 0),
            Ok(End::Applied(changes)) => (Outcome::Applied, String::new(), *changes),
            Ok(End::Kept(reason)) => (Outcome::Kept, reason.clone(), 0),
            Ok(End::Skipped(reason)) => (Outcome::Skipped, reason.clone(), 0),
            Ok(End::Waiting(reason, changes)) => (Outcome::Waiting, reason.clone(), *changes),
            Ok(End::Reboot(restart, changes)) => (Outcome::Reboot, restart.reason.clone(), *changes),
            Err(error) => (Outcome::Failed, format!("{error:#}"), 0),
        };
        if let (Ok(End::Applied(_)), Some(record)) = (&result, record.as_deref_mut()) {
            record.journal.applied(&name, milliseconds)?;
        }
        context.events.emit(&Event::StepFinished { step: name.clone(), outcome, detail, changes, milliseconds });
        summary.changes += changes;
        summary.durations.push((name.clone(), milliseconds));
        match result {
            Ok(End::Waiting(reason, _)) => {
                summary.waiting = Some(format!("step `{name}`: {reason}"));
                return Ok(());
            }
            Ok(End::Reboot(restart, _)) => {
                summary.reboot = Some(restart);
                return Ok(());
            }
            Ok(_) => {}
            Err(error) => {
                let error = if name == "preflight" && !has_exit(&error) { error.exit(Exit::Preflight) } else { error };
                return Err(error.context(format!("step `{name}` failed")));
            }
        }
    }
    Ok(())
}

/// How a step ended well.
enum End {
    Unchanged,
    Applied(usize),
    Kept(String),
    Skipped(String),
    Waiting(String, usize),
    Reboot(Restart, usize),
}

fn run_step(step: &dyn Step, context: &Context<'_>, mut record: Option<&mut Record<'_>>) -> Result<End> {
    let mut changes = match patient_check(step, context)?.0 {
        Check::Done => return Ok(End::Unchanged),
        Check::Kept(reason) => return Ok(End::Kept(reason)),
        Check::Skipped(reason) => return Ok(End::Skipped(reason)),
        Check::Waiting(reason) => {
            // On record even without a change: there is something to resume.
            record.map(Record::begin).transpose()?;
            return Ok(End::Waiting(reason, 0));
        }
        Check::Reboot(restart) => {
            record.map(Record::begin).transpose()?;
            return Ok(End::Reboot(restart, 0));
        }
        Check::Needed(changes) => changes,
    };
    let (mut count, mut rounds) = (0, 0);
    let start = context.host.monotonic();
    loop {
        if let Some(record) = record.as_deref_mut() {
            record.begin()?;
            record.journal.capture(step.name(), &step.touches(context)?)?;
            record.journal.applying(step.name())?;
        }
        count += changes.len();
        let applied = changes.clone();
        context.events.emit(&Event::StepChanges { step: step.name().to_owned(), changes });
        let refused = apply(step, context)?;
        if let Some(reason) = &refused {
            if !goes_on_waiting(step, context, start, reason)? {
                return Ok(End::Waiting(reason.clone(), count));
            }
            context.note(format!("waiting for {reason}"));
            context.host.pause(LOOK_AGAIN);
        }
        let (check, waited) = patient_check(step, context).context("checking the result")?;
        changes = match check {
            Check::Done | Check::Kept(_) | Check::Skipped(_) => return Ok(End::Applied(count)),
            Check::Waiting(reason) => return Ok(End::Waiting(reason, count)),
            Check::Reboot(restart) => return Ok(End::Reboot(restart, count)),
            Check::Needed(left) => left,
        };
        // What another host did in the meantime may ask for more here (a learner that has caught up is promoted), also
        // between the end of an apply and this check. The same changes once more are a step that does not do what it says;
        // without changes it only waits, for others first and then for itself, and may do so again.
        rounds += 1;
        let again = changes == applied && !changes.is_empty();
        if !waited && refused.is_none() && (again || rounds > ROUNDS) {
            let left: Vec<String> = changes.into_iter().map(|change| change.0).collect();
            let left = if left.is_empty() { "it is not ready".to_owned() } else { left.join("; ") };
            bail!("was applied, and still needed afterwards: {left}");
        }
    }
}

/// Applies a step. Gives the reason when it found that another host has to act first: an error that is marked with
/// [`Exit::Waiting`].
fn apply(step: &dyn Step, context: &Context<'_>) -> Result<Option<String>> {
    match step.apply(context) {
        Ok(()) => Ok(None),
        Err(error) if exit_of(&error) == Exit::Waiting => Ok(Some(format!("{error:#}"))),
        Err(error) => Err(error),
    }
}

/// Puts on record what is waited for, and says whether there is patience left since `start`. An interrupted wait is an
/// error: nothing goes on by itself then.
fn goes_on_waiting(step: &dyn Step, context: &Context<'_>, start: Duration, reason: &str) -> Result<bool> {
    waiting::record(context.host, step.name(), reason);
    if interrupted() {
        let error: Result<bool> = Err(anyhow!("interrupted while waiting for {reason}"));
        return error.hint("`installer resume` goes on");
    }
    Ok(context.host.monotonic().saturating_sub(start) < context.patience)
}

/// A check; while another host has to act first it is asked again, until the run's patience ends. Also says whether it
/// had to wait.
fn patient_check(step: &dyn Step, context: &Context<'_>) -> Result<(Check, bool)> {
    let start = context.host.monotonic();
    let mut said = String::new();
    loop {
        let check = step.check(context)?;
        let Check::Waiting(reason) = &check else {
            waiting::over(context.host, step.name());
            return Ok((check, !said.is_empty()));
        };
        if !goes_on_waiting(step, context, start, reason)? {
            return Ok((check, true));
        }
        if *reason != said {
            context.note(format!("waiting for {reason}"));
            said.clone_from(reason);
        }
        context.host.pause(LOOK_AGAIN);
    }
}

/// What one step of a plan would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Step name.
    pub step: &'static str,
    /// Its title.
    pub title: &'static str,
    /// What its check found.
    pub check: Check,
}

impl Planned {
    /// The changes it would make.
    pub fn changes(&self) -> &[Change] {
        match &self.check {
            Check::Needed(changes) => changes,
            _ => &[],
        }
    }
}

/// Checks all steps and touches nothing.
pub fn plan(steps: &[Box<dyn Step>], context: &Context<'_>) -> Result<Vec<Planned>> {
    let mut planned = Vec::new();
    for step in steps {
        let context = Context { step: step.name(), ..*context };
        let check = step.check(&context).map_err(|error| {
            let error =
                if step.name() == "preflight" && !has_exit(&error) { error.exit(Exit::Preflight) } else { error };
            error.context(format!("checking step `{}` failed", step.name()))
        })?;
        planned.push(Planned { step: step.name(), title: step.title(), check });
    }
    Ok(planned)
}

/// Undoes steps, last first: each step's own undo, then the before-images of what it touched. Gives what could not be put
/// back, for people.
pub fn undo(steps: &[Box<dyn Step>], context: &Context<'_>, journal: &mut Journal<'_>) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for step in steps.iter().rev() {
        let name = step.name();
        let context = Context { step: name, ..*context };
        step.undo(&context).with_context(|| format!("undoing step `{name}`"))?;
        for (target, image) in journal.images_of(name) {
            let rest = image
                .restore(context.host, target)
                .with_context(|| format!("undoing step `{name}`: putting `{target}` back"))?;
            left.extend(rest);
        }
        journal.undone(name)?;
    }
    Ok(left)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
