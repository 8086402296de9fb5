//! What every command that needs artifacts shares: cache, network, apt sources, output.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use bundle::Architecture;

use crate::cache::Cache;
use crate::cli::NetworkArgs;
use crate::failure::Failure;
use crate::http::{Arrived, Fetched, Login, Network, Wanted};
use crate::lock::Resolved;
use crate::manifest::Manifest;
use crate::output::Output;
use crate::source::apt::{self, AptSource};
use crate::source::https;
use crate::source::registry::{Image, Pinned, Registry};
use crate::source::rpm_md::{self, Repository, repo_files};

/// The doors to the outside, opened once a run.
#[derive(Debug)]
pub struct Session {
    /// Finished downloads and packed layers.
    pub cache: Cache,
    /// Downloads.
    pub network: Network,
    /// Container images.
    pub registry: Registry,
    /// What is said.
    pub output: Output,
    apt_sources: Vec<PathBuf>,
    apt_auth: Option<PathBuf>,
    apt_login: OnceLock<Arc<dyn Login>>,
    rpm_repos: Vec<PathBuf>,
}

impl Session {
    /// Opens cache and network as the arguments say.
    pub fn new(args: &NetworkArgs, output: &Output) -> anyhow::Result<Self> {
        Ok(Self {
            cache: Cache::open(args.cache.as_deref())?,
            network: Network::new(args.into(), output),
            registry: Registry::new(&args.insecure_registries, None),
            output: output.clone(),
            apt_sources: args.apt_sources.clone(),
            apt_auth: args.apt_auth.clone(),
            apt_login: OnceLock::new(),
            rpm_repos: args.rpm_repos.clone(),
        })
    }

    /// The build machine's apt sources, or those of `--apt-sources`.
    pub fn apt_sources(&self) -> anyhow::Result<Vec<AptSource>> {
        apt::machine_sources(&self.apt_sources, &self.output)
    }

    /// The build machine's credentials for apt sources, or those of `--apt-auth`.
    pub fn apt_login(&self) -> anyhow::Result<Arc<dyn Login>> {
        if let Some(login) = self.apt_login.get() {
            return Ok(login.clone());
        }
        let login: Arc<dyn Login> = Arc::new(apt::machine_credentials(self.apt_auth.as_deref())?);
        Ok(self.apt_login.get_or_init(|| login).clone())
    }

    /// The repositories of `--rpm-repos`, by id.
    pub fn rpm_repositories(&self) -> anyhow::Result<BTreeMap<String, Repository>> {
        repo_files::read(&self.rpm_repos, &self.output)
    }

    /// Brings the images that locked artifacts name into the cache, for one architecture; one each, in order.
    pub fn fetch_images(&self, artifacts: &[Resolved], architecture: Architecture) -> anyhow::Result<Vec<Image>> {
        let pinned = artifacts.iter().map(Pinned::of).collect::<anyhow::Result<Vec<_>>>()?;
        self.registry.fetch(&pinned, architecture, &self.network, &self.cache)
    }

    /// Brings artifacts other than images into the cache, each once; in the order given, duplicates included.
    pub fn fetch(&self, artifacts: &[Resolved], manifest: &Manifest) -> anyhow::Result<Vec<Fetched>> {
        self.fetch_then(artifacts, manifest, &|_| ControlFlow::Continue(()))
    }

    /// The same; `arrived` hears of each file as soon as it is there, and may end it all.
    pub fn fetch_then(
        &self,
        artifacts: &[Resolved],
        manifest: &Manifest,
        arrived: &Arrived<'_>,
    ) -> anyhow::Result<Vec<Fetched>> {
        let mut wanted: Vec<Wanted> = Vec::new();
        let (mut sources, mut repositories) = (None, None);
        for artifact in artifacts {
            if wanted.iter().any(|other| other.sha256 == Some(artifact.sha256)) {
                continue;
            }
            // The machine's configuration of package sources is needed for downloads only.
            let needed = !self.network.is_offline() && !self.cache.path(&artifact.sha256).exists();
            let urls = if artifact.url.starts_with("apt:") {
                optional(needed, || apt::addresses(artifact, known(&mut sources, || self.apt_sources())?))?
            } else if artifact.url.starts_with("rpm:") {
                optional(needed, || {
                    let repositories = known(&mut repositories, || self.rpm_repositories())?;
                    rpm_md::addresses(artifact, repositories, |id| manifest.releasever(id))
                })?
            } else {
                std::iter::once(https::address(&artifact.url, manifest.directory()))
                    .chain(artifact.mirrors.iter().cloned().map(Ok))
                    .collect::<anyhow::Result<_>>()?
            };
            wanted.push(Wanted {
                name: artifact.url.clone(),
                urls,
                size: Some(artifact.size),
                limit: artifact.size,
                sha256: Some(artifact.sha256),
                sha512: artifact.sha512.as_deref().map(str::parse).transpose()?,
                login: artifact.url.starts_with("apt:").then(|| self.apt_login()).transpose()?,
                ..Wanted::default()
            });
        }
        let fetched = self.network.fetch_all_then(&self.cache, &wanted, arrived)?;
        let find = |artifact: &Resolved| fetched.iter().find(|file| file.sha256 == artifact.sha256).cloned();
        artifacts
            .iter()
            .map(|artifact| {
                find(artifact).ok_or_else(|| Failure::new(format!("`{}` was not fetched", artifact.url)).into())
            })
            .collect()
    }
}

/// What was read before, or is read now.
fn known<T>(slot: &mut Option<T>, read: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<&T> {
    Ok(match slot {
        Some(known) => known,
        none => none.insert(read()?),
    })
}

/// Addresses; none instead of an error where they are not needed.
fn optional(needed: bool, addresses: impl FnOnce() -> anyhow::Result<Vec<String>>) -> anyhow::Result<Vec<String>> {
    match addresses() {
        Err(_) if !needed => Ok(Vec::new()),
        result => result,
    }
}
