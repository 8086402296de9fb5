//! What trials leave behind that may fail without harm: a node that is closed, an initramfs that counts down.
//!
//! Seen to at the end of every run, when the API servers of this host are up and everything else is done. A failure is said,
//! stays on record for the next run and for `installer status`, and fails nothing that an operator has started.

use anyhow::Result;

use super::state::State;
use super::{countdown, drain};
use crate::context::Context;
use crate::step::Step as _;

/// Opens the node and makes the initramfs anew, unless a kernel is on trial. For the end of a run, however it ended. Gives the
/// node that is still closed and should not be: a run that nobody watches has to come back for it.
pub fn tidy(context: &Context<'_>) -> Option<String> {
    let context = &Context { step: super::Kernel.name(), ..*context };
    let mut state = match State::read(context.host) {
        Ok(state) => state,
        Err(error) => {
            context.warn(format!("what is left of a kernel's trial: {error:#}"));
            return None;
        }
    };
    if state.trial.is_some() {
        return None;
    }
    drain::open_or_say(context, &mut state);
    if let Err(error) = countdowns(context, &mut state) {
        context.warn(format!(
            "an initramfs still counts down as if its kernel were on trial, and {} ends that at every boot ({error:#}); the \
             next run makes it anew",
            countdown::UNIT
        ));
    }
    state.closed
}

fn countdowns(context: &Context<'_>, state: &mut State) -> Result<()> {
    if !countdown::is_left(context.host, state)? || crate::engine::interrupted() {
        return Ok(());
    }
    // A run that failed before the reboot will be run again.
    let next = super::wanted(context, state).ok().and_then(std::result::Result::ok);
    countdown::remove(context.host, state, next.as_ref().map(|next| next.release.as_str())).map(drop)
}
