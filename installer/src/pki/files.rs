//! Which files of certificates, keys, kubeconfigs and secrets a host needs by its roles, and which of them must be written.
//!
//! [`plan`] compares what is there with what is wanted. What cannot be made twice (authorities, service-account key,
//! encryption key) comes from a join file, or is made by the one host that founds the cluster and only while nothing that
//! depends on it exists ([`given`]): afterwards a missing one is an error, never silently replaced. Everything else
//! ([`leaves`]) is made on the host. Keys come before certificates, so that a crash in between can be completed.

mod given;
mod leaves;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;

use super::tokens::Tokens;
use super::{Authority, AuthorityName, Inspection, KUBECONFIG, KUBELET_CLIENT, PKI, Pair, SECRETS};
use super::{Secret, Subject};
use crate::config::{ClusterConfig, Node};
use crate::context::STARTED;
use crate::host::Host;
use crate::join::Join;
use crate::join::contents::Needs;

/// URL of this host's own apiserver: loopback, so that a change of the node's address does not touch it. Its certificate
/// has that address.
pub const OWN_APISERVER: &str = "https://127.0.0.1:6443";
/// URL of the local proxy over all apiservers.
pub const PROXY: &str = "https://127.0.0.1:8443";

/// What the files are made from.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Names and addresses.
    pub subject: Subject,
    /// What the node's roles need.
    pub needs: Needs,
    /// URL of this node's own apiserver, used by the controller-manager, the scheduler and the administrator.
    pub own_apiserver: String,
    /// URL of the local proxy over all apiservers, used by kubelet and kube-proxy.
    pub proxy: String,
}

impl Wanted {
    /// What the config says about a node.
    pub fn of(config: &ClusterConfig, node: &Node) -> Self {
        let hours = config.certificates.leaf_hours.unwrap_or(365 * 24);
        Self {
            subject: Subject {
                cluster: config.cluster.name.clone(),
                domain: config.cluster.domain.clone(),
                api_service_ip: config.api_service_ip(),
                node: node.name.clone(),
                address: node.address,
                extra_names: config.api_names.clone(),
                extra_addresses: config.api_addresses.clone(),
                lifetime: Duration::from_secs(u64::from(hours) * 3600),
            },
            needs: Needs::of(config, node),
            own_apiserver: OWN_APISERVER.to_owned(),
            proxy: PROXY.to_owned(),
        }
    }
}

/// Where the secrets come from that this host cannot make from others.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'a> {
    /// They are on this host.
    Host,
    /// This host founds a new cluster and makes them.
    Found,
    /// They are in a join file; what is on the host already must be the same.
    Join(&'a Join),
}

/// One file to write.
#[derive(Clone, Debug)]
pub struct Write {
    /// Where.
    pub path: PathBuf,
    /// Permission bits from the first byte on.
    pub mode: u32,
    /// The content.
    pub text: Secret,
    /// Why, for the plan: `create`, `renew: it expires on …`.
    pub reason: String,
    /// The unit that reads it only when it starts: it is to be started again.
    pub unit: Option<&'static str>,
}

/// The administrator's kubeconfig.
pub const ADMIN: &str = "/etc/sealift/admin.conf";
/// The bootstrap tokens this host knows.
pub const TOKENS: &str = "/etc/sealift/secrets/tokens.json";
/// The apiserver's encryption config.
pub const ENCRYPTION: &str = "/etc/sealift/secrets/encryption.json";

/// Directories to create (0700) before the files are written.
pub const DIRECTORIES: [&str; 4] = [PKI, "/etc/sealift/pki/etcd", KUBECONFIG, SECRETS];

/// The path of a certificate below the PKI directory.
pub fn certificate_path(stem: &str) -> PathBuf {
    PathBuf::from(format!("{PKI}/{stem}.crt"))
}

/// The path of a key below the PKI directory.
pub fn key_path(stem: &str) -> PathBuf {
    PathBuf::from(format!("{PKI}/{stem}.key"))
}

/// Compares the host with what is wanted. An empty answer means that nothing has to be done.
pub fn plan(host: &Host, wanted: &Wanted, origin: Origin<'_>, now: Timestamp) -> Result<Vec<Write>> {
    let mut plan = Plan { host, now, writes: Vec::new() };
    let authorities = plan.secrets(wanted, origin)?;
    plan.leaves(wanted, &authorities)?;
    if wanted.needs.master {
        plan.master_kubeconfigs(wanted, authorities.signer(AuthorityName::Cluster)?)?;
    }
    if wanted.needs.kubelet {
        plan.node_kubeconfigs(wanted, origin, authorities.get(AuthorityName::Cluster)?)?;
    }
    plan.given_founding(wanted, origin)?;
    Ok(plan.writes)
}

/// Writes what [`plan`] found, in its order.
pub fn write(host: &Host, writes: &[Write]) -> Result<()> {
    for directory in DIRECTORIES {
        host.create_dir(directory.as_ref(), 0o700)?;
    }
    for file in writes {
        // Without its stamp the unit counts as started with something else. First, because a crash may come in between.
        if let Some(unit) = file.unit {
            host.remove(&Path::new(STARTED).join(unit))?;
        }
        host.write(&file.path, file.text.expose().as_bytes(), file.mode)?;
    }
    Ok(())
}

/// An authority as this host has it: with its key, or its certificate alone.
struct Held {
    name: AuthorityName,
    certificate: String,
    inspection: Inspection,
    signer: Option<Authority>,
}

struct Authorities(Vec<Held>);

impl Authorities {
    fn get(&self, name: AuthorityName) -> Result<&Held> {
        let found = self.0.iter().find(|held| held.name == name);
        found.with_context(|| format!("this host has no authority `{}`", name.stem()))
    }

    fn signer(&self, name: AuthorityName) -> Result<&Authority> {
        let signer = self.get(name)?.signer.as_ref();
        signer.with_context(|| format!("this host does not have `{}`", key_path(name.stem()).display()))
    }
}

struct Plan<'a> {
    host: &'a Host,
    now: Timestamp,
    writes: Vec<Write>,
}

impl Plan<'_> {
    /// What a file holds, or will hold when everything planned so far is written.
    fn read(&self, path: &Path) -> Result<Option<String>> {
        match self.writes.iter().rev().find(|write| write.path == path) {
            Some(write) => Ok(Some(write.text.expose().to_owned())),
            None => self.host.read_text(path),
        }
    }

    fn read_secret(&self, path: &Path) -> Result<Option<Secret>> {
        Ok(self.read(path)?.map(Secret::new))
    }

    fn public(&mut self, path: PathBuf, text: String, reason: &str) {
        let (text, reason) = (Secret::new(text), reason.to_owned());
        self.writes.push(Write { path, mode: 0o644, text, reason, unit: None });
    }

    fn secret(&mut self, path: PathBuf, text: Secret, reason: &str) {
        self.secret_of(None, path, text, reason);
    }

    fn secret_of(&mut self, unit: Option<&'static str>, path: PathBuf, text: Secret, reason: &str) {
        self.writes.push(Write { path, mode: 0o600, text, reason: reason.to_owned(), unit });
    }

    /// Key first: a certificate without its key would look like a lost key, a key without certificate is just unused.
    fn pair(&mut self, stem: &str, pair: Pair, reason: &str) {
        self.secret(key_path(stem), pair.key, reason);
        self.public(certificate_path(stem), pair.certificate, reason);
    }

    /// A secret that was kept may still have the wrong mode (copied back from a backup, say).
    fn keep_secret(&mut self, path: PathBuf, text: &Secret) -> Result<()> {
        let mode = self.host.entry(&path)?.map(|entry| entry.mode & 0o7777);
        if mode.is_some_and(|mode| mode != 0o600) {
            self.secret(path, text.clone(), "correct: it is readable by others");
        }
        Ok(())
    }
}

/// Whether this host's kubelet has a certificate of its own that is valid now: then it needs no token.
pub fn joined(host: &Host, node: &str, authority: &Inspection, now: Timestamp) -> Result<bool> {
    let Some(text) = host.read_text(Path::new(KUBELET_CLIENT))? else { return Ok(false) };
    let Ok(found) = Inspection::of_pem(&text) else { return Ok(false) };
    let valid = found.not_before <= now && now < found.not_after;
    Ok(valid && found.common_name == format!("system:node:{node}") && found.signed_by(authority))
}

/// The bootstrap tokens this host knows.
pub fn known_tokens(host: &Host) -> Result<Tokens> {
    match host.read_text(Path::new(TOKENS))? {
        Some(text) => Tokens::parse(&text).with_context(|| format!("reading `{TOKENS}`")),
        None => Ok(Tokens::default()),
    }
}

fn verb(exists: bool, reason: &str) -> String {
    if exists { format!("renew: {reason}") } else { "create".to_owned() }
}
