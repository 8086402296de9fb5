//! The clock, only on hosts where nothing keeps it right: certificates, etcd's leases and logs need hosts that agree on the
//! time. chrony, which a bundle has among its packages, asks the time servers of the config. Without any, the masters agree
//! on a time among themselves and serve it to the others: it may be wrong, but it is the same everywhere.
//!
//! A time service that runs is the operator's and stays as it is. A container has the machine's clock.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::part::{Edited, Found, Part};
use crate::context::Context;
use crate::facts::{TIME_SERVICES, which};
use crate::host::Host;
use crate::host::marks::{self, Marks};
use crate::step::Target;
use crate::steps::unit::{UnitState, systemctl};

/// chrony's configuration on Debian and on EL.
const CONFIGS: [&str; 2] = ["/etc/chrony/chrony.conf", "/etc/chrony.conf"];
const UNIT_DIRECTORIES: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// The part.
pub(super) struct Clock;

/// chrony, as it is on this host.
struct Chrony {
    config: PathBuf,
    unit: &'static str,
}

/// Who keeps the time of this host.
enum Keeper {
    /// Somebody else.
    Other,
    /// Sealift, with chrony.
    Ours(Chrony),
    /// Nobody, and there is no chrony.
    Nobody,
}

impl Part for Clock {
    fn touches(&self, context: &Context<'_>) -> Result<Vec<Target>> {
        let Keeper::Ours(chrony) = Keeper::of(context)? else { return Ok(Vec::new()) };
        Ok(vec![Target::Unit(chrony.unit.to_owned()), Target::Marks(chrony.config)])
    }

    fn look(&self, context: &Context<'_>) -> Result<Found> {
        let mut found = Found::default();
        match Keeper::of(context)? {
            Keeper::Other => {}
            Keeper::Nobody => found.limit(
                "nothing keeps this host's clock right, and chrony is not installed: hosts whose clocks differ by minutes \
                 refuse each other's certificates",
            ),
            Keeper::Ours(chrony) => {
                let block = block(context);
                let edit = chrony.edited(&block).change(context.host)?;
                let state = UnitState::read(context.host, chrony.unit)?;
                let restart = edit.is_some() && state.is_active();
                found.changes.extend(edit);
                if !state.is_enabled() {
                    found.change(format!("enable {}", chrony.unit));
                }
                if restart || !state.is_active() && !state.is_coming() {
                    found.change(format!("{} {}", if restart { "restart" } else { "start" }, chrony.unit));
                }
            }
        }
        Ok(found)
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        let host = context.host;
        let Keeper::Ours(chrony) = Keeper::of(context)? else { return Ok(()) };
        let block = block(context);
        let edited = chrony.edited(&block);
        let state = UnitState::read(host, chrony.unit)?;
        if edited.change(host)?.is_some() {
            // Stopped first: a run that ends in between finds it stopped, and starts it.
            if state.is_active() {
                systemctl(host, &["stop", chrony.unit])?;
            }
            edited.write(host)?;
        }
        if !state.is_enabled() {
            systemctl(host, &["enable", chrony.unit])?;
        }
        if UnitState::read(host, chrony.unit)?.is_active() { Ok(()) } else { systemctl(host, &["start", chrony.unit]) }
    }
}

impl Keeper {
    fn of(context: &Context<'_>) -> Result<Self> {
        let host = context.host;
        if context.facts.container.is_some() {
            return Ok(Self::Other);
        }
        let chrony = Chrony::of(host)?;
        if let Some(chrony) = chrony.as_ref()
            && host.read(&chrony.config)?.is_some_and(|text| marks::without(&text) != text)
        {
            return Ok(Self::Ours(Chrony { config: chrony.config.clone(), unit: chrony.unit }));
        }
        for service in TIME_SERVICES {
            let state = UnitState::read(host, service)?;
            // Also one that is down for the moment: what came with the bundle was disabled, so enabled means the operator's.
            if state.is_active() || state.is_coming() || state.is_enabled() {
                return Ok(Self::Other);
            }
        }
        Ok(chrony.map_or(Self::Nobody, Self::Ours))
    }
}

impl Chrony {
    fn of(host: &Host) -> Result<Option<Self>> {
        if which(host, "chronyd")?.is_none() {
            return Ok(None);
        }
        let mut config = None;
        for path in CONFIGS {
            if config.is_none() && host.exists(Path::new(path))? {
                config = Some(PathBuf::from(path));
            }
        }
        let Some(config) = config else { return Ok(None) };
        let mut unit = "chronyd.service";
        for directory in UNIT_DIRECTORIES {
            if host.exists(&Path::new(directory).join("chrony.service"))? {
                unit = "chrony.service";
            }
        }
        Ok(Some(Self { config, unit }))
    }

    fn edited<'a>(&self, block: &'a [String]) -> Edited<'a> {
        let servers = block.iter().filter_map(|line| line.strip_prefix("server ")?.split(' ').next());
        let servers: Vec<&str> = servers.collect();
        let what =
            if servers.is_empty() { "its own clock counts".to_owned() } else { format!("ask {}", servers.join(", ")) };
        Edited { path: self.config.clone(), marks: Marks { block, out: is_source }, what }
    }
}

/// Lines of chrony.conf(5) that name servers: those of a distribution cannot be reached behind an air gap.
fn is_source(line: &str) -> bool {
    let first = line.split_whitespace().next().unwrap_or_default();
    ["server", "pool", "peer"].iter().any(|word| first.eq_ignore_ascii_case(word))
}

/// Whether this host shall tell others the time (UDP port 123).
pub(super) fn serves(context: &Context<'_>) -> Result<bool> {
    let asked = context.roles.master() && context.config.host.time_servers.is_empty();
    Ok(asked && context.config.nodes.len() > 1 && matches!(Keeper::of(context)?, Keeper::Ours(_)))
}

fn block(context: &Context<'_>) -> Vec<String> {
    let config = context.config;
    let server = |name: &str| format!("server {name} iburst");
    let mut lines: Vec<String> = config.host.time_servers.iter().map(|name| server(name)).collect();
    if lines.is_empty() {
        let others = |address: &IpAddr| *address != context.node.address;
        lines.extend(
            config.masters().map(|node| node.address).filter(others).map(|address| server(&address.to_string())),
        );
        if context.node.roles.master() {
            // All masters hold the same: the one with the lowest identity leads (chrony.conf(5), `orphan`).
            lines.push("local stratum 10 orphan".to_owned());
            lines.extend(
                config.nodes.iter().map(|node| node.address).filter(others).map(|address| format!("allow {address}")),
            );
        }
    }
    lines.push("makestep 1 3".to_owned());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_name_servers_are_sources() {
        for (line, source) in [
            ("pool 2.debian.pool.ntp.org iburst", true),
            (" Server time.example", true),
            ("# pool x", false),
            ("sourcedir /etc/chrony/sources.d", false),
            ("servers x", false),
        ] {
            assert_eq!(is_source(line), source, "{line}");
        }
    }
}
