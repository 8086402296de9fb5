//! Failures with a hint and an exit code, and the one place where errors become text for people.
//!
//! Everything else uses `anyhow` with context; a [`Failure`] somewhere in the chain decides the exit code and the hint.

use std::fmt;

use crate::output::Output;

/// What an exit code tells the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The work failed.
    Failed = 1,
    /// Wrong usage: arguments, manifest or component data cannot be understood.
    Usage = 2,
    /// A bundle was refused.
    Refused = 4,
}

/// A statement of fact with one action that helps.
#[derive(Debug)]
pub struct Failure {
    message: String,
    hint: Option<String>,
    exit: Exit,
}

impl Failure {
    /// The work failed.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, exit: Exit::Failed }
    }

    /// Wrong usage.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::new(message) }
    }

    /// A bundle was refused.
    pub fn refused(message: impl Into<String>) -> Self {
        Self { exit: Exit::Refused, ..Self::new(message) }
    }

    /// Adds the one action that helps.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Prints `error:`, `caused by:` and `hint:` lines and returns the exit code.
pub fn report(error: &anyhow::Error, output: &Output) -> Exit {
    let failure = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<Failure>().map(|failure| (failure.hint.clone(), failure.exit))
    };
    let mut hint = None;
    let mut exit = Exit::Failed;
    // `anyhow` context is reached through `downcast_ref` on the error itself, causes through the chain.
    for (text, code) in error
        .downcast_ref::<Failure>()
        .map(|f| (f.hint.clone(), f.exit))
        .into_iter()
        .chain(error.chain().filter_map(failure))
    {
        hint = hint.or(text);
        if exit == Exit::Failed {
            exit = code;
        }
    }
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    output.error(&causes, hint.as_deref());
    exit
}
