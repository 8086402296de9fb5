//! Addons: Kubernetes objects from pinned YAML, the images they need, and the values in them that each cluster decides.
//!
//! The YAML is upstream's and is not trusted beyond its digest: reading it is bounded and never panics. What is guaranteed: every
//! image that the objects name is in the bundle or was declared needless by name, and every patch has been tried.

pub mod images;
pub mod objects;
pub mod patch;
pub mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bundle::addon::Patch;
use bundle::{ComponentName, Digest, Version};
use serde_json::Value;

pub use self::patch::PatchText;
use crate::failure::Failure;
use crate::lock::Resolved;
use crate::manifest::FileMap;
use crate::pick;
use crate::source::registry::Reference;

/// What an addon's component holds, and what it needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Addon {
    /// The objects as upstream wrote them, in its order.
    pub objects: Vec<Value>,
    /// The changes each cluster makes, in the manifest's order.
    pub patches: Vec<Patch>,
    /// Images that have to be in the bundle, sorted.
    pub images: Vec<Reference>,
}

impl Addon {
    /// Reads the objects from `files` (name and content, in order), tries the patches and finds the images.
    pub fn read<'a>(
        files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        patches: &[PatchText],
        extra_images: &[String],
        ignore_images: &[String],
    ) -> anyhow::Result<Self> {
        let mut objects = Vec::new();
        for (name, content) in files {
            objects.extend(objects::parse(name, content)?);
        }
        if objects.is_empty() {
            return Err(Failure::new("there is no Kubernetes object in the YAML").into());
        }
        objects::check_distinct(&objects)?;
        let (patches, sampled) = patch::compile(&objects, patches)?;
        let images = images::images(&sampled, extra_images, ignore_images)?;
        Ok(Self { objects, patches, images })
    }

    /// The images as the bundle names them: sorted, each once.
    pub fn image_names(&self) -> Vec<String> {
        self.images.iter().map(Reference::image_name).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The digests that the manifest demands, by image; one for an image that is not needed is an error.
    pub fn digests(&self, written: &BTreeMap<String, Digest>) -> anyhow::Result<BTreeMap<Reference, Digest>> {
        let find = |(text, digest): (&String, &Digest)| {
            let reference: Reference = text.parse()?;
            if !self.images.contains(&reference) {
                let images: Vec<String> = self.images.iter().map(ToString::to_string).collect();
                return Err(Failure::usage(format!("`digests` names `{text}`, which the addon does not need"))
                    .hint(format!("it needs {}", images.join(", ")))
                    .into());
            }
            Ok((reference, *digest))
        };
        written.iter().map(find).collect()
    }

    /// The files of its layer: name and content, compact JSON.
    pub fn files(&self) -> anyhow::Result<[(&'static str, Vec<u8>); 2]> {
        Ok([
            (bundle::addon::OBJECTS, serde_json::to_vec(&self.objects)?),
            (bundle::addon::PATCHES, serde_json::to_vec(&self.patches)?),
        ])
    }
}

/// The YAML files that `maps` pick from the addon's artifact at `path`, with their content, in order. `spool` is an empty
/// directory of the caller's.
pub fn files(path: &Path, locked: &Resolved, maps: &[FileMap], spool: &Path) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let artifact = pick::Artifact { path, file_name: locked.file_name(), sha256: &locked.sha256 };
    let picked = pick::pick(&artifact, &maps.iter().collect::<Vec<_>>(), spool)?;
    picked.iter().flatten().map(content).collect()
}

/// Name and content of a picked file.
pub fn content(file: &pick::Picked) -> anyhow::Result<(String, Vec<u8>)> {
    if file.size > yaml::TEXT_LIMIT as u64 {
        return Err(Failure::new(format!(
            "`{}` has {} bytes: at most {} are read",
            file.to,
            file.size,
            yaml::TEXT_LIMIT
        ))
        .into());
    }
    Ok((file.to.file_name().to_owned(), fs_err::read(&file.content)?))
}

/// A component name for each image: `image-` and what people know the image by. The same image has the same name in every
/// release; images that would share a name get a part of a digest.
pub fn component_names(images: &BTreeSet<Reference>) -> anyhow::Result<BTreeMap<ComponentName, Reference>> {
    let mut by_slug: BTreeMap<String, Vec<&Reference>> = BTreeMap::new();
    for image in images {
        by_slug.entry(slug(image)).or_default().push(image);
    }
    let mut names = BTreeMap::new();
    for (slug, images) in by_slug {
        let several = images.len() > 1;
        for image in images {
            let name = if several { with_digest(&slug, image) } else { slug.clone() };
            names.insert(name.parse()?, image.clone());
        }
    }
    Ok(names)
}

/// Longest component name.
const NAME_LIMIT: usize = 64;

/// `image-coredns-coredns-v1.12.0`: repository and tag; text that had to be changed to fit gets a part of a digest.
fn slug(image: &Reference) -> String {
    let version =
        image.tag().map_or_else(|| image.digest().map(|digest| digest.short()).unwrap_or_default(), str::to_owned);
    let text = format!("image-{}-{version}", image.repository().replace('/', "-"));
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '.' || letter == '-';
    let changed: String =
        text.to_ascii_lowercase().chars().map(|letter| if plain(letter) { letter } else { '-' }).collect();
    let changed = changed.trim_end_matches(['-', '.']).replace("..", "-");
    if changed == text && text.len() <= NAME_LIMIT { text } else { with_digest(&changed, image) }
}

fn with_digest(slug: &str, image: &Reference) -> String {
    let digest = Digest::of(image.image_name().as_bytes()).hex();
    let digest = digest.get(..8).unwrap_or(&digest);
    let room = NAME_LIMIT - digest.len() - 1;
    let kept = slug.get(..room).unwrap_or(slug).trim_end_matches(['-', '.']);
    format!("{kept}-{digest}")
}

/// The version of an image's component: its tag, or the beginning of its digest.
pub fn image_version(image: &Reference) -> anyhow::Result<Version> {
    let digest = Digest::of(image.to_string().as_bytes());
    let tag = image.tag().and_then(|tag| tag.parse().ok());
    Ok(tag.map_or_else(|| image.digest().unwrap_or(digest).short().parse(), Ok)?)
}
