//! What a host knows of its cluster, and whom it can ask: the API first, then the agent's copy of the record, then the seed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::Record;
use super::record::APISERVER_PORT;
use crate::agent::RECORD;
use crate::config::ClusterConfig;
use crate::context::ETC;
use crate::engine::interrupted;
use crate::host::Host;
use crate::kubeapi::{Client, Credentials, Limits};
use crate::pki::files::{Wanted, certificate_path, key_path};
use crate::pki::{Authority, AuthorityName, KUBELET_CLIENT, Secret};
use crate::report::{Exit, Explain as _};

/// Between hosts of one site; who hangs is passed over.
const LIMITS: Limits = Limits { connect: Duration::from_secs(2), total: Duration::from_secs(10), body: 8 << 20 };

/// An API server that has just been restarted needs about as long.
const SOON: Duration = Duration::from_secs(20);
const AGAIN: Duration = Duration::from_secs(1);

/// The cluster as far as this host knows it.
#[derive(Clone, Debug)]
pub struct Known {
    /// The config.
    pub config: ClusterConfig,
    /// Its text.
    pub text: String,
    /// The record it is from; `None` for the seed.
    pub record: Option<Record>,
    /// Where it is from.
    pub source: Source,
}

/// Where a host knows its config from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The API, a moment ago.
    Cluster,
    /// The agent's copy on disk.
    Copy,
    /// The file this host was installed with.
    Seed,
}

impl Source {
    /// The file it is in, for messages.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Cluster => PathBuf::from("the cluster's record"),
            Self::Copy => PathBuf::from(RECORD),
            Self::Seed => Path::new(ETC).join("cluster.toml"),
        }
    }
}

impl Known {
    /// From a record.
    pub fn of_record(record: Record, source: Source) -> Self {
        Self { config: record.config.clone(), text: record.text().to_owned(), record: Some(record), source }
    }

    /// What is on this host; `None` where nothing was installed.
    pub fn here(host: &Host) -> Result<Option<Self>> {
        if let Some(record) = Record::cached(host, Path::new(RECORD))? {
            return Ok(Some(Self::of_record(Moved::onto(host, record)?, Source::Copy)));
        }
        let path = Source::Seed.path();
        let Some(text) = host.read_text(&path)? else { return Ok(None) };
        let config = ClusterConfig::parse(&text, &path)?;
        Ok(Some(Self { config, text, record: None, source: Source::Seed }))
    }

    /// Where API servers may be found; one that a person names comes first.
    fn api_servers(&self, from: Option<IpAddr>) -> Vec<SocketAddr> {
        let at = |address| SocketAddr::new(address, APISERVER_PORT);
        let masters = || self.config.masters().map(|master| at(master.address)).collect();
        let servers: Vec<SocketAddr> = self.record.as_ref().map_or_else(masters, Record::api_servers);
        from.map(at).into_iter().chain(servers).collect()
    }

    /// What the cluster says when it can be asked; else what is on this host, and why nobody could be asked. A master at an
    /// address that a person gives is asked before all others. Reads only.
    pub fn look(host: &Host, from: Option<IpAddr>) -> Result<Option<(Self, Option<String>)>> {
        let Some(known) = Self::here(host)? else { return Ok(None) };
        let reason = match ask(host, &known, from).and_then(|client| Record::read(&client)) {
            Ok(Some(record)) => {
                return Ok(Some((Self::of_record(Moved::onto(host, record)?, Source::Cluster), None)));
            }
            Ok(None) => "the cluster has no record yet".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        Ok(Some((known, Some(reason))))
    }

    /// As [`Known::look`]; what the cluster says is kept on this host.
    pub fn freshest(host: &Host, from: Option<IpAddr>) -> Result<Option<(Self, Option<String>)>> {
        let found = Self::look(host, from)?;
        if let Some((Self { record: Some(record), source: Source::Cluster, .. }, _)) = &found {
            record.keep(host, Path::new(RECORD))?;
        }
        Ok(found)
    }
}

/// An address that the only etcd member got while nobody could tell the API. It counts on this host until bootstrap has
/// told the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moved {
    /// Node name.
    pub node: String,
    /// Its address now.
    pub address: IpAddr,
    /// Generation of the config with it: a record of that generation or a later one knows better.
    pub generation: u64,
}

impl Moved {
    /// Where it is noted.
    pub const PATH: &str = "/var/lib/sealift/moved.json";

    /// What is noted on this host.
    pub fn read(host: &Host) -> Result<Option<Self>> {
        let Some(text) = host.read_text(Path::new(Self::PATH))? else { return Ok(None) };
        serde_json::from_str(&text).with_context(|| format!("reading `{}`", Self::PATH)).map(Some)
    }

    /// Notes it.
    pub fn write(&self, host: &Host) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("writing an address change")? + "\n";
        if let Some(parent) = Path::new(Self::PATH).parent() {
            host.create_dir(parent, 0o700)?;
        }
        host.write(Path::new(Self::PATH), text.as_bytes(), 0o600)
    }

    /// The record with it.
    pub fn apply(&self, record: &mut Record) -> Result<()> {
        if record.generation < self.generation && record.node(&self.node).is_some() {
            record.move_node(&self.node, self.address)?;
        }
        Ok(())
    }

    fn onto(host: &Host, mut record: Record) -> Result<Record> {
        if let Some(moved) = Self::read(host)? {
            moved.apply(&mut record)?;
        }
        Ok(record)
    }
}

/// A client that may read the record: the administrator on a master, else the node itself through whichever master
/// answers.
fn ask<'a>(host: &'a Host, known: &Known, from: Option<IpAddr>) -> Result<Client<'a>> {
    if host.exists(&key_path(AuthorityName::Cluster.stem()))? {
        return administrator(host, known, from);
    }
    if !host.exists(Path::new(KUBELET_CLIENT))? {
        bail!("this host has no certificate to ask the API with");
    }
    let authority = text_of(host, &certificate_path(AuthorityName::Cluster.stem()))?;
    first_ready(&known.api_servers(from), |address| {
        let credentials = Credentials::Files { host, certificate: KUBELET_CLIENT.into(), key: KUBELET_CLIENT.into() };
        Ok(Client::new(address, &authority, credentials)?)
    })
}

/// A client with every right, of this master's own apiserver, else of the first other master that is ready. For commands;
/// its certificate is signed on the spot and lasts a quarter of an hour.
pub fn administrator_anywhere(host: &Host) -> Result<Client<'static>> {
    require_master(host)?;
    administrator(host, &Known::here(host)?.context("this host knows of no cluster")?, None)
}

/// As [`administrator_anywhere`]; when no API server is ready, says so and waits a little: one may have been restarted.
pub fn administrator_soon(host: &Host, say: &dyn Fn(&str)) -> Result<Client<'static>> {
    require_master(host)?;
    let known = Known::here(host)?.context("this host knows of no cluster")?;
    let (servers, client) = as_administrator(host, &known, None)?;
    soon(host, say, || first_ready(&servers, &client))
}

/// Asks again for a while.
fn soon<T>(host: &Host, say: &dyn Fn(&str), ask: impl Fn() -> Result<T>) -> Result<T> {
    let (start, mut said) = (host.monotonic(), false);
    loop {
        match ask() {
            Err(error) if !interrupted() && host.monotonic().saturating_sub(start) < SOON => {
                if !said {
                    say(&format!("{error:#}; waiting up to {} s", SOON.as_secs()));
                }
                said = true;
                host.pause(AGAIN);
            }
            result => return result,
        }
    }
}

/// A client that may do what this host may: everything on a master, what its node may elsewhere.
pub fn anyone(host: &Host) -> Result<Client<'_>> {
    ask(host, &Known::here(host)?.context("this host knows of no cluster")?, None)
}

/// Refuses on hosts that do not hold the cluster's authority.
pub fn require_master(host: &Host) -> Result<()> {
    let key = key_path(AuthorityName::Cluster.stem());
    if host.exists(&key)? {
        return Ok(());
    }
    Err(anyhow!("this host is not a master: `{}` does not exist", key.display()))
        .exit(Exit::Usage)
        .hint("run the command on a master")
}

fn administrator(host: &Host, known: &Known, from: Option<IpAddr>) -> Result<Client<'static>> {
    let (servers, client) = as_administrator(host, known, from)?;
    first_ready(&servers, client)
}

/// The API servers in the order they are asked, and how to talk to one.
fn as_administrator<'a>(
    host: &'a Host,
    known: &Known,
    from: Option<IpAddr>,
) -> Result<(Vec<SocketAddr>, impl Fn(SocketAddr) -> Result<Client<'static>> + use<'a>)> {
    let stem = AuthorityName::Cluster.stem();
    let certificate = text_of(host, &certificate_path(stem))?;
    let authority = Authority::load(&certificate, &Secret::new(text_of(host, &key_path(stem))?))?;
    let node = known.config.nodes.first().context("the config has no node")?;
    let leaf = Wanted::of(&known.config, node).subject.bootstrap_admin();
    let own = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), APISERVER_PORT);
    let servers = std::iter::once(own).chain(known.api_servers(from)).collect();
    Ok((servers, move |address| {
        Ok(Client::new(address, &certificate, Credentials::Memory(authority.issue(&leaf, host.now())?))?)
    }))
}

fn first_ready<'a>(servers: &[SocketAddr], client: impl Fn(SocketAddr) -> Result<Client<'a>>) -> Result<Client<'a>> {
    let mut reasons = Vec::new();
    for address in servers {
        let client = client(*address)?.with_limits(LIMITS);
        match client.healthy("/readyz") {
            Ok(()) => return Ok(client),
            Err(error) => reasons.push(error.to_string()),
        }
    }
    Err(anyhow!("no API server is ready: {}", reasons.join("; ")))
        .hint("`installer status` on a master shows what runs there")
}

fn text_of(host: &Host, path: &Path) -> Result<String> {
    host.read_text(path)?.with_context(|| format!("`{}` does not exist", path.display()))
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    #[test]
    fn an_api_server_that_was_restarted_is_waited_for_and_not_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::under(directory.path());
        let (asked, said) = (Cell::new(0), RefCell::new(Vec::new()));
        let say = |line: &str| said.borrow_mut().push(line.to_owned());
        let ask = |good: i32| {
            asked.set(asked.get() + 1);
            if asked.get() == good { Ok(()) } else { Err(anyhow!("no API server is ready")) }
        };
        soon(&host, &say, || ask(3)).unwrap();
        assert_eq!(*said.borrow(), ["no API server is ready; waiting up to 20 s"]);
        let start = host.monotonic();
        assert!(soon(&host, &say, || ask(-1)).is_err());
        assert_eq!(host.monotonic().checked_sub(start).unwrap(), SOON);
    }
}
