//! The one place that writes to the terminal.
//!
//! A terminal gets a bar and a line a step, a pipe gets lines, `--json` gets one event a line. Results and events go to
//! stdout, errors to stderr. A closed pipe is not an error: the installation goes on.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::engine::Summary;
use crate::event::{Event, Events, Outcome, seconds};

/// How to write.
#[derive(Debug)]
pub struct Output {
    form: Form,
}

#[derive(Debug)]
enum Form {
    Terminal(Bar),
    Lines,
    Json,
    Silent,
}

#[derive(Debug)]
struct Bar {
    bar: ProgressBar,
    position: Mutex<String>,
}

/// Which form the operator asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// For people: bars on a terminal, lines in a pipe.
    Text,
    /// For programs: JSON lines.
    Json,
}

impl Output {
    /// Looks at stdout and decides.
    pub fn new(wanted: Wanted) -> Self {
        let form = match wanted {
            Wanted::Json => Form::Json,
            Wanted::Text if std::io::stdout().is_terminal() => {
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
                Form::Terminal(Bar { bar, position: Mutex::default() })
            }
            Wanted::Text => Form::Lines,
        };
        Self { form }
    }

    /// Writes nothing, for tests.
    pub fn silent() -> Self {
        Self { form: Form::Silent }
    }

    /// Whether programs read this.
    pub fn is_json(&self) -> bool {
        matches!(self.form, Form::Json)
    }

    /// Text for people, with its line end.
    pub fn line(&self, text: &str) {
        match &self.form {
            Form::Terminal(Bar { bar, .. }) => bar.suspend(|| stdout(text)),
            Form::Lines | Form::Json => stdout(text),
            Form::Silent => {}
        }
    }

    /// What people should know while a command takes its time: on stderr, because the result goes to stdout.
    pub fn notice(&self, text: &str) {
        match &self.form {
            Form::Terminal(Bar { bar, .. }) => bar.suspend(|| drop(writeln!(std::io::stderr(), "{text}"))),
            Form::Lines => drop(writeln!(std::io::stderr(), "{text}")),
            Form::Json | Form::Silent => {}
        }
    }

    /// A value for programs, as one line.
    pub fn json(&self, value: &impl serde::Serialize) {
        if let Ok(text) = serde_json::to_string(value) {
            stdout(&text);
        }
    }

    /// The error, rendered, on stderr.
    pub fn error(&self, text: &str) {
        if let Form::Terminal(Bar { bar, .. }) = &self.form {
            bar.finish_and_clear();
        }
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// The end of a run in words.
    pub fn summary(&self, summary: &Summary, milliseconds: u64) {
        if let Form::Terminal(Bar { bar, .. }) = &self.form {
            bar.finish_and_clear();
        }
        if self.is_json() {
            return;
        }
        if summary.reboot.is_some() {
            return;
        }
        match (&summary.waiting, summary.changes) {
            (Some(reason), _) => self.line(&format!(
                "waiting in {reason}\nhint: this host goes on by itself; `installer status` shows what it waits for, \
                 `installer resume` goes on here"
            )),
            (None, 0) => self.line("nothing to change: this host is as wanted"),
            (None, changes) => self.line(&format!("done: {changes} changes in {}", seconds(milliseconds))),
        }
        let slowest = summary.slowest(5);
        if !slowest.is_empty() && summary.changes > 0 {
            let steps: Vec<String> = slowest.iter().map(|(name, time)| format!("{name} {}", seconds(*time))).collect();
            self.line(&format!("slowest steps: {}", steps.join(", ")));
        }
    }
}

fn stdout(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

impl Events for Output {
    fn emit(&self, event: &Event) {
        match &self.form {
            Form::Json => self.json(event),
            Form::Lines => {
                if let Some(line) = event.line() {
                    stdout(&line);
                }
            }
            Form::Terminal(bar) => bar.show(event),
            Form::Silent => {}
        }
    }
}

impl Bar {
    fn show(&self, event: &Event) {
        let mut position = self.position.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::StepStarted { title, index, total, .. } => {
                *position = format!("{index}/{total}");
                self.bar.set_length(0);
                self.style("{spinner} {msg}");
                self.bar.set_message(format!("{position} {title}"));
                self.bar.enable_steady_tick(Duration::from_millis(120));
            }
            Event::Progress { done, total, unit, .. } => {
                match (*total, unit.as_str()) {
                    (0, "bytes") => self.style("{spinner} {msg} {bytes} {bytes_per_sec}"),
                    (0, _) => self.style("{spinner} {msg} {pos}"),
                    (_, "bytes") => self.style("{spinner} {msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}"),
                    _ => self.style("{spinner} {msg} [{bar:30}] {pos}/{len}"),
                }
                self.bar.set_length(*total);
                self.bar.set_position(*done);
            }
            Event::StepFinished { outcome: Outcome::Unchanged, step, .. } => {
                self.bar.suspend(|| stdout(&format!("{position:>5}  {step}: {}", Outcome::Unchanged.word())));
            }
            Event::StepFinished { .. } => {
                if let Some(line) = event.line() {
                    self.bar.suspend(|| stdout(&format!("{position:>5}  {line}")));
                }
            }
            Event::RunFinished { .. } => self.bar.finish_and_clear(),
            other => {
                if let Some(line) = other.line() {
                    let indented = line.replace('\n', "\n       ");
                    self.bar.suspend(|| stdout(&format!("       {indented}")));
                }
            }
        }
    }

    fn style(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
    }
}
