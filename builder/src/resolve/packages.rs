//! `[packages.…]` and `[kernel.…]` → components `packages-DISTRIBUTION` and `kernel-DISTRIBUTION`: closures against the base.

use std::collections::BTreeMap;

use anyhow::Context as _;
use bundle::component::Kind;
use bundle::{Architecture, ComponentName, Version};

use super::rpm;
use crate::base::{Base, Family};
use crate::closure::deb::{self, Closure, Request, Universe};
use crate::failure::Failure;
use crate::fit;
use crate::http::Unreachable;
use crate::lock::{Lock, LockedArtifact, LockedComponent};
use crate::manifest::{Distribution, Manifest, PackageSource, Trust};
use crate::session::Session;
use crate::source::apt::Offers;
use crate::source::rpm_md::Repositories;
use bundle::debian_version;

/// A closure that the manifest asks for.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// The component that it becomes.
    pub(super) component: ComponentName,
    /// Packages or kernel.
    pub(super) kind: Kind,
    /// Whose packages.
    pub(super) distribution: &'a Distribution,
    /// What it begins with.
    pub(super) roots: Vec<String>,
    /// Where they are looked for.
    pub(super) source: &'a PackageSource,
    /// For which architectures.
    pub(super) architectures: Vec<Architecture>,
}

/// The closures of a manifest.
pub(super) fn wanted(manifest: &Manifest) -> anyhow::Result<Vec<Wanted<'_>>> {
    let release = &manifest.release;
    let mut closures = Vec::new();
    for (distribution, text) in &release.packages {
        let mut roots = text.install.clone();
        // Components whose programs come as packages of this distribution.
        let hosts = release.components.values().filter_map(|component| component.packages.get(distribution));
        roots.extend(hosts.flat_map(|host| host.install.iter().cloned()));
        closures.push(Wanted {
            component: format!("packages-{distribution}").parse()?,
            kind: Kind::Packages,
            distribution,
            roots,
            source: &text.source,
            architectures: release.architectures.iter().copied().filter(|one| text.is_for(*one)).collect(),
        });
    }
    for (distribution, text) in &release.kernels {
        closures.push(Wanted {
            component: format!("kernel-{distribution}").parse()?,
            kind: Kind::Kernel,
            distribution,
            roots: text.roots(),
            source: &text.source,
            architectures: release.architectures.iter().copied().filter(|one| text.is_for(*one)).collect(),
        });
    }
    Ok(closures)
}

/// The components made of these closures. One whose indexes nobody has, or that are not reached, is what it was in `before`
/// if that still fits the manifest, else the names that were asked for, unresolved.
pub(super) fn resolve(
    manifest: &Manifest,
    closures: &[Wanted<'_>],
    before: Option<&Lock>,
    offers: Option<&Offers>,
    session: &Session,
    repositories: &mut Repositories<'_>,
) -> anyhow::Result<BTreeMap<ComponentName, LockedComponent>> {
    let mut components = BTreeMap::new();
    for wanted in closures {
        if let Some(reason) = missing(wanted, offers, repositories, session)? {
            let kept = before.and_then(|lock| lock.component.get(&wanted.component));
            let kept = kept.filter(|kept| fit::fits(manifest, &wanted.component, kept)).cloned();
            session.output.warning(&format!("`{}`: {reason}", wanted.component));
            let component = kept.unwrap_or_else(|| unresolved(wanted, &manifest.release.version, &reason));
            components.insert(wanted.component.clone(), component);
            continue;
        }
        let base = Base::read(manifest.directory(), wanted.distribution.as_str())?;
        let mut component: Option<LockedComponent> = None;
        for architecture in &wanted.architectures {
            let (version, artifacts) = match wanted.source {
                PackageSource::Apt { suites, recommends } => {
                    let offers = offers.context("no apt index was read")?;
                    of_suites(wanted, (suites, *recommends), &base, offers, *architecture)
                        .with_context(|| Failure::new(format!("computing `{}` for {architecture}", wanted.component)))?
                }
                PackageSource::RpmMd { repositories: ids, trust, .. } => {
                    of_repositories(wanted, (ids, *trust), &base, repositories, *architecture, session)
                        .with_context(|| Failure::new(format!("computing `{}` for {architecture}", wanted.component)))?
                }
            };
            let version = version.unwrap_or_else(|| manifest.release.version.clone());
            let (count, size) =
                (artifacts.len(), crate::output::total(artifacts.iter().filter_map(|artifact| artifact.size)));
            let text =
                format!("{} ({architecture}): {count} packages, {}", wanted.component, crate::output::bytes(size));
            session.output.event("closed", &text);
            let component = component.get_or_insert_with(|| LockedComponent {
                made: Some(wanted.kind),
                distribution: Some(wanted.distribution.clone()),
                ..LockedComponent::new(version.clone())
            });
            if component.version != version {
                let text = format!(
                    "`{}` would be {} on one architecture and {version} on {architecture}",
                    wanted.component, component.version
                );
                return Err(Failure::new(text).hint("name the exact version (`install = [\"NAME=VERSION\"]`)").into());
            }
            component.artifacts.insert(*architecture, artifacts);
        }
        components.extend(component.map(|component| (wanted.component.clone(), component)));
    }
    Ok(components)
}

/// Why there is no index to take the packages from.
fn missing(
    wanted: &Wanted<'_>,
    offers: Option<&Offers>,
    repositories: &mut Repositories<'_>,
    session: &Session,
) -> anyhow::Result<Option<String>> {
    const UNREACHED: &str = "its index was not reached when the lock was written";
    match wanted.source {
        PackageSource::Apt { suites, .. } => {
            let Some(offers) = offers else { return Ok(Some(UNREACHED.to_owned())) };
            let unknown =
                suites.iter().find(|suite| offers.of_suites(std::slice::from_ref(suite), Architecture::Amd64).is_err());
            Ok(unknown.map(|suite| format!("no apt source had the suite `{suite}` when the lock was written")))
        }
        PackageSource::RpmMd { repositories: ids, trust, .. } => {
            if let Some(id) = repositories.unknown(ids) {
                return Ok(Some(format!("no .repo file had the repository `{id}` when the lock was written")));
            }
            for architecture in &wanted.architectures {
                let release = ids.iter().find_map(|id| wanted.source.releasever(id, wanted.distribution));
                match repositories.offers(ids, *architecture, release, *trust) {
                    Err(error) if error.is::<Unreachable>() => {
                        session.output.warning(&format!("{error:#}"));
                        return Ok(Some(UNREACHED.to_owned()));
                    }
                    other => other.map(drop)?,
                }
            }
            Ok(None)
        }
    }
}

/// The names that were asked for, because nothing is known but they.
fn unresolved(wanted: &Wanted<'_>, version: &Version, reason: &str) -> LockedComponent {
    let scheme = match wanted.source {
        PackageSource::Apt { .. } => "apt",
        PackageSource::RpmMd { .. } => "rpm",
    };
    let entry = |root: &String| LockedArtifact::unresolved(format!("{scheme}:{root}"), reason);
    let entries: Vec<LockedArtifact> = wanted.roots.iter().map(entry).collect();
    LockedComponent {
        made: Some(wanted.kind),
        distribution: Some(wanted.distribution.clone()),
        artifacts: wanted.architectures.iter().map(|architecture| (*architecture, entries.clone())).collect(),
        ..LockedComponent::new(version.clone())
    }
}

/// The closure out of apt suites, in an order that dpkg takes, and for kernels the version of the first package asked for.
fn of_suites(
    wanted: &Wanted<'_>,
    (suites, recommends): (&[String], bool),
    base: &Base,
    offers: &Offers,
    architecture: Architecture,
) -> anyhow::Result<(Option<Version>, Vec<LockedArtifact>)> {
    if base.family != Family::Deb {
        let text = format!("`suites` are for apt, the base of `{}` has rpm packages", wanted.distribution);
        return Err(Failure::usage(text).hint("say `repositories` instead").into());
    }
    let universe = Universe::new(offers.of_suites(suites, architecture)?, architecture, offers.suite_names());
    let request = Request { install: &wanted.roots, base: &base.packages, provides: &base.provides, recommends };
    let closure = deb::resolve(&universe, &request)?;
    let version = match wanted.kind {
        Kind::Kernel => Some(kernel_version(wanted, &closure)?),
        _ => None,
    };
    let entry = |member: &deb::Member<'_>| {
        let needed_by = member.needed_by.map(str::to_owned);
        Ok(LockedArtifact { needed_by, ..offers.entry(member.package, member.index)? })
    };
    Ok((version, closure.members.iter().map(entry).collect::<anyhow::Result<_>>()?))
}

/// The closure out of rpm-md repositories, and for kernels the version of the first package asked for.
fn of_repositories(
    wanted: &Wanted<'_>,
    (ids, trust): (&[String], Trust),
    base: &Base,
    repositories: &mut Repositories<'_>,
    architecture: Architecture,
    session: &Session,
) -> anyhow::Result<(Option<Version>, Vec<LockedArtifact>)> {
    let release = ids.iter().find_map(|id| wanted.source.releasever(id, wanted.distribution));
    let offers = repositories.offers(ids, architecture, release, trust)?;
    let (version, entries) = rpm::closure(&wanted.roots, base, &offers, architecture, session)?;
    match (wanted.kind, version) {
        (Kind::Kernel, Some(version)) => Ok((Some(version), entries)),
        (Kind::Kernel, None) => Err(no_kernel(wanted.roots.first().map_or("", String::as_str)).into()),
        _ => Ok((None, entries)),
    }
}

fn no_kernel(first: &str) -> Failure {
    Failure::usage(format!("`{first}` is in the base already: there is no kernel to bring"))
        .hint("a base should state no kernel: targets have different ones")
}

/// Upstream's version of the first package that was asked for.
fn kernel_version(wanted: &Wanted<'_>, closure: &Closure<'_>) -> anyhow::Result<Version> {
    let first = wanted.roots.first().and_then(|root| root.split(['=', '/']).next()).unwrap_or("");
    let member = closure.members.iter().find(|member| &*member.package.name == first);
    let member = member.with_context(|| no_kernel(first))?;
    Ok(debian_version::upstream(&member.package.version).parse()?)
}
