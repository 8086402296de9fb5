//! Errors. A *refusal* (the bundle is not what a trusted key signed) is kept apart from trouble with the disk or the pipe:
//! the installer ends with exit code 4 for the first and 1 for the second, and only the second is worth a retry.

use std::fmt;
use std::io;

/// What can go wrong with a bundle.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bundle breaks a reading rule.
    #[error(transparent)]
    Refused(#[from] Box<Refusal>),
    /// Reading the bundle failed (disk, pipe); says nothing about its content.
    #[error("reading the bundle failed")]
    Read(#[source] io::Error),
    /// The receiver of the content failed (disk full, for example).
    #[error("storing the content of the bundle failed")]
    Sink(#[source] io::Error),
    /// Reading a file that is to be packed failed.
    #[error("reading what goes into the bundle failed")]
    Source(#[source] io::Error),
    /// Writing a bundle or a layer failed.
    #[error("writing failed")]
    Write(#[source] io::Error),
    /// A key, or a set of keys, that cannot be used.
    #[error("{what}")]
    Key {
        /// What is wrong with it.
        what: String,
        /// One thing to do.
        hint: Option<&'static str>,
    },
    /// The writing side was asked for something the format cannot hold.
    #[error("{0}")]
    Input(String),
}

impl Error {
    /// Whether the bundle itself was refused (exit code 4), as opposed to trouble around it.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
    }

    /// The refusal, if it is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// One thing the operator can do, if there is one.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Refused(refusal) => refusal.hint,
            Self::Key { hint, .. } => *hint,
            _ => None,
        }
    }
}

/// Which rule a refused bundle breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The file ends too early.
    Truncated,
    /// Bytes follow where nothing may follow: after the end of the bundle, of a layer, of a zstd frame.
    Trailing,
    /// A tar header, padding or end mark of the bundle is not exactly what the format writes.
    Header,
    /// Another entry than the one that must come next (missing, extra, duplicate or out of order).
    Entry,
    /// No signature, not enough of them, a wrong one, or one that was made for another bundle.
    Signature,
    /// Content that does not have the digest that was signed.
    Digest,
    /// A size over a limit of the format.
    Size,
    /// A signed description that is not well-formed or contradicts itself.
    Metadata,
    /// A layer entry that is not the one in the signed file list.
    Layer,
    /// A layer that is not one zstd frame with a window of at most 8 MiB.
    Compression,
}

/// Why a bundle was refused: what was expected, what was found, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The rule that was broken.
    pub reason: Reason,
    /// The entry, blob or offset.
    pub place: String,
    /// What the rule asks for.
    pub expected: String,
    /// What was there instead.
    pub found: String,
    /// One thing to do.
    pub hint: Option<&'static str>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bundle refused: {}", self.statement())
    }
}

impl Refusal {
    /// Where, what was expected, what was found.
    pub fn statement(&self) -> String {
        format!("{}: expected {}, found {}", self.place, self.expected, self.found)
    }
}

impl std::error::Error for Refusal {}

/// The hint for damage that a fresh copy cures.
pub(crate) const COPY_AGAIN: &str =
    "the file is damaged or incomplete: copy it again and compare its sha256 with the original";

/// Makes the error for a refusal.
pub(crate) fn refuse(
    reason: Reason,
    place: impl Into<String>,
    expected: impl Into<String>,
    found: impl Into<String>,
) -> Error {
    let hint = match reason {
        Reason::Truncated | Reason::Digest | Reason::Header => Some(COPY_AGAIN),
        _ => None,
    };
    refuse_with(reason, place, expected, found, hint)
}

/// Makes the error for a refusal with a hint of its own.
pub(crate) fn refuse_with(
    reason: Reason,
    place: impl Into<String>,
    expected: impl Into<String>,
    found: impl Into<String>,
    hint: Option<&'static str>,
) -> Error {
    Box::new(Refusal { reason, place: place.into(), expected: expected.into(), found: found.into(), hint }).into()
}

/// Shortens text that came from the bundle for use in a message, and makes control characters visible.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted: String = text.chars().take(120).flat_map(char::escape_debug).collect();
    if text.chars().nth(120).is_some() {
        quoted.push('…');
    }
    quoted
}
