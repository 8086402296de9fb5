//! One thing that is missing.

use std::fmt;

/// Where the fault lies, which decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// In what people wrote: manifest, component data, bases.
    Written,
    /// In what the artifacts turned out to hold.
    Content,
}

/// Something is missing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Problem {
    /// Who needs it.
    pub(super) who: String,
    /// What is missing, and where.
    pub(super) missing: String,
    /// What to add or change.
    pub(super) remedy: String,
    /// Whose fault it is.
    pub(super) fault: Fault,
}

impl Problem {
    /// A fault in manifest, component data or bases.
    pub(super) fn written(who: impl Into<String>, missing: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { who: who.into(), missing: missing.into(), remedy: remedy.into(), fault: Fault::Written }
    }

    /// A fault in what artifacts hold.
    pub(super) fn content(who: impl Into<String>, missing: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { fault: Fault::Content, ..Self::written(who, missing, remedy) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} needs {}: {}", self.who, self.missing, self.remedy)
    }
}
