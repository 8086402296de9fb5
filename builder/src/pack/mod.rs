//! Lock + cache → images: every component becomes one image of the bundle.
//!
//! Layers come from the layer cache if their inputs are known there. The others are made by a `line` of threads while
//! artifacts still arrive; nothing of their order shows in the result.

mod image;
mod kitchen;
mod line;
mod parts;
mod piece;

use std::path::Path;

use anyhow::Context as _;
use bundle::layout::ImageSource;
use bundle::{Architecture, Component, Digest, LayerPath};

use crate::addon::PatchText;
use crate::completeness::Piece;
use crate::layer_cache::{self, AddonInput, ArtifactInput, LayerInputs};
use crate::lock::{Lock, Resolved};
use crate::manifest::{FileMap, Manifest, Target};
use crate::parallel;
use crate::session::Session;
use image::image;
use kitchen::Kitchen;
use parts::{Ingredient, Part, parts};

/// What packing came to.
#[derive(Debug)]
pub struct Packed {
    /// The images, for the layout.
    pub images: Vec<ImageSource>,
    /// What they are, in the same order.
    pub components: Vec<Component>,
    /// What is known of their files, in the same order.
    pub pieces: Vec<Piece>,
    /// Components that had to be packed anew.
    pub fresh: usize,
}

/// Packs all components for one architecture.
pub fn pack(
    manifest: &Manifest,
    lock: &Lock,
    architecture: Architecture,
    recipes: &Path,
    jobs: usize,
    session: &Session,
) -> anyhow::Result<Packed> {
    let parts = parts(manifest, lock, architecture, recipes)?;
    let keys = parts.iter().map(|part| layer_key(part, lock.level)).collect::<anyhow::Result<Vec<_>>>()?;
    let found =
        parallel::map(jobs, &keys, |key| key.as_ref().map(|key| layer_cache::find(&session.cache, key)).transpose());
    let mut layers = found.into_iter().map(|found| found.map(Option::flatten)).collect::<anyhow::Result<Vec<_>>>()?;

    let missing: Vec<usize> = (0..parts.len()).filter(|at| keys[*at].is_some() && layers[*at].is_none()).collect();
    let needed: Vec<Resolved> = parts
        .iter()
        .enumerate()
        .filter(|(at, part)| !part.is_image() && (keys[*at].is_none() || missing.contains(at)))
        .flat_map(|(_, part)| part.artifacts.iter().map(|ingredient| ingredient.locked.clone()))
        .collect();
    let pulled: Vec<Resolved> = parts
        .iter()
        .filter(|part| part.is_image())
        .flat_map(|part| part.artifacts.iter().map(|ingredient| ingredient.locked.clone()))
        .collect();

    let scratch = session.cache.scratch()?;
    let kitchen = Kitchen { parts: &parts, keys: &keys, level: lock.level, scratch: &scratch, session };
    let mut images = Vec::new();
    let made = kitchen.cook(&missing, &needed, jobs, |arrived| {
        session.fetch_then(&needed, manifest, arrived)?;
        images = session.fetch_images(&pulled, architecture)?;
        Ok(())
    })?;
    let (mut pulled, fresh) = (images.into_iter(), made.len());
    for (at, layer) in made {
        layers[at] = Some(layer);
    }

    let mut result = Packed { images: Vec::new(), components: Vec::new(), pieces: Vec::new(), fresh };
    for (part, layer) in parts.iter().zip(layers) {
        let pulled = if part.is_image() { pulled.next() } else { None };
        let (component, image) = image(part, layer.as_ref(), pulled, architecture, session)
            .with_context(|| format!("in component `{}`", part.name))?;
        result.pieces.push(piece::piece(part, component.clone(), layer.as_ref())?);
        result.components.push(component);
        result.images.push(image);
    }
    Ok(result)
}

/// The name of the component's layer in the cache; `None` for what is copied verbatim.
fn layer_key(part: &Part<'_>, level: i32) -> anyhow::Result<Option<String>> {
    if part.is_verbatim() {
        return Ok(None);
    }
    let file = |map: &'_ FileMap| {
        let to = match &map.to {
            Target::File(path) => path.to_string(),
            Target::Directory(directory) => format!("{}/", directory.as_ref().map_or(".", LayerPath::as_str)),
        };
        (to, map.mode)
    };
    let artifact = |ingredient: &'_ Ingredient| -> (Digest, Vec<(String, u32)>) {
        (ingredient.locked.sha256, ingredient.files.iter().map(file).collect())
    };
    let described: Vec<_> = part.artifacts.iter().map(artifact).collect();
    let artifacts = part.artifacts.iter().zip(described).map(|(ingredient, (sha256, targets))| ArtifactInput {
        sha256,
        name: ingredient.file_name(),
        files: ingredient.files.iter().zip(targets).map(|(map, (to, mode))| (map.from.as_str(), to, mode)).collect(),
    });
    let addon = part
        .addon
        .map(|(text, images)| AddonInput { patches: text.patches.iter().map(PatchText::decides).collect(), images });
    LayerInputs { level, artifacts: artifacts.collect(), links: &part.recipe.text.links, addon }.key().map(Some)
}
