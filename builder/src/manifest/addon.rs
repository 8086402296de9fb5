//! Addons of a manifest: pinned YAML, what is changed in it, and the images it needs.

use bundle::{Architecture, Version};
use serde::Deserialize;

use super::artifact::{Artifact, Source, Trust, digest};

/// `[addon.NAME]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Text")]
pub struct AddonText {
    /// Upstream version.
    pub version: Version,
    /// SPDX expression.
    pub licence: String,
    /// The YAML; the same for every architecture.
    pub artifact: Artifact,
    /// What is changed in it, in order.
    pub patches: Vec<Patch>,
    /// Images it needs that cannot be found in it.
    pub images: Vec<String>,
    /// What looks like an image in it but is not needed.
    pub ignore_images: Vec<String>,
}

/// One value of one object that the host decides.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    /// Kind of the object.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its namespace, where that is needed to tell it.
    pub namespace: Option<String>,
    /// JSON pointer (RFC 6901) to the value; after `#` a second one into the JSON text that the value holds.
    pub path: String,
    /// Replaces exactly this text within the value, instead of the whole value.
    pub replace: Option<String>,
    /// Template text, rendered on the host.
    pub value: String,
    /// What the rendered text becomes.
    #[serde(rename = "type", default)]
    pub form: PatchType,
}

/// What a rendered patch becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PatchType {
    /// A string.
    #[default]
    String,
    /// A number.
    Number,
    /// Any JSON value.
    Json,
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
    #[serde(default, rename = "patch")]
    patches: Vec<Patch>,
    #[serde(default)]
    images: Vec<String>,
    #[serde(default)]
    ignore_images: Vec<String>,
}

fn unknown_licence() -> String {
    "NOASSERTION".into()
}

impl TryFrom<Text> for AddonText {
    type Error = String;

    fn try_from(text: Text) -> Result<Self, String> {
        let Text { version, licence, url, file, sha256, trust, mirrors, patches, images, ignore_images } = text;
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
        let artifact = Artifact::plain(source, mirrors, sha256, trust)?;
        Ok(Self { version, licence, artifact, patches, images, ignore_images })
    }
}
