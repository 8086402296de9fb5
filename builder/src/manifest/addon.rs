//! Addons of a manifest: pinned YAML, what is changed in it, and the images it needs.

use std::collections::BTreeMap;

use bundle::{Architecture, Digest, LayerPath, Version};
use serde::Deserialize;

use super::artifact::{Artifact, FileMap, Source, Target, Trust, digest, is_pattern};
use crate::addon::PatchText;

/// `[addon.NAME]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Text")]
pub struct AddonText {
    /// Upstream version.
    pub version: Version,
    /// SPDX expression.
    pub licence: String,
    /// The YAML, or the archive its files are picked from, in order; the same for every architecture.
    pub artifact: Artifact,
    /// What is changed in it, in order.
    pub patches: Vec<PatchText>,
    /// Images it needs that cannot be found in it.
    pub images: Vec<String>,
    /// What looks like an image in it but is not needed.
    pub ignore_images: Vec<String>,
    /// Kernel modules that its pods use. The kernel loads them by itself; the bundle's or the distribution's must have them.
    pub modules: Vec<String>,
    /// Digests that images must have, by reference as it is written in the objects or in `images`.
    pub digests: BTreeMap<String, Digest>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    version: Version,
    #[serde(default = "unknown_licence")]
    licence: String,
    url: Option<String>,
    file: Option<String>,
    sha256: Option<String>,
    #[serde(default)]
    trust: Trust,
    #[serde(default)]
    mirrors: Vec<String>,
    #[serde(default)]
    files: Vec<String>,
    #[serde(default, rename = "patch")]
    patches: Vec<PatchText>,
    #[serde(default)]
    images: Vec<String>,
    #[serde(default)]
    ignore_images: Vec<String>,
    #[serde(default)]
    modules: Vec<String>,
    #[serde(default)]
    digests: BTreeMap<String, Digest>,
}

fn unknown_licence() -> String {
    "NOASSERTION".into()
}

impl TryFrom<Text> for AddonText {
    type Error = String;

    fn try_from(text: Text) -> Result<Self, String> {
        let Text {
            version,
            licence,
            url,
            file,
            sha256,
            trust,
            mirrors,
            files,
            patches,
            images,
            ignore_images,
            modules,
            digests,
        } = text;
        let source = match (url, file) {
            (Some(url), None) => Source::Url(url),
            (None, Some(file)) => Source::File(file),
            _ => return Err("an addon has exactly one of `url` and `file`".into()),
        };
        let sha256 = sha256.map(|hex| digest(&hex)).transpose()?;
        let sha256 = sha256
            .into_iter()
            .flat_map(|digest| [Architecture::Amd64, Architecture::Arm64].map(|architecture| (architecture, digest)))
            .collect();
        let plain = Artifact::plain(source, mirrors, sha256, trust)?;
        // A plain file has only its own name, which any pattern without a slash may match.
        let patterns = if files.is_empty() { vec!["*".to_owned()] } else { files };
        let artifact =
            Artifact { files: patterns.into_iter().enumerate().map(yaml_files).collect::<Result<_, _>>()?, ..plain };
        Ok(Self { version, licence, artifact, patches, images, ignore_images, modules, digests })
    }
}

/// The files that one pattern picks, in a directory of its own: patterns in the order of the manifest, files in that of names.
fn yaml_files((at, pattern): (usize, String)) -> Result<FileMap, String> {
    is_pattern("files", &pattern)?;
    let to: LayerPath = format!("{at:04}").parse().map_err(|_| "too many `files`".to_owned())?;
    Ok(FileMap { from: pattern, to: Target::Directory(Some(to)), mode: 0o644 })
}
