//! The bundled `etcdctl` at one member, with a client certificate of this host.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use super::answers::{self, Health, Outcome, Status, complaint, passes};
use super::members::Members;
use crate::context::CURRENT;
use crate::host::{Command, Finished, Host};
use crate::pki::{PKI, files};

/// Where members serve clients.
pub const CLIENT_PORT: u16 = 2379;
/// Where members serve each other.
pub const PEER_PORT: u16 = 2380;

/// What one question may take; a member without quorum answers none.
const PATIENCE: Duration = Duration::from_secs(3);
/// What one change may take: it is agreed upon by a majority.
const CHANGE: Duration = Duration::from_secs(7);
/// Opening a connection in the same network.
const CONNECT: Duration = Duration::from_secs(1);

/// `https://ADDRESS:2380`
pub fn peer_url(address: IpAddr) -> String {
    format!("https://{}", SocketAddr::new(address, PEER_PORT))
}

/// `https://ADDRESS:2379`
pub fn client_url(address: IpAddr) -> String {
    format!("https://{}", SocketAddr::new(address, CLIENT_PORT))
}

/// A way to ask one member.
#[derive(Clone, Debug)]
pub struct Door<'a> {
    host: &'a Host,
    endpoint: String,
    certificate: PathBuf,
    key: PathBuf,
}

impl<'a> Door<'a> {
    /// To the member on this host, through loopback.
    pub fn own(host: &'a Host) -> Result<Self> {
        Self::at(host, client_url(Ipv4Addr::LOCALHOST.into()))
    }

    /// To the member with this client URL. Where etcd runs, its administrator's certificate is used, on other masters the
    /// apiserver's.
    pub fn at(host: &'a Host, endpoint: String) -> Result<Self> {
        let administrator = host.exists(&files::certificate_path("etcd/admin"))?;
        let stem = if administrator { "etcd/admin" } else { "apiserver-etcd-client" };
        Ok(Self { host, endpoint, certificate: files::certificate_path(stem), key: files::key_path(stem) })
    }

    fn command(&self, patience: Duration) -> Command {
        Command::new(Path::new(CURRENT).join("etcd/bin/etcdctl"))
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.endpoint))
            .arg(format!("--cacert={PKI}/etcd/ca.crt"))
            .arg(format!("--cert={}", self.certificate.display()))
            .arg(format!("--key={}", self.key.display()))
            .arg(format!("--dial-timeout={}s", CONNECT.as_secs()))
            .arg(format!("--command-timeout={}s", patience.as_secs()))
            .timeout(patience + Duration::from_secs(10))
    }

    fn ask(&self, question: &[&str]) -> Result<Finished> {
        let command = self.command(PATIENCE).args(question).arg("--write-out=json");
        self.host.try_run(&command).with_context(|| format!("asking etcd at {}", self.endpoint))
    }

    /// All members, as this one knows them. Learners do not answer this.
    pub fn members(&self) -> Result<Members> {
        let finished = self.ask(&["member", "list"])?;
        if !finished.success() {
            return Err(anyhow!(
                "etcd at {} does not list its members: {}",
                self.endpoint,
                complaint(&finished.tail())
            ));
        }
        answers::members(&finished.text())
    }

    /// What this member says of itself; learners and members without a leader answer too, once they have started.
    pub fn status(&self) -> Result<Status> {
        let finished = self.ask(&["endpoint", "status"])?;
        answers::status(&finished.text())
            .with_context(|| format!("asking etcd at {}: {}", self.endpoint, complaint(&finished.tail())))
    }

    /// Whether this member takes proposals; needs the majority too. Otherwise the reason.
    pub fn healthy(&self) -> Result<std::result::Result<(), String>> {
        let finished = self.ask(&["endpoint", "health"])?;
        Ok(if finished.success() { Ok(()) } else { Err(complaint(&finished.tail())) })
    }

    /// Whether the members behind these client URLs take proposals; all are asked at once.
    pub fn health_of(&self, client_urls: &[String]) -> Result<Vec<Health>> {
        if client_urls.is_empty() {
            return Ok(Vec::new());
        }
        let all = Self { endpoint: client_urls.join(","), ..self.clone() };
        let finished = all.ask(&["endpoint", "health"])?;
        answers::health(&finished.text())
            .with_context(|| format!("asking etcd for its health: {}", complaint(&finished.tail())))
    }

    /// Adds a member without a vote. One with this peer URL that is there already is that member.
    pub fn add_learner(&self, name: &str, peer_url: &str) -> Result<Outcome> {
        let peers = format!("--peer-urls={peer_url}");
        self.change(&["member", "add", name, &peers, "--learner"], &["Peer URLs already exists", "already exist"])
    }

    /// Gives a learner its vote.
    pub fn promote(&self, id: &str) -> Result<Outcome> {
        // Without `--write-out=json`: etcdctl 3.4 crashes on it after it has promoted.
        self.change(&["member", "promote", id], &["can only promote a learner member"])
    }

    /// Takes a member out for ever.
    pub fn remove(&self, id: &str) -> Result<Outcome> {
        self.change(&["member", "remove", id], &["member not found"])
    }

    /// Says where a member is reached from now on.
    pub fn update_peer_url(&self, id: &str, peer_url: &str) -> Result<Outcome> {
        self.change(&["member", "update", id, &format!("--peer-urls={peer_url}")], &[])
    }

    /// `already` are the complaints that mean that it is so already.
    fn change(&self, arguments: &[&str], already: &[&str]) -> Result<Outcome> {
        let command = self.command(CHANGE).args(arguments);
        let finished = self.host.try_run(&command)?;
        if finished.success() {
            return Ok(Outcome::Done);
        }
        let complaint = complaint(&finished.tail());
        if passes(&complaint) {
            return Ok(Outcome::NotNow(complaint));
        }
        if already.iter().any(|known| complaint.ends_with(known)) {
            return Ok(Outcome::Done);
        }
        Err(anyhow!("etcd at {} refused `{}`: {complaint}", self.endpoint, arguments.join(" ")))
    }
}

/// The first of these hosts whose member has a leader and lists the members, with that list. `None` when none does.
///
/// The leader matters: a 3.4 member that is cut off from the others still lists them as it last knew them.
pub fn reach<'a>(host: &'a Host, addresses: &[IpAddr]) -> Option<(Door<'a>, Members)> {
    let accepts = listening(host, addresses, CLIENT_PORT);
    let open: Vec<IpAddr> =
        addresses.iter().zip(accepts).filter(|(_, accepts)| *accepts).map(|(address, _)| *address).collect();
    let ask = |address: IpAddr| -> Result<(Door<'a>, Members)> {
        let door = Door::at(host, client_url(address))?;
        let status = door.status()?;
        // A learner refuses to list members, after a hundred tries of etcdctl.
        ensure!(!status.learner && status.leader.is_some(), "it is no voter with a leader");
        let members = door.members()?;
        Ok((door, members))
    };
    // All at once: a member that waits for others accepts connections and answers nothing.
    let answers: Vec<Result<(Door<'a>, Members)>> = std::thread::scope(|scope| {
        let asked: Vec<_> = open.iter().map(|address| scope.spawn(|| ask(*address))).collect();
        asked
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("asking etcd was interrupted"))))
            .collect()
    });
    answers.into_iter().find_map(Result::ok)
}

/// For each of these hosts, whether something accepts connections on this port.
pub fn listening(host: &Host, addresses: &[IpAddr], port: u16) -> Vec<bool> {
    let addresses: Vec<SocketAddr> = addresses.iter().map(|address| SocketAddr::new(*address, port)).collect();
    host.listening(&addresses, CONNECT)
}
