//! What preflight found: one line per subject, with what was found, what is needed and what to do; all at once.

use std::fmt;

use serde::Serialize;

use crate::checks::CheckName;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As needed.
    Good,
    /// Less than it could be; the installation works around it and says so.
    Limit,
    /// The installation would not work, and the operator said `--ignore`.
    Ignored,
    /// The installation would not work.
    Refused,
}

/// One subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check.
    pub check: CheckName,
    /// How bad it is.
    pub verdict: Verdict,
    /// What was looked at.
    pub subject: String,
    /// What is there.
    pub found: String,
    /// What is needed (of a limit: what follows from it); empty when good.
    pub needed: String,
    /// What a person can do; empty when nothing has to be done.
    #[serde(rename = "do")]
    pub advice: String,
}

impl Finding {
    /// As needed.
    pub fn good(check: CheckName, subject: impl Into<String>, found: impl Into<String>) -> Self {
        let (subject, found) = (subject.into(), found.into());
        Self { check, verdict: Verdict::Good, subject, found, needed: String::new(), advice: String::new() }
    }

    /// A limit that is worked around.
    pub fn limit(
        check: CheckName,
        subject: impl Into<String>,
        found: impl Into<String>,
        consequence: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        let (needed, advice) = (consequence.into(), advice.into());
        Self { verdict: Verdict::Limit, needed, advice, ..Self::good(check, subject, found) }
    }

    /// A reason not to begin.
    pub fn refused(
        check: CheckName,
        subject: impl Into<String>,
        found: impl Into<String>,
        needed: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Refused,
            needed: needed.into(),
            advice: advice.into(),
            ..Self::good(check, subject, found)
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { check, verdict, subject, found, needed, advice } = self;
        match verdict {
            Verdict::Good => write!(f, "{subject}: {found}")?,
            Verdict::Limit => write!(f, "{subject}: {found}; {needed}")?,
            Verdict::Refused | Verdict::Ignored => write!(f, "{subject}: found {found}; needed: {needed}")?,
        }
        if !advice.is_empty() && *verdict != Verdict::Ignored {
            write!(f, "; do: {advice}")?;
        }
        write!(f, " [{check}]")
    }
}
