//! Debian packages from the build machine's own apt sources, without root and without trust in apt's lists.
//!
//! The chain: keyring of the source → InRelease (checked by gpgv, only its output is read) → Packages (digest in the
//! Release) → .deb (digest in Packages, goes into the lock). Addresses of mirrors stay on this machine.

mod archive;
mod auth;
mod packages;
mod release;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bundle::Architecture;

use crate::failure::Failure;
use crate::glob;
use crate::lock::{AptProof, LockedArtifact, Resolved};
use crate::output::Output;
use crate::session::Session;
use bundle::debian_version;

pub use archive::Archive;
pub use auth::Credentials;
#[cfg(test)]
pub(crate) use packages::parse as parse_packages;
pub use packages::{Field, Package};
pub use release::{Release, check as check_release};
pub use sources::{AptSource, SignedBy, parse_deb822, parse_list, read as read_sources};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Package name.
    pub name: &'a str,
    /// Exact version.
    pub version: Option<&'a str>,
    /// Suite or codename.
    pub suite: Option<&'a str>,
    /// Pattern of the one dependency to take instead.
    pub follow: Option<&'a str>,
}

/// What of the indexes is kept.
#[derive(Clone, Debug, Default)]
pub struct Interest {
    /// Architectures that packages are wanted for.
    pub architectures: BTreeSet<Architecture>,
    /// Packages whose names match one of these.
    pub patterns: BTreeSet<String>,
    /// All packages of these suites or codenames: a closure may need any of them.
    pub suites: BTreeSet<String>,
}

/// Everything the sources offer that was of interest.
#[derive(Debug)]
pub struct Offers {
    /// By architecture, in the order of the sources.
    packages: BTreeMap<Architecture, Vec<Offer>>,
    indexes: Vec<Index>,
    /// Of every index that was read, by `SUITE/COMPONENT/ARCHITECTURE`; those that sources disagree on are left out.
    pub proofs: BTreeMap<String, AptProof>,
}

/// A package and the index that lists it.
#[derive(Clone, Debug)]
struct Offer {
    package: Package,
    index: usize,
}

/// An index that was read.
#[derive(Clone, Debug)]
struct Index {
    /// `SUITE/COMPONENT/ARCHITECTURE`.
    name: String,
    proof: AptProof,
}

impl Index {
    fn is_in(&self, suite: &str) -> bool {
        suite == self.proof.suite || suite == self.proof.codename || self.name.split('/').next() == Some(suite)
    }
}

/// Reads all indexes of all sources, keeping what is of interest.
///
/// `before` are the proofs of the last lock: an older Release than theirs is refused.
pub fn survey(
    sources: &[AptSource],
    interest: &Interest,
    before: &BTreeMap<String, AptProof>,
    session: &Session,
) -> anyhow::Result<Offers> {
    if sources.is_empty() {
        return Err(Failure::new("there is no apt source to take packages from")
            .hint("give `--apt-sources FILE`")
            .into());
    }
    let scratch = session.cache.scratch()?;
    let mut offers = Offers { packages: BTreeMap::new(), indexes: Vec::new(), proofs: BTreeMap::new() };
    for archive in archive::open(sources, session, scratch.path())? {
        let source = &archive.sources[0];
        for architecture in source.fitting(&interest.architectures) {
            let flat = archive.release.packages("").filter(|_| source.is_flat());
            let flat = flat.map(|listed| (format!("{}/-/{architecture}", archive.name()), listed));
            let named = source.components.iter().flat_map(|component| {
                let indexes = archive.release.indexes(component, architecture).into_iter();
                indexes.map(move |(of, listed)| (format!("{}/{component}/{of}", source.suite), listed))
            });
            for (name, listed) in flat.into_iter().chain(named) {
                if let Some(before) = before.get(&name) {
                    archive.release.check_not_older(before, &name)?;
                }
                let file = packages::fetch(&archive, &listed, session)?;
                let index = Index { name, proof: archive.release.proof(file.sha256) };
                let everything = interest.suites.iter().any(|suite| index.is_in(suite));
                let found = packages::read(&file.path, &listed, architecture, |name| {
                    everything || interest.patterns.iter().any(|pattern| glob::matches(pattern, name))
                })?;
                let number = offers.indexes.len();
                let found = found.into_iter().map(|package| Offer { package, index: number });
                offers.packages.entry(architecture).or_default().extend(found);
                offers.indexes.push(index);
            }
        }
    }
    let mut proofs: BTreeMap<&str, BTreeSet<&AptProof>> = BTreeMap::new();
    for index in &offers.indexes {
        proofs.entry(&index.name).or_default().insert(&index.proof);
    }
    let single = proofs.into_iter().filter(|(_, found)| found.len() == 1);
    let single = single.flat_map(|(name, found)| found.into_iter().map(move |proof| (name.to_owned(), proof.clone())));
    offers.proofs = single.collect();
    Ok(offers)
}

impl Offers {
    /// The best offer for a request: the highest version, from the first source that has it.
    pub fn choose(
        &self,
        request: &Request<'_>,
        architecture: Architecture,
    ) -> anyhow::Result<(LockedArtifact, String, AptProof)> {
        let mut offer = self.best(request.name, request.version, request.suite, architecture)?;
        if let Some(pattern) = request.follow {
            let depends = offer.package.dependencies();
            let matching: BTreeSet<&str> =
                depends.iter().map(String::as_str).filter(|name| glob::matches(pattern, name)).collect();
            let [name] = Vec::from_iter(&matching)[..] else {
                let text = format!(
                    "`{}` depends on {} packages that match `{pattern}`, expected one ({})",
                    request.name,
                    matching.len(),
                    depends.join(", ")
                );
                return Err(Failure::usage(text).into());
            };
            offer = self.best(name, None, request.suite, architecture)?;
        }
        let (artifact, index) = self.locked(&offer.package, offer.index)?;
        Ok((artifact, index.name.clone(), index.proof.clone()))
    }

    /// The lock's entry for a package that the index with this number lists, without a word on who needs it.
    fn locked(&self, package: &Package, index: usize) -> anyhow::Result<(LockedArtifact, &Index)> {
        let index = self.indexes.get(index).context("a package without an index")?;
        let Package { name, version, path, size, sha256, .. } = package;
        let artifact = LockedArtifact {
            url: format!("apt:{name}={version}"),
            path: Some(path.to_string()),
            size: Some(*size),
            sha256: Some(*sha256),
            proof: Some(format!("apt:{}", index.name)),
            ..LockedArtifact::default()
        };
        Ok((artifact, index))
    }

    /// The lock's entry for a package out of [`Offers::of_suites`]. Refused if sources disagree on the index that lists it:
    /// the lock could not say what vouched.
    pub fn entry(&self, package: &Package, index: usize) -> anyhow::Result<LockedArtifact> {
        let (artifact, index) = self.locked(package, index)?;
        if self.proofs.get(&index.name) != Some(&index.proof) {
            return Err(Failure::new(format!("two apt sources offer different indexes for `{}`", index.name))
                .hint("keep one of them, with `--apt-sources FILE`")
                .into());
        }
        Ok(artifact)
    }

    /// All packages of these suites or codenames, each with the number of its index.
    pub fn of_suites<'a>(
        &'a self,
        suites: &[String],
        architecture: Architecture,
    ) -> anyhow::Result<Vec<(&'a Package, usize)>> {
        let wanted = |index: &Index| suites.iter().any(|suite| index.is_in(suite));
        if let Some(suite) = suites.iter().find(|suite| !self.indexes.iter().any(|index| index.is_in(suite))) {
            let known: BTreeSet<&str> = self.indexes.iter().map(|index| index.proof.codename.as_str()).collect();
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            return Err(Failure::new(format!("no apt source has the suite `{suite}` for {architecture}"))
                .hint(format!("there are {known}; give `--apt-sources FILE` with a source for it"))
                .into());
        }
        let fits: Vec<bool> = self.indexes.iter().map(wanted).collect();
        let offers = self.packages.get(&architecture).into_iter().flatten();
        Ok(offers.filter(|offer| fits[offer.index]).map(|offer| (&offer.package, offer.index)).collect())
    }

    /// The names of each index's suite, the best for people first.
    pub fn suite_names(&self) -> Vec<Vec<String>> {
        let names = |index: &Index| {
            let configured = index.name.split('/').next().unwrap_or("").to_owned();
            vec![index.proof.codename.clone(), index.proof.suite.clone(), configured]
        };
        self.indexes.iter().map(names).collect()
    }

    /// Whether the index with this number is of this suite or codename.
    fn is_of_suite(&self, index: usize, suite: &str) -> bool {
        self.indexes.get(index).is_some_and(|index| index.is_in(suite))
    }

    /// Suite or codename of the index with this number, for people.
    fn suite_of(&self, index: usize) -> &str {
        self.indexes.get(index).map_or("", |index| &index.proof.codename)
    }

    fn best(
        &self,
        name: &str,
        version: Option<&str>,
        suite: Option<&str>,
        architecture: Architecture,
    ) -> anyhow::Result<&Offer> {
        let named: Vec<&Offer> = self
            .packages
            .get(&architecture)
            .into_iter()
            .flatten()
            .filter(|offer| &*offer.package.name == name)
            .collect();
        let in_suite = |offer: &&&Offer| suite.is_none_or(|suite| self.is_of_suite(offer.index, suite));
        let fits = named
            .iter()
            .filter(in_suite)
            .filter(|offer| version.is_none_or(|version| &*offer.package.version == version));
        let mut best: Option<&Offer> = None;
        for offer in fits {
            match best.map(|best| debian_version::compare(&offer.package.version, &best.package.version)) {
                None | Some(std::cmp::Ordering::Greater) => best = Some(offer),
                Some(std::cmp::Ordering::Equal)
                    if best.is_some_and(|best| best.package.sha256 != offer.package.sha256) =>
                {
                    let text = format!("two sources offer `{name}` {} with different digests", offer.package.version);
                    return Err(Failure::new(text)
                        .hint("choose one with `suite`, or with `--apt-sources FILE`")
                        .into());
                }
                Some(_) => {}
            }
        }
        best.ok_or_else(|| {
            let shown = |offer: &&Offer| format!("{} in {}", offer.package.version, self.suite_of(offer.index));
            let offered: Vec<String> = named.iter().map(shown).collect();
            let wanted = version.map_or_else(|| format!("`{name}`"), |version| format!("`{name}` {version}"));
            let offered = if offered.is_empty() { "nothing of that name".to_owned() } else { offered.join(", ") };
            Failure::new(format!("no apt source offers {wanted} for {architecture}"))
                .hint(format!("on offer: {offered}; `apt-cache policy {name}` shows what the machine knows"))
                .into()
        })
    }
}

/// Addresses of a locked package: its pool path below every source that has the suite it was locked from, in their order.
/// Which of the archives without suites it was is not known: all of them are asked, its digest decides.
pub fn addresses(artifact: &Resolved, sources: &[AptSource]) -> anyhow::Result<Vec<String>> {
    let suite = artifact.proof.strip_prefix("apt:").and_then(|index| index.rsplitn(3, '/').nth(2));
    let (Some(suite), Some(path)) = (suite, &artifact.path) else {
        return Err(Failure::new(format!("the lock does not say where `{}` was found", artifact.url)).into());
    };
    let has = |source: &&AptSource| source.suite == suite || (source.is_flat() && suite.starts_with(archive::FLAT));
    let mut urls: Vec<String> = Vec::new();
    for url in sources.iter().filter(has).map(|source| format!("{}/{path}", source.uri)) {
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    if urls.is_empty() {
        return Err(Failure::new(format!(
            "no apt source has the suite `{suite}` that `{}` was locked from",
            artifact.url
        ))
        .hint("give `--apt-sources FILE`")
        .into());
    }
    Ok(urls)
}

/// The build machine's sources, or those of `files` if there are any.
pub fn machine_sources(files: &[PathBuf], output: &Output) -> anyhow::Result<Vec<AptSource>> {
    sources::read(files, Path::new("/etc/apt"), output)
}

/// The build machine's credentials for apt sources, or those of `file`.
pub fn machine_credentials(file: Option<&Path>) -> anyhow::Result<Credentials> {
    file.map_or_else(|| Credentials::read(Path::new("/etc/apt")), Credentials::read_file)
}
