//! The local proxy's list of apiservers: who answers, who does not, and what nginx is told.
//!
//! A master goes down after three failed probes and comes back after five good ones (coming back is not urgent, and a
//! reload that comes too early costs every open connection). When none answers all are listed: whichever comes back first
//! is then found by nginx itself, without waiting for the agent. The file is written only when it changes, at most every
//! five seconds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::host::Host;

/// The file that nginx includes; `sealift-proxy` is reloaded when it changes.
pub const FILE: &str = "/var/lib/sealift/agent/backends.conf";
/// The unit to reload.
pub const UNIT: &str = "sealift-proxy.service";
/// Least time between two reloads.
pub const RELOAD_EVERY: Duration = Duration::from_secs(5);
const FAILURES: u32 = 3;
const SUCCESSES: u32 = 5;

/// The result of one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It answered that it is ready, or that it does not know us: it lives.
    Ready,
    /// It did not answer in time, or said that it is not ready.
    Failed,
    /// It could not be asked: says nothing about it.
    Unknown,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Backend {
    down: bool,
    /// Probes in a row that contradict `down`.
    against: u32,
}

/// The masters and what is known about them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backends(BTreeMap<SocketAddr, Backend>);

impl Backends {
    /// What an earlier agent knew: the list as nginx has it.
    pub fn restored(host: &Host) -> Result<Self> {
        let known = read(host)?.into_iter();
        Ok(Self(known.map(|(address, up)| (address, Backend { down: !up, against: 0 })).collect()))
    }

    /// Takes over the present list of masters. New ones begin as up in the first list; later they have to answer first: a
    /// master is written into the record before its host is installed.
    pub fn set_masters(&mut self, masters: impl IntoIterator<Item = SocketAddr>) {
        let known = std::mem::take(&mut self.0);
        let new = Backend { down: !known.is_empty(), against: 0 };
        self.0 = masters.into_iter().map(|address| (address, known.get(&address).copied().unwrap_or(new))).collect();
    }

    /// The masters.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.keys().copied().collect()
    }

    /// Takes note of one round of probes.
    pub fn observe(&mut self, probes: &BTreeMap<SocketAddr, Probe>) {
        for (address, backend) in &mut self.0 {
            let agrees = match probes.get(address) {
                None | Some(Probe::Unknown) => continue,
                Some(Probe::Ready) => !backend.down,
                Some(Probe::Failed) => backend.down,
            };
            backend.against = if agrees { 0 } else { backend.against.saturating_add(1) };
            let enough = if backend.down { SUCCESSES } else { FAILURES };
            if backend.against >= enough {
                *backend = Backend { down: !backend.down, against: 0 };
            }
        }
    }

    /// Whether none of these has answered for a while.
    pub fn all_down(&self, masters: &[SocketAddr]) -> bool {
        masters.iter().all(|address| self.0.get(address).is_some_and(|backend| backend.down))
    }

    /// The masters to which nginx sends nobody; empty when none answers.
    pub fn down(&self) -> Vec<SocketAddr> {
        let down: Vec<_> = self.0.iter().filter(|(_, backend)| backend.down).map(|(address, _)| *address).collect();
        if down.len() == self.0.len() { Vec::new() } else { down }
    }

    /// What nginx includes. `None` without any master: the file is then left alone.
    pub fn text(&self) -> Option<String> {
        let down = self.down();
        let lines: String = self.0.keys().map(|address| line(*address, down.contains(address))).collect();
        (!lines.is_empty()).then_some(lines)
    }
}

/// The list to begin with: all masters are up.
pub fn first(masters: impl IntoIterator<Item = SocketAddr>) -> String {
    masters.into_iter().map(|address| line(address, false)).collect()
}

/// One `server` of nginx. It leaves a server alone for two seconds after a failed connection: long enough to spare most
/// clients the wait for a dead one, short enough to find one that comes back when all had failed.
fn line(address: SocketAddr, down: bool) -> String {
    format!("server {address} max_fails=1 fail_timeout=2s{};\n", if down { " down" } else { "" })
}

/// The list as nginx has it, for `status`: address and whether it is up.
pub fn read(host: &Host) -> Result<Vec<(SocketAddr, bool)>> {
    let text = host.read_text(Path::new(FILE))?.unwrap_or_default();
    Ok(text
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.trim().trim_end_matches(';').split_whitespace().collect();
            let address = words.strip_prefix(&["server"])?.first()?.parse().ok()?;
            Some((address, !words.contains(&"down")))
        })
        .collect())
}
