//! Artifacts of a manifest: where a component's files come from, and which of them it takes.

use std::collections::BTreeMap;

use bundle::{Architecture, Digest, LayerPath};
use serde::Deserialize;

use super::Placeholders;

/// One upstream file, OS package or container image.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "ArtifactText")]
pub struct Artifact {
    /// Where it comes from.
    pub source: Source,
    /// Further URLs of the same bytes, tried in order after the first.
    pub mirrors: Vec<String>,
    /// SHA-256 per architecture, for sources that do not bring their own proof.
    pub sha256: BTreeMap<Architecture, Digest>,
    /// SHA-512 per architecture, 128 lower-case hex digits, where upstream publishes that.
    pub sha512: BTreeMap<Architecture, String>,
    /// URL of upstream's file of checksums.
    pub checksums: Option<String>,
    /// What may vouch for it when no digest is given.
    pub trust: Trust,
    /// Architectures that have it; empty means all.
    pub architectures: Vec<Architecture>,
    /// Files to pick; empty keeps the artifact whole (packages only).
    pub files: Vec<FileMap>,
}

/// Where an artifact comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A Debian package from the build machine's apt sources.
    Apt {
        /// Package name.
        name: String,
        /// Exact package version; without it the highest on offer.
        version: Option<String>,
        /// Only from this suite or codename.
        suite: Option<String>,
        /// Take the one dependency of `name` that matches this pattern instead of `name` itself (metapackages).
        follow: Option<String>,
    },
    /// An RPM package from the repositories of `--rpm-repos`.
    Rpm {
        /// Package name.
        name: String,
        /// Exact `[EPOCH:]VERSION-RELEASE`; without it the highest on offer.
        version: Option<String>,
        /// Only from these repositories, by id.
        repositories: Vec<String>,
    },
    /// A container image in a registry, copied verbatim.
    Image {
        /// Reference as people write it, without a digest.
        reference: String,
        /// Digest of the manifest or index that the reference must name.
        digest: Option<Digest>,
    },
    /// `https:`, `http:` or `file:`.
    Url(String),
    /// A file beside the manifest, by relative path.
    File(String),
}

/// What may vouch for an artifact without a digest in the manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// Nothing: a digest is needed.
    #[default]
    Digest,
    /// The download at lock time; lock and `inspect` say so.
    FirstUse,
}

/// Which file of an artifact becomes which file of the component.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "FileMapText")]
pub struct FileMap {
    /// Pattern over the paths in the archive (exactly one match unless `many`); a plain file has its own name.
    pub from: String,
    /// Path in the component; a directory (ending in `/`) with `many`.
    pub to: Target,
    /// Permission bits.
    pub mode: u32,
}

/// Where a picked file goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One file at this path.
    File(LayerPath),
    /// All matches below this directory, by file name; `None` is the top of the component.
    Directory(Option<LayerPath>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ArtifactText {
    apt: Option<String>,
    rpm: Option<String>,
    image: Option<String>,
    url: Option<String>,
    file: Option<String>,
    version: Option<String>,
    suite: Option<String>,
    follow: Option<String>,
    #[serde(default)]
    repositories: Vec<String>,
    digest: Option<Digest>,
    #[serde(default)]
    mirrors: Vec<String>,
    #[serde(default)]
    sha256: BTreeMap<Architecture, String>,
    #[serde(default)]
    sha512: BTreeMap<Architecture, String>,
    checksums: Option<String>,
    #[serde(default)]
    trust: Trust,
    #[serde(default)]
    architectures: Vec<Architecture>,
    #[serde(default)]
    files: Vec<FileMap>,
}

impl ArtifactText {
    /// Takes the one key that says where the artifact comes from; keys that belong to another source are errors.
    fn source(&mut self) -> Result<Source, String> {
        let named = [&self.apt, &self.rpm, &self.image, &self.url, &self.file];
        if named.into_iter().flatten().count() != 1 {
            return Err("an artifact has exactly one of `apt`, `rpm`, `image`, `url`, `file`".into());
        }
        let proves_itself = self.apt.is_some() || self.rpm.is_some() || self.image.is_some();
        let told = !self.sha256.is_empty() || !self.sha512.is_empty() || self.checksums.is_some();
        // An rpm repository may have no key.
        let trusts = self.trust == Trust::FirstUse && self.rpm.is_none();
        if proves_itself && (told || trusts || !self.mirrors.is_empty()) {
            return Err("`apt`, `rpm` and `image` bring their own proof: `sha256`, `sha512`, `checksums`, `mirrors` and `trust` do not belong here".into());
        }
        let source = if let Some(name) = self.apt.take() {
            Source::Apt { name, version: self.version.take(), suite: self.suite.take(), follow: self.follow.take() }
        } else if let Some(name) = self.rpm.take() {
            Source::Rpm { name, version: self.version.take(), repositories: std::mem::take(&mut self.repositories) }
        } else if let Some(reference) = self.image.take() {
            Source::Image { reference, digest: self.digest.take() }
        } else if let Some(url) = self.url.take() {
            Source::Url(url)
        } else {
            Source::File(self.file.take().unwrap_or_default())
        };
        let foreign = [
            (self.version.is_some(), "`version` belongs to `apt` and `rpm` only"),
            (self.suite.is_some() || self.follow.is_some(), "`suite` and `follow` belong to `apt` only"),
            (!self.repositories.is_empty(), "`repositories` belongs to `rpm` only"),
            (self.digest.is_some(), "`digest` belongs to `image` only"),
        ];
        foreign.into_iter().find(|(found, _)| *found).map_or(Ok(source), |(_, message)| Err(message.into()))
    }
}

impl TryFrom<ArtifactText> for Artifact {
    type Error = String;

    fn try_from(text: ArtifactText) -> Result<Self, String> {
        let mut text = text;
        let source = text.source()?;
        let ArtifactText { mirrors, sha256, sha512, checksums, trust, architectures, files, .. } = text;
        let sha256: BTreeMap<Architecture, Digest> = sha256
            .into_iter()
            .map(|(architecture, hex)| Ok((architecture, digest(&hex)?)))
            .collect::<Result<_, String>>()?;
        if let Some(url) = &checksums {
            is_url(url)?;
            // Nothing vouches for a list that anybody on the way can write; a digest of the manifest does.
            if url.starts_with("http://") && (sha256.is_empty() && sha512.is_empty()) {
                return Err(format!(
                    "`checksums = \"{url}\"` vouches for nothing over http: say https:, or add `sha256`"
                ));
            }
        }
        if trust == Trust::FirstUse && checksums.is_some() {
            return Err("`trust = \"first-use\"` and `checksums` contradict each other: keep the proof".into());
        }
        if let Some(wrong) = sha512.values().find(|hex| !is_hex(hex, 128)) {
            return Err(format!("`{}` is not a SHA-512: expected 128 lower-case hex digits", short(wrong)));
        }
        let plain = Self::plain(source, mirrors, sha256, trust)?;
        Ok(Self { sha512, checksums, architectures, files, ..plain })
    }
}

/// A URL that may be shown to everybody: it goes into lock, messages and bundle.
fn is_url(text: &str) -> Result<(), String> {
    let Some(rest) = ["https://", "http://", "file://"].iter().find_map(|scheme| text.strip_prefix(scheme)) else {
        return Err(format!("`{text}` is not an https:, http: or file: URL"));
    };
    let server = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if server.contains('@') {
        return Err("a URL has a user or password in it, which would end up in the lock and in the bundle".into());
    }
    if text.starts_with("file://") != server.is_empty() {
        return Err(format!("`{text}` is not an https:, http: or file: URL"));
    }
    Ok(())
}

/// A SHA-256 as people copy it: 64 lower-case hex digits.
pub(super) fn digest(hex: &str) -> Result<Digest, String> {
    Digest::from_hex(hex).map_err(|_| format!("`{}` is not a SHA-256: expected 64 lower-case hex digits", short(hex)))
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn short(text: &str) -> String {
    text.chars().take(140).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileMapText {
    from: String,
    to: String,
    #[serde(default = "default_mode")]
    mode: String,
    #[serde(default)]
    many: bool,
}

/// Whether a text can be a pattern over the paths of an archive; `key` is what the manifest calls it.
pub(super) fn is_pattern(key: &str, pattern: &str) -> Result<(), String> {
    if pattern.is_empty() || pattern.starts_with('/') || pattern.split('/').any(|part| part == ".." || part == ".") {
        return Err(format!("`{key} = \"{pattern}\"` is not a relative pattern without `.` and `..`"));
    }
    Ok(())
}

fn default_mode() -> String {
    "0644".into()
}

impl TryFrom<FileMapText> for FileMap {
    type Error = String;

    fn try_from(text: FileMapText) -> Result<Self, String> {
        let mode = match text.mode.as_str() {
            "0755" => 0o755,
            "0644" => 0o644,
            "0555" => 0o555,
            "0444" => 0o444,
            "0700" => 0o700,
            "0600" => 0o600,
            other => return Err(format!("mode `{other}` is not one of 0755, 0644, 0555, 0444, 0700, 0600")),
        };
        let path = |text: &str| text.parse::<LayerPath>().map_err(|error| error.to_string());
        let to = match (text.to.strip_suffix('/'), text.many) {
            (Some("."), true) => Target::Directory(None),
            (Some(directory), true) => Target::Directory(Some(path(directory)?)),
            (None, false) => Target::File(path(&text.to)?),
            (Some(_), false) => {
                return Err(format!("`to = \"{}\"` is a directory: say `many = true` to take every match", text.to));
            }
            (None, true) => return Err(format!("`many = true` needs a directory: `to = \"{}/\"`", text.to)),
        };
        is_pattern("from", &text.from)?;
        Ok(Self { from: text.from, to, mode })
    }
}

impl Artifact {
    /// An artifact for all architectures, from which nothing is picked.
    pub(super) fn plain(
        source: Source,
        mirrors: Vec<String>,
        sha256: BTreeMap<Architecture, Digest>,
        trust: Trust,
    ) -> Result<Self, String> {
        if let Source::File(file) = &source {
            file.parse::<LayerPath>().map_err(|_| format!("`{file}` is not a relative path beside the manifest"))?;
        }
        let own = if let Source::Url(url) = &source { Some(url) } else { None };
        own.into_iter().chain(&mirrors).try_for_each(|url| is_url(url))?;
        if trust == Trust::FirstUse && !sha256.is_empty() {
            return Err("`trust = \"first-use\"` and `sha256` contradict each other: keep the digest".into());
        }
        let (sha512, checksums) = (BTreeMap::new(), None);
        Ok(Self { source, mirrors, sha256, sha512, checksums, trust, architectures: Vec::new(), files: Vec::new() })
    }

    /// The artifact for one architecture, placeholders replaced.
    pub fn expand(&self, places: &Placeholders<'_>) -> anyhow::Result<Artifact> {
        let option = |text: &Option<String>| text.as_deref().map(|text| places.expand(text)).transpose();
        let source = match &self.source {
            Source::Apt { name, version, suite, follow } => Source::Apt {
                name: places.expand(name)?,
                version: option(version)?,
                suite: option(suite)?,
                follow: option(follow)?,
            },
            Source::Rpm { name, version, repositories } => Source::Rpm {
                name: places.expand(name)?,
                version: option(version)?,
                repositories: repositories.clone(),
            },
            Source::Image { reference, digest } => {
                Source::Image { reference: places.expand(reference)?, digest: *digest }
            }
            Source::Url(url) => Source::Url(places.expand(url)?),
            Source::File(file) => Source::File(places.expand(file)?),
        };
        let files = self.files.iter().map(|map| Ok(FileMap { from: places.expand(&map.from)?, ..map.clone() }));
        let mirrors = self.mirrors.iter().map(|url| places.expand(url)).collect::<anyhow::Result<_>>()?;
        let (files, checksums) = (files.collect::<anyhow::Result<_>>()?, option(&self.checksums)?);
        Ok(Self { source, mirrors, checksums, files, ..self.clone() })
    }

    /// Whether this architecture has it.
    pub fn is_for(&self, architecture: Architecture) -> bool {
        self.architectures.is_empty() || self.architectures.contains(&architecture)
    }
}

impl Source {
    /// How lock and bundle name it when nothing more is known: never a mirror, never an absolute path.
    pub fn label(&self) -> String {
        match self {
            Self::Apt { name, version: Some(version), .. } => format!("apt:{name}={version}"),
            Self::Apt { name, .. } => format!("apt:{name}"),
            Self::Rpm { name, version: Some(version), .. } => format!("rpm:{name}={version}"),
            Self::Rpm { name, .. } => format!("rpm:{name}"),
            Self::Image { reference, .. } => format!("image:{reference}"),
            Self::Url(url) => url.clone(),
            Self::File(file) => format!("file:{file}"),
        }
    }
}
