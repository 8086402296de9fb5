//! The log file: every event as one line of text with its time.
//!
//! Best effort by design: a full disk must not end an installation because its log cannot be written; 4 MiB are set aside
//! up front. Until it is opened it only remembers, so a refused bundle leaves no log behind.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{Event, Events};
use crate::host::Host;

/// Where it is.
const PATH: &str = "/var/lib/sealift/log";
/// Set aside up front, and the size at which it begins anew (the old one is kept as `log.1`), bytes.
const RESERVED: u64 = 4 << 20;

/// The log of this host.
#[derive(Debug)]
pub struct Log<'a> {
    host: &'a Host,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Waiting(Vec<String>),
    Open { length: u64 },
}

impl<'a> Log<'a> {
    /// A log that only remembers so far.
    pub fn new(host: &'a Host) -> Self {
        Self { host, state: Mutex::new(State::Waiting(Vec::new())) }
    }

    /// Opens the file and writes what was remembered. Twice is once.
    pub fn open(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State::Waiting(lines) = &mut *state else { return };
        let lines = std::mem::take(lines);
        let path = Path::new(PATH);
        let mut length = self.host.entry(path).ok().flatten().map_or(0, |entry| entry.size);
        if length > RESERVED && self.host.rename(path, &PathBuf::from(format!("{PATH}.1"))).is_ok() {
            length = 0;
        }
        let _ = self.host.reserve(path, 0o600, RESERVED);
        *state = State::Open { length };
        self.write(&mut state, &lines.concat());
    }

    fn write(&self, state: &mut State, text: &str) {
        match state {
            State::Waiting(lines) => lines.push(text.to_owned()),
            State::Open { length } => {
                if self.host.append_at(Path::new(PATH), *length, text.as_bytes(), 0o600).is_ok() {
                    *length += text.len() as u64;
                }
            }
        }
    }
}

impl Events for Log<'_> {
    fn emit(&self, event: &Event) {
        let Some(line) = event.line() else { return };
        let time = self.host.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(&mut state, &format!("{time} {line}\n"));
    }
}
