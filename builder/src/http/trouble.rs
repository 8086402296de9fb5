//! Why an attempt failed, and with that what is done next.

use std::time::Duration;

use crate::failure::Failure;

/// Marks errors of places that could not be reached, as opposed to places that answered wrongly.
#[derive(Debug)]
pub struct Unreachable;

impl std::fmt::Display for Unreachable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no attempt succeeded")
    }
}

/// Why one attempt failed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Worth another attempt, after the pause that the server asked for.
    Passing(anyhow::Error, Option<Duration>),
    /// This server will do the same again; another may do better.
    Lasting(anyhow::Error),
    /// Ours, such as a full disk: no server can help.
    Local(anyhow::Error),
}

/// What `?` finds is ours; what servers do wrong is said with [`passing`] and [`lasting`].
impl<E: Into<anyhow::Error>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self::Local(error.into())
    }
}

/// What an attempt brings.
pub(super) type Attempt<T> = Result<T, Trouble>;

/// This server will do the same again.
pub(super) fn lasting(message: impl Into<String>) -> Trouble {
    Trouble::Lasting(Failure::new(message).into())
}

/// Worth another attempt.
pub(super) fn passing(message: impl Into<String>) -> Trouble {
    Trouble::Passing(Failure::new(message).into(), None)
}
