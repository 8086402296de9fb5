//! One repository, read: its index checked, its packages for one architecture.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use bundle::Digest;

use super::package::Package;
use super::repo_files::{Repository, Variables};
use super::repomd::{self, Listed, Repomd};
use super::signature::Keys;
use super::{below, checksum, filelists, primary};
use crate::failure::Failure;
use crate::http::{Fetched, Request, Wanted, shown};
use crate::lock::RpmProof;
use crate::session::Session;

/// Largest primary.xml or filelists.xml as packed, where repomd.xml names no size.
const INDEX_LIMIT: u64 = 1 << 30;

/// A repository whose index is checked.
#[derive(Debug)]
pub struct Opened {
    /// What manifests call it.
    pub id: String,
    /// Packages that can be installed on the architecture.
    pub packages: Vec<Package>,
    /// What the lock records of it.
    pub proof: RpmProof,
    base_urls: Vec<String>,
    filelists: Option<Listed>,
    /// For the packages themselves, where they have to be signed.
    keys: Option<Keys>,
    package_keys: Mutex<BTreeSet<String>>,
}

impl Opened {
    /// Reads the index: from the first address that has one, everything below it from any.
    pub(super) fn open(
        repository: &Repository,
        variables: &Variables<'_>,
        before: Option<&RpmProof>,
        session: &Session,
    ) -> anyhow::Result<Self> {
        Self::read(repository, variables, before, session)
            .with_context(|| Failure::new(format!("the repository `{}` cannot be used", repository.id)))
    }

    fn read(
        repository: &Repository,
        variables: &Variables<'_>,
        before: Option<&RpmProof>,
        session: &Session,
    ) -> anyhow::Result<Self> {
        let output = &session.output;
        let id = &repository.id;
        let keys = Keys::read(repository, variables, &session.network)?;
        let base_urls = repository.base_urls(variables)?;
        let (bytes, signature) = index(&base_urls, repository.wants_signed_index(), session)?;
        let scratch = session.cache.scratch()?;
        let key = match (&keys, &signature) {
            (Some(keys), Some(signature)) => {
                Some(keys.verify(signature, &bytes, scratch.path()).context("its repomd.xml is refused")?)
            }
            _ => None,
        };
        let repomd = Repomd::parse(&bytes).context("its repomd.xml is refused")?;
        if let Some(before) = before {
            check_not_older(&repomd, key.as_deref(), before)?;
        }
        let by = match &key {
            Some(key) => format!("signed by {key}"),
            None => "not signed".to_owned(),
        };
        output.event("checked", &format!("{id}, revision {}, {by}", repomd.revision));
        let keys = keys.filter(|_| repository.check_packages);
        if key.is_none() {
            output.warning(&match keys {
                Some(_) => format!("the index of `{id}` is not signed: its packages' own signatures are checked"),
                None => format!("`{id}` has no `gpgkey`: nothing vouches for its packages but the connection"),
            });
        }
        let file = fetch(id, &base_urls, &repomd.primary, session)?;
        let Listed { path, open_checksum, open_size, .. } = &repomd.primary;
        let packages = checksum::read_unpacked(&file.path, path, *open_checksum, *open_size, |input| {
            primary::read(input, variables.architecture)
        })?;
        let modular = packages.iter().filter(|package| repomd.modular && package.is_modular()).count();
        if modular > 0 {
            output.event("passed over", &format!("{modular} packages of module streams in {id}"));
        }
        let proof = RpmProof {
            revision: repomd.revision,
            repomd: repomd.digest,
            primary: file.sha256,
            package_keys: Vec::new(),
            // Only the index's own signature; that of packages is another thing.
            key,
        };
        Ok(Self {
            id: id.clone(),
            packages: packages.into_iter().filter(|package| !repomd.modular || !package.is_modular()).collect(),
            proof,
            base_urls,
            filelists: repomd.filelists,
            keys,
            package_keys: Mutex::default(),
        })
    }

    /// Refuses a repository for which nothing vouches but the connection.
    pub(super) fn check_has_key(&self) -> anyhow::Result<()> {
        if self.is_vouched_for() {
            return Ok(());
        }
        let text = format!("no key vouches for the repository `{}` and its packages", self.id);
        let hint = "give `gpgkey` in its .repo file; if upstream signs nothing, say `trust = \"first-use\"` in the manifest \
                    beside `repositories`";
        Err(Failure::new(text).hint(hint).into())
    }

    /// How the proof of its packages begins.
    pub(super) fn witness(&self) -> &'static str {
        if self.is_vouched_for() { "rpm" } else { "first-use" }
    }

    fn is_vouched_for(&self) -> bool {
        self.proof.key.is_some() || self.keys.is_some()
    }

    /// What the lock records of it, with the keys of the packages that were checked.
    pub(super) fn proof(&self) -> RpmProof {
        let keys = self.package_keys.lock().unwrap_or_else(PoisonError::into_inner);
        RpmProof { package_keys: keys.iter().cloned().collect(), ..self.proof.clone() }
    }

    /// For each path, the checksums of the packages that have it.
    pub(super) fn owners(
        &self,
        paths: &BTreeSet<Arc<str>>,
        session: &Session,
    ) -> anyhow::Result<BTreeMap<Arc<str>, BTreeSet<String>>> {
        let Some(listed) = &self.filelists else { return Ok(BTreeMap::new()) };
        let file = fetch(&self.id, &self.base_urls, listed, session)?;
        let Listed { path, open_checksum, open_size, .. } = listed;
        checksum::read_unpacked(&file.path, path, *open_checksum, *open_size, |input| filelists::read(input, paths))
            .with_context(|| Failure::new(format!("the repository `{}` cannot be used", self.id)))
    }

    /// A package's SHA-256. It is downloaded where that is not known, or where only its own signature vouches.
    pub(super) fn settle(&self, package: &Package, session: &Session) -> anyhow::Result<Digest> {
        let alone = self.keys.as_ref().filter(|_| self.proof.key.is_none());
        let (None, Some(sha256)) = (alone, package.checksum.sha256()) else {
            let fetched = session.network.fetch(&session.cache, &self.wanted(package))?;
            if let Some(keys) = alone {
                let scratch = session.cache.scratch()?;
                let key = keys.check_package(package, &fetched.path, scratch.path())?;
                self.package_keys.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
            }
            return Ok(fetched.sha256);
        };
        Ok(sha256)
    }

    fn wanted(&self, package: &Package) -> Wanted {
        Wanted {
            name: package.label(),
            urls: self.base_urls.iter().map(|url| below(url, &package.path)).collect(),
            size: Some(package.size),
            limit: package.size,
            sha256: package.checksum.sha256(),
            sha512: package.checksum.sha512(),
            ..Wanted::default()
        }
    }
}

/// repomd.xml and, if one is asked for, its signature, both from the same address.
fn index(base_urls: &[String], signed: bool, session: &Session) -> anyhow::Result<(Vec<u8>, Option<Vec<u8>>)> {
    let get = |url: &str| session.network.get(&Request::new(url, repomd::LIMIT)).and_then(crate::http::Answer::ok);
    let both = |base: &String| -> anyhow::Result<(Vec<u8>, Option<Vec<u8>>)> {
        let url = format!("{base}/repodata/repomd.xml");
        let bytes = get(&url)?;
        if !signed {
            return Ok((bytes, None));
        }
        let signature = get(&format!("{url}.asc")).with_context(|| {
            Failure::new("its index is not signed, although its .repo file names a key").hint(
                "if this distribution signs its packages only, say so: `repo_gpgcheck=0` and `gpgcheck=1` in the .repo file",
            )
        })?;
        Ok((bytes, Some(signature)))
    };
    let mut last = None;
    for base in base_urls {
        if let Some(error) = last.take() {
            session.output.warning(&format!("{error:#}; trying `{}`", shown(base)));
        }
        match both(base) {
            Ok(index) => return Ok(index),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| Failure::new("no address is known").into()))
}

/// Refuses to go back behind the index that the last lock saw.
fn check_not_older(repomd: &Repomd, key: Option<&str>, before: &RpmProof) -> anyhow::Result<()> {
    if repomd.revision < before.revision {
        let text = format!("its index has the revision {}, the lock has seen {}", repomd.revision, before.revision);
        return Err(Failure::new(text)
            .hint("a mirror that is behind, or an attack with an old index; if you mean to go back, delete the lock")
            .into());
    }
    match (&before.key, key) {
        (Some(before), None) => {
            let text = format!("its index is not signed, the lock has seen it signed by {before}");
            Err(Failure::new(text).hint("give the key again; if you mean to go without one, delete the lock").into())
        }
        _ => Ok(()),
    }
}

fn fetch(id: &str, base_urls: &[String], listed: &Listed, session: &Session) -> anyhow::Result<Fetched> {
    let name = listed.path.rsplit('/').next().unwrap_or_default();
    let wanted = Wanted {
        name: format!("{id} {name}"),
        urls: base_urls.iter().map(|url| below(url, &listed.path)).collect(),
        size: listed.size,
        limit: INDEX_LIMIT,
        sha256: listed.checksum.sha256(),
        sha512: listed.checksum.sha512(),
        ..Wanted::default()
    };
    session.network.fetch(&session.cache, &wanted)
}
