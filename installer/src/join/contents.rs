//! What a join file may hold, by role: exactly these paths, no more and no less (REQUIREMENTS B7).
//!
//! The same table decides what is put into a file, what is accepted from one, and what a host has to have at last.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Result, anyhow};
use jiff::Timestamp;

use crate::config::{ClusterConfig, Node};
use crate::host::Host;
use crate::pki::files::{ENCRYPTION, TOKENS, certificate_path, key_path};
use crate::pki::leaf::ETCD_CLIENT;
use crate::pki::secrets::{self, ServiceAccountKey};
use crate::pki::tokens::Tokens;
use crate::pki::{Authority, AuthorityName, PKI, Secret, Subject};
use crate::report::Explain as _;

/// What a host is, as far as secrets are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// It runs an apiserver and may sign for the cluster.
    pub master: bool,
    /// It runs a kubelet: masters do too.
    pub kubelet: bool,
    /// It runs an etcd member.
    pub etcd: bool,
}

impl Needs {
    /// Of a node of the config.
    pub fn of(config: &ClusterConfig, node: &Node) -> Self {
        let master = node.roles.master();
        Self { master, kubelet: master || node.roles.worker(), etcd: config.runs_etcd(node) }
    }

    /// Whether it holds no key of the cluster: then its join file may be plain.
    pub fn worker_only(self) -> bool {
        self.kubelet && !self.master && !self.etcd
    }

    /// The authorities whose certificate it has, and whether their key too.
    pub fn authorities(self) -> Vec<(AuthorityName, bool)> {
        let mut wanted = Vec::new();
        if self.kubelet {
            wanted.push((AuthorityName::Cluster, self.master));
        }
        if self.master || self.etcd {
            wanted.push((AuthorityName::Etcd, self.etcd));
        }
        if self.master {
            wanted.push((AuthorityName::FrontProxy, true));
        }
        wanted
    }

    /// Whether its apiserver reaches etcd with a certificate that this host cannot make itself.
    pub fn foreign_etcd(self) -> bool {
        self.master && !self.etcd
    }

    /// The paths of a join file for it. `founding.json` is written from the file's own `founding`.
    pub fn paths(self) -> BTreeSet<String> {
        let mut paths = BTreeSet::new();
        let mut pair = |stem: &str, key: bool| {
            paths.insert(certificate_path(stem).display().to_string());
            if key {
                paths.insert(key_path(stem).display().to_string());
            }
        };
        for (authority, key) in self.authorities() {
            pair(authority.stem(), key);
        }
        if self.foreign_etcd() {
            pair(ETCD_CLIENT, true);
        }
        if self.master {
            paths.extend([service_account_public(), service_account_private(), ENCRYPTION.to_owned()]);
        }
        if self.kubelet {
            paths.insert(TOKENS.to_owned());
        }
        paths
    }

    /// The paths of a file that only renews an apiserver's certificate for a foreign etcd; empty where there is none.
    pub fn renewal_paths(self) -> BTreeSet<String> {
        if !self.foreign_etcd() {
            return BTreeSet::new();
        }
        let authority = certificate_path(AuthorityName::Etcd.stem());
        [authority, certificate_path(ETCD_CLIENT), key_path(ETCD_CLIENT)].map(|path| path.display().to_string()).into()
    }
}

/// Path of the public half of the service-account key.
pub fn service_account_public() -> String {
    format!("{PKI}/service-account.pub")
}

/// Path of the service-account key.
pub fn service_account_private() -> String {
    key_path("service-account").display().to_string()
}

/// The secrets of a cluster, from which join files are filled.
#[derive(Debug)]
pub struct Source {
    files: BTreeMap<String, Secret>,
}

impl Source {
    /// Makes the secrets of a new cluster.
    pub fn create(cluster: &str, now: Timestamp) -> Result<Self> {
        let mut files = BTreeMap::new();
        for name in AuthorityName::ALL {
            let pair = Authority::create(name, cluster, now)?.pair().clone();
            files.insert(certificate_path(name.stem()).display().to_string(), Secret::new(pair.certificate));
            files.insert(key_path(name.stem()).display().to_string(), pair.key);
        }
        let key = ServiceAccountKey::create()?;
        files.insert(service_account_public(), Secret::new(key.public));
        files.insert(service_account_private(), key.private);
        files.insert(ENCRYPTION.to_owned(), secrets::encryption_config()?);
        Ok(Self { files })
    }

    /// What this host holds of them.
    pub fn of_host(host: &Host) -> Result<Self> {
        let all = Needs { master: true, kubelet: true, etcd: true }.paths();
        let client = Needs { master: true, kubelet: true, etcd: false }.paths();
        let mut files = BTreeMap::new();
        for path in all.into_iter().chain(client).filter(|path| path != TOKENS) {
            if let Some(text) = host.read_text(path.as_ref())? {
                files.insert(path, Secret::new(text));
            }
        }
        Ok(Self { files })
    }

    /// One file.
    pub fn get(&self, path: &str) -> Option<&Secret> {
        self.files.get(path)
    }

    /// Whether it holds the key of an authority.
    pub fn signs_for(&self, name: AuthorityName) -> bool {
        self.files.contains_key(&key_path(name.stem()).display().to_string())
    }

    /// The authority certificate whose pin a plain join file needs.
    pub fn cluster_certificate(&self) -> Option<&str> {
        let path = certificate_path(AuthorityName::Cluster.stem()).display().to_string();
        self.get(&path).map(Secret::expose)
    }

    /// The files of a join file for a node.
    pub fn files(
        &self,
        needs: Needs,
        subject: &Subject,
        tokens: &Tokens,
        now: Timestamp,
    ) -> Result<BTreeMap<String, Secret>> {
        let fresh = needs.foreign_etcd() && self.signs_for(AuthorityName::Etcd);
        let client = if fresh { self.etcd_client(subject, now)? } else { BTreeMap::new() };
        let mut files = BTreeMap::new();
        for path in needs.paths() {
            let text = match client.get(&path) {
                Some(text) => text.clone(),
                None if path == TOKENS => tokens.write()?,
                None => self.get(&path).cloned().ok_or_else(|| {
                    anyhow!("this host does not have `{path}`, which node `{}` needs", subject.node)
                        .hint("make the file on a host that has it: a master for masters and workers, an etcd node for etcd nodes")
                })?,
            };
            files.insert(path, text);
        }
        Ok(files)
    }

    /// A new client certificate for an apiserver whose etcd runs elsewhere, with etcd's authority: what renews it.
    pub fn etcd_client(&self, subject: &Subject, now: Timestamp) -> Result<BTreeMap<String, Secret>> {
        let path = |path: PathBuf| path.display().to_string();
        let stem = AuthorityName::Etcd.stem();
        let authority = (self.get(&path(certificate_path(stem))), self.get(&path(key_path(stem))));
        let (Some(certificate), Some(key)) = authority else {
            return Err(anyhow!("this host does not have the key of etcd's authority")).hint("ask an etcd node");
        };
        let pair = Authority::load(certificate.expose(), key)?.issue(&subject.etcd_client(), now)?;
        Ok([
            (path(certificate_path(stem)), certificate.clone()),
            (path(certificate_path(ETCD_CLIENT)), Secret::new(pair.certificate)),
            (path(key_path(ETCD_CLIENT)), pair.key),
        ]
        .into())
    }
}
