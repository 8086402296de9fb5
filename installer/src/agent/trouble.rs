//! Trouble of a part that is tried again and again: said when it begins, changes and ends, not in every round.

use anyhow::Result;

use crate::event::{Event, Events};

/// What was last said about one part.
pub(super) struct Trouble<'a> {
    events: &'a dyn Events,
    part: &'static str,
    said: String,
}

impl<'a> Trouble<'a> {
    /// None so far.
    pub(super) fn new(events: &'a dyn Events, part: &'static str) -> Self {
        Self { events, part, said: String::new() }
    }

    /// Takes the outcome of one round.
    pub(super) fn report(&mut self, result: Result<()>) {
        let text = result.err().map(|error| format!("{error:#}")).unwrap_or_default();
        if self.said == text {
            return;
        }
        self.said.clone_from(&text);
        let step = String::new();
        self.events.emit(&if text.is_empty() {
            Event::Note { step, text: format!("{} is all right again", self.part) }
        } else {
            Event::Warning { step, text }
        });
    }
}
