//! The test side of [`Host`](super::Host): scripted commands, a clock that moves when somebody waits, a record of all
//! changing operations, and one operation that fails or kills the run.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use jiff::Timestamp;

use super::command::{Command, Finished};
use super::filesystem::Filesystem;

/// The scripted answer to a command.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    code: i32,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Reply {
    /// Exit code 0 and this on stdout.
    pub fn ok(stdout: impl Into<Vec<u8>>) -> Self {
        Self { code: 0, stdout: stdout.into(), stderr: Vec::new() }
    }

    /// This exit code and this on stderr.
    pub fn fail(code: i32, stderr: impl Into<Vec<u8>>) -> Self {
        Self { code, stdout: Vec::new(), stderr: stderr.into() }
    }

    /// Adds standard output.
    #[must_use]
    pub fn stdout(mut self, stdout: impl Into<Vec<u8>>) -> Self {
        self.stdout = stdout.into();
        self
    }
}

type Answer = Box<dyn Fn(&Command) -> Reply + Send + Sync>;
type Holds = Box<dyn Fn(&Path) -> Option<i32> + Send + Sync>;
type Follows = Box<dyn Fn(&str) + Send + Sync>;
type Listens = Box<dyn Fn(SocketAddr) -> bool + Send + Sync>;

/// Script and record of a host that is a directory.
#[derive(Default)]
pub struct Fake {
    state: Mutex<State>,
    answers: Mutex<Vec<(String, Answer)>>,
    listens: Mutex<Option<Listens>>,
    holds: Mutex<Option<Holds>>,
    follows: Mutex<Vec<(String, Follows)>>,
}

#[derive(Debug)]
struct State {
    operations: Vec<String>,
    commands: Vec<String>,
    inputs: Vec<(String, Vec<u8>)>,
    fault: Option<Fault>,
    now: Timestamp,
    elapsed: Duration,
    nofile: u64,
    oom_score_adj: bool,
    filesystems: Vec<(PathBuf, Filesystem)>,
    latencies: Vec<Duration>,
    immutable: BTreeSet<PathBuf>,
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    at: usize,
    dies: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            operations: Vec::new(),
            commands: Vec::new(),
            inputs: Vec::new(),
            fault: None,
            // A fixed day, so that tests do not depend on the calendar.
            now: Timestamp::constant(1_795_219_200, 0),
            elapsed: Duration::ZERO,
            nofile: 1 << 20,
            oom_score_adj: true,
            filesystems: Vec::new(),
            latencies: Vec::new(),
            immutable: BTreeSet::new(),
        }
    }
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fake").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Fake {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers every command whose line (program and arguments, separated by spaces) starts with `prefix`; the last
    /// matching script wins. A command without a script is a program that is not installed.
    pub fn on(&self, prefix: &str, reply: Reply) {
        self.answer(prefix, move |_| reply.clone());
    }

    /// As [`Fake::on`], with an answer that may look at the command or remember things.
    pub fn answer(&self, prefix: &str, answer: impl Fn(&Command) -> Reply + Send + Sync + 'static) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push((prefix.to_owned(), Box::new(answer)));
    }

    /// The lines of all commands run so far.
    pub fn commands(&self) -> Vec<String> {
        self.state().commands.clone()
    }

    /// Command lines and what they were given on stdin.
    pub fn inputs(&self) -> Vec<(String, Vec<u8>)> {
        self.state().inputs.clone()
    }

    /// All changing operations so far: `create PATH`, `fill PATH`, `rename PATH`, `mkdir PATH`, `run LINE` …
    pub fn operations(&self) -> Vec<String> {
        self.state().operations.clone()
    }

    /// Forgets the record, for the second half of a test. A fault set before counts anew.
    pub fn clear(&self) {
        let mut state = self.state();
        state.operations.clear();
        state.commands.clear();
        state.inputs.clear();
    }

    /// Makes the `n`-th changing operation from now (the first is 0) fail as a full disk would; later ones succeed.
    pub fn fail_at(&self, n: usize) {
        let mut state = self.state();
        let at = state.operations.len() + n;
        state.fault = Some(Fault { at, dies: false });
    }

    /// As if the program were killed at the `n`-th changing operation from now: it and everything after it does nothing
    /// and fails, until [`Fake::revive`].
    pub fn die_at(&self, n: usize) {
        let mut state = self.state();
        let at = state.operations.len() + n;
        state.fault = Some(Fault { at, dies: true });
    }

    /// Ends fault injection: the next run of the program.
    pub fn revive(&self) {
        self.state().fault = None;
    }

    /// Sets the clock.
    pub fn set_now(&self, now: Timestamp) {
        self.state().now = now;
    }

    /// Sets what raising kernel limits of this process would give: hard limit of open files, negative OOM score.
    pub fn set_limits(&self, nofile: u64, negative_oom_score: bool) {
        let mut state = self.state();
        state.nofile = nofile;
        state.oom_score_adj = negative_oom_score;
    }

    /// Puts everything below `path` on this filesystem; the longest path counts. Without one it is the test's own.
    pub fn set_filesystem(&self, path: &str, filesystem: Filesystem) {
        self.state().filesystems.push((PathBuf::from(path), filesystem));
    }

    /// Sets what measuring the disk gives; nothing otherwise.
    pub fn set_latencies(&self, latencies: Vec<Duration>) {
        self.state().latencies = latencies;
    }

    /// Makes a file immutable (`chattr +i`).
    pub fn set_immutable(&self, path: &str) {
        self.state().immutable.insert(PathBuf::from(path));
    }

    pub(super) fn filesystem(&self, path: &Path) -> Option<Filesystem> {
        let state = self.state();
        let below = state.filesystems.iter().filter(|(place, _)| path.starts_with(place));
        below.max_by_key(|(place, _)| place.as_os_str().len()).map(|(_, filesystem)| filesystem.clone())
    }

    pub(super) fn latencies(&self) -> Vec<Duration> {
        self.state().latencies.clone()
    }

    pub(super) fn immutable(&self, path: &Path) -> bool {
        self.state().immutable.contains(path)
    }

    /// Says what accepts TCP connections, here and on other hosts; nothing does otherwise.
    pub fn on_connect(&self, listens: impl Fn(SocketAddr) -> bool + Send + Sync + 'static) {
        *self.listens.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(listens));
    }

    pub(super) fn listens(&self, address: SocketAddr) -> bool {
        let listens = self.listens.lock().unwrap_or_else(PoisonError::into_inner);
        listens.as_ref().is_some_and(|listens| listens(address))
    }

    /// Says which files other processes have locked, and who; none are otherwise.
    pub fn on_lock(&self, holds: impl Fn(&Path) -> Option<i32> + Send + Sync + 'static) {
        *self.holds.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(holds));
    }

    pub(super) fn lock_holder(&self, path: &Path) -> Option<i32> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(|holds| holds(path))
    }

    /// Does more when a sysctl is set, as the kernel does: it is given the new value.
    pub fn on_sysctl(&self, name: &str, follows: impl Fn(&str) + Send + Sync + 'static) {
        self.follows.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_owned(), Box::new(follows)));
    }

    pub(super) fn sysctl_set(&self, name: &str, value: &str) {
        let follows = self.follows.lock().unwrap_or_else(PoisonError::into_inner);
        follows.iter().filter(|(of, _)| of == name).for_each(|(_, follows)| follows(value));
    }

    pub(super) fn nofile(&self) -> u64 {
        self.state().nofile
    }

    pub(super) fn oom_score_adj(&self) -> bool {
        self.state().oom_score_adj
    }

    pub(super) fn now(&self) -> Timestamp {
        self.state().now
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.state().elapsed
    }

    pub(super) fn advance(&self, by: Duration) {
        let mut state = self.state();
        state.elapsed += by;
        if let Ok(now) = state.now.checked_add(by) {
            state.now = now;
        }
    }

    pub(super) fn operation(&self, what: &str) -> io::Result<()> {
        let mut state = self.state();
        let index = state.operations.len();
        if let Some(fault) = state.fault {
            if fault.dies && index > fault.at {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, format!("dead before `{what}`")));
            }
            if index == fault.at {
                state.operations.push(format!("{what} (fault)"));
                // This kind tells a write that half of it still reached the disk.
                return Err(io::Error::new(io::ErrorKind::StorageFull, format!("no space left (fault at `{what}`)")));
            }
        }
        state.operations.push(what.to_owned());
        Ok(())
    }

    pub(super) fn run(&self, command: &Command, streamed: Option<&[u8]>) -> Result<Finished> {
        let line = command.line();
        self.operation(&format!("run {line}"))?;
        {
            let mut state = self.state();
            state.commands.push(line.clone());
            if let Some(input) = streamed.or(command.stdin()) {
                state.inputs.push((line.clone(), input.to_vec()));
            }
        }
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, answer)) = answers.iter().rev().find(|(prefix, _)| line.starts_with(prefix.as_str())) else {
            bail!("starting `{line}`: no such program (no script of this test answers it)");
        };
        let reply = answer(command);
        Ok(Finished { code: reply.code, stdout: reply.stdout, stderr: reply.stderr })
    }
}
