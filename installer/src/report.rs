//! How the program ends: exit codes, and errors as `error:`, `caused by:`, `hint:`.
//!
//! Any error can be marked on its way up with an exit code and with hints ([`Explain`]); the mark changes neither its
//! message nor its causes. `main` renders it once, at the end.

use std::error::Error as StdError;
use std::fmt;

/// Exit codes (DESIGN: output). Scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything is as wanted.
    Done = 0,
    /// Something failed; a rerun continues.
    Failed = 1,
    /// Wrong usage: command line or cluster config.
    Usage = 2,
    /// The host does not meet the requirements; nothing was changed.
    Preflight = 3,
    /// The bundle was refused; nothing was changed.
    Bundle = 4,
    /// A reboot is pending.
    Reboot = 5,
    /// Another host has to act first; `installer resume` continues.
    Waiting = 6,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// An error with an exit code or a hint; reads exactly as the error inside.
struct Marked {
    inner: anyhow::Error,
    exit: Option<Exit>,
    hint: Option<String>,
}

impl fmt::Display for Marked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

impl fmt::Debug for Marked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.inner, f)
    }
}

impl StdError for Marked {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source()
    }
}

/// Marks errors.
pub trait Explain {
    /// What a success is wrapped in, or the error itself.
    type Output;

    /// One action that a person can take.
    fn hint(self, hint: impl Into<String>) -> Self::Output;

    /// The exit code; the outermost mark counts.
    fn exit(self, exit: Exit) -> Self::Output;
}

impl Explain for anyhow::Error {
    type Output = anyhow::Error;

    fn hint(self, hint: impl Into<String>) -> anyhow::Error {
        anyhow::Error::new(Marked { inner: self, exit: None, hint: Some(hint.into()) })
    }

    fn exit(self, exit: Exit) -> anyhow::Error {
        anyhow::Error::new(Marked { inner: self, exit: Some(exit), hint: None })
    }
}

impl<T, E: Into<anyhow::Error>> Explain for Result<T, E> {
    type Output = anyhow::Result<T>;

    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|error| error.into().hint(hint))
    }

    fn exit(self, exit: Exit) -> anyhow::Result<T> {
        self.map_err(|error| error.into().exit(exit))
    }
}

/// All causes of an error, outermost first, also those that a mark stands for.
fn causes(error: &anyhow::Error) -> Vec<&(dyn StdError + 'static)> {
    let mut found: Vec<&(dyn StdError + 'static)> = Vec::new();
    let mut at = error;
    'outer: loop {
        for cause in at.chain() {
            found.push(cause);
            if let Some(mark) = cause.downcast_ref::<Marked>() {
                at = &mark.inner;
                continue 'outer;
            }
        }
        return found;
    }
}

fn marks(error: &anyhow::Error) -> impl Iterator<Item = &Marked> {
    causes(error).into_iter().filter_map(|cause| cause.downcast_ref())
}

/// The exit code of a run that ended with this error.
pub fn exit_of(error: &anyhow::Error) -> Exit {
    marks(error).find_map(|mark| mark.exit).unwrap_or(Exit::Failed)
}

/// Whether some mark already decides the exit code.
pub fn has_exit(error: &anyhow::Error) -> bool {
    marks(error).any(|mark| mark.exit.is_some())
}

/// The error as lines: `error:`, then each cause once, then the hints.
pub fn render(error: &anyhow::Error) -> String {
    let mut lines = Vec::new();
    let mut before = String::new();
    for (index, cause) in error.chain().enumerate() {
        let text = cause.to_string();
        // A cause that its error already spells out is not said again.
        if index > 0 && before.ends_with(&text) {
            continue;
        }
        let label = if index == 0 { "error" } else { "caused by" };
        let mut text_lines = text.lines();
        lines.push(format!("{label}: {}", text_lines.next().unwrap_or_default()));
        lines.extend(text_lines.map(|line| format!("    {line}").trim_end().to_owned()));
        before = text;
    }
    lines.extend(hints(error).iter().map(|hint| format!("hint: {hint}")));
    lines.join("\n")
}

/// What a person can do about an error.
pub fn hints(error: &anyhow::Error) -> Vec<&str> {
    let mut hints: Vec<&str> = marks(error).filter_map(|mark| mark.hint.as_deref()).collect();
    hints.dedup();
    hints
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context as _, anyhow};

    #[test]
    fn each_cause_once_and_the_hints_last() {
        let error = anyhow!("no space left on device")
            .context("writing `/etc/crictl.yaml`")
            .hint("free some space below /etc")
            .context("step `containerd` failed")
            .exit(Exit::Failed);
        let expected = "error: step `containerd` failed\ncaused by: writing `/etc/crictl.yaml`\n\
            caused by: no space left on device\nhint: free some space below /etc";
        assert_eq!(render(&error), expected);
    }

    #[test]
    fn the_outermost_exit_code_counts() {
        let inner: anyhow::Result<()> = Err(anyhow!("no systemd")).exit(Exit::Preflight);
        assert_eq!(exit_of(&inner.context("step `preflight`").unwrap_err()), Exit::Preflight);
        assert_eq!(exit_of(&anyhow!("x").exit(Exit::Bundle).exit(Exit::Usage)), Exit::Usage);
        assert_eq!(exit_of(&anyhow!("x")), Exit::Failed);
    }
}
