//! The one module that prints: results on standard output, progress and errors on standard error.
//!
//! A terminal gets bars, a pipe gets one line an event, `--json` gets one JSON object a line on standard output.

mod progress;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressDrawTarget};
use serde_json::json;

pub use self::progress::{Progress, Tally};

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
    warned: Arc<Mutex<BTreeSet<String>>>,
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
        Self { style, bars: MultiProgress::with_draw_target(target), lock: Arc::default(), warned: Arc::default() }
    }

    /// Says nothing: for tests of inner parts.
    pub fn silent() -> Self {
        Self {
            style: Style::Nothing,
            bars: MultiProgress::with_draw_target(ProgressDrawTarget::hidden()),
            lock: Arc::default(),
            warned: Arc::default(),
        }
    }

    /// True when results are JSON.
    pub fn is_json(&self) -> bool {
        self.style == Style::Json
    }

    /// A result for people; nothing with `--json`.
    pub fn result(&self, text: &str) {
        if !self.is_json() {
            self.stdout(&visible(text));
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

    /// A warning beside a document on standard output: on standard error, whatever the style.
    pub fn warning_beside(&self, text: &str) {
        if self.style != Style::Nothing {
            self.stderr(&format!("warning: {text}"));
        }
    }

    /// A warning that is given once for everything with the same subject, for example a server that is not reached.
    pub fn warning_once(&self, subject: &str, text: &str) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.insert(subject.to_owned()) {
            self.warning(text);
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

    /// The last thing that is said: an error, and silence for as long as the guard lives.
    pub fn last(&self, cause: &str, hint: &str) -> MutexGuard<'_, ()> {
        // The terminal is the reader's again.
        let _ = self.bars.clear();
        self.error(&[cause.to_owned()], Some(hint));
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Raw text on standard output, for completions and man pages.
    pub fn raw(&self, bytes: &[u8]) {
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stdout = std::io::stdout().lock();
        // A closed pipe is the reader's wish.
        let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
    }

    /// A document that others wrote: as it is into a file or pipe, without control characters on a terminal.
    pub fn document(&self, bytes: &[u8]) {
        if std::io::stdout().is_terminal() {
            self.raw(visible(&String::from_utf8_lossy(bytes)).as_bytes());
        } else {
            self.raw(bytes);
        }
    }

    fn stdout(&self, line: &str) {
        self.raw(format!("{line}\n").as_bytes());
    }

    fn stderr(&self, line: &str) {
        let line = visible(line);
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.bars.suspend(|| {
            let _ = std::io::stderr().lock().write_all(format!("{line}\n").as_bytes());
        });
    }
}

/// Text that cannot talk to a terminal: control characters but line ends and tabs are shown as `\u{1b}`, and so are those
/// that turn the direction of writing.
fn visible(text: &str) -> Cow<'_, str> {
    let hidden = |letter: char| {
        (letter.is_control() && !matches!(letter, '\n' | '\t'))
            || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if hidden(letter) { shown.extend(letter.escape_unicode()) } else { shown.push(letter) }
    }
    Cow::Owned(shown)
}

/// Sizes together, as others claim them: at most `u64::MAX`.
pub fn total(sizes: impl IntoIterator<Item = u64>) -> u64 {
    sizes.into_iter().fold(0, u64::saturating_add)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_others_claim_do_not_wrap() {
        assert_eq!(total([u64::MAX, 1]), u64::MAX);
        assert_eq!(total([1, 2, 3]), 6);
    }

    #[test]
    fn nothing_talks_to_the_terminal() {
        assert_eq!(visible("a\u{1b}]0;x\u{7}\u{9b}2J\rb\u{202e}"), "a\\u{1b}]0;x\\u{7}\\u{9b}2J\\u{d}b\\u{202e}");
        assert!(matches!(visible("zwei Zeilen\n\tüber Maß …"), Cow::Borrowed(_)));
    }
}
