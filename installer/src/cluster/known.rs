//! What a host knows of its cluster, and whom it can ask: the API first, then the agent's copy of the record, then the seed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use super::Record;
use crate::agent::RECORD;
use crate::config::ClusterConfig;
use crate::context::ETC;
use crate::host::Host;
use crate::kubeapi::{Client, Credentials, Limits};
use crate::pki::files::{Wanted, certificate_path, key_path};
use crate::pki::{Authority, AuthorityName, KUBELET_CLIENT, Secret};
use crate::report::{Exit, Explain as _};

/// The apiserver's port on every master.
const APISERVER_PORT: u16 = 6443;
/// Between hosts of one site; who hangs is passed over.
const LIMITS: Limits = Limits { connect: Duration::from_secs(2), total: Duration::from_secs(10), body: 8 << 20 };

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
    fn of_record(record: Record, source: Source) -> Self {
        Self { config: record.config.clone(), text: record.text().to_owned(), record: Some(record), source }
    }

    /// What is on this host; `None` where nothing was installed.
    pub fn here(host: &Host) -> Result<Option<Self>> {
        if let Some(record) = Record::cached(host, Path::new(RECORD))? {
            return Ok(Some(Self::of_record(record, Source::Copy)));
        }
        let path = Source::Seed.path();
        let Some(text) = host.read_text(&path)? else { return Ok(None) };
        let config = ClusterConfig::parse(&text, &path)?;
        Ok(Some(Self { config, text, record: None, source: Source::Seed }))
    }

    /// What the cluster says when it can be asked, with a copy kept on disk; else what is on this host, and why nobody
    /// could be asked.
    pub fn freshest(host: &Host) -> Result<Option<(Self, Option<String>)>> {
        let Some(known) = Self::here(host)? else { return Ok(None) };
        let asked = ask(host, &known.config).and_then(|client| Record::read(&client));
        let reason = match asked {
            Ok(Some(record)) => {
                record.keep(host, Path::new(RECORD))?;
                return Ok(Some((Self::of_record(record, Source::Cluster), None)));
            }
            Ok(None) => "the cluster has no record yet".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        Ok(Some((known, Some(reason))))
    }
}

/// A client that may read the record: the administrator on a master, else the node itself through whichever master
/// answers.
fn ask<'a>(host: &'a Host, config: &ClusterConfig) -> Result<Client<'a>> {
    if host.exists(&key_path(AuthorityName::Cluster.stem()))? {
        return administrator_anywhere(host, config);
    }
    if !host.exists(Path::new(KUBELET_CLIENT))? {
        bail!("this host has no certificate to ask the API with");
    }
    let authority = text_of(host, &certificate_path(AuthorityName::Cluster.stem()))?;
    first_ready(config, None, |address| {
        let credentials = Credentials::Files { host, certificate: KUBELET_CLIENT.into(), key: KUBELET_CLIENT.into() };
        Ok(Client::new(address, &authority, credentials)?)
    })
}

/// A client with every right, of this master's own apiserver, else of the first other master that is ready. For commands;
/// its certificate is signed on the spot and lasts a quarter of an hour.
pub fn administrator_anywhere(host: &Host, config: &ClusterConfig) -> Result<Client<'static>> {
    let stem = AuthorityName::Cluster.stem();
    if !host.exists(&key_path(stem))? {
        return Err(anyhow!("this host is not a master: `{}` does not exist", key_path(stem).display()))
            .exit(Exit::Usage)
            .hint("run the command on a master");
    }
    let certificate = text_of(host, &certificate_path(stem))?;
    let authority = Authority::load(&certificate, &Secret::new(text_of(host, &key_path(stem))?))?;
    let node = config.nodes.first().context("the config has no node")?;
    let leaf = Wanted::of(config, node).subject.bootstrap_admin();
    let own = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), APISERVER_PORT);
    first_ready(config, Some(own), |address| {
        Ok(Client::new(address, &certificate, Credentials::Memory(authority.issue(&leaf, host.now())?))?)
    })
}

fn first_ready<'a>(
    config: &ClusterConfig,
    own: Option<SocketAddr>,
    client: impl Fn(SocketAddr) -> Result<Client<'a>>,
) -> Result<Client<'a>> {
    let masters = config.masters().map(|master| SocketAddr::new(master.address, APISERVER_PORT));
    let mut reasons = Vec::new();
    for address in own.into_iter().chain(masters) {
        let client = client(address)?.with_limits(LIMITS);
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
