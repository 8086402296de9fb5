//! The locks of dpkg and rpm: record locks (fcntl) that every program takes before it changes packages.
//!
//! dpkg's frontend lock is held for all of an installation, so that nothing comes in between two runs of dpkg; rpm takes
//! its own lock. Somebody else's is waited for, and then named.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use super::Family;
use crate::host::Host;
use crate::report::{Exit, Explain as _};

/// Taken by front ends such as apt (dpkg 1.19.1 and later ask for it).
const FRONTEND: &str = "/var/lib/dpkg/lock-frontend";
/// Taken by dpkg itself.
const DPKG: &str = "/var/lib/dpkg/lock";
/// Taken by rpm itself; the database may be in either place.
const RPM: [&str; 2] = ["/usr/lib/sysimage/rpm/.rpm.lock", "/var/lib/rpm/.rpm.lock"];
/// Between two attempts.
const EVERY: Duration = Duration::from_secs(1);
/// Between two lines about the same holder.
const AGAIN: Duration = Duration::from_secs(30);

/// The process that has a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its id; `None` when it is not visible from here (on the other side of a container).
    pub pid: Option<i32>,
    /// Its name, as far as it can be read.
    pub program: Option<String>,
    /// The lock file.
    pub path: PathBuf,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.program, self.pid) {
            (Some(program), Some(pid)) => write!(f, "`{program}` (pid {pid})")?,
            (None, Some(pid)) => write!(f, "process {pid}")?,
            (_, None) => f.write_str("a process that is not visible from here")?,
        }
        write!(f, " holds `{}`", self.path.display())
    }
}

/// Who changes packages at the moment. Must not be asked by a process that has one of the locks itself: closing a file
/// gives its record locks up.
pub fn holder(host: &Host, family: Family) -> Result<Option<Holder>> {
    let paths: &[&str] = match family {
        Family::Dpkg => &[FRONTEND, DPKG],
        Family::Rpm => &RPM,
    };
    for path in paths {
        if let Some(holder) = holder_of(host, Path::new(path))? {
            return Ok(Some(holder));
        }
    }
    Ok(None)
}

fn holder_of(host: &Host, path: &Path) -> Result<Option<Holder>> {
    let Some(pid) = host.record_lock_holder(path)? else { return Ok(None) };
    let pid = (pid > 0).then_some(pid);
    let name = |pid: i32| host.read_text(Path::new(&format!("/proc/{pid}/comm"))).ok().flatten();
    let program = pid.and_then(name).map(|name| name.trim().to_owned());
    Ok(Some(Holder { pid, program, path: path.to_owned() }))
}

/// The right to change packages, until it is dropped.
#[derive(Debug)]
pub struct Lock {
    /// Whose packages.
    pub(super) family: Family,
    /// dpkg's frontend lock.
    frontend: Option<fs_err::File>,
}

impl Lock {
    /// Takes it; while another process has it, `say` tells who, and after `patience` that is a refusal.
    pub fn take(host: &Host, family: Family, patience: Duration, say: &dyn Fn(String)) -> Result<Self> {
        let start = host.monotonic();
        let mut said: Option<(Holder, Duration)> = None;
        loop {
            let holder = match Self::attempt(host, family)? {
                Ok(lock) => return Ok(lock),
                Err(holder) => holder,
            };
            if crate::engine::interrupted() {
                bail!("interrupted while waiting: {holder}");
            }
            let waited = host.monotonic().saturating_sub(start);
            if waited >= patience {
                let hint = match holder.pid {
                    Some(pid) => format!("let it end (`ps -fp {pid}` shows it), then run the same command again"),
                    None => "let it end, then run the same command again".to_owned(),
                };
                return Err(anyhow!("another program changes packages: {holder}, still after {} s", waited.as_secs()))
                    .exit(Exit::Failed)
                    .hint(hint);
            }
            if said.as_ref().is_none_or(|(known, at)| *known != holder || waited.saturating_sub(*at) >= AGAIN) {
                say(format!("waiting, {} s more at most: {holder}", patience.saturating_sub(waited).as_secs()));
                said = Some((holder, waited));
            }
            host.pause(EVERY);
        }
    }

    fn attempt(host: &Host, family: Family) -> Result<Result<Self, Holder>> {
        if family == Family::Rpm {
            return Ok(match holder(host, family)? {
                None => Ok(Self { family, frontend: None }),
                Some(holder) => Err(holder),
            });
        }
        let path = Path::new(FRONTEND);
        let Some(frontend) = host.take_record_lock(path).context("taking dpkg's frontend lock")? else {
            let unknown = Holder { pid: None, program: None, path: path.to_owned() };
            return Ok(Err(holder_of(host, path)?.unwrap_or(unknown)));
        };
        // One that was started by hand, or that a killed front end left running, has only this.
        Ok(match holder_of(host, Path::new(DPKG))? {
            None => Ok(Self { family, frontend: Some(frontend) }),
            Some(holder) => Err(holder),
        })
    }

    /// Whether dpkg has to be told that the frontend lock is taken.
    pub(super) fn is_frontend(&self) -> bool {
        self.frontend.is_some()
    }
}
