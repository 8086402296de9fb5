//! Which files of certificates, keys, kubeconfigs and secrets a master needs, and which of them must be written.
//!
//! [`plan`] compares what is there with what is wanted. What cannot be made twice (authorities, service-account key,
//! encryption key) is only made while nothing that depends on it exists: afterwards a missing one is an error, never
//! silently replaced. Order matters for a crash in between: founding secrets come first, keys before certificates.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;

use super::kubeconfig::{self, Credential};
use super::secrets::{self, ServiceAccountKey};
use super::tokens::{self, Token, Tokens};
use super::{Authority, AuthorityName, Decision, Inspection, KUBECONFIG, KUBELET_CLIENT, Leaf, PKI, Pair, SECRETS};
use super::{Secret, Subject, inspect};
use crate::config::{ClusterConfig, Node};
use crate::host::Host;

/// What the files are made from.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Names and addresses.
    pub subject: Subject,
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
            own_apiserver: format!("https://{}", SocketAddr::new(node.address, 6443)),
            proxy: "https://127.0.0.1:8443".to_owned(),
        }
    }
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
}

/// The administrator's kubeconfig.
pub const ADMIN: &str = "/etc/sealift/admin.conf";
/// The bootstrap tokens this host knows.
pub const TOKENS: &str = "/etc/sealift/secrets/tokens.json";
const ENCRYPTION: &str = "/etc/sealift/secrets/encryption.json";

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
pub fn plan(host: &Host, wanted: &Wanted, now: Timestamp) -> Result<Vec<Write>> {
    let mut plan = Plan { host, now, writes: Vec::new() };
    let authorities = plan.founding_secrets(wanted)?;
    plan.leaves(wanted, &authorities)?;
    plan.kubeconfigs(wanted, &authorities.cluster)?;
    plan.bootstrap(wanted, &authorities.cluster)?;
    Ok(plan.writes)
}

/// Writes what [`plan`] found, in its order.
pub fn write(host: &Host, writes: &[Write]) -> Result<()> {
    for directory in DIRECTORIES {
        host.create_dir(directory.as_ref(), 0o700)?;
    }
    for file in writes {
        host.write(&file.path, file.text.expose().as_bytes(), file.mode)?;
    }
    Ok(())
}

struct Authorities {
    cluster: Authority,
    etcd: Authority,
    front_proxy: Authority,
}

impl Authorities {
    fn get(&self, name: AuthorityName) -> &Authority {
        match name {
            AuthorityName::Cluster => &self.cluster,
            AuthorityName::Etcd => &self.etcd,
            AuthorityName::FrontProxy => &self.front_proxy,
        }
    }
}

struct Plan<'a> {
    host: &'a Host,
    now: Timestamp,
    writes: Vec<Write>,
}

impl Plan<'_> {
    fn read(&self, path: &Path) -> Result<Option<String>> {
        self.host.read_text(path)
    }

    fn read_secret(&self, path: &Path) -> Result<Option<Secret>> {
        Ok(self.read(path)?.map(Secret::new))
    }

    fn public(&mut self, path: PathBuf, text: String, reason: &str) {
        self.writes.push(Write { path, mode: 0o644, text: Secret::new(text), reason: reason.to_owned() });
    }

    fn secret(&mut self, path: PathBuf, text: Secret, reason: &str) {
        self.writes.push(Write { path, mode: 0o600, text, reason: reason.to_owned() });
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

    /// Whether this host has already been given certificates: then the founding secrets must exist.
    fn founded(&self) -> Result<bool> {
        for stem in ["apiserver", "etcd/server", "etcd/peer"] {
            if self.read(&certificate_path(stem))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn founding_secrets(&mut self, wanted: &Wanted) -> Result<Authorities> {
        let founded = self.founded()?;
        let cluster = self.authority(AuthorityName::Cluster, &wanted.subject.cluster, founded)?;
        let etcd = self.authority(AuthorityName::Etcd, &wanted.subject.cluster, founded)?;
        let front_proxy = self.authority(AuthorityName::FrontProxy, &wanted.subject.cluster, founded)?;
        self.service_account(founded)?;
        self.encryption(founded)?;
        Ok(Authorities { cluster, etcd, front_proxy })
    }

    fn authority(&mut self, name: AuthorityName, cluster: &str, founded: bool) -> Result<Authority> {
        let (certificate, key) = (certificate_path(name.stem()), key_path(name.stem()));
        match (self.read(&certificate)?, self.read_secret(&key)?) {
            (Some(text), Some(secret)) => {
                let authority =
                    Authority::load(&text, &secret).with_context(|| format!("reading `{}`", certificate.display()))?;
                if authority.inspection().not_after <= self.now {
                    bail!("authority `{}` expired on {}", certificate.display(), authority.inspection().not_after);
                }
                self.keep_secret(key, &secret)?;
                Ok(authority)
            }
            (Some(_), None) => bail!("`{}` exists without its key `{}`", certificate.display(), key.display()),
            (None, _) if founded => {
                bail!("`{}` is missing, but this host has certificates that it signed", certificate.display())
            }
            (None, _) => {
                let authority = Authority::create(name, cluster, self.now)?;
                self.pair(name.stem(), authority.pair().clone(), "create");
                Ok(authority)
            }
        }
    }

    fn service_account(&mut self, founded: bool) -> Result<()> {
        let (public, private) = (PathBuf::from(format!("{PKI}/service-account.pub")), key_path("service-account"));
        match self.read_secret(&private)? {
            Some(secret) => {
                let derived = ServiceAccountKey::public_of(&secret)?;
                match self.read(&public)? {
                    None => self.public(public, derived, "create"),
                    // Further keys may have been added by a rotation; ours must be among them.
                    Some(text) if !text.contains(derived.trim()) => {
                        bail!("`{}` does not hold the public half of `{}`", public.display(), private.display())
                    }
                    Some(_) => {}
                }
                self.keep_secret(private, &secret)
            }
            None if founded || self.read(&public)?.is_some() => bail!("`{}` is missing", private.display()),
            None => {
                let key = ServiceAccountKey::create()?;
                self.secret(private, key.private, "create");
                self.public(public, key.public, "create");
                Ok(())
            }
        }
    }

    fn encryption(&mut self, founded: bool) -> Result<()> {
        let path = PathBuf::from(ENCRYPTION);
        match self.read_secret(&path)? {
            Some(text) => {
                if let Some(problem) = secrets::encryption_config_problem(text.expose()) {
                    bail!("`{ENCRYPTION}`: {problem}");
                }
                self.keep_secret(path, &text)
            }
            None if founded => bail!("`{ENCRYPTION}` is missing: without it no Secret in etcd can be read"),
            None => {
                self.secret(path, secrets::encryption_config()?, "create");
                Ok(())
            }
        }
    }

    fn leaves(&mut self, wanted: &Wanted, authorities: &Authorities) -> Result<()> {
        for file in wanted.subject.master_pairs() {
            let authority = authorities.get(file.leaf.authority);
            let certificate = self.read(&certificate_path(file.stem))?;
            let key = self.read_secret(&key_path(file.stem))?;
            match inspect::decide(&file.leaf, certificate.as_deref(), key.as_ref(), authority.inspection(), self.now) {
                Decision::Keep => {
                    if let Some(key) = key {
                        self.keep_secret(key_path(file.stem), &key)?;
                    }
                }
                Decision::Renew(reason) => {
                    let pair = authority.issue(&file.leaf, self.now)?;
                    self.pair(file.stem, pair, &verb(certificate.is_some(), &reason));
                }
            }
        }
        Ok(())
    }

    fn kubeconfigs(&mut self, wanted: &Wanted, authority: &Authority) -> Result<()> {
        let mut files: Vec<(PathBuf, Leaf)> = wanted
            .subject
            .master_kubeconfigs()
            .into_iter()
            .map(|(name, leaf)| (PathBuf::from(format!("{KUBECONFIG}/{name}")), leaf))
            .collect();
        files.push((ADMIN.into(), wanted.subject.admin()));
        for (path, leaf) in files {
            let text = self.read_secret(&path)?;
            let decision = decide_kubeconfig(text.as_ref(), &leaf, &wanted.own_apiserver, authority, self.now);
            match (decision, text) {
                (Decision::Keep, Some(text)) => self.keep_secret(path, &text)?,
                (Decision::Keep, None) => {}
                (Decision::Renew(reason), text) => {
                    let pair = authority.issue(&leaf, self.now)?;
                    let written = kubeconfig::write(
                        &wanted.subject.cluster,
                        &wanted.own_apiserver,
                        &authority.pair().certificate,
                        &leaf.common_name,
                        &Credential::Pair(&pair),
                    );
                    self.secret(path, written, &verb(text.is_some(), &reason));
                }
            }
        }
        let path = PathBuf::from(format!("{KUBECONFIG}/kube-proxy.conf"));
        let written = kubeconfig::write(
            &wanted.subject.cluster,
            &wanted.proxy,
            &authority.pair().certificate,
            &format!("system:node:{}", wanted.subject.node),
            &Credential::File(KUBELET_CLIENT),
        );
        let found = self.read_secret(&path)?;
        if found.as_ref() == Some(&written) {
            self.keep_secret(path, &written)?;
        } else {
            self.secret(path, written, &verb(found.is_some(), "it is not as wanted"));
        }
        Ok(())
    }

    /// The token and the kubeconfig with which this host's kubelet asks for its first certificate. A kubelet that has a
    /// valid certificate renews it by itself, and its old token may be gone: then both files are left alone.
    fn bootstrap(&mut self, wanted: &Wanted, authority: &Authority) -> Result<()> {
        let node = &wanted.subject.node;
        if joined(self.host, node, authority.inspection(), self.now)? {
            return Ok(());
        }
        let path = PathBuf::from(TOKENS);
        let stored = self.host.exists(&path)?;
        let mut known = known_tokens(self.host)?;
        if known.needs_new(node, self.now) {
            known.insert(node, Token::create(self.now, tokens::LIFETIME)?);
            let reason = verb(stored, "the token is missing or expires soon");
            self.secret(path, known.write()?, &reason);
        }
        let Some(token) = known.get(node) else { bail!("no bootstrap token for node `{node}`") };
        let written = kubeconfig::write(
            &wanted.subject.cluster,
            &wanted.proxy,
            &authority.pair().certificate,
            "kubelet-bootstrap",
            &Credential::Token(&token.text()),
        );
        let path = PathBuf::from(format!("{KUBECONFIG}/bootstrap-kubelet.conf"));
        let found = self.read_secret(&path)?;
        if found.as_ref() == Some(&written) {
            self.keep_secret(path, &written)?;
        } else {
            self.secret(path, written, &verb(found.is_some(), "it holds another token"));
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

fn decide_kubeconfig(
    text: Option<&Secret>,
    leaf: &Leaf,
    server: &str,
    authority: &Authority,
    now: Timestamp,
) -> Decision {
    let Some(text) = text else { return Decision::Renew("it does not exist".to_owned()) };
    let Some(parts) = kubeconfig::read(text.expose()) else {
        return Decision::Renew("it cannot be read".to_owned());
    };
    if parts.server != server {
        return Decision::Renew(format!("it names `{}`, not `{server}`", parts.server));
    }
    if parts.authority != authority.pair().certificate {
        return Decision::Renew("it names another authority".to_owned());
    }
    let (certificate, key) = parts.pair.map(|pair| (pair.certificate, pair.key)).unzip();
    inspect::decide(leaf, certificate.as_deref(), key.as_ref(), authority.inspection(), now)
}

fn verb(exists: bool, reason: &str) -> String {
    if exists { format!("renew: {reason}") } else { "create".to_owned() }
}
