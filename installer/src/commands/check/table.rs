//! The result: rows with a state, in the order in which they were asked.

use serde::Serialize;
use serde_json::json;

use crate::output::Output;

/// How a row ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// It works.
    Good,
    /// It works, but somebody should look at it.
    Warning,
    /// It does not work.
    Failed,
    /// It was not tried, and why.
    Unchecked,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
            Self::Unchecked => "-",
        }
    }
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    pub(super) subject: String,
    pub(super) state: State,
    pub(super) detail: String,
}

/// All rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table(pub(super) Vec<Row>);

/// Failures of one kind that get a row each; the rest is counted.
const FAILURES: usize = 40;

impl Table {
    fn row(&mut self, state: State, subject: impl Into<String>, detail: impl Into<String>) {
        self.0.push(Row { subject: subject.into(), state, detail: detail.into() });
    }

    pub(super) fn good(&mut self, subject: impl Into<String>, detail: impl Into<String>) {
        self.row(State::Good, subject, detail);
    }

    pub(super) fn warning(&mut self, subject: impl Into<String>, detail: impl Into<String>) {
        self.row(State::Warning, subject, detail);
    }

    pub(super) fn failed(&mut self, subject: impl Into<String>, detail: impl Into<String>) {
        self.row(State::Failed, subject, detail);
    }

    pub(super) fn unchecked(&mut self, subject: impl Into<String>, detail: impl Into<String>) {
        self.row(State::Unchecked, subject, detail);
    }

    /// One row for many of a kind that answered, and one for each that did not.
    pub(super) fn tally(&mut self, subject: &str, tally: &Tally) {
        let total = tally.good + tally.failed;
        if total == 0 {
            return;
        }
        let state = if tally.failed == 0 { State::Good } else { State::Failed };
        self.row(state, subject, format!("{} of {total} answer", tally.good));
        for (subject, detail) in &tally.failures {
            self.failed(subject, detail);
        }
        if tally.failed > tally.failures.len() {
            self.failed(subject, format!("{} more do not answer", tally.failed - tally.failures.len()));
        }
    }

    /// Whether nothing failed.
    pub(super) fn is_good(&self) -> bool {
        self.0.iter().all(|row| row.state != State::Failed)
    }

    /// Prints it.
    pub(super) fn show(&self, output: &Output) {
        let count = |state: State| self.0.iter().filter(|row| row.state == state).count();
        let counts = [State::Good, State::Warning, State::Failed, State::Unchecked].map(count);
        let [good, warnings, failed, unchecked] = counts;
        if output.is_json() {
            output.json(&json!({
                "ok": self.is_good(),
                "counts": { "good": good, "warning": warnings, "failed": failed, "unchecked": unchecked },
                "rows": self.0,
            }));
            return;
        }
        let width = self.0.iter().map(|row| row.subject.chars().count()).max().unwrap_or(0).min(48);
        for Row { subject, state, detail } in &self.0 {
            output.line(&format!("{:<8} {subject:<width$}  {detail}", state.word()));
        }
        output.line(&format!("{good} ok, {warnings} warnings, {failed} failed, {unchecked} not checked"));
    }
}

/// Counts of one kind, and the first failures by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) good: usize,
    pub(super) failed: usize,
    pub(super) failures: Vec<(String, String)>,
}

impl Tally {
    pub(super) fn add(&mut self, subject: impl FnOnce() -> String, result: Result<(), String>) {
        match result {
            Ok(()) => self.good += 1,
            Err(detail) => {
                self.failed += 1;
                if self.failures.len() < FAILURES {
                    self.failures.push((subject(), detail));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_named_as_far_as_a_person_reads() {
        let mut tally = Tally::default();
        tally.add(|| unreachable!("a good one needs no name"), Ok(()));
        for n in 0..FAILURES + 2 {
            tally.add(|| format!("pod {n}"), Err("silent".to_owned()));
        }
        let mut table = Table::default();
        table.tally("pods", &tally);
        assert_eq!(table.0.len(), FAILURES + 2);
        assert_eq!(table.0[0].detail, "1 of 43 answer");
        assert_eq!(table.0.last().unwrap().detail, "2 more do not answer");
        assert!(!table.is_good());
        let mut empty = Table::default();
        empty.tally("pods", &Tally::default());
        empty.unchecked("UDP", "no way to tell");
        empty.warning("clock", "2 s");
        assert!(empty.is_good() && empty.0.len() == 2);
    }
}
