//! `installer plan`: the same plan, nothing touched.

use anyhow::Result;
use bundle::HashOnly;
use serde_json::json;

use super::install::require_root;
use super::prepare::{Prepared, require_inputs};
use crate::cli::Install;
use crate::engine::{self, Planned};
use crate::event::{Event, Recorded};
use crate::generation::Switch;
use crate::host::Host;
use crate::journal::Journal;
use crate::output::Output;
use crate::plan::{Plan, StepsOf};
use crate::report::Exit;
use crate::step::Check;
use crate::steps::preflight::ports::{self, Opening};
use crate::store::{Program, Store, classify};

/// Checks every step and shows what would change.
pub fn plan(host: &Host, arguments: &Install, output: &Output, steps: StepsOf) -> Result<Exit> {
    require_root(host)?;
    let (prepared, opened, acceptance) = Prepared::from_arguments(host, arguments)?;
    require_inputs(&Journal::read(host)?, &prepared.inputs(), arguments)?;
    let plan = Plan::new(
        steps(&prepared.roles),
        Store::comparing(),
        Program { digest: prepared.installer },
        Switch { acceptance: Some(acceptance), config: prepared.config_text.clone() },
    );
    let events = Recorded::default();
    let context = prepared.context(host, &events);
    let looked = engine::plan(&plan.preflight, &context);
    let findings = events.events();
    if looked.is_err() || output.is_json() {
        show_findings(&findings, output);
    }
    let mut planned = looked?;
    for part in [&plan.store, &plan.steps] {
        planned.extend(engine::plan(part, &context)?);
    }
    // What was shown is what the whole file says: the rest of it is hashed before anything is printed.
    opened.stream.unpack(&mut HashOnly).map_err(classify)?;
    show(&prepared, &planned, &findings, output);
    Ok(Exit::Done)
}

/// What preflight found: all of it for programs, what is less than good for people.
fn show_findings(events: &[Event], output: &Output) {
    for event in events.iter().filter(|event| matches!(event, Event::Finding { .. })) {
        if output.is_json() {
            output.json(event);
        } else if let Some(line) = event.line() {
            output.line(&line);
        }
    }
}

fn show(prepared: &Prepared, planned: &[Planned], findings: &[Event], output: &Output) {
    let changes: usize = planned.iter().map(|step| step.changes().len()).sum();
    let openings = ports::openings(&prepared.config, &prepared.node, &prepared.roles);
    if output.is_json() {
        for Planned { step, title, check } in planned {
            output.json(&match check {
                Check::Needed(changes) => json!({"step": step, "title": title, "check": "needed", "changes": changes}),
                Check::Done => json!({"step": step, "title": title, "check": "done"}),
                Check::Kept(reason) => json!({"step": step, "title": title, "check": "kept", "reason": reason}),
                Check::Skipped(reason) => json!({"step": step, "title": title, "check": "skipped", "reason": reason}),
                Check::Reboot(restart) => {
                    json!({"step": step, "title": title, "check": "reboot", "reason": restart.reason})
                }
                Check::Waiting(reason) => json!({"step": step, "title": title, "check": "waiting", "reason": reason}),
            });
        }
        output.json(&json!({"changes": changes, "warnings": prepared.config.warnings(), "ports": openings}));
        return;
    }
    for warning in prepared.config.warnings() {
        output.line(&format!("warning: {warning}"));
    }
    output.line(&format!("{} as {} on node {}", prepared.title, prepared.roles, prepared.node.name));
    show_findings(findings, output);
    for Planned { step, title, check } in planned {
        let (word, lines): (&str, Vec<String>) = match check {
            Check::Done => ("as wanted", Vec::new()),
            Check::Needed(changes) => (title, changes.iter().map(ToString::to_string).collect()),
            Check::Kept(reason) => ("kept", vec![reason.clone()]),
            Check::Skipped(reason) => ("skipped", vec![reason.clone()]),
            Check::Reboot(restart) => ("reboots", vec![restart.reason.clone()]),
            Check::Waiting(reason) => ("waits", vec![reason.clone()]),
        };
        match lines.as_slice() {
            [] => output.line(&format!("{step}: {word}")),
            [only] if !matches!(check, Check::Needed(_)) => output.line(&format!("{step}: {word}: {only}")),
            lines => output.line(&format!("{step}: {word}\n    {}", lines.join("\n    "))),
        }
    }
    output.line("connections to this host, for its firewall:");
    for opening in openings {
        output.line(&format!("    {}", line(&opening)));
    }
    let not_ready: Vec<&str> =
        planned.iter().filter(|step| matches!(step.check, Check::Needed(_))).map(|step| step.step).collect();
    output.line(&match changes {
        0 if not_ready.is_empty() => "nothing to change: this host is as wanted".to_owned(),
        0 => format!("nothing to change, but not ready yet: {}", not_ready.join(", ")),
        changes => format!("{changes} changes; nothing was touched"),
    });
}

/// `6443/tcp from all nodes and users of the API: kube-apiserver`
fn line(Opening { port, protocol, purpose, from }: &Opening) -> String {
    let port = if port.is_empty() { String::new() } else { format!("{port}/") };
    format!("{port}{protocol} from {from}: {purpose}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_the_port_and_who_connects() {
        let opening = |port: &str| Opening { port: port.to_owned(), protocol: "tcp", purpose: "etcd", from: "masters" };
        assert_eq!(line(&opening("2379")), "2379/tcp from masters: etcd");
        assert_eq!(line(&opening("")), "tcp from masters: etcd");
    }
}
