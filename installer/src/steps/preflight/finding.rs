//! What preflight found: one line per subject, with what was found, what is needed and what to do; all at once.

use std::fmt;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As needed.
    Good,
    /// Less than it could be; the installation works around it and says so.
    Limit,
    /// The installation would not work.
    Refused,
}

/// One subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub subject: String,
    /// How bad it is.
    pub verdict: Verdict,
    /// What is there.
    pub found: String,
    /// What is needed; empty when good.
    pub needed: String,
    /// What a person can do; empty when nothing has to be done.
    pub advice: String,
}

impl Finding {
    /// As needed.
    pub fn good(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            verdict: Verdict::Good,
            found: found.into(),
            needed: String::new(),
            advice: String::new(),
        }
    }

    /// A limit that is worked around.
    pub fn limit(subject: impl Into<String>, found: impl Into<String>, consequence: impl Into<String>) -> Self {
        Self { verdict: Verdict::Limit, needed: consequence.into(), ..Self::good(subject, found) }
    }

    /// A reason not to begin.
    pub fn refused(
        subject: impl Into<String>,
        found: impl Into<String>,
        needed: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Refused, needed: needed.into(), advice: advice.into(), ..Self::good(subject, found) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.verdict {
            Verdict::Good => write!(f, "{}: {}", self.subject, self.found),
            Verdict::Limit => write!(f, "{}: {}; {}", self.subject, self.found, self.needed),
            Verdict::Refused => {
                write!(f, "{}: found {}; needed: {}", self.subject, self.found, self.needed)?;
                if !self.advice.is_empty() {
                    write!(f, "; do: {}", self.advice)?;
                }
                Ok(())
            }
        }
    }
}
