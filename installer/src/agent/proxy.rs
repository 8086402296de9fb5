//! Keeps the local proxy's list of apiservers. It runs beside everything else that the agent does, because a question to
//! an apiserver that hangs must not delay the news that it hangs.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::backends::{self, Backends};
use super::trouble::Trouble;
use super::{RECORD, probe, seed};
use crate::approver::pause;
use crate::cluster::Record;
use crate::config::ClusterConfig;
use crate::engine::interrupted;
use crate::event::{Event, Events};
use crate::host::{Command, Host};
use crate::steps::api::APISERVER_PORT;

/// From the start of one round of probes to that of the next, when all answer at once.
const PERIOD: Duration = Duration::from_secs(1);
/// Least pause between two rounds.
const REST: Duration = Duration::from_millis(100);

/// Runs until a signal asks the agent to stop.
pub(super) fn keep(host: &Host, events: &dyn Events) -> Result<()> {
    let mut keeper = Keeper { host, events, backends: Backends::restored(host)?, reloaded: None, told: None };
    let mut trouble = Trouble::new(events, "the proxy");
    while !interrupted() {
        let begun = Instant::now();
        // Between two reloads nothing is known yet: nothing is said either.
        if let Some(result) = keeper.round().transpose() {
            trouble.report(result);
        }
        pause(PERIOD.saturating_sub(begun.elapsed()).max(REST))?;
    }
    Ok(())
}

struct Keeper<'a> {
    host: &'a Host,
    events: &'a dyn Events,
    backends: Backends,
    reloaded: Option<Instant>,
    /// The list that nginx has been told; nothing is known about one that an earlier agent wrote.
    told: Option<String>,
}

impl Keeper<'_> {
    /// `None` while the list waits for its next reload.
    fn round(&mut self) -> Result<Option<()>> {
        let masters = self.masters()?;
        self.backends.set_masters(masters);
        let probes = probe::all(&self.backends.addresses(), &super::authority(self.host)?, self.host);
        self.backends.observe(&probes);
        self.write()
    }

    /// The masters of the cluster as last heard of. When none of them answers, those of the config that this host was
    /// given as well: the copy of the record may be older than a config that somebody has just brought.
    fn masters(&self) -> Result<Vec<SocketAddr>> {
        let record = Record::cached(self.host, Path::new(RECORD))?.map(|record| record.api_servers());
        match (record, seed(self.host)) {
            (None, seed) => Ok(api_servers(&seed?).collect()),
            (Some(known), Ok(seed)) if self.backends.all_down(&known) => {
                Ok(known.into_iter().chain(api_servers(&seed)).collect())
            }
            (Some(known), _) => Ok(known),
        }
    }

    fn write(&mut self) -> Result<Option<()>> {
        let (Some(text), path) = (self.backends.text(), Path::new(backends::FILE)) else { return Ok(Some(())) };
        if self.told.as_ref() == Some(&text) && self.host.has(path, text.as_bytes(), 0o644)? {
            return Ok(Some(()));
        }
        if self.reloaded.is_some_and(|at| at.elapsed() < backends::RELOAD_EVERY) {
            return Ok(None);
        }
        self.reloaded = Some(Instant::now());
        let before = self.host.read_text(path)?.filter(|before| before.contains("server "));
        self.host.write(path, text.as_bytes(), 0o644)?;
        // The unit's ExecReload asks `nginx -t` first; a list that nginx refuses is taken back.
        let reload = Command::new("systemctl").args(["reload", backends::UNIT]).timeout(Duration::from_secs(20));
        if let Err(error) = self.host.run(&reload) {
            if let Some(before) = before {
                self.host.write(path, before.as_bytes(), 0o644)?;
            }
            return Err(error.context("telling the proxy which API servers answer"));
        }
        self.told = Some(text);
        let down: Vec<String> = self.backends.down().iter().map(ToString::to_string).collect();
        let state = if down.is_empty() { "all up".to_owned() } else { format!("down: {}", down.join(", ")) };
        self.events.emit(&Event::Note { step: String::new(), text: format!("API servers behind the proxy: {state}") });
        Ok(Some(()))
    }
}

fn api_servers(config: &ClusterConfig) -> impl Iterator<Item = SocketAddr> + '_ {
    config.masters().map(|master| SocketAddr::new(master.address, APISERVER_PORT))
}
