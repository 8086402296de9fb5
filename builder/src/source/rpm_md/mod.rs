//! RPM packages from repositories with rpm-md metadata (createrepo_c(8)), named by `.repo` files.
//!
//! The chain: key of the repository → repomd.xml (checked by gpgv) → primary.xml (digest in repomd.xml) → package (digest
//! in primary.xml, goes into the lock). Addresses of repositories stay on this machine.

pub mod checksum;
mod filelists;
mod opened;
pub mod package;
mod primary;
pub mod repo_files;
pub mod repomd;
mod signature;
mod xml;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use bundle::Architecture;

use crate::failure::Failure;
use crate::lock::{LockedArtifact, Resolved, RpmProof};
use crate::manifest::Trust;
use crate::session::Session;

pub use opened::Opened;
pub use package::{Dependency, Package};
pub use repo_files::{Repository, Variables};

/// The repositories of a run; each is read once for an architecture.
#[derive(Debug)]
pub struct Repositories<'a> {
    known: BTreeMap<String, Repository>,
    before: BTreeMap<String, RpmProof>,
    session: &'a Session,
    opened: BTreeMap<(String, Architecture, Option<String>), Rc<Opened>>,
}

/// What some repositories offer one architecture.
#[derive(Clone, Debug)]
pub struct Offers {
    architecture: Architecture,
    repositories: Vec<Rc<Opened>>,
    /// Repository and position in it.
    places: Vec<(usize, usize)>,
}

impl<'a> Repositories<'a> {
    /// Those of the `.repo` files; `before` are the proofs of the last lock: an older index than theirs is refused.
    pub fn new(before: BTreeMap<String, RpmProof>, session: &'a Session) -> anyhow::Result<Self> {
        Ok(Self { known: session.rpm_repositories()?, before, session, opened: BTreeMap::new() })
    }

    /// The first of these ids that no `.repo` file has.
    pub fn unknown<'b>(&self, ids: &'b [String]) -> Option<&'b str> {
        ids.iter().find(|id| !self.known.contains_key(*id)).map(String::as_str)
    }

    /// What these repositories (all that are known, if none is named) offer. One for which no key vouches is refused unless
    /// `trust` is in the first use.
    pub fn offers(
        &mut self,
        ids: &[String],
        architecture: Architecture,
        release: Option<&str>,
        trust: Trust,
    ) -> anyhow::Result<Offers> {
        let ids: Vec<String> = if ids.is_empty() { self.known.keys().cloned().collect() } else { ids.to_vec() };
        if ids.is_empty() {
            return Err(Failure::new("there is no repository to take RPM packages from")
                .hint("give `--rpm-repos FILE`, a .repo file as dnf reads it")
                .into());
        }
        let mut repositories = Vec::new();
        for id in ids {
            let key = (id, architecture, release.map(str::to_owned));
            if let Some(opened) = self.opened.get(&key) {
                repositories.push(opened.clone());
                continue;
            }
            if let Some((_, _, other)) = self.opened.keys().find(|(id, of, _)| *id == key.0 && *of == architecture) {
                let shown = |release: &Option<String>| release.clone().unwrap_or_else(|| "none".into());
                let text = format!(
                    "the repository `{}` is used for two releases: {} and {}",
                    key.0,
                    shown(other),
                    shown(&key.2)
                );
                return Err(Failure::usage(text).hint("give each release ids of its own in the .repo file").into());
            }
            let repository = self.known.get(&key.0).ok_or_else(|| {
                let known: Vec<&str> = self.known.keys().map(String::as_str).collect();
                let known =
                    if known.is_empty() { "none is known".to_owned() } else { format!("known: {}", known.join(", ")) };
                Failure::usage(format!("no .repo file has the repository `{}`", key.0))
                    .hint(format!("{known}; give `--rpm-repos FILE` with it"))
            })?;
            let variables = Variables { architecture, release };
            let before = self.before.get(&format!("{}/{architecture}", key.0));
            let opened = Rc::new(Opened::open(repository, &variables, before, self.session)?);
            repositories.push(opened.clone());
            self.opened.insert(key, opened);
        }
        if trust == Trust::Digest {
            repositories.iter().try_for_each(|opened| opened.check_has_key())?;
        }
        Offers::of(architecture, repositories)
    }

    /// Proofs of every index that was read, by `REPOSITORY/ARCHITECTURE`.
    pub fn proofs(&self) -> BTreeMap<String, RpmProof> {
        let proof = |((id, architecture, _), opened): (&(String, Architecture, Option<String>), &Rc<Opened>)| {
            (format!("{id}/{architecture}"), opened.proof())
        };
        self.opened.iter().map(proof).collect()
    }
}

impl Offers {
    /// Every package once; the same package with another content in two repositories is an error.
    fn of(architecture: Architecture, repositories: Vec<Rc<Opened>>) -> anyhow::Result<Self> {
        let mut places = Vec::new();
        let mut seen: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for (repository, opened) in repositories.iter().enumerate() {
            for (at, package) in opened.packages.iter().enumerate() {
                let label = package.label();
                if let Some((other, first)) = seen.get(&label) {
                    if repositories[*other].packages[*first].checksum != package.checksum {
                        let text = format!(
                            "`{}` and `{}` offer `{label}` with different content",
                            repositories[*other].id, opened.id
                        );
                        return Err(Failure::new(text).hint("name one of them in `repositories`").into());
                    }
                    continue;
                }
                seen.insert(label, (repository, at));
                places.push((repository, at));
            }
        }
        Ok(Self { architecture, repositories, places })
    }

    /// The packages, in the order of their repositories.
    pub fn packages(&self) -> Vec<&Package> {
        self.places.iter().map(|(repository, at)| &self.repositories[*repository].packages[*at]).collect()
    }

    /// The packages (by position) that have these files, of those that primary metadata does not list.
    pub fn owners(
        &self,
        paths: &BTreeSet<Arc<str>>,
        session: &Session,
    ) -> anyhow::Result<BTreeMap<Arc<str>, Vec<usize>>> {
        let mut owners: BTreeMap<Arc<str>, Vec<usize>> = BTreeMap::new();
        for (number, opened) in self.repositories.iter().enumerate() {
            let found = opened.owners(paths, session)?;
            for (at, (_, index)) in self.places.iter().enumerate().filter(|(_, (repository, _))| *repository == number)
            {
                let id = opened.packages[*index].checksum.hex();
                for (path, _) in found.iter().filter(|(_, ids)| ids.contains(&id)) {
                    owners.entry(path.clone()).or_default().push(at);
                }
            }
        }
        Ok(owners)
    }

    /// Lock entries of these packages (by position). Those whose index is not signed but who are signed themselves, and
    /// those of whom no SHA-256 is known, are downloaded for that.
    pub fn lock(&self, chosen: &[usize], session: &Session) -> anyhow::Result<Vec<LockedArtifact>> {
        let mut entries = Vec::new();
        for at in chosen {
            let (repository, index) = self.places[*at];
            let opened = &self.repositories[repository];
            let package = &opened.packages[index];
            let file = package.path.rsplit('/').next().unwrap_or_default();
            if file != package.file_name() {
                let text = format!("`{}` calls the package `{}` `{file}`", opened.id, package.file_name());
                return Err(Failure::new(text).hint("rename the file, then create the metadata anew").into());
            }
            let sha256 = opened.settle(package, session)?;
            entries.push(
                Resolved {
                    url: format!("rpm:{}", package.locked_name()),
                    mirrors: Vec::new(),
                    path: Some(package.path.clone()),
                    size: package.size,
                    sha256,
                    sha512: package.checksum.sha512().map(|digest| digest.to_string()),
                    licence: Some(package.licence.to_string()).filter(|licence| !licence.is_empty()),
                    proof: format!("{}:{}/{}", opened.witness(), opened.id, self.architecture),
                    needed_by: None,
                }
                .into(),
            );
        }
        Ok(entries)
    }
}

/// Addresses of a locked package: its path below every base address of the repository it was locked from. `release` tells
/// a repository's `$releasever`.
pub fn addresses<'a>(
    artifact: &Resolved,
    known: &BTreeMap<String, Repository>,
    release: impl FnOnce(&str) -> Option<&'a str>,
) -> anyhow::Result<Vec<String>> {
    let place = ["rpm:", "first-use:"].iter().find_map(|witness| artifact.proof.strip_prefix(witness));
    let place = place.and_then(|place| place.rsplit_once('/'));
    let place = place.and_then(|(id, architecture)| Some((id, architecture.parse::<Architecture>().ok()?)));
    let (Some((id, architecture)), Some(path)) = (place, &artifact.path) else {
        return Err(Failure::new(format!("the lock does not say where `{}` was found", artifact.url)).into());
    };
    let repository = known.get(id).ok_or_else(|| {
        Failure::new(format!("no .repo file has the repository `{id}` that `{}` was locked from", artifact.url))
            .hint("give `--rpm-repos FILE` with it")
    })?;
    let urls = repository.base_urls(&Variables { architecture, release: release(id) })?;
    Ok(urls.iter().map(|url| below(url, path)).collect())
}

/// The address of a file below a base address. Versions may have letters that URLs do not (`^`).
fn below(url: &str, path: &str) -> String {
    if url.starts_with("file:") {
        return format!("{url}/{path}");
    }
    let escape = |letter: char| match letter {
        '%' | '^' | ' ' | '"' | '<' | '>' => format!("%{:02X}", u32::from(letter)),
        _ => letter.to_string(),
    };
    let path: String = path.chars().map(escape).collect();
    format!("{url}/{path}")
}
