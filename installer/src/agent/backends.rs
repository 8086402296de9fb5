//! The local proxy's list of apiservers: who answers, who does not, and what nginx is told.
//!
//! A master goes down after three failed probes and comes back after two good ones; the last one that is up is never
//! taken away, because an empty list helps nobody. The file is written only when it changes, at most every five seconds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
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
const SUCCESSES: u32 = 2;

/// The result of one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It answered that it is ready.
    Ready,
    /// It did not answer in time, or said that it is not ready.
    Failed,
    /// It answered, but not to us (no certificate yet, or an expired one): says nothing about it.
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
    /// Takes over the present list of masters; new ones begin as up.
    pub fn set_masters(&mut self, masters: impl IntoIterator<Item = SocketAddr>) {
        let known = std::mem::take(&mut self.0);
        self.0 =
            masters.into_iter().map(|address| (address, known.get(&address).copied().unwrap_or_default())).collect();
        self.keep_one_up();
    }

    /// The masters.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.keys().copied().collect()
    }

    /// Takes note of one round of probes. They count together, so that the order of masters does not matter.
    pub fn observe(&mut self, probes: &BTreeMap<SocketAddr, Probe>) {
        for (address, backend) in &mut self.0 {
            let agrees = match probes.get(address) {
                None | Some(Probe::Unknown) => continue,
                Some(Probe::Ready) => !backend.down,
                Some(Probe::Failed) => backend.down,
            };
            backend.against = if agrees { 0 } else { backend.against.saturating_add(1) };
        }
        let (mut up, mut failing) = (0, Vec::new());
        for (address, backend) in &mut self.0 {
            if backend.down && backend.against >= SUCCESSES {
                *backend = Backend::default();
            }
            if !backend.down {
                up += 1;
                if backend.against >= FAILURES {
                    failing.push(*address);
                }
            }
        }
        for address in failing {
            // Its count stays, so that it goes down at once when another one comes back.
            if up > 1 {
                up -= 1;
                self.0.insert(address, Backend { down: true, against: 0 });
            }
        }
    }

    fn keep_one_up(&mut self) {
        if self.0.values().all(|backend| backend.down) {
            for backend in self.0.values_mut() {
                *backend = Backend::default();
            }
        }
    }

    /// The masters that are down, for `status`.
    pub fn down(&self) -> Vec<SocketAddr> {
        self.0.iter().filter(|(_, backend)| backend.down).map(|(address, _)| *address).collect()
    }

    /// What nginx includes. `None` without any master: the file is then left alone.
    pub fn text(&self) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        Some(self.0.iter().fold(String::new(), |mut text, (address, backend)| {
            let down = if backend.down { " down" } else { "" };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "server {address} max_fails=1 fail_timeout=10s{down};");
            text
        }))
    }
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
