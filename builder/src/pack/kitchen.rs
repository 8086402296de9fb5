//! How layers are made: what each piece of work of the line is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use bundle::layer::{PackEntry, Source as Content};
use bundle::{Digest, LayerPath};

use super::line::{Done, Line, Work};
use super::parts::{Ingredient, Part};
use crate::addon::{self, Addon};
use crate::cache::Scratch;
use crate::failure::Failure;
use crate::http::Arrived;
use crate::layer_cache::{self, CachedLayer};
use crate::lock::Resolved;
use crate::manifest::{AddonText, FileMap};
use crate::output::bytes;
use crate::pick::{self, Picked};
use crate::session::Session;

/// What the threads that make layers share.
pub(super) struct Kitchen<'a> {
    pub(super) parts: &'a [Part<'a>],
    pub(super) keys: &'a [Option<String>],
    pub(super) level: i32,
    pub(super) scratch: &'a Scratch,
    pub(super) session: &'a Session,
}

/// The components that use an artifact, by their places, with what they take from it.
type Users<'a> = Vec<(usize, &'a Ingredient)>;

impl Kitchen<'_> {
    /// Runs `fetch`, which brings what is `needed`, and makes the missing layers as soon as their artifacts are there.
    pub(super) fn cook(
        &self,
        missing: &[usize],
        needed: &[Resolved],
        jobs: usize,
        fetch: impl FnOnce(&Arrived<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Vec<(usize, CachedLayer)>> {
        let mut users: BTreeMap<Digest, Users<'_>> = BTreeMap::new();
        for at in missing {
            for ingredient in &self.parts[*at].artifacts {
                users.entry(ingredient.locked.sha256).or_default().push((*at, ingredient));
            }
        }
        let wants = |at: &usize| {
            let artifacts = self.parts[*at].artifacts.iter().map(|ingredient| ingredient.locked.sha256).collect();
            (*at, artifacts)
        };
        let sizes = needed.iter().map(|artifact| (artifact.sha256, artifact.size)).collect();
        let line = Line::new(missing.iter().map(wants).collect(), sizes, jobs);
        line.run(fetch, |work| match work {
            Work::Unpack(artifact) => {
                let users = users.get(&artifact).map_or(&[][..], Vec::as_slice);
                let names = || users.iter().map(|(at, _)| format!("`{}`", self.parts[*at].name)).collect::<Vec<_>>();
                let picked = self.unpack(artifact, users);
                picked.with_context(|| format!("picking files for {}", names().join(", "))).map(Done::Unpacked)
            }
            Work::Pack { component, files, workers } => {
                let layer = self.pack(component, &files, workers);
                let place = || format!("packing component `{}`", self.parts[component].name);
                layer.with_context(place).map(|layer| Done::Packed(Box::new(layer)))
            }
            Work::Forget(artifact) => {
                // What stays is removed with the whole scratch directory.
                let _ = fs_err::remove_dir_all(self.spool(&artifact));
                Ok(Done::Forgotten)
            }
        })
    }

    fn spool(&self, artifact: &Digest) -> PathBuf {
        self.scratch.path().join(format!("unpacked-{}", artifact.hex()))
    }

    /// Unpacks an artifact once for all that use it: the files that each takes.
    fn unpack(&self, artifact: Digest, users: &[(usize, &Ingredient)]) -> anyhow::Result<Vec<(usize, Vec<Picked>)>> {
        let maps: Vec<&FileMap> = users.iter().flat_map(|(_, ingredient)| &ingredient.files).collect();
        let (Some((_, first)), false) = (users.first(), maps.is_empty()) else { return Ok(Vec::new()) };
        let spool = self.spool(&artifact);
        fs_err::create_dir(&spool)?;
        let path = self.session.cache.path(&artifact);
        let artifact = pick::Artifact { path: &path, file_name: first.file_name(), sha256: &artifact };
        let mut picked = pick::pick(&artifact, &maps, &spool)?.into_iter();
        self.session.output.event("unpacked", &first.locked.url);
        let of = |(at, ingredient): &(usize, &Ingredient)| {
            (*at, picked.by_ref().take(ingredient.files.len()).flatten().collect::<Vec<_>>())
        };
        Ok(users.iter().map(of).collect())
    }

    fn pack(&self, component: usize, files: &[Picked], workers: u32) -> anyhow::Result<CachedLayer> {
        let part = &self.parts[component];
        let mut entries = match part.addon {
            Some((text, images)) => addon_entries(text, images, files)?,
            None => file_entries(files)?,
        };
        for (link, target) in &part.recipe.text.links {
            if entries.insert(link.clone(), PackEntry::Symlink { target: target.clone() }).is_some() {
                return Err(Failure::usage(format!("a file and a link would become `{link}`")).into());
            }
        }
        let key = self.keys[component].as_deref().unwrap_or_default();
        let made = layer_cache::make(&self.session.cache, key, entries, self.level, workers, self.scratch)?;
        let (unpacked, size) = (bytes(made.layer.unpacked_size), bytes(made.layer.size));
        let what = format!("{} {} ({unpacked} to {size})", part.name, part.places.version);
        self.session.output.event("packed", &what);
        Ok(made)
    }
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
