//! The only door to the machine: files below one root directory, processes, the clock, and a few kernel questions.
//!
//! All paths are absolute *on the host*; [`Host::under`] puts them below a directory, answers commands from a script and
//! lets a test fail or "kill" the n-th operation, so that nearly every step runs without root.
//! Guarantee: [`Host::write`] never leaves a half-written file under a final name, and a secret has its mode from the
//! first byte on.

pub mod boot;
mod command;
mod fake;
mod files;
mod filesystem;
pub mod firewall;
mod kernel;
mod label;
mod locks;
pub mod marks;
mod network;
pub mod packages;
pub mod swap;
#[cfg(test)]
mod tests;
mod tree;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;

pub use command::{Command, Finished, Output};
pub use fake::{Fake, Reply};
pub use files::{Entry, FileKind};
pub use filesystem::Filesystem;
pub use kernel::{module_loaded, mount_point, sysctl_path};

/// The machine, or a directory that plays one.
#[derive(Debug)]
pub struct Host {
    root: PathBuf,
    fake: Option<Fake>,
}

impl Host {
    /// The machine this program runs on.
    pub fn real() -> Self {
        Self { root: PathBuf::from("/"), fake: None }
    }

    /// A directory that plays the machine: commands are answered by [`Fake`], waiting takes no time.
    pub fn under(root: &Path) -> Self {
        Self { root: root.to_owned(), fake: Some(Fake::default()) }
    }

    /// Where a host path is seen by this process; for descriptors and for messages of tests, not for opening files.
    pub fn real_path(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Whether this is the machine itself and not a directory that plays one.
    pub fn is_real(&self) -> bool {
        self.fake.is_none()
    }

    /// The script and the record of a host made by [`Host::under`]; `None` on the real machine.
    pub fn script(&self) -> Option<&Fake> {
        self.fake.as_ref()
    }

    /// The script and the record of a test host.
    ///
    /// # Panics
    /// On the real machine: only tests call it.
    pub fn fake(&self) -> &Fake {
        match &self.fake {
            Some(fake) => fake,
            None => unreachable!("the real machine has no script"),
        }
    }

    /// The user that must own what only root may write: 0 on a machine, the test's own user below a directory.
    pub fn owner(&self) -> u32 {
        if self.fake.is_some() { rustix::process::geteuid().as_raw() } else { 0 }
    }

    /// The time of day.
    pub fn now(&self) -> Timestamp {
        match &self.fake {
            Some(fake) => fake.now(),
            None => Timestamp::now(),
        }
    }

    /// Waits until `condition` gives a value, asking `every` so often, at most for `deadline`.
    /// `condition` says why it is not yet so by `Ok(Err(reason))`; an `Err` ends the wait at once.
    pub fn wait_for<T>(
        &self,
        what: &str,
        deadline: Duration,
        every: Duration,
        mut condition: impl FnMut() -> Result<std::result::Result<T, String>>,
    ) -> Result<T> {
        let start = self.monotonic();
        loop {
            let reason = match condition().with_context(|| format!("waiting for {what}"))? {
                Ok(value) => return Ok(value),
                Err(reason) => reason,
            };
            if self.monotonic().saturating_sub(start) >= deadline {
                let last = if reason.is_empty() { String::new() } else { format!(": {reason}") };
                bail!("{what}: not so after {} s{last}", deadline.as_secs());
            }
            if crate::engine::interrupted() {
                bail!("interrupted while waiting for {what}");
            }
            self.pause(every);
        }
    }

    /// As [`Host::wait_for`], for conditions that are either there or not; an error of the condition is the reason.
    pub fn wait<T>(
        &self,
        what: &str,
        deadline: Duration,
        every: Duration,
        mut condition: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        self.wait_for(what, deadline, every, || match condition() {
            Ok(Some(value)) => Ok(Ok(value)),
            Ok(None) => Ok(Err(String::new())),
            Err(error) => Ok(Err(format!("{error:#}"))),
        })
    }

    /// Time since some fixed point, for durations.
    pub fn monotonic(&self) -> Duration {
        match &self.fake {
            Some(fake) => fake.elapsed(),
            None => kernel::monotonic(),
        }
    }

    /// Lets time pass between two looks at a condition.
    pub fn pause(&self, duration: Duration) {
        match &self.fake {
            Some(fake) => fake.advance(duration),
            None => std::thread::sleep(duration),
        }
    }

    /// Counts a changing operation; on a test host it may be the one that fails.
    pub(crate) fn operation(&self, what: &str, path: &Path) -> std::io::Result<()> {
        match &self.fake {
            Some(fake) => fake.operation(&format!("{what} {}", path.display())),
            None => Ok(()),
        }
    }
}
