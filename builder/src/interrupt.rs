//! SIGINT and SIGTERM end a run at once.
//!
//! Whatever lies under a final name is whole at any moment, so a run may end anywhere, also by kill -9. What is left to do is
//! to remove temporary files and to say so. Unfinished downloads stay: the next run resumes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::output::Output;

/// What has to go when a signal ends the run. Signals are the whole process's, so this has to be reachable from everywhere.
///
/// Each may have a lock beside it, which goes after it.
static TEMPORARY: Mutex<BTreeMap<PathBuf, Option<PathBuf>>> = Mutex::new(BTreeMap::new());

/// A file or directory that a signal removes; whoever made it removes it otherwise.
#[derive(Debug)]
pub struct Temporary(PathBuf);

fn temporary() -> MutexGuard<'static, BTreeMap<PathBuf, Option<PathBuf>>> {
    TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Temporary {
    /// From now on a signal removes `path`.
    pub fn new(path: &Path) -> Self {
        temporary().insert(path.to_owned(), None);
        Self(path.to_owned())
    }

    /// The same for what is known to be abandoned when nobody holds `lock`.
    pub fn with_lock(path: &Path, lock: &Path) -> Self {
        temporary().insert(path.to_owned(), Some(lock.to_owned()));
        Self(path.to_owned())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        temporary().remove(&self.0);
    }
}

/// Waits for signals in a thread of its own for as long as the process lives.
pub fn watch(output: &Output) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("handling signals")?;
    let output = output.clone();
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            end(signal, &output);
        }
    });
    Ok(())
}

/// Ends the process as a shell reports it: 128 and the number of the signal.
#[expect(clippy::exit, reason = "other threads cannot be asked: they may wait for a server, a lock or a disk")]
fn end(signal: i32, output: &Output) {
    let name = if signal == SIGINT { "interrupted" } else { "terminated" };
    let _silence = output.last(
        &format!("{name}; nothing half-written was left under a final name"),
        "run the same command again: it continues where this one ended",
    );
    // Held to the end: nothing temporary is begun any more.
    let temporary = temporary();
    for (path, lock) in temporary.iter() {
        // Other threads may still be writing into a directory, but not for long: new files in it are errors to them.
        let gone = (0..100).any(|_| {
            let _ = if path.is_dir() { fs_err::remove_dir_all(path) } else { fs_err::remove_file(path) };
            !path.exists()
        });
        // What is left is found by its lock and removed by the next run.
        if let Some(lock) = lock.as_ref().filter(|_| gone) {
            let _ = fs_err::remove_file(lock);
        }
    }
    std::process::exit(128 + signal);
}
