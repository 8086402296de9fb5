//! What is packed into one component: manifest, lock and recipe together.

use std::path::Path;

use bundle::component::Kind;
use bundle::{Architecture, ComponentName};

use crate::failure::Failure;
use crate::lock::{Lock, LockedComponent, Resolved};
use crate::manifest::{AddonText, Artifact, Distribution, FileMap, HostPackages, Manifest, Placeholders, Source};
use crate::recipe::Recipe;
use crate::source::registry::Pinned;

/// One component to pack.
#[derive(Debug)]
pub(super) struct Part<'a> {
    pub(super) name: &'a ComponentName,
    pub(super) places: Placeholders<'a>,
    pub(super) recipe: Recipe,
    pub(super) artifacts: Vec<Ingredient>,
    /// For packages and kernels.
    pub(super) distribution: Option<&'a Distribution>,
    /// Programs that come as OS packages.
    pub(super) host: Vec<(&'a Distribution, &'a HostPackages)>,
    /// For addons: what the manifest says of it, and the images it needs.
    pub(super) addon: Option<(&'a AddonText, &'a [String])>,
}

/// One locked artifact and what is picked from it.
#[derive(Debug)]
pub(super) struct Ingredient {
    pub(super) locked: Resolved,
    pub(super) files: Vec<FileMap>,
}

impl Ingredient {
    /// Published file name.
    pub(super) fn file_name(&self) -> &str {
        self.locked.file_name()
    }
}

impl Part<'_> {
    /// Whether its artifacts go into the bundle as they are: OS packages, and container images from registries.
    pub(super) fn is_verbatim(&self) -> bool {
        self.recipe.text.kind.has_packages() || self.is_image()
    }

    /// For containers: the reference that hosts find it by.
    pub(super) fn reference(&self) -> anyhow::Result<Option<String>> {
        if let Some(container) = self.recipe.text.container.as_ref().filter(|_| !self.is_image()) {
            return self.places.expand(&container.reference).map(Some);
        }
        let mut images = self.artifacts.iter().filter(|_| self.is_image());
        images.next().map(|image| Ok(Pinned::of(&image.locked)?.reference.image_name())).transpose()
    }

    /// Whether it is a container image from a registry; where a release takes it from one, `[container]` is for the others,
    /// which pack it from files.
    pub(super) fn is_image(&self) -> bool {
        let text = &self.recipe.text;
        let pulled = self.artifacts.iter().any(|ingredient| ingredient.locked.reference().is_some());
        text.kind == Kind::Container && (text.container.is_none() || pulled)
    }
}

/// All components of one architecture: those of the manifest, then those that the builder made of its other tables.
pub(super) fn parts<'a>(
    manifest: &'a Manifest,
    lock: &'a Lock,
    architecture: Architecture,
    recipes: &Path,
) -> anyhow::Result<Vec<Part<'a>>> {
    let mut parts = Vec::new();
    for (name, text) in &manifest.release.components {
        let version = lock.component.get(name).map_or(&text.version, |component| &component.version);
        let places = Placeholders { version, architecture };
        let wanted: Vec<_> = text.artifacts.iter().filter(|artifact| artifact.is_for(architecture)).collect();
        if wanted.is_empty() && text.packages.is_empty() {
            continue;
        }
        let locked = if wanted.is_empty() { Vec::new() } else { lock.artifacts(name, architecture)? };
        if locked.len() != wanted.len() {
            return Err(Failure::new(format!(
                "the lock has {} artifacts for `{name}`, the manifest {}",
                locked.len(),
                wanted.len()
            ))
            .into());
        }
        let artifacts = wanted
            .iter()
            .zip(locked)
            .map(|(artifact, locked)| Ok(Ingredient { locked, files: artifact.expand(&places)?.files }));
        let artifacts = artifacts.collect::<anyhow::Result<Vec<_>>>()?;
        let recipe = Recipe::read(recipes, name)?;
        let host = text.packages.iter().collect();
        let part = Part { name, places, recipe, artifacts, distribution: None, host, addon: None };
        check(&part, &wanted)?;
        parts.push(part);
    }
    for (name, component) in &lock.component {
        if let Some(kind) = component.made
            && component.artifacts.contains_key(&architecture)
        {
            parts.push(made(manifest, lock, architecture, name, component, kind)?);
        }
    }
    Ok(parts)
}

/// Whether the artifacts are what a component of this kind is made of.
fn check(part: &Part<'_>, wanted: &[&Artifact]) -> anyhow::Result<()> {
    let (name, is_image) = (part.name, part.is_image());
    let wrong = |rule: &str| Err(Failure::usage(format!("component `{name}`: {rule}")).into());
    let images = wanted.iter().filter(|artifact| matches!(artifact.source, Source::Image { .. })).count();
    if is_image && (images, wanted.len()) != (1, 1) {
        return wrong(
            "a container is one artifact with `image`, or packed as `[container]` in its component.toml says",
        );
    }
    if !is_image && images > 0 {
        return wrong("`image` belongs to components of kind container");
    }
    let whole = part.is_verbatim();
    if part.artifacts.iter().any(|ingredient| ingredient.files.is_empty() != whole) {
        return wrong(if whole {
            "packages and images are stored whole: `files` does not belong here"
        } else {
            "every artifact needs `files` that say what to take"
        });
    }
    Ok(())
}

/// A component that the lock has and the manifest only implies.
fn made<'a>(
    manifest: &'a Manifest,
    lock: &'a Lock,
    architecture: Architecture,
    name: &'a ComponentName,
    component: &'a LockedComponent,
    kind: Kind,
) -> anyhow::Result<Part<'a>> {
    let places = Placeholders { version: &component.version, architecture };
    let addon = match kind {
        Kind::Addon => {
            let named = manifest.release.addons.iter().find(|(addon, _)| name.as_str() == format!("addon-{addon}"));
            let (_, text) = named.ok_or_else(|| {
                Failure::new(format!("the lock has `{name}`, the manifest has no such addon"))
                    .hint("run `builder lock`")
            })?;
            Some((text, &component.images[..]))
        }
        _ => None,
    };
    // Of an addon's artifact its YAML is picked; all other components that are made are verbatim.
    let files = addon.map(|(text, _)| text.artifact.expand(&places)).transpose()?.map(|artifact| artifact.files);
    let files = files.unwrap_or_default();
    let artifacts = lock.artifacts(name, architecture)?;
    let artifacts = artifacts.into_iter().map(|locked| Ingredient { locked, files: files.clone() }).collect();
    let licence = addon.map_or("NOASSERTION", |(text, _)| text.licence.as_str());
    let mut recipe = Recipe::made(name, kind, licence);
    recipe.text.modules_on_demand = addon.map(|(text, _)| text.modules.clone()).unwrap_or_default();
    Ok(Part { name, places, recipe, artifacts, distribution: component.distribution.as_ref(), host: Vec::new(), addon })
}
