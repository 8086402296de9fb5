//! What happens during a run, as data: the terminal, a pipe, `--json`, the journal and the log all get the same events.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::step::Change;
use crate::steps::preflight::{self, Verdict};

mod log;

pub use log::Log;

/// One thing that happened. JSON: `{"event":"step-started", …}`; readers keep going over events they do not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Event {
    /// The run begins.
    RunStarted {
        /// Roles of this host.
        roles: String,
        /// Bundle name and version.
        bundle: String,
        /// Number of steps.
        steps: usize,
    },
    /// A step is looked at.
    StepStarted {
        /// Step name.
        step: String,
        /// Its title.
        title: String,
        /// Position, from 1.
        index: usize,
        /// Number of steps.
        total: usize,
    },
    /// A step is going to be applied.
    StepChanges {
        /// Step name.
        step: String,
        /// What will change.
        changes: Vec<Change>,
    },
    /// Progress inside a step.
    Progress {
        /// Step name.
        step: String,
        /// So far.
        done: u64,
        /// In all; 0 when not known.
        total: u64,
        /// `bytes`, or what is counted.
        unit: String,
    },
    /// A fact worth a line.
    Note {
        /// Step name; empty outside of steps.
        step: String,
        /// The fact.
        text: String,
    },
    /// Something a person should look at, although the run goes on.
    Warning {
        /// Step name; empty outside of steps.
        step: String,
        /// What and why.
        text: String,
    },
    /// Preflight has looked at something.
    Finding {
        /// Step name.
        step: String,
        /// Name of the check, as after `--ignore`.
        check: String,
        /// `good`, `limit`, `ignored` or `refused`.
        verdict: String,
        /// What was looked at.
        subject: String,
        /// What is there.
        found: String,
        /// What is needed, or what follows from a limit.
        needed: String,
        /// What a person can do.
        r#do: String,
        /// For people.
        line: String,
    },
    /// A step ended.
    StepFinished {
        /// Step name.
        step: String,
        /// How.
        outcome: Outcome,
        /// The reason for `kept`, `skipped`, `waiting` and `failed`.
        detail: String,
        /// Number of changes made.
        changes: usize,
        /// Duration.
        milliseconds: u64,
    },
    /// The run ended.
    RunFinished {
        /// Exit code.
        code: u8,
        /// Number of changes made.
        changes: usize,
        /// Duration of the whole.
        milliseconds: u64,
    },
    /// An event of a newer version.
    #[serde(other)]
    Unknown,
}

impl Event {
    /// Of a finding of preflight.
    pub fn of_finding(step: &str, finding: &preflight::Finding) -> Self {
        let verdict = match finding.verdict {
            Verdict::Good => "good",
            Verdict::Limit => "limit",
            Verdict::Ignored => "ignored",
            Verdict::Refused => "refused",
        };
        Self::Finding {
            step: step.to_owned(),
            check: finding.check.to_string(),
            verdict: verdict.to_owned(),
            subject: finding.subject.clone(),
            found: finding.found.clone(),
            needed: finding.needed.clone(),
            r#do: finding.advice.clone(),
            line: finding.to_string(),
        }
    }

    /// The event as text for a pipe and for the log (one line, or one per change); progress has none.
    pub fn line(&self) -> Option<String> {
        let tagged = |step: &str, text: &str| if step.is_empty() { text.to_owned() } else { format!("{step}: {text}") };
        Some(match self {
            Self::RunStarted { roles, bundle, steps } => format!("installing {bundle} as {roles}: {steps} steps"),
            Self::StepStarted { .. } | Self::Progress { .. } | Self::Unknown => return None,
            Self::StepChanges { step, changes } if changes.is_empty() => tagged(step, "running"),
            Self::StepChanges { step, changes } => {
                let lines: Vec<String> = changes.iter().map(|change| tagged(step, &change.0)).collect();
                lines.join("\n")
            }
            Self::Finding { step, verdict, line, .. } => match verdict.as_str() {
                // Refused findings are in the error, all together.
                "good" | "refused" => return None,
                verdict => tagged(step, &format!("{verdict}: {line}")),
            },
            Self::Note { step, text } => tagged(step, text),
            Self::Warning { step, text } => tagged(step, &format!("warning: {text}")),
            Self::StepFinished { step, outcome, detail, changes, milliseconds } => {
                let mut text = tagged(step, outcome.word());
                if !detail.is_empty() {
                    let _ = write!(text, ": {detail}");
                }
                if *changes > 0 {
                    let _ = write!(text, " ({changes} {})", if *changes == 1 { "change" } else { "changes" });
                }
                if *milliseconds >= 100 {
                    let _ = write!(text, " in {}", seconds(*milliseconds));
                }
                text
            }
            Self::RunFinished { code, changes, milliseconds } => {
                format!("finished with exit code {code}: {changes} changes in {}", seconds(*milliseconds))
            }
        })
    }
}

/// Milliseconds as people read them: `0.4 s`, `83.2 s`.
pub fn seconds(milliseconds: u64) -> String {
    format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100)
}

impl Outcome {
    /// As people read it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unchanged => "as wanted",
            Self::Applied => "done",
            Self::Kept => "kept",
            Self::Skipped => "skipped",
            Self::Waiting => "waiting",
            Self::Reboot => "needs a reboot",
            Self::Failed => "failed",
            Self::Unknown => "ended",
        }
    }
}

/// Every event goes to all of them.
pub struct Fan<'a>(pub Vec<&'a dyn Events>);

impl std::fmt::Debug for Fan<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Fan").field(&self.0.len()).finish()
    }
}

impl Events for Fan<'_> {
    fn emit(&self, event: &Event) {
        for sink in &self.0 {
            sink.emit(event);
        }
    }
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Was as wanted.
    Unchanged,
    /// Applied.
    Applied,
    /// Left as it is, for a reason.
    Kept,
    /// Does not apply here.
    Skipped,
    /// Another host has to act first.
    Waiting,
    /// Done up to a reboot.
    Reboot,
    /// Did not work.
    Failed,
    /// An outcome of a newer version.
    #[serde(other)]
    Unknown,
}

/// Takes events; shown, stored or both.
pub trait Events {
    /// Takes one event. Never fails: reporting must not end an installation.
    fn emit(&self, event: &Event);
}

/// Takes events and forgets them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Events for Quiet {
    fn emit(&self, _: &Event) {}
}

/// Keeps events, for tests and for what happens before the log is open.
#[derive(Debug, Default)]
pub struct Recorded(std::sync::Mutex<Vec<Event>>);

impl Recorded {
    /// The events so far.
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl Events for Recorded {
    fn emit(&self, event: &Event) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(event.clone());
    }
}
