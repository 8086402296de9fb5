//! `[addon.…]` → components `addon-NAME`, and `image-…` for every image that they need.
//!
//! The YAML is downloaded here, because only its text tells the images. An addon whose YAML is not known yet, or not
//! reached, stays unresolved as a whole: a list of images that may be incomplete never gets into a lock.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use bundle::component::Kind;
use bundle::{Architecture, ComponentName, Digest, Version};

use super::images;
use crate::addon::{self, Addon};
use crate::failure::Failure;
use crate::http::Unreachable;
use crate::lock::{Lock, LockedArtifact, LockedComponent, Resolved};
use crate::manifest::{AddonText, Artifact, Manifest, Placeholders, Source};
use crate::session::Session;
use crate::source::https::{Resolution, Resolver};
use crate::source::registry::Reference;

/// The components made of the manifest's addons.
pub(super) fn resolve(
    manifest: &Manifest,
    before: Option<&Lock>,
    session: &Session,
) -> anyhow::Result<BTreeMap<ComponentName, LockedComponent>> {
    let release = &manifest.release;
    let mut components = BTreeMap::new();
    let Some(architecture) = release.architectures.first().copied() else { return Ok(components) };
    let kept: Vec<Resolved> =
        before.into_iter().flat_map(Lock::entries).filter_map(|(_, _, artifact)| artifact.resolved().ok()).collect();
    let resolver = Resolver::new(&kept, manifest.directory(), session);
    let mut needed: BTreeSet<Reference> = BTreeSet::new();
    let mut digests: BTreeMap<Reference, Digest> = BTreeMap::new();
    for (name, text) in &release.addons {
        let place = || format!("resolving addon `{name}`");
        let artifact = text.artifact.expand(&Placeholders { version: &text.version, architecture })?;
        let entry = yaml(&artifact, architecture, &resolver, session).with_context(place)?;
        let (entry, addon) = match entry.resolved() {
            Ok(locked) => read(text, &artifact, &locked, entry, manifest, session).with_context(place)?,
            Err(_) => (entry, None),
        };
        let mut component = made(text.version.clone(), Kind::Addon, &release.architectures, &entry);
        if let Some(addon) = addon {
            component.images = addon.image_names();
            for (reference, digest) in addon.digests(&text.digests).with_context(place)? {
                let known = *digests.entry(reference.clone()).or_insert(digest);
                if known != digest {
                    return Err(Failure::usage(format!(
                        "two addons demand {known} and {digest} of image `{reference}`"
                    ))
                    .into());
                }
            }
            // A tag beside a digest names nothing of its own.
            for image in addon.images {
                needed.insert(image.image_name().parse()?);
            }
        }
        components.insert(format!("addon-{name}").parse()?, component);
    }
    let there = of_components(manifest)?;
    needed.retain(|reference| !there.contains(&reference.image_name()));
    for (name, reference) in addon::component_names(&needed)? {
        let expected = digests.get(&reference).copied();
        let entry = images::entry(&reference.image_name(), expected, &release.architectures, before, session)
            .with_context(|| format!("resolving component `{name}`"))?;
        components
            .insert(name, made(addon::image_version(&reference)?, Kind::Container, &release.architectures, &entry));
    }
    Ok(components)
}

fn made(version: Version, kind: Kind, architectures: &[Architecture], entry: &LockedArtifact) -> LockedComponent {
    let mut component = LockedComponent::new(version);
    component.made = Some(kind);
    component.artifacts = architectures.iter().map(|architecture| (*architecture, vec![entry.clone()])).collect();
    component
}

/// The images that components of the manifest bring themselves.
fn of_components(manifest: &Manifest) -> anyhow::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for text in manifest.release.components.values() {
        for architecture in &manifest.release.architectures {
            let places = Placeholders { version: &text.version, architecture: *architecture };
            for artifact in &text.artifacts {
                if let Source::Image { reference, .. } = artifact.expand(&places)?.source {
                    names.insert(reference.parse::<Reference>()?.image_name());
                }
            }
        }
    }
    Ok(names)
}

/// The lock's entry for the YAML.
fn yaml(
    artifact: &Artifact,
    architecture: Architecture,
    resolver: &Resolver<'_>,
    session: &Session,
) -> anyhow::Result<LockedArtifact> {
    match resolver.resolve(artifact, architecture)? {
        Resolution::Known(entry) => Ok(entry),
        Resolution::Download(pending) => {
            let fetched = session.network.fetch_each(&session.cache, std::slice::from_ref(&pending.wanted));
            let fetched = fetched.first().context("a download was not made")?;
            pending.finish(fetched.as_ref(), &session.output)
        }
    }
}

/// The addon as its YAML has it. YAML that was locked earlier and cannot be reached now is unresolved again.
fn read(
    text: &AddonText,
    artifact: &Artifact,
    locked: &Resolved,
    entry: LockedArtifact,
    manifest: &Manifest,
    session: &Session,
) -> anyhow::Result<(LockedArtifact, Option<Addon>)> {
    match session.fetch(std::slice::from_ref(locked), manifest) {
        Ok(_) => {}
        Err(error) if error.is::<Unreachable>() => {
            session.output.warning(&format!("{error:#}"));
            let reason = "not reached when the lock was written, so its images are not known";
            return Ok((LockedArtifact { unresolved: Some(reason.to_owned()), ..entry }, None));
        }
        Err(error) => return Err(error),
    }
    let scratch = session.cache.scratch()?;
    let files = addon::files(&session.cache.path(&locked.sha256), locked, &artifact.files, scratch.path())?;
    let files = files.iter().map(|(name, content)| (name.as_str(), content.as_slice()));
    let addon = Addon::read(files, &text.patches, &text.images, &text.ignore_images)?;
    Ok((entry, Some(addon)))
}
