//! What a run that died while it installed packages has left, and how `reset` settles it: what is unpacked is configured while
//! nothing may start, services of new packages are disabled, and only then `policy-rc.d` goes. Otherwise whoever repairs dpkg
//! later starts services that nobody wanted.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::Result;

use super::lock::Lock;
use super::record::{self, Record};
use super::{Database, Family, Installed, install, policy, services};
use crate::host::Host;

/// What is left of an installation that died.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Packages that were handed to dpkg or rpm, as `NAME VERSION`.
    pub begun: Vec<String>,
    /// Services of new packages may be enabled.
    pub services: bool,
    /// Our `policy-rc.d` is there, or the operator's lies aside.
    pub policy: bool,
}

impl Left {
    /// Whether there is nothing.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Looks. Changes nothing.
pub fn left(host: &Host) -> Result<Left> {
    let record = Record::read(host)?;
    let begun = record.iter().flat_map(|record| &record.begun);
    Ok(Left {
        begun: begun.map(|begun| format!("{} {}", begun.archive.name, begun.archive.version)).collect(),
        services: record.is_some(),
        policy: policy::is_left(host)?,
    })
}

/// What was settled and what could not be, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// What was done.
    pub done: Vec<String>,
    /// What is left.
    pub left: Vec<String>,
}

/// Settles it, for good. Waits at most `patience` for another program that changes packages, which may be the dpkg of the run
/// that died; `say` is told what takes time.
pub fn settle(host: &Host, patience: Duration, say: &dyn Fn(String)) -> Result<Settled> {
    let mut settled = Settled::default();
    let found = left(host)?;
    if found.is_nothing() {
        return Ok(settled);
    }
    let record = Record::read(host)?.unwrap_or_default();
    if let Some(database) = Database::read(host)? {
        let lock = Lock::take(host, database.family, patience, say)?;
        if database.family == Family::Dpkg {
            policy::forbid(host)?;
            configure(host, &lock, &record, &mut settled)?;
        } else if let Err(error) = install::replay(host, say) {
            let names = found.begun.join(", ");
            settled.left.push(format!("packages that rpm may not have finished: {names}: {error:#}"));
        }
        let disabled = RefCell::new(Vec::new());
        services::disable(host, database.family, &record, &|text| disabled.borrow_mut().push(text))?;
        settled.done.append(&mut disabled.into_inner());
    }
    policy::put_back(host)?;
    if found.policy {
        settled.done.push(format!("put {} back", policy::POLICY));
    }
    record::forget(host)?;
    Ok(settled)
}

/// Configures what that run unpacked; packages of others are left to the operator.
fn configure(host: &Host, lock: &Lock, record: &Record, settled: &mut Settled) -> Result<()> {
    let is_ours = |name: &str| record.begun.iter().any(|begun| begun.archive.name == name);
    let unfinished = || -> Result<Vec<(String, Installed)>> {
        let Some(database) = Database::read(host)? else { return Ok(Vec::new()) };
        let ours = database.unfinished().filter(|(name, _)| is_ours(name));
        Ok(ours.map(|(name, entry)| (name.to_owned(), entry.clone())).collect())
    };
    let before = unfinished()?;
    let can = before.iter().filter(|(_, entry)| entry.can_be_configured());
    let names: Vec<&String> = can.map(|(name, _)| name).collect();
    let mut said = String::new();
    if !names.is_empty() {
        let finished = host.try_run(&install::dpkg(lock).arg("--configure").args(&names))?;
        said = if finished.success() { said } else { format!(": {}", finished.tail()) };
    }
    let after = unfinished()?;
    for (name, entry) in &before {
        if !after.iter().any(|(left, _)| left == name) {
            settled.done.push(format!("configure {name} {}", entry.version));
        }
    }
    for (name, entry) in after {
        let repair = if entry.can_be_configured() {
            format!("`dpkg --configure {name}` repairs it, and may start its services{said}")
        } else {
            format!("`apt-get install --reinstall {name}` or `apt-get purge {name}` repairs it")
        };
        settled.left.push(format!("package {name} is {}; {repair}", entry.state.as_str()));
    }
    Ok(())
}
