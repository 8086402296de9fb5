//! `installer reset`: takes Sealift and everything it put here off this host.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::{Result, anyhow};
use serde::Serialize;

use super::install::require_root;
use crate::cli::cluster::Reset as Arguments;
use crate::engine;
use crate::host::Host;
use crate::lock::Lock;
use crate::output::Output;
use crate::report::{Exit, Explain as _};
use crate::reset::{Options, Reset, Survey};
use crate::store::Footprint;

/// What stays on purpose.
const KEPT: [&str; 3] = [
    "/etc/sealift/trusted-keys and trust.toml: you put them there",
    "/var/log/sealift: the audit log is evidence",
    "packages and kernels",
];

/// The end, for programs.
#[derive(Debug, Serialize)]
struct Ended<'a> {
    event: &'static str,
    /// Whether anything of Sealift was there.
    found: bool,
    /// What is left although it was not there before.
    left: &'a [String],
    /// What stays on purpose.
    kept: &'a [&'a str],
    /// What to do on a master that stays.
    then: Option<String>,
}

/// Runs the command.
pub fn reset(host: &Host, arguments: &Arguments, output: &Output) -> Result<Exit> {
    require_root(host)?;
    engine::stop_on_signals()?;
    let survey = Survey::of(host)?;
    if survey.is_empty() {
        end(output, &Ended { event: "reset", found: false, left: &[], kept: &[], then: None });
        return Ok(Exit::Done);
    }
    if !arguments.yes {
        agree(&survey, output)?;
    }
    Reset::stop_resuming(host, &survey)?;
    let mut footprint = Footprint::new(host);
    let _lock = Lock::take(host, &mut footprint)?;
    let drain = arguments.drain.then_some(arguments.drain_timeout);
    let options = Options { drain, force: arguments.force };
    let reset = Reset::new(host, output, &survey, options)?;
    let left = reset.run()?;
    let then = survey.node_among_others().map(|node| format!("installer node remove {node}"));
    end(output, &Ended { event: "reset", found: true, left: &left, kept: &KEPT, then });
    Ok(Exit::Done)
}

/// Shows what will go and asks; only a person at a terminal can agree that way.
fn agree(survey: &Survey, output: &Output) -> Result<()> {
    let asked = std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && !output.is_json();
    if !asked {
        let error: Result<()> = Err(anyhow!("reset deletes this host's part of the cluster, and nobody agreed to it"));
        return error.exit(Exit::Usage).hint("`installer reset --yes` does not ask");
    }
    output.line("This takes Sealift off this host:");
    survey.lines().iter().for_each(|line| output.line(&format!("  {line}")));
    output.line(&format!("It keeps {}.", KEPT.join("; ")));
    let mut stdout = std::io::stdout();
    let _ = write!(stdout, "Type `yes` to go on: ").and_then(|()| stdout.flush());
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() == "yes" { Ok(()) } else { Err(anyhow!("nothing was changed")).exit(Exit::Usage) }
}

fn end(output: &Output, ended: &Ended<'_>) {
    if output.is_json() {
        output.json(ended);
        return;
    }
    if !ended.found {
        output.line("nothing of Sealift is on this host");
        return;
    }
    ended.left.iter().for_each(|left| output.line(&format!("left: {left}")));
    ended.kept.iter().for_each(|kept| output.line(&format!("kept: {kept}")));
    output.line("done: Sealift is off this host");
    if let Some(then) = &ended.then {
        output.line(&format!("on a master that stays: `{then}`, so that the cluster forgets this host"));
    }
}
