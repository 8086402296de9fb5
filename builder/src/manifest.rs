//! The manifest: what we want in a bundle, written by people (`manifests/*.toml`).
//!
//! Unknown keys are errors, and every error carries the line it is about. Placeholders `{version}`, `{arch}` and
//! `{machine}` are expanded per component and architecture; anything else in braces is an error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bundle::{Architecture, ComponentName, Digest, LayerPath, Version};
use serde::Deserialize;

use crate::failure::Failure;

/// A parsed manifest and where it lies.
#[derive(Debug)]
pub struct Manifest {
    /// Path it was read from.
    pub path: PathBuf,
    /// SHA-256 of its bytes; the lock records it.
    pub digest: Digest,
    /// What it says.
    pub release: ReleaseText,
}

/// The text of a manifest.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseText {
    /// Release line, for example `debian-12`.
    pub name: ComponentName,
    /// Version of the bundle.
    pub version: Version,
    /// Rollback counter, raised by people.
    pub sequence: u64,
    /// The only date in a bundle, `YYYY-MM-DD`.
    pub created: Date,
    /// Architectures a bundle can be built for.
    pub architectures: Vec<Architecture>,
    /// zstd level of the layers, 1 to 19.
    #[serde(default)]
    pub level: Level,
    /// Components by name.
    #[serde(rename = "component")]
    pub components: BTreeMap<ComponentName, ComponentText>,
}

/// One component of the release.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComponentText {
    /// Upstream version; for a component from apt a series (`6.1`) will do, the lock then says which version exactly.
    pub version: Version,
    /// Where its files come from, in order.
    #[serde(rename = "artifact")]
    pub artifacts: Vec<Artifact>,
}

/// One upstream file, or one Debian package.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "ArtifactText")]
pub struct Artifact {
    /// Where it comes from.
    pub source: Source,
    /// SHA-256 per architecture, for sources that do not bring their own proof.
    pub sha256: BTreeMap<Architecture, Digest>,
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

/// A calendar date, `YYYY-MM-DD`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Date(String);

impl Date {
    /// The text, `YYYY-MM-DD`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Date {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bytes = text.as_bytes();
        let number = |range: std::ops::Range<usize>| text.get(range).and_then(|digits| digits.parse::<u16>().ok());
        let shape = bytes.len() == 10
            && bytes
                .iter()
                .enumerate()
                .all(|(at, byte)| if at == 4 || at == 7 { *byte == b'-' } else { byte.is_ascii_digit() });
        let month = number(5..7).is_some_and(|month| (1..=12).contains(&month));
        let day = number(8..10).is_some_and(|day| (1..=31).contains(&day));
        if shape && month && day { Ok(Self(text)) } else { Err(format!("`{text}` is not a date: expected YYYY-MM-DD")) }
    }
}

/// A zstd level that every build of this release uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i32")]
pub struct Level(i32);

impl Level {
    /// The number.
    pub fn get(self) -> i32 {
        self.0
    }
}

impl Default for Level {
    fn default() -> Self {
        Self(12)
    }
}

impl TryFrom<i32> for Level {
    type Error = String;

    fn try_from(level: i32) -> Result<Self, String> {
        if (1..=19).contains(&level) { Ok(Self(level)) } else { Err(format!("level {level} is not within 1 to 19")) }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ArtifactText {
    apt: Option<String>,
    version: Option<String>,
    suite: Option<String>,
    follow: Option<String>,
    url: Option<String>,
    file: Option<String>,
    #[serde(default)]
    sha256: BTreeMap<Architecture, String>,
    #[serde(default)]
    trust: Trust,
    #[serde(default)]
    architectures: Vec<Architecture>,
    #[serde(default)]
    files: Vec<FileMap>,
}

impl TryFrom<ArtifactText> for Artifact {
    type Error = String;

    fn try_from(text: ArtifactText) -> Result<Self, String> {
        let ArtifactText { apt, version, suite, follow, url, file, sha256, trust, architectures, files } = text;
        let only_apt = version.is_some() || suite.is_some() || follow.is_some();
        let source = match (apt, url, file) {
            (Some(name), None, None) => {
                if !sha256.is_empty() || trust == Trust::FirstUse {
                    return Err("`apt` brings its own proof: `sha256` and `trust` do not belong here".into());
                }
                Source::Apt { name, version, suite, follow }
            }
            (None, Some(_), None) | (None, None, Some(_)) if only_apt => {
                return Err("`version`, `suite` and `follow` belong to `apt` only".into());
            }
            (None, Some(url), None) => {
                if !["https://", "http://", "file:///"].iter().any(|scheme| url.starts_with(scheme)) {
                    return Err(format!("`{url}` is not an https:, http: or file: URL"));
                }
                Source::Url(url)
            }
            (None, None, Some(file)) => {
                file.parse::<LayerPath>()
                    .map_err(|_| format!("`{file}` is not a relative path beside the manifest"))?;
                Source::File(file)
            }
            _ => return Err("an artifact has exactly one of `apt`, `url`, `file`".into()),
        };
        if trust == Trust::FirstUse && !sha256.is_empty() {
            return Err("`trust = \"first-use\"` and `sha256` contradict each other: keep the digest".into());
        }
        let sha256 = sha256
            .into_iter()
            .map(|(architecture, hex)| Ok((architecture, Digest::from_hex(&hex).map_err(|_| not_hex(&hex))?)))
            .collect::<Result<_, String>>()?;
        Ok(Self { source, sha256, trust, architectures, files })
    }
}

fn not_hex(found: &str) -> String {
    format!("`{}` is not a SHA-256: expected 64 lower-case hex digits", found.chars().take(80).collect::<String>())
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
        if text.from.is_empty()
            || text.from.starts_with('/')
            || text.from.split('/').any(|part| part == ".." || part == ".")
        {
            return Err(format!("`from = \"{}\"` is not a relative pattern without `.` and `..`", text.from));
        }
        Ok(Self { from: text.from, to, mode })
    }
}

impl Manifest {
    /// Reads and checks a manifest.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = fs_err::read(path)?;
        let text =
            std::str::from_utf8(&bytes).map_err(|_| Failure::usage(format!("`{}` is not UTF-8", path.display())))?;
        let release = parse(text, path)?;
        Ok(Self { path: path.to_owned(), digest: Digest::of(&bytes), release })
    }

    /// The directory relative files and `components/` are looked for in.
    pub fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        }
    }

    /// Where its lock lies: the same path with the extension `lock`.
    pub fn lock_path(&self) -> PathBuf {
        self.path.with_extension("lock")
    }
}

fn parse(text: &str, path: &Path) -> anyhow::Result<ReleaseText> {
    let release: ReleaseText = toml_text(text, path)?;
    let check = |good: bool, message: &str| {
        if good { Ok(()) } else { Err(Failure::usage(format!("`{}`: {message}", path.display()))) }
    };
    check(!release.architectures.is_empty(), "`architectures` is empty")?;
    check(!release.components.is_empty(), "there is no component")?;
    check(release.sequence > 0, "`sequence` starts at 1")?;
    for (name, component) in &release.components {
        check(!component.artifacts.is_empty(), &format!("component `{name}` has no artifact"))?;
        for artifact in &component.artifacts {
            for architecture in &release.architectures {
                let places = Placeholders { version: &component.version, architecture: *architecture };
                artifact.expand(&places).with_context(|| format!("in component `{name}` of `{}`", path.display()))?;
            }
        }
    }
    Ok(release)
}

/// Parses TOML; an error names the file and shows the line.
pub fn toml_text<T: serde::de::DeserializeOwned>(text: &str, path: &Path) -> anyhow::Result<T> {
    toml::from_str(text).map_err(|error| Failure::usage(format!("cannot read `{}`: {error}", path.display())).into())
}

/// Values of the placeholders.
#[derive(Clone, Copy, Debug)]
pub struct Placeholders<'a> {
    /// `{version}`.
    pub version: &'a Version,
    /// `{arch}` and `{machine}`.
    pub architecture: Architecture,
}

impl Placeholders<'_> {
    /// Replaces the placeholders in `text`.
    pub fn expand(&self, text: &str) -> anyhow::Result<String> {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let unknown = || {
                Failure::usage(format!(
                    "`{text}` has an unknown placeholder: known are {{version}}, {{arch}}, {{machine}}"
                ))
            };
            let (name, after) = after.split_once('}').ok_or_else(unknown)?;
            expanded += before;
            expanded += match name {
                "version" => self.version.as_str(),
                "arch" => self.architecture.as_str(),
                "machine" => self.architecture.machine(),
                _ => return Err(unknown().into()),
            };
            rest = after;
        }
        Ok(expanded + rest)
    }
}

impl Artifact {
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
            Source::Url(url) => Source::Url(places.expand(url)?),
            Source::File(file) => Source::File(places.expand(file)?),
        };
        let files = self.files.iter().map(|map| Ok(FileMap { from: places.expand(&map.from)?, ..map.clone() }));
        Ok(Self { source, files: files.collect::<anyhow::Result<_>>()?, ..self.clone() })
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
            Self::Url(url) => url.clone(),
            Self::File(file) => format!("file:{file}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
name = "demo"
version = "1-1"
sequence = 1
created = "2026-11-21"
architectures = ["amd64", "arm64"]

[component.etcd]
version = "3.4.23"
[[component.etcd.artifact]]
apt = "etcd-server"
files = [{ from = "usr/bin/etcd", to = "bin/etcd", mode = "0755" }]
[[component.etcd.artifact]]
url = "https://example.com/v{version}/etcd-{arch}.tar.gz"
trust = "first-use"
files = [{ from = "**/*.so", to = "lib/", many = true }]
"#;

    fn message(text: &str) -> String {
        format!("{:#}", parse(text, Path::new("x.toml")).unwrap_err())
    }

    #[test]
    fn a_manifest_reads_and_expands() {
        let release = parse(GOOD, Path::new("x.toml")).unwrap();
        assert_eq!(release.level.get(), 12);
        let component = release.components.values().next().unwrap();
        let places = Placeholders { version: &component.version, architecture: Architecture::Arm64 };
        let artifact = component.artifacts[1].expand(&places).unwrap();
        assert_eq!(artifact.source, Source::Url("https://example.com/v3.4.23/etcd-arm64.tar.gz".into()));
        assert_eq!(artifact.files[0].to, Target::Directory(Some("lib".parse().unwrap())));
    }

    #[test]
    fn errors_name_the_line_and_the_remedy() {
        for (wrong, right, says) in [
            ("sequence = 1", "sequence = 1\nsequenze = 2", "unknown field `sequenze`"),
            ("created = \"2026-11-21\"", "created = \"yesterday\"", "expected YYYY-MM-DD"),
            ("apt = \"etcd-server\"", "apt = \"x\"\nurl = \"https://x/\"", "exactly one of"),
            ("apt = \"etcd-server\"", "url = \"ftp://x/\"", "not an https:"),
            ("apt = \"etcd-server\"", "file = \"../x\"", "relative path"),
            ("apt = \"etcd-server\"", "url = \"https://x/\"\nsha256 = { amd64 = \"00\" }", "64 lower-case hex"),
            ("mode = \"0755\"", "mode = \"4755\"", "mode `4755`"),
            ("to = \"bin/etcd\"", "to = \"../etcd\"", "layer path"),
            ("to = \"lib/\", many = true", "to = \"lib/\"", "many = true"),
            ("sequence = 1", "sequence = 1\nlevel = 22", "within 1 to 19"),
            ("etcd-{arch}", "etcd-{os}", "unknown placeholder"),
        ] {
            let text = GOOD.replacen(wrong, right, 1);
            assert_ne!(text, GOOD);
            let message = message(&text);
            assert!(message.contains(says), "{message}");
        }
        let message = message(&GOOD.replacen("mode = \"0755\"", "mode = \"4755\"", 1));
        assert!(message.contains("line 12"), "{message}");
    }
}
