//! How many downloads one server gets at a time, when it may be asked again, and which were not to be reached.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is known of the servers of this run, by scheme, host and port; files have none.
#[derive(Debug)]
pub(super) struct Hosts {
    most: usize,
    state: Mutex<State>,
    /// Apart from the rest: the order of addresses is asked for while the state is held.
    lost: Mutex<BTreeSet<String>>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    busy: BTreeMap<String, usize>,
    rests: BTreeMap<String, Instant>,
}

/// The right to one download from a server; given back when dropped.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    hosts: &'a Hosts,
    /// The server.
    pub(super) server: Option<String>,
}

impl Hosts {
    /// `most` downloads at a time from each server.
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), state: Mutex::default(), lost: Mutex::default(), freed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `server` has a slot.
    pub(super) fn enter(&self, server: Option<String>) -> Slot<'_> {
        let full = |state: &mut State| state.is_full(server.as_ref(), self.most);
        let mut state = self.freed.wait_while(self.state(), full).unwrap_or_else(PoisonError::into_inner);
        self.take(&mut state, server)
    }

    /// Takes the first of `pending` whose server has a slot, waiting for one; `None` when nothing is pending.
    pub(super) fn next<T>(
        &self,
        pending: &Mutex<Vec<T>>,
        server: impl Fn(&T) -> Option<String>,
    ) -> Option<(T, Slot<'_>)> {
        loop {
            let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
            if pending.is_empty() {
                return None;
            }
            let mut state = self.state();
            // `server` may ask which were lost: that is not behind this lock.
            let servers = pending.iter().map(&server).enumerate();
            let free = servers.into_iter().find(|(_, server)| !state.is_full(server.as_ref(), self.most));
            if let Some((at, server)) = free {
                return Some((pending.remove(at), self.take(&mut state, server)));
            }
            drop(pending);
            drop(self.freed.wait(state).unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn take(&self, state: &mut State, server: Option<String>) -> Slot<'_> {
        if let Some(server) = &server {
            *state.busy.entry(server.clone()).or_default() += 1;
        }
        Slot { hosts: self, server }
    }

    /// Nobody asks `server` for so long.
    pub(super) fn rest(&self, server: &str, pause: Duration) {
        let until = Instant::now() + pause;
        let mut state = self.state();
        let known = state.rests.entry(server.to_owned()).or_insert(until);
        *known = until.max(*known);
    }

    /// How long `server` still rests.
    pub(super) fn resting(&self, server: &str) -> Option<Duration> {
        self.state().rests.get(server)?.checked_duration_since(Instant::now())
    }

    /// `server` was not to be reached in spite of all attempts: others are asked first from now on.
    pub(super) fn lose(&self, server: &str) {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).insert(server.to_owned());
    }

    /// `server` is there.
    pub(super) fn find(&self, server: &str) {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).remove(server);
    }

    /// Whether `server` was lost.
    pub(super) fn is_lost(&self, server: &str) -> bool {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).contains(server)
    }
}

impl State {
    fn is_full(&self, server: Option<&String>, most: usize) -> bool {
        server.and_then(|server| self.busy.get(server)).is_some_and(|busy| *busy >= most)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if let Some(server) = &self.server
            && let Some(busy) = self.hosts.state().busy.get_mut(server)
        {
            *busy = busy.saturating_sub(1);
        }
        self.hosts.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_of_an_item_may_depend_on_which_were_lost() {
        let (hosts, pending) = (Hosts::new(1), Mutex::new(vec!["a"]));
        hosts.lose("a");
        let server = |name: &&str| Some(if hosts.is_lost(name) { "b".to_owned() } else { (*name).to_owned() });
        assert_eq!(hosts.next(&pending, server).unwrap().1.server.as_deref(), Some("b"));
    }

    #[test]
    fn a_full_server_does_not_keep_others_waiting() {
        let hosts = Hosts::new(1);
        let pending = Mutex::new(vec!["a", "a", "b", "file"]);
        let server = |name: &&str| (*name != "file").then(|| (*name).to_owned());
        let (first, slot) = hosts.next(&pending, server).unwrap();
        let (second, other) = hosts.next(&pending, server).unwrap();
        let (third, _) = hosts.next(&pending, server).unwrap();
        assert_eq!((first, second, third), ("a", "b", "file"));
        drop(slot);
        let (last, _slot) = hosts.next(&pending, server).unwrap();
        assert_eq!(last, "a");
        assert!(hosts.next(&pending, server).is_none());
        drop(other);
        assert_eq!(hosts.enter(Some("b".into())).server.as_deref(), Some("b"));
    }
}
