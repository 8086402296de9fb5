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

/// Prints `error:`, `caused by:` and `hint:` lines and returns the exit code: those of the outermost failure that has them.
pub fn report(error: &anyhow::Error, output: &Output) -> Exit {
    let outer = error.downcast_ref::<Failure>().into_iter();
    let inner = error.chain().filter_map(|cause| cause.downcast_ref::<Failure>());
    let mut hints: Vec<String> =
        outer.clone().chain(inner.clone()).filter_map(|failure| failure.hint.clone()).collect();
    let mut exits: Vec<Exit> = outer.chain(inner).map(|failure| failure.exit).collect();
    let of_format = error.downcast_ref::<bundle::Error>().into_iter();
    for error in of_format.chain(error.chain().filter_map(|cause| cause.downcast_ref::<bundle::Error>())) {
        hints.extend(error.hint().map(str::to_owned));
        exits.extend(error.is_refusal().then_some(Exit::Refused));
    }
    hints.extend(error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).find_map(hint_of));
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    output.error(&causes, hints.first().map(String::as_str));
    exits.into_iter().find(|exit| *exit != Exit::Failed).unwrap_or(Exit::Failed)
}

/// What helps against errors that any write may meet.
fn hint_of(error: &std::io::Error) -> Option<String> {
    use std::io::ErrorKind;
    let hint = match error.kind() {
        ErrorKind::StorageFull => {
            "the disk is full: free some space, or name other places with `--cache DIR` and `--out DIR`"
        }
        ErrorKind::QuotaExceeded => "your quota is used up: name other places with `--cache DIR` and `--out DIR`",
        ErrorKind::ReadOnlyFilesystem => {
            "nothing can be written there: name other places with `--cache DIR` and `--out DIR`"
        }
        _ => return None,
    };
    Some(hint.to_owned())
}
