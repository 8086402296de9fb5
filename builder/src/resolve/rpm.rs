//! Packages of rpm-md repositories: single ones for components, and closures against a base.

use anyhow::Context as _;
use bundle::{Architecture, Version};

use crate::base::{Base, Family};
use crate::closure;
use crate::failure::Failure;
use crate::lock::LockedArtifact;
use crate::session::Session;
use crate::source::rpm_md::{Offers, Package};
use bundle::rpm_version::Evr;

/// The best package of a name: the one of this version, else the newest.
pub(super) fn single(
    name: &str,
    version: Option<&str>,
    offers: &Offers,
    session: &Session,
) -> anyhow::Result<LockedArtifact> {
    let packages = offers.packages();
    let named: Vec<usize> = (0..packages.len()).filter(|at| *packages[*at].name == *name).collect();
    let version_of = |at: &usize| &packages[*at].evr;
    let fits = |at: &&usize| version.is_none_or(|version| Evr::parse(version).compare(version_of(at)).is_eq());
    let best = named.iter().filter(fits).max_by(|a, b| version_of(a).compare(version_of(b)));
    let best = best.ok_or_else(|| {
        let offered: Vec<String> = named.iter().map(|at| version_of(at).to_string()).collect();
        let offered = if offered.is_empty() { "nothing of that name".to_owned() } else { offered.join(", ") };
        let wanted = version.map_or_else(|| format!("`{name}`"), |version| format!("`{name}` {version}"));
        Failure::new(format!("no repository offers {wanted}")).hint(format!("on offer: {offered}"))
    })?;
    let mut entries = offers.lock(&[*best], session)?;
    entries.pop().context("nothing was locked")
}

/// A closure out of repositories, sorted by name, and the version of the first package asked for.
pub(super) fn closure(
    roots: &[String],
    base: &Base,
    offers: &Offers,
    architecture: Architecture,
    session: &Session,
) -> anyhow::Result<(Option<Version>, Vec<LockedArtifact>)> {
    if base.family != Family::Rpm {
        let text = format!("`repositories` are for rpm-md, the base of `{}` has Debian packages", base.distribution);
        return Err(Failure::usage(text).hint("say `suites` instead").into());
    }
    let packages = offers.packages();
    let members =
        closure::rpm::resolve(&packages, base, architecture, roots, &mut |paths| offers.owners(paths, session))?;
    let chosen: Vec<usize> = members.iter().map(|member| member.package).collect();
    let entries = offers.lock(&chosen, session)?;
    let with_reason = |(entry, member): (LockedArtifact, &closure::rpm::Member)| LockedArtifact {
        needed_by: member.needed_by.clone(),
        ..entry
    };
    let first = roots.first().and_then(|root| root.split('=').next()).map(str::trim).unwrap_or_default();
    let first = chosen.iter().map(|at| packages[*at]).find(|package| *package.name == *first);
    Ok((first.map(version).transpose()?, entries.into_iter().zip(&members).map(with_reason).collect()))
}

/// Version and release, which alone tell kernels of one distribution apart; the version alone where that cannot be written.
fn version(package: &Package) -> anyhow::Result<Version> {
    let text = package.evr.without_epoch();
    text.parse().or_else(|_| Ok(package.evr.version.parse()?))
}
