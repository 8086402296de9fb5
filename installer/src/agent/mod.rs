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
mod proxy;
pub mod routes;
#[cfg(test)]
mod tests;
mod trouble;
pub mod unit;
mod upkeep;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::approver::pause;
use crate::cluster::Record;
use crate::config::ClusterConfig;
use crate::context::ETC;
use crate::engine::interrupted;
use crate::event::{Event, Events};
use crate::generation::current_images;
use crate::host::Host;
use crate::kubeapi::{Client, Credentials, Limits};
use crate::pki::{self, Inspection, KUBELET_CLIENT, files};
use crate::steps::images::reimport;
use network::Network;
use trouble::Trouble;
use upkeep::Upkeep;

/// The last copy of the cluster's record.
pub const RECORD: &str = "/var/lib/sealift/agent/cluster.json";
/// The last wanted network.
pub const NETWORK: &str = "/var/lib/sealift/agent/network.json";
const PROXY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8443);
/// Between two looks at what is due.
const PERIOD: Duration = Duration::from_secs(2);
/// Between two looks at the API and at this host's network.
const NETWORK_PERIOD: Duration = Duration::from_secs(10);
/// Between two looks at containerd's images.
const IMAGES_PERIOD: Duration = Duration::from_secs(60);
/// Between two looks at the certificates that only a run of the installer renews.
const CERTIFICATES_PERIOD: Duration = Duration::from_secs(24 * 3600);

/// Runs until a signal asks it to stop. The proxy's list is kept by a thread of its own: see [`proxy`].
pub fn run(host: &Host, events: &(dyn Events + Sync)) -> Result<()> {
    crate::engine::stop_on_signals()?;
    std::thread::scope(|scope| {
        let proxy = scope.spawn(|| proxy::keep(host, events));
        keep_node(host, events, &proxy)?;
        proxy.join().map_err(|_| anyhow!("the keeper of the proxy's list broke off"))?
    })
}

/// Everything but the proxy, until a signal or the end of the proxy's keeper.
fn keep_node(host: &Host, events: &dyn Events, proxy: &ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    let agent = Agent { host, events };
    let mut upkeep = Upkeep::new(host, events);
    let mut network = Trouble::new(events, "the pod network");
    let mut images = Trouble::new(events, "image presence");
    network.report(upkeep.restore());
    let mut answered = false;
    let mut looked: Option<Instant> = None;
    let mut counted = Instant::now();
    let mut warned: Option<Instant> = None;
    while !interrupted() && !proxy.is_finished() {
        if looked.is_none_or(|at| at.elapsed() >= NETWORK_PERIOD) {
            let heard = agent.hear();
            // Until the first answer it is worth trying again soon: the node waits for it.
            answered |= heard.is_ok();
            looked = answered.then(Instant::now);
            network.report(upkeep.keep(heard));
        }
        if counted.elapsed() >= IMAGES_PERIOD {
            counted = Instant::now();
            images.report(agent.keep_images());
        }
        if warned.is_none_or(|at| at.elapsed() >= CERTIFICATES_PERIOD) {
            warned = Some(Instant::now());
            agent.warn_of_certificates();
        }
        pause(PERIOD)?;
    }
    Ok(())
}

/// The node itself: the kubelet's certificate.
fn credentials(host: &Host) -> Credentials<'_> {
    Credentials::Files { host, certificate: KUBELET_CLIENT.into(), key: KUBELET_CLIENT.into() }
}

/// The certificate of the cluster's authority.
fn authority(host: &Host) -> Result<String> {
    let path = files::certificate_path("ca");
    host.read_text(&path)?.with_context(|| format!("`{}` does not exist", path.display()))
}

/// The cluster as last heard of; before that, as the config on this host says.
fn config(host: &Host) -> Result<ClusterConfig> {
    match Record::cached(host, Path::new(RECORD))? {
        Some(record) => Ok(record.config),
        None => seed(host),
    }
}

/// The config that this host was given.
fn seed(host: &Host) -> Result<ClusterConfig> {
    let path = Path::new(ETC).join("cluster.toml");
    let text = host.read_text(&path)?.with_context(|| format!("`{}` does not exist", path.display()))?;
    Ok(ClusterConfig::parse(&text, &path)?)
}

struct Agent<'a> {
    host: &'a Host,
    events: &'a dyn Events,
}

impl Agent<'_> {
    fn note(&self, text: String) {
        self.events.emit(&Event::Note { step: String::new(), text });
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

    /// What the pod network of this node should be, from the cluster.
    fn hear(&self) -> Result<Network> {
        let node = self.node_name()?;
        let limits = Limits { total: Duration::from_secs(10), ..Limits::default() };
        let client = Client::new(PROXY, &authority(self.host)?, credentials(self.host))?.with_limits(limits);
        let record = Record::read(&client)?.context("the cluster has no record yet")?;
        record.keep(self.host, Path::new(RECORD))?;
        let nodes = client.list("/api/v1/nodes")?;
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
        let (config, name) = (config(self.host)?, self.node_name()?);
        let Some(node) = config.nodes.iter().find(|node| node.name == name) else { return Ok(()) };
        for reference in reimport(self.host, &present, &node.roles)? {
            self.note(format!("imported image {reference} again: it had been deleted"));
        }
        Ok(())
    }
}
