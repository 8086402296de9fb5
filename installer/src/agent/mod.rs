//! `installer agent`: on every node, keeps the pod network and the local proxy right while nodes and masters come and go.
//!
//! It is the node: it shows the kubelet's own certificate and may read nodes and the cluster's record. It polls, decides
//! with pure functions (one module each) and changes only what differs: the CNI file, routes with our protocol number,
//! the packet filter table `sealift`, the proxy's list of apiservers. What it knew last is on disk and restored at boot.

pub mod backends;
pub mod cni;
pub mod forwarding;
pub mod images;
pub mod network;
pub mod packet_filter;
mod probe;
pub mod routes;
#[cfg(test)]
mod tests;
pub mod unit;
mod upkeep;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::approver::pause;
use crate::cluster::Record;
use crate::config::ClusterConfig;
use crate::engine::interrupted;
use crate::event::{Event, Events};
use crate::generation::current_images;
use crate::host::{Command, Host};
use crate::kubeapi::{Client, Credentials, Limits};
use crate::pki::{self, Inspection, KUBELET_CLIENT, files};
use crate::steps::images::reimport;
use backends::Backends;
use network::Network;
use upkeep::Upkeep;

/// The last copy of the cluster's record.
pub const RECORD: &str = "/var/lib/sealift/agent/cluster.json";
/// The last wanted network.
pub const NETWORK: &str = "/var/lib/sealift/agent/network.json";
const APISERVER_PORT: u16 = 6443;
const PROXY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8443);
/// Between two probes of the masters.
const PERIOD: Duration = Duration::from_secs(2);
/// Between two looks at the API and at this host's network.
const NETWORK_PERIOD: Duration = Duration::from_secs(10);
/// Between two looks at containerd's images.
const IMAGES_PERIOD: Duration = Duration::from_secs(60);
/// Between two looks at the certificates that only a run of the installer renews.
const CERTIFICATES_PERIOD: Duration = Duration::from_secs(24 * 3600);

/// Runs until a signal asks it to stop.
pub fn run(host: &Host, events: &dyn Events) -> Result<()> {
    crate::engine::stop_on_signals()?;
    let mut agent = Agent {
        host,
        events,
        backends: Backends::default(),
        reloaded: None,
        told: None,
        trouble: [const { String::new() }; 3],
    };
    let mut upkeep = Upkeep::new(host, events);
    let restored = upkeep.restore();
    agent.report(Part::Network, restored);
    let mut answered = false;
    let mut looked: Option<Instant> = None;
    let mut counted = Instant::now();
    let mut warned: Option<Instant> = None;
    while !interrupted() {
        // Between two reloads nothing is known yet: nothing is said either.
        if let Some(proxy) = agent.keep_proxy().transpose() {
            agent.report(Part::Proxy, proxy);
        }
        if looked.is_none_or(|at| at.elapsed() >= NETWORK_PERIOD) {
            let heard = agent.hear();
            // Until the first answer it is worth trying again soon: the node waits for it.
            answered |= heard.is_ok();
            looked = answered.then(Instant::now);
            let kept = upkeep.keep(heard);
            agent.report(Part::Network, kept);
        }
        if counted.elapsed() >= IMAGES_PERIOD {
            counted = Instant::now();
            let images = agent.keep_images();
            agent.report(Part::Images, images);
        }
        if warned.is_none_or(|at| at.elapsed() >= CERTIFICATES_PERIOD) {
            warned = Some(Instant::now());
            agent.warn_of_certificates();
        }
        pause(PERIOD)?;
    }
    Ok(())
}

/// The parts of the work, for saying trouble once.
#[derive(Clone, Copy, Debug)]
enum Part {
    Proxy,
    Network,
    Images,
}

/// The node itself: the kubelet's certificate.
fn credentials(host: &Host) -> Credentials<'_> {
    Credentials::Files { host, certificate: KUBELET_CLIENT.into(), key: KUBELET_CLIENT.into() }
}

struct Agent<'a> {
    host: &'a Host,
    events: &'a dyn Events,
    backends: Backends,
    reloaded: Option<Instant>,
    /// The list that nginx has been told; nothing is known about one that an earlier agent wrote.
    told: Option<String>,
    /// What was last said about each part.
    trouble: [String; 3],
}

impl Agent<'_> {
    fn note(&self, text: String) {
        self.events.emit(&Event::Note { step: String::new(), text });
    }

    /// Says trouble when it begins, changes and ends, not in every round.
    fn report(&mut self, part: Part, result: Result<()>) {
        let text = result.err().map(|error| format!("{error:#}")).unwrap_or_default();
        let said = &mut self.trouble[part as usize];
        if *said == text {
            return;
        }
        let ended = text.is_empty();
        said.clone_from(&text);
        if ended {
            self.note(format!("{part:?} is all right again").to_lowercase());
        } else {
            self.events.emit(&Event::Warning { step: String::new(), text });
        }
    }

    /// One warning that names all certificates which end soon and which nothing renews by itself.
    fn warn_of_certificates(&self) {
        let text = match pki::status::certificates(self.host) {
            Ok(found) => {
                let now = self.host.now();
                let due = found.iter().filter(|expiry| expiry.due(now)).map(|expiry| expiry.path.display().to_string());
                let due: Vec<String> = due.collect();
                if due.is_empty() {
                    return;
                }
                format!("certificates end soon, run the installer again to renew them: {}", due.join(", "))
            }
            Err(error) => format!("looking at the certificates: {error:#}"),
        };
        self.events.emit(&Event::Warning { step: String::new(), text });
    }

    fn authority(&self) -> Result<String> {
        let path = files::certificate_path("ca");
        self.host.read_text(&path)?.with_context(|| format!("`{}` does not exist", path.display()))
    }

    /// The cluster as last heard of; before that, as the config on this host says.
    fn config(&self) -> Result<ClusterConfig> {
        if let Some(record) = Record::cached(self.host, Path::new(RECORD))? {
            return Ok(record.config);
        }
        let path = Path::new("/etc/sealift/cluster.toml");
        let text = self.host.read_text(path)?.with_context(|| format!("`{}` does not exist", path.display()))?;
        Ok(ClusterConfig::parse(&text, path)?)
    }

    /// Where masters are, or will be soon.
    fn api_servers(&self) -> Result<Vec<SocketAddr>> {
        if let Some(record) = Record::cached(self.host, Path::new(RECORD))? {
            return Ok(record.api_servers());
        }
        let config = self.config()?;
        Ok(config.masters().map(|master| SocketAddr::new(master.address, APISERVER_PORT)).collect())
    }

    /// `None` while the list waits for its next reload.
    fn keep_proxy(&mut self) -> Result<Option<()>> {
        self.backends.set_masters(self.api_servers()?);
        if self.host.exists(Path::new(KUBELET_CLIENT))? {
            let probes = probe::all(&self.backends.addresses(), &self.authority()?, self.host);
            self.backends.observe(&probes);
        }
        self.write_backends()
    }

    fn write_backends(&mut self) -> Result<Option<()>> {
        let (Some(text), path) = (self.backends.text(), Path::new(backends::FILE)) else { return Ok(Some(())) };
        if self.told.as_ref() == Some(&text) && self.host.has(path, text.as_bytes(), 0o644)? {
            return Ok(Some(()));
        }
        if self.reloaded.is_some_and(|at| at.elapsed() < backends::RELOAD_EVERY) {
            return Ok(None);
        }
        self.reloaded = Some(Instant::now());
        let before = self.host.read(path)?;
        self.host.write(path, text.as_bytes(), 0o644)?;
        // The unit's ExecReload asks `nginx -t` first; a list that nginx refuses is taken back.
        let reload = Command::new("systemctl").args(["reload", backends::UNIT]).timeout(Duration::from_secs(20));
        if let Err(error) = self.host.run(&reload) {
            if let Some(before) = before {
                self.host.write(path, &before, 0o644)?;
            }
            return Err(error.context("telling the proxy which API servers answer"));
        }
        self.told = Some(text);
        let down: Vec<String> = self.backends.down().iter().map(ToString::to_string).collect();
        let state = if down.is_empty() { "all up".to_owned() } else { format!("down: {}", down.join(", ")) };
        self.note(format!("API servers behind the proxy: {state}"));
        Ok(Some(()))
    }

    /// What the pod network of this node should be, from the cluster.
    fn hear(&self) -> Result<Network> {
        let node = self.node_name()?;
        let limits = Limits { total: Duration::from_secs(10), ..Limits::default() };
        let client = Client::new(PROXY, &self.authority()?, credentials(self.host))?.with_limits(limits);
        let record = Record::read(&client)?.context("the cluster has no record yet")?;
        let nodes = client.list("/api/v1/nodes")?;
        record.keep(self.host, Path::new(RECORD))?;
        Ok(Network::of(&record, &nodes, &node))
    }

    /// This node's name, from its certificate.
    fn node_name(&self) -> Result<String> {
        let text = self.host.read_text(Path::new(KUBELET_CLIENT))?.context("the kubelet has no certificate yet")?;
        let certificate = Inspection::of_pem(&text)?;
        let name = certificate.common_name.strip_prefix("system:node:");
        name.map(str::to_owned).with_context(|| format!("`{KUBELET_CLIENT}` is not a node's certificate"))
    }

    fn keep_images(&self) -> Result<()> {
        let Some(present) = current_images(self.host)?.filter(|present| images::must_be_kept(present)) else {
            return Ok(());
        };
        let (config, name) = (self.config()?, self.node_name()?);
        let Some(node) = config.nodes.iter().find(|node| node.name == name) else { return Ok(()) };
        for reference in reimport(self.host, &present, &node.roles)? {
            self.note(format!("imported image {reference} again: it had been deleted"));
        }
        Ok(())
    }
}
