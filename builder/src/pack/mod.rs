//! Lock + cache → images: every component becomes one image of the bundle.
//!
//! Layers come from the layer cache if their inputs are known there. For the others each artifact is unpacked once for all
//! components that use it, then the components are packed, largest first, by several threads; nothing of that order shows
//! in the result.

mod image;
mod parts;
mod piece;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use bundle::layer::{PackEntry, Source as Content};
use bundle::layout::ImageSource;
use bundle::{Architecture, Component, Digest, LayerPath};

use crate::addon::{self, Addon, PatchText};
use crate::cache::Scratch;
use crate::completeness::Piece;
use crate::failure::Failure;
use crate::layer_cache::{self, AddonInput, ArtifactInput, CachedLayer, LayerInputs};
use crate::lock::{Lock, Resolved};
use crate::manifest::{AddonText, FileMap, Manifest, Target};
use crate::output::bytes;
use crate::parallel;
use crate::pick::{self, Picked};
use crate::session::Session;
use image::image;
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
    session.fetch(&needed, manifest)?;
    let pulled: Vec<Resolved> = parts
        .iter()
        .filter(|part| part.is_image())
        .flat_map(|part| part.artifacts.iter().map(|ingredient| ingredient.locked.clone()))
        .collect();
    let mut pulled = session.fetch_images(&pulled, architecture)?.into_iter();

    let scratch = session.cache.scratch()?;
    let mut picked = unpack(&parts, &missing, jobs, &scratch, session)?;
    // Largest first keeps all threads busy to the end.
    let mut order = missing.clone();
    order.sort_by_key(|at| {
        std::cmp::Reverse(picked.get(at).map_or(0, |files| files.iter().map(|file| file.size).sum::<u64>()))
    });
    let work: Vec<(usize, Vec<Picked>)> = order.iter().map(|at| (*at, picked.remove(at).unwrap_or_default())).collect();
    let fresh = parallel::map(jobs, &work, |(at, files)| {
        let key = keys[*at].as_deref().unwrap_or_default();
        let layer = pack_layer(&parts[*at], files, key, lock.level, &scratch, session);
        layer.with_context(|| format!("packing component `{}`", parts[*at].name))
    });
    for ((at, _), layer) in work.iter().zip(fresh) {
        layers[*at] = Some(layer?);
    }

    let mut result = Packed { images: Vec::new(), components: Vec::new(), pieces: Vec::new(), fresh: work.len() };
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

/// Unpacks every artifact that the missing layers need, once; picked files by component.
fn unpack(
    parts: &[Part<'_>],
    missing: &[usize],
    jobs: usize,
    scratch: &Scratch,
    session: &Session,
) -> anyhow::Result<BTreeMap<usize, Vec<Picked>>> {
    let mut users: BTreeMap<Digest, Vec<(usize, &Ingredient)>> = BTreeMap::new();
    for at in missing {
        for ingredient in &parts[*at].artifacts {
            users.entry(ingredient.locked.sha256).or_default().push((*at, ingredient));
        }
    }
    // Largest first, as in packing.
    let mut users: Vec<(Digest, Vec<(usize, &Ingredient)>)> = users.into_iter().collect();
    users
        .sort_by_key(|(_, users)| std::cmp::Reverse(users.first().map_or(0, |(_, ingredient)| ingredient.locked.size)));
    let results = parallel::map(jobs, &users, |(digest, users)| {
        let Some((_, first)) = users.first() else { return Ok(Vec::new()) };
        let spool = scratch.path().join(format!("unpacked-{}", digest.hex()));
        fs_err::create_dir(&spool)?;
        let maps: Vec<&FileMap> = users.iter().flat_map(|(_, ingredient)| &ingredient.files).collect();
        let artifact =
            pick::Artifact { path: &session.cache.path(digest), file_name: first.file_name(), sha256: digest };
        let mut picked = pick::pick(&artifact, &maps, &spool)?.into_iter();
        session.output.event("unpacked", &first.locked.url);
        let of = |(at, ingredient): &(usize, &Ingredient)| {
            (*at, picked.by_ref().take(ingredient.files.len()).flatten().collect::<Vec<_>>())
        };
        Ok(users.iter().map(of).collect())
    });
    let mut all: BTreeMap<usize, Vec<Picked>> = BTreeMap::new();
    for (result, (_, users)) in results.into_iter().zip(&users) {
        let names = || users.iter().map(|(at, _)| format!("`{}`", parts[*at].name)).collect::<Vec<_>>().join(", ");
        let result: anyhow::Result<Vec<(usize, Vec<Picked>)>> = result;
        for (at, files) in result.with_context(|| format!("picking files for {}", names()))? {
            all.entry(at).or_default().extend(files);
        }
    }
    Ok(all)
}

/// The files of a component as they were picked.
fn file_entries(files: &[Picked]) -> anyhow::Result<BTreeMap<LayerPath, PackEntry>> {
    let mut entries = BTreeMap::new();
    for Picked { to, mode, content, .. } in files {
        let entry = PackEntry::Regular { mode: *mode, source: Content::File(content.clone()) };
        if entries.insert(to.clone(), entry).is_some() {
            return Err(Failure::usage(format!("two files would become `{to}`")).into());
        }
    }
    Ok(entries)
}

/// The files of an addon, made from its YAML; the images it needs must be those in the lock.
fn addon_entries(
    text: &AddonText,
    images: &[String],
    files: &[Picked],
) -> anyhow::Result<BTreeMap<LayerPath, PackEntry>> {
    let files = files.iter().map(addon::content).collect::<anyhow::Result<Vec<_>>>()?;
    let files = files.iter().map(|(name, content)| (name.as_str(), content.as_slice()));
    let addon = Addon::read(files, &text.patches, &text.images, &text.ignore_images)?;
    let found = addon.image_names();
    if found != images {
        let different = found
            .iter()
            .filter(|name| !images.contains(name))
            .chain(images.iter().filter(|name| !found.contains(name)));
        let different: Vec<String> = different.map(|name| format!("`{name}`")).collect();
        return Err(Failure::new(format!("the lock and the addon's objects differ in {}", different.join(", ")))
            .hint("run `builder lock`")
            .into());
    }
    let entry = |(name, content): (&str, Vec<u8>)| {
        Ok((name.parse()?, PackEntry::Regular { mode: 0o644, source: Content::Bytes(content) }))
    };
    addon.files()?.into_iter().map(entry).collect()
}

fn pack_layer(
    part: &Part<'_>,
    files: &[Picked],
    key: &str,
    level: i32,
    scratch: &Scratch,
    session: &Session,
) -> anyhow::Result<CachedLayer> {
    let mut entries = match part.addon {
        Some((text, images)) => addon_entries(text, images, files)?,
        None => file_entries(files)?,
    };
    for (link, target) in &part.recipe.text.links {
        if entries.insert(link.clone(), PackEntry::Symlink { target: target.clone() }).is_some() {
            return Err(Failure::usage(format!("a file and a link would become `{link}`")).into());
        }
    }
    let made = layer_cache::make(&session.cache, key, entries, level, 1, scratch)?;
    let (unpacked, size) = (bytes(made.layer.unpacked_size), bytes(made.layer.size));
    session.output.event("packed", &format!("{} {} ({unpacked} to {size})", part.name, part.places.version));
    Ok(made)
}
