//! The one module that prints: results on standard output, progress and errors on standard error.
//!
//! A terminal gets bars, a pipe gets one line an event, `--json` gets one JSON object a line on standard output.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

/// How events are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Bars,
    Lines,
    Json,
    Nothing,
}

/// Where everything the program says goes; cheap to clone, shared by threads.
#[derive(Clone, Debug)]
pub struct Output {
    style: Style,
    bars: MultiProgress,
    lock: Arc<Mutex<()>>,
}

impl Output {
    /// Bars on a terminal, plain lines in a pipe, JSON lines when asked for.
    pub fn new(json: bool) -> Self {
        let style = match (json, std::io::stderr().is_terminal()) {
            (true, _) => Style::Json,
            (false, true) => Style::Bars,
            (false, false) => Style::Lines,
        };
        let target = if style == Style::Bars { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { style, bars: MultiProgress::with_draw_target(target), lock: Arc::default() }
    }

    /// Says nothing: for tests of inner parts.
    pub fn silent() -> Self {
        Self {
            style: Style::Nothing,
            bars: MultiProgress::with_draw_target(ProgressDrawTarget::hidden()),
            lock: Arc::default(),
        }
    }

    /// True when results are JSON.
    pub fn is_json(&self) -> bool {
        self.style == Style::Json
    }

    /// A result for people; nothing with `--json`.
    pub fn result(&self, text: &str) {
        if !self.is_json() {
            self.stdout(text);
        }
    }

    /// A result for programs: one JSON object on one line; nothing without `--json`.
    pub fn result_json(&self, value: &serde_json::Value) {
        if self.is_json() {
            self.stdout(&value.to_string());
        }
    }

    /// A step that was done or begins, for example `fetched`, `etcd-server=3.4.23 (6.1 MiB)`.
    pub fn event(&self, verb: &str, what: &str) {
        match self.style {
            Style::Json => self.stdout(&json!({ "event": verb, "what": what }).to_string()),
            Style::Nothing => {}
            Style::Bars | Style::Lines => self.stderr(&format!("{verb:>12} {what}")),
        }
    }

    /// Something the reader should know, without stopping.
    pub fn warning(&self, text: &str) {
        match self.style {
            Style::Json => self.stdout(&json!({ "event": "warning", "what": text }).to_string()),
            Style::Nothing => {}
            Style::Bars | Style::Lines => self.stderr(&format!("warning: {text}")),
        }
    }

    /// An error: what failed, its causes from the outside in, and one action that helps.
    pub fn error(&self, causes: &[String], hint: Option<&str>) {
        if self.is_json() {
            self.stdout(&json!({ "event": "error", "causes": causes, "hint": hint }).to_string());
            return;
        }
        let mut text = String::new();
        for (index, cause) in causes.iter().enumerate() {
            let label = if index == 0 { "error: " } else { "\n  caused by: " };
            text += label;
            text += cause.trim_end();
        }
        if let Some(hint) = hint {
            text += "\n  hint: ";
            text += hint;
        }
        self.stderr(&text);
    }

    /// A bar over `total` bytes (0 = unknown); in a pipe nothing is shown until [`Progress::done`] says so elsewhere.
    pub fn progress(&self, name: &str, total: u64) -> Progress {
        let bar = self.bars.add(ProgressBar::new(total));
        let template = if total > 0 {
            "{prefix:>24!} {bar:30} {bytes:>10}/{total_bytes:<10} {bytes_per_sec:>12} {eta:>4}"
        } else {
            "{prefix:>24!} {spinner} {bytes:>10} {bytes_per_sec:>12}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(name.to_owned());
        Progress { bar, started: Instant::now() }
    }

    /// Raw text on standard output, for completions and man pages.
    pub fn raw(&self, bytes: &[u8]) {
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stdout = std::io::stdout().lock();
        // A closed pipe is the reader's wish.
        let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
    }

    fn stdout(&self, line: &str) {
        self.raw(format!("{line}\n").as_bytes());
    }

    fn stderr(&self, line: &str) {
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.bars.suspend(|| {
            let _ = std::io::stderr().lock().write_all(format!("{line}\n").as_bytes());
        });
    }
}

/// One running transfer.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
}

impl Progress {
    /// Bytes done so far.
    pub fn set(&self, bytes: u64) {
        self.bar.set_position(bytes);
    }

    /// More bytes are done.
    pub fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// Removes the bar; returns the time since it appeared.
    pub fn done(self) -> Duration {
        self.bar.finish_and_clear();
        self.started.elapsed()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Bytes as people read them: `6.1 MiB`.
pub fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// Megabytes (10^6) a second.
pub fn rate(count: u64, time: Duration) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit after the point")]
    let rate = count as f64 / 1e6 / time.as_secs_f64().max(1e-9);
    format!("{rate:.1} MB/s")
}
