//! References of container images → entries of the lock.

use std::collections::BTreeMap;

use anyhow::Context as _;
use bundle::{Architecture, Digest};

use super::Item;
use crate::failure::Failure;
use crate::http::Unreachable;
use crate::lock::{Lock, LockedArtifact};
use crate::manifest::Source;
use crate::session::Session;
use crate::source::registry::Reference;

/// Reference and digest, as the manifest has them.
type Name = (String, Option<Digest>);

/// The images that components name.
pub(super) type Images = BTreeMap<Name, LockedArtifact>;

/// Resolves the images of components, each once for all architectures that want it.
pub(super) fn of_components(items: &[Item<'_>], before: Option<&Lock>, session: &Session) -> anyhow::Result<Images> {
    let mut wanted: BTreeMap<Name, (&Item<'_>, Vec<Architecture>)> = BTreeMap::new();
    for item in items {
        if let Source::Image { reference, digest } = &item.artifact.source {
            let (_, architectures) = wanted.entry((reference.clone(), *digest)).or_insert_with(|| (item, Vec::new()));
            architectures.push(item.architecture);
        }
    }
    let mut images = Images::new();
    for ((reference, digest), (item, architectures)) in wanted {
        let place = || format!("resolving component `{}`", item.component);
        let entry = entry(&reference, digest, &architectures, before, session).with_context(place)?;
        images.insert((reference, digest), entry);
    }
    Ok(images)
}

/// The lock's entry for an image.
///
/// One that was locked for these architectures stays what it was, also when its tag has been moved since. `expected` is
/// the digest that the manifest demands, apart from one in the reference.
pub(super) fn entry(
    reference: &str,
    expected: Option<Digest>,
    architectures: &[Architecture],
    before: Option<&Lock>,
    session: &Session,
) -> anyhow::Result<LockedArtifact> {
    let parsed: Reference = reference.parse()?;
    let url = format!("image:{reference}");
    let vouched = expected.or(parsed.digest());
    // Whoever has a size has it from the registry, which then confirmed the digest.
    let proof = Some("registry".to_owned());
    if let Some(kept) = kept(&url, architectures, before)
        && (kept.proof == proof || vouched.is_some())
        && vouched.is_none_or(|digest| kept.sha256 == Some(digest))
    {
        return Ok(LockedArtifact { proof, ..kept });
    }
    match session.registry.resolve(&parsed, expected, architectures, &session.network, &session.cache) {
        Ok(pinned) => {
            let (size, sha256) = (Some(pinned.size), Some(pinned.digest));
            Ok(LockedArtifact { url, size, sha256, proof, ..LockedArtifact::default() })
        }
        Err(error) if error.is::<Unreachable>() => {
            session.output.warning_once(crate::http::host(reference), &format!("{error:#}"));
            let what = if vouched.is_some() { "size" } else { "digest and size" };
            let unresolved = Some(format!("{what} not known: the registry was not reached when the lock was written"));
            let proof = vouched.map(|_| "manifest".to_owned());
            Ok(LockedArtifact { url, sha256: vouched, proof, unresolved, ..LockedArtifact::default() })
        }
        Err(error) => Err(error),
    }
}

/// The entry of the last lock, if that has the same for all architectures.
fn kept(url: &str, architectures: &[Architecture], before: Option<&Lock>) -> Option<LockedArtifact> {
    let of = |architecture: &Architecture| {
        let mut entries = before.into_iter().flat_map(Lock::entries);
        entries.find(|(_, for_, entry)| for_ == architecture && entry.url == url && entry.resolved().is_ok())
    };
    let mut all = architectures.iter().map(of);
    let (_, _, first) = all.next()??;
    all.all(|entry| entry.is_some_and(|(_, _, entry)| entry == first)).then(|| first.clone())
}

/// The entry of an image that a component names.
pub(super) fn find(images: &Images, reference: &str, digest: Option<Digest>) -> anyhow::Result<LockedArtifact> {
    let entry = images.get(&(reference.to_owned(), digest));
    Ok(entry.cloned().ok_or_else(|| Failure::new(format!("`{reference}` was not resolved")))?)
}
