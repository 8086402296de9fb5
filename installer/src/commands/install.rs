//! `installer --role … --bundle … --config …`: the whole job.

use anyhow::{Result, anyhow};

use super::prepare::{Prepared, require_inputs};
use crate::background::{self, Foreground};
use crate::cli::Install;
use crate::cluster::Founding;
use crate::context::Context;
use crate::engine::{self, Numbering, Record, Summary};
use crate::event::{Event, Events as _, Fan, Log};
use crate::generation::Switch;
use crate::host::Host;
use crate::journal::Journal;
use crate::lock::Lock;
use crate::output::Output;
use crate::plan::{Plan, StepsOf};
use crate::report::{Exit, Explain as _, exit_of};
use crate::restart::restart;
use crate::steps::kernel;
use crate::store::{Footprint, Program, Store};

/// What the operator of a new cluster should do next.
const KEEP_OFF_SITE: &str = "this host founded the cluster and holds its only keys: make a master's join file (`installer \
    join-file --node NAME`) and keep it off-site with its passphrase";

/// Verifies, plans and runs. A refused bundle leaves the host as it was.
pub fn install(host: &Host, arguments: &Install, output: &Output, steps: StepsOf) -> Result<Exit> {
    require_root(host)?;
    engine::stop_on_signals()?;
    let start = host.monotonic();
    let (prepared, opened, acceptance) = Prepared::from_arguments(host, arguments)?;
    let inputs = prepared.inputs();
    let fresh = Founding::read(host)?.is_none();
    let expected = opened.stream.release().installer;
    let signers = opened.stream.signers().join(", ");
    require_inputs(&Journal::read(host)?, &inputs, arguments)?;

    let plan = Plan::new(
        steps(&prepared.roles),
        Store::of(opened.stream, opened.count, opened.size),
        Program { digest: prepared.installer },
        Switch { acceptance: Some(acceptance.clone()), config: prepared.config_text.clone() },
    );
    let log = Log::new(host);
    let events = Fan(vec![output, &log]);
    let context = prepared.context(host, &events);
    events.emit(&Event::RunStarted {
        roles: prepared.roles.to_string(),
        bundle: prepared.title.clone(),
        steps: plan.len(),
    });
    context.note(format!("signed by {signers}"));
    for warning in prepared.config.warnings() {
        context.warn(warning);
    }
    if expected != prepared.installer {
        context.warn(format!("this installer is not the one published with the bundle ({})", expected.hex()));
    }

    let numbering = |before| Numbering { before, total: plan.len() };
    let mut summary = Summary::default();
    // Outlives the lock: what this run does not finish can then go on in the background.
    let mut _foreground = None;
    let result = (|| {
        // Nothing is on record, and nothing else has changed, until the last byte of the bundle has proven right.
        engine::run(&plan.preflight, &context, None, numbering(0), &mut summary)?;
        _foreground = Some(Foreground::take_over(host, &events)?);
        let mut footprint = Footprint::new(host);
        let _lock = Lock::take(host, &mut footprint)?;
        // Read again: another run may have ended between then and the lock.
        let unpacked = acceptance
            .check_again(host)
            .and_then(|()| engine::run(&plan.store, &context, None, numbering(plan.preflight.len()), &mut summary));
        if unpacked.is_err() {
            footprint.take_back();
        }
        unpacked?;

        let journal = Journal::read(host)?;
        require_inputs(&journal, &inputs, arguments)?;
        let mut record = Record { journal, inputs, config: prepared.config_text.clone(), log: &log };
        let before = plan.preflight.len() + plan.store.len();
        let ran = engine::run(&plan.steps, &context, Some(&mut record), numbering(before), &mut summary);
        kernel::tidy(&context);
        ran?;
        if summary.complete() {
            record.journal.end()?;
        }
        if fresh && Founding::read(host)?.is_some_and(|founding| founding.made_here) {
            context.note(KEEP_OFF_SITE);
        }
        Ok(())
    })();
    finish(&context, start, result, &summary, output)
}

/// Says how the run ended, and sees to it that a run that waits goes on by itself.
pub(super) fn finish(
    context: &Context<'_>,
    start: std::time::Duration,
    result: Result<()>,
    summary: &Summary,
    output: &Output,
) -> Result<Exit> {
    let host = context.host;
    let exit = match &result {
        Ok(()) if summary.waiting.is_some() => Exit::Waiting,
        Ok(()) if summary.reboot.is_some() => Exit::Reboot,
        Ok(()) => Exit::Done,
        Err(error) => exit_of(error),
    };
    let kept = match exit {
        Exit::Waiting | Exit::Reboot if !background::inside(host) => background::prepare(host, &context.installer),
        Exit::Done => background::remove(host),
        _ => Ok(()),
    };
    if let Err(error) = kept {
        context.warn(format!("{}: {error:#}", background::UNIT));
    }
    let elapsed = host.monotonic().saturating_sub(start).as_millis();
    let milliseconds = u64::try_from(elapsed).unwrap_or(u64::MAX);
    context.events.emit(&Event::RunFinished { code: exit.code(), changes: summary.changes, milliseconds });
    result?;
    output.summary(summary, milliseconds);
    if let Some(wanted) = &summary.reboot {
        restart(host, wanted, context.reboot, output)?;
    }
    Ok(exit)
}

/// Everything this program changes is root's.
pub(super) fn require_root(host: &Host) -> Result<()> {
    if host.is_real() && !rustix::process::geteuid().is_root() {
        let error: Result<()> = Err(anyhow!("installing needs root"));
        return error.exit(Exit::Usage).hint("run it with `sudo`");
    }
    Ok(())
}
