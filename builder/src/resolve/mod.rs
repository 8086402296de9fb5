//! Manifest → Lock: every artifact of every component and architecture gets its size, its digest and its proof.

mod addons;
mod images;
mod packages;
mod rpm;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use bundle::{Architecture, ComponentName, Version};

use crate::failure::Failure;
use crate::http::Unreachable;
use crate::lock::{AptProof, Lock, LockedArtifact, LockedComponent, Resolved};
use crate::manifest::{Artifact, Manifest, PackageSource, Placeholders, Source};
use crate::session::Session;
use crate::source::apt::{self, Interest, Offers, Request};
use crate::source::https::{self, Asking, Resolution, Resolver};
use crate::source::rpm_md::Repositories;
use bundle::debian_version;
use images::Images;
use packages::Wanted;

/// One artifact of one component on one architecture, placeholders replaced.
#[derive(Debug)]
struct Item<'a> {
    component: &'a ComponentName,
    version: &'a Version,
    /// First of its component: for apt, its version must package the component's.
    is_main: bool,
    architecture: Architecture,
    artifact: Artifact,
}

/// Resolves a manifest; entries of the last lock that still fit are kept.
pub fn resolve(manifest: &Manifest, before: Option<&Lock>, session: &Session) -> anyhow::Result<Lock> {
    resolve_asking(Asking::WhatIsOpen, manifest, before, session)
}

/// The same, but whoever vouched for an entry is asked again. What nobody can be asked for stays as it was.
pub fn resolve_anew(manifest: &Manifest, before: &Lock, session: &Session) -> anyhow::Result<Lock> {
    let mut known = before.clone();
    let lists = known.component.values_mut().flat_map(|component| component.artifacts.values_mut());
    // A registry would not be asked for an image that is known.
    lists.for_each(|list| list.retain(|artifact| !artifact.url.starts_with("image:")));
    resolve_asking(Asking::Everybody, manifest, Some(&known), session)
}

fn resolve_asking(
    asking: Asking,
    manifest: &Manifest,
    before: Option<&Lock>,
    session: &Session,
) -> anyhow::Result<Lock> {
    let items = items(manifest)?;
    let closures = packages::wanted(manifest)?;
    let offers = survey(&items, &closures, before, session)?;
    let kept: Vec<Resolved> =
        before.into_iter().flat_map(Lock::entries).filter_map(|(_, _, artifact)| artifact.resolved().ok()).collect();

    let images = images::of_components(&items, before, session)?;
    let resolver = Resolver::new(&kept, manifest.directory(), session).asking(asking);
    let resolutions =
        items.iter().map(|item| url_resolution(item, &resolver, &images)).collect::<anyhow::Result<Vec<_>>>()?;
    // The same URL often serves several components: it is downloaded once.
    let mut downloads: Vec<https::Pending> = Vec::new();
    for resolution in resolutions.iter().flatten() {
        if let Resolution::Download(pending) = resolution
            && !downloads.iter().any(|other| same(other, pending))
        {
            downloads.push(pending.clone());
        }
    }
    let wanted: Vec<_> = downloads.iter().map(|pending| pending.wanted.clone()).collect();
    let fetched = session.network.fetch_each(&session.cache, &wanted);
    let downloaded = downloads
        .iter()
        .zip(&fetched)
        .map(|(pending, fetched)| pending.finish(fetched.as_ref(), &session.output))
        .collect::<Vec<_>>();

    let mut repositories = Repositories::new(before.map(|lock| lock.rpm.clone()).unwrap_or_default(), session)?;
    let mut proofs = offers.as_ref().map(|offers| offers.proofs.clone()).unwrap_or_default();
    let mut components: BTreeMap<ComponentName, LockedComponent> = BTreeMap::new();
    for (item, resolution) in items.iter().zip(resolutions) {
        let entry = match resolution {
            Some(Resolution::Known(entry)) => entry,
            Some(Resolution::Download(pending)) => {
                let at = downloads.iter().position(|other| same(other, &pending));
                match at.and_then(|at| downloaded.get(at)) {
                    Some(Ok(entry)) => entry.clone(),
                    Some(Err(error)) => {
                        return Err(Failure::new(format!("component `{}`: {error:#}", item.component)).into());
                    }
                    None => return Err(Failure::new("a download was not made").into()),
                }
            }
            None if matches!(item.artifact.source, Source::Rpm { .. }) => {
                rpm_entry(item, &mut repositories, manifest, session)?
            }
            None => apt_entry(item, offers.as_ref(), &mut proofs)?,
        };
        let version = version(item, &entry)?;
        let component =
            components.entry(item.component.clone()).or_insert_with(|| LockedComponent::new(version.clone()));
        if item.is_main && component.version != version {
            let text = format!(
                "component `{}` would be {} on one architecture and {version} on {}",
                item.component, component.version, item.architecture
            );
            return Err(Failure::new(text).hint("name the exact `version`, or make a release of each").into());
        }
        component.artifacts.entry(item.architecture).or_default().push(entry);
    }
    // Who asks everybody wants to know who did not answer.
    let kept_closures = before.filter(|_| asking == Asking::WhatIsOpen);
    components.extend(packages::resolve(
        manifest,
        &closures,
        kept_closures,
        offers.as_ref(),
        session,
        &mut repositories,
    )?);
    components.extend(addons::resolve(manifest, before, session)?);
    let mut rpm = repositories.proofs();
    // What stayed as it was keeps what vouched for it.
    let named: BTreeSet<&str> = components
        .values()
        .flat_map(|component| component.artifacts.values().flatten())
        .filter_map(|artifact| artifact.proof.as_deref())
        .collect();
    if let Some(lock) = before {
        let is_named = |scheme: &str, index: &String| named.contains(format!("{scheme}:{index}").as_str());
        for (index, proof) in lock.apt.iter().filter(|(index, _)| is_named("apt", index)) {
            proofs.entry(index.clone()).or_insert_with(|| proof.clone());
        }
        for (index, proof) in
            lock.rpm.iter().filter(|(index, _)| is_named("rpm", index) || is_named("first-use", index))
        {
            rpm.entry(index.clone()).or_insert_with(|| proof.clone());
        }
    }
    let release = &manifest.release;
    Ok(Lock {
        format: 1,
        name: release.name.clone(),
        version: release.version.clone(),
        manifest: manifest.digest,
        level: release.level.get(),
        apt: proofs,
        rpm,
        component: components,
    })
}

fn same(left: &https::Pending, right: &https::Pending) -> bool {
    let key = |pending: &https::Pending| (pending.wanted.urls.clone(), pending.wanted.sha256, pending.wanted.sha512);
    key(left) == key(right)
}

fn items(manifest: &Manifest) -> anyhow::Result<Vec<Item<'_>>> {
    let mut items = Vec::new();
    for (component, text) in &manifest.release.components {
        for architecture in &manifest.release.architectures {
            let places = Placeholders { version: &text.version, architecture: *architecture };
            for (at, artifact) in
                text.artifacts.iter().enumerate().filter(|(_, artifact)| artifact.is_for(*architecture))
            {
                let artifact = artifact.expand(&places)?;
                items.push(Item {
                    component,
                    version: &text.version,
                    is_main: at == 0,
                    architecture: *architecture,
                    artifact,
                });
            }
        }
    }
    Ok(items)
}

/// Reads the apt indexes if anything comes from them.
fn survey(
    items: &[Item<'_>],
    closures: &[Wanted<'_>],
    before: Option<&Lock>,
    session: &Session,
) -> anyhow::Result<Option<Offers>> {
    let mut interest = Interest::default();
    for item in items {
        if let Source::Apt { name, follow, .. } = &item.artifact.source {
            interest.patterns.insert(name.clone());
            interest.patterns.extend(follow.clone());
            interest.architectures.insert(item.architecture);
        }
    }
    for closure in closures {
        if let PackageSource::Apt { suites, .. } = closure.source {
            interest.suites.extend(suites.iter().cloned());
            interest.architectures.extend(&closure.architectures);
        }
    }
    if interest.architectures.is_empty() {
        return Ok(None);
    }
    let sources = session.apt_sources()?;
    // Closures can stay open, single packages cannot.
    let is_needed = items.iter().any(|item| matches!(item.artifact.source, Source::Apt { .. }));
    if sources.is_empty() && !is_needed {
        return Ok(None);
    }
    let before = before.map(|lock| lock.apt.clone()).unwrap_or_default();
    match apt::survey(&sources, &interest, &before, session) {
        Err(error) if !is_needed && error.is::<Unreachable>() => {
            session.output.warning(&format!("{error:#}"));
            Ok(None)
        }
        offers => offers.map(Some),
    }
}

/// How an artifact that is not a Debian package is resolved.
fn url_resolution(item: &Item<'_>, resolver: &Resolver<'_>, images: &Images) -> anyhow::Result<Option<Resolution>> {
    let artifact = &item.artifact;
    match &artifact.source {
        Source::Apt { .. } | Source::Rpm { .. } => Ok(None),
        Source::Image { reference, digest } => {
            images::find(images, reference, *digest).map(|entry| Some(Resolution::Known(entry)))
        }
        Source::Url(_) | Source::File(_) => {
            let place = || format!("resolving component `{}`", item.component);
            resolver.resolve(artifact, item.architecture).map(Some).with_context(place)
        }
    }
}

fn apt_entry(
    item: &Item<'_>,
    offers: Option<&Offers>,
    proofs: &mut BTreeMap<String, AptProof>,
) -> anyhow::Result<LockedArtifact> {
    let Source::Apt { name, version, suite, follow } = &item.artifact.source else {
        return Err(Failure::new("not a Debian package").into());
    };
    let place = || format!("resolving component `{}`", item.component);
    let offers = offers.context("no apt index was read")?;
    let request = Request { name, version: version.as_deref(), suite: suite.as_deref(), follow: follow.as_deref() };
    let (artifact, index, proof) = offers.choose(&request, item.architecture).with_context(place)?;
    let known = proofs.entry(index.clone()).or_insert_with(|| proof.clone());
    if *known != proof {
        return Err(Failure::new(format!("two apt sources offer different indexes for `{index}`"))
            .hint("keep one of them, with `--apt-sources FILE`")
            .into());
    }
    Ok(artifact)
}

fn rpm_entry(
    item: &Item<'_>,
    repositories: &mut Repositories<'_>,
    manifest: &Manifest,
    session: &Session,
) -> anyhow::Result<LockedArtifact> {
    let Source::Rpm { name, version, repositories: ids } = &item.artifact.source else {
        return Err(Failure::new("not an RPM package").into());
    };
    let place = || format!("resolving component `{}`", item.component);
    let release = ids.iter().find_map(|id| manifest.releasever(id));
    let offers = repositories.offers(ids, item.architecture, release, item.artifact.trust).with_context(place)?;
    rpm::single(name, version.as_deref(), &offers, session).with_context(place)
}

/// The exact version of a component: the manifest's, or what its main package is when the manifest names a series.
fn version(item: &Item<'_>, entry: &LockedArtifact) -> anyhow::Result<Version> {
    let package = entry.url.strip_prefix("apt:").or_else(|| entry.url.strip_prefix("rpm:"));
    let package = package.and_then(|package| package.rsplit_once('='));
    let (true, Some((_, package))) = (item.is_main, package) else { return Ok(item.version.clone()) };
    let version = debian_version::component_version(package, item.version.as_str()).ok_or_else(|| {
        let text = format!("`{}` is not upstream version {}, as the manifest says", entry.url, item.version);
        let hint = format!("write `version = \"{}\"` if that is what you want", debian_version::upstream(package));
        Failure::new(text).hint(hint)
    });
    let version = version.with_context(|| format!("resolving component `{}`", item.component))?;
    Ok(version.parse()?)
}
