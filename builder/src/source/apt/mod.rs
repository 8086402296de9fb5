//! Debian packages from the build machine's own apt sources, without root and without trust in apt's lists.
//!
//! The chain: keyring of the source → InRelease (checked by gpgv, only its output is read) → Packages (digest in the
//! Release) → .deb (digest in Packages, goes into the lock). Addresses of mirrors stay on this machine.

mod packages;
mod release;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bundle::Architecture;

use crate::debian_version;
use crate::failure::Failure;
use crate::glob;
use crate::lock::{AptProof, LockedArtifact, Resolved};
use crate::output::Output;
use crate::session::Session;

pub use packages::Package;
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

/// Everything the sources offer of the packages that were asked for.
#[derive(Debug)]
pub struct Offers {
    /// By architecture.
    packages: BTreeMap<Architecture, Vec<Offer>>,
    /// Of every index that was read, by `SUITE/COMPONENT/ARCHITECTURE`; those that sources disagree on are left out.
    pub proofs: BTreeMap<String, AptProof>,
}

#[derive(Clone, Debug)]
struct Offer {
    package: Package,
    /// `SUITE/COMPONENT/ARCHITECTURE`.
    index: String,
    proof: AptProof,
}

/// Reads all indexes of all sources, keeping packages whose names match one of `patterns`.
///
/// `before` are the proofs of the last lock: an older Release than theirs is refused.
pub fn survey(
    sources: &[AptSource],
    architectures: &BTreeSet<Architecture>,
    patterns: &BTreeSet<String>,
    before: &BTreeMap<String, AptProof>,
    session: &Session,
) -> anyhow::Result<Offers> {
    let Session { network, cache, output, .. } = session;
    if sources.is_empty() {
        return Err(Failure::new("there is no apt source to take packages from")
            .hint("give `--apt-sources FILE`")
            .into());
    }
    let scratch = cache.scratch()?;
    let mut packages: BTreeMap<Architecture, Vec<Offer>> = BTreeMap::new();
    let mut proofs: BTreeMap<String, BTreeSet<AptProof>> = BTreeMap::new();
    for source in sources {
        let bytes = release::fetch(source, network, cache)?;
        let release = release::check(source, &bytes, scratch.path())?;
        if source.expires {
            release.check_not_expired(&crate::clock::release_date()?)?;
        }
        output.event("checked", &format!("{} of {} signed by {}", source.suite, release.date, release.key));
        for (component, architecture) in source.indexes(architectures) {
            let index = format!("{}/{component}/{architecture}", source.suite);
            if let Some(before) = before.get(&index) {
                release.check_not_older(before, &index)?;
            }
            let Some(listed) = release.packages_index(&component, architecture) else { continue };
            let file = packages::fetch(source, &release, &listed, network, cache)?;
            let proof = release.proof(file.sha256);
            proofs.entry(index.clone()).or_default().insert(proof.clone());
            let found = packages::read(&file.path, &listed.path, |name| {
                patterns.iter().any(|pattern| glob::matches(pattern, name))
            })?;
            let offers = found.into_iter().map(|package| Offer { package, index: index.clone(), proof: proof.clone() });
            packages.entry(architecture).or_default().extend(offers);
        }
    }
    let single = |(index, found): (String, BTreeSet<AptProof>)| match Vec::from_iter(found).as_slice() {
        [only] => Some((index, only.clone())),
        _ => None,
    };
    Ok(Offers { packages, proofs: proofs.into_iter().filter_map(single).collect() })
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
        let Package { name, version, path, size, sha256, .. } = &offer.package;
        let proof = format!("apt:{}", offer.index);
        let artifact = LockedArtifact {
            url: format!("apt:{name}={version}"),
            path: Some(path.clone()),
            size: Some(*size),
            sha256: Some(*sha256),
            proof: Some(proof),
            ..LockedArtifact::default()
        };
        Ok((artifact, offer.index.clone(), offer.proof.clone()))
    }

    fn best(
        &self,
        name: &str,
        version: Option<&str>,
        suite: Option<&str>,
        architecture: Architecture,
    ) -> anyhow::Result<&Offer> {
        let named: Vec<&Offer> =
            self.packages.get(&architecture).into_iter().flatten().filter(|offer| offer.package.name == name).collect();
        let in_suite = |offer: &&&Offer| {
            suite.is_none_or(|suite| [&offer.proof.suite, &offer.proof.codename].iter().any(|name| *name == suite))
        };
        let fits = named
            .iter()
            .filter(in_suite)
            .filter(|offer| version.is_none_or(|version| offer.package.version == version));
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
            let offered: Vec<String> =
                named.iter().map(|offer| format!("{} in {}", offer.package.version, offer.proof.codename)).collect();
            let wanted = version.map_or_else(|| format!("`{name}`"), |version| format!("`{name}` {version}"));
            let offered = if offered.is_empty() { "nothing of that name".to_owned() } else { offered.join(", ") };
            Failure::new(format!("no apt source offers {wanted} for {architecture}"))
                .hint(format!("on offer: {offered}; `apt-cache policy {name}` shows what the machine knows"))
                .into()
        })
    }
}

/// Addresses of a locked package: its pool path below every source that has the suite it was locked from.
pub fn addresses(artifact: &Resolved, sources: &[AptSource]) -> anyhow::Result<Vec<String>> {
    let suite = artifact.proof.strip_prefix("apt:").and_then(|index| index.rsplitn(3, '/').nth(2));
    let (Some(suite), Some(path)) = (suite, &artifact.path) else {
        return Err(Failure::new(format!("the lock does not say where `{}` was found", artifact.url)).into());
    };
    let urls: BTreeSet<String> =
        sources.iter().filter(|source| source.suite == suite).map(|source| format!("{}/{path}", source.uri)).collect();
    if urls.is_empty() {
        return Err(Failure::new(format!(
            "no apt source has the suite `{suite}` that `{}` was locked from",
            artifact.url
        ))
        .hint("give `--apt-sources FILE`")
        .into());
    }
    Ok(urls.into_iter().collect())
}

/// The build machine's sources, or those of `file`.
pub fn machine_sources(file: Option<&Path>, output: &Output) -> anyhow::Result<Vec<AptSource>> {
    sources::read(file, Path::new("/etc/apt"), output)
}
