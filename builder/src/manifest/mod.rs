//! The manifest: what we want in a bundle, written by people (`manifests/*.toml`).
//!
//! Unknown keys are errors, and every error carries the line it is about. Placeholders `{version}`, `{arch}` and
//! `{machine}` are expanded per component and architecture; anything else in braces is an error.

mod addon;
mod artifact;
mod platform;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bundle::{Architecture, ComponentName, Digest, Version};
use serde::Deserialize;

pub use addon::AddonText;
pub use artifact::{Artifact, FileMap, Source, Target, Trust};
pub use platform::{Distribution, Family, HostPackages, KernelText, PackageSource, PackagesText};

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
    /// Distributions the bundle is promised to work on; each has `bases/NAME.toml` beside the manifest.
    #[serde(default)]
    pub distributions: BTreeSet<Distribution>,
    /// Components by name.
    #[serde(rename = "component", default)]
    pub components: BTreeMap<ComponentName, ComponentText>,
    /// OS packages by distribution; becomes the component `packages-DISTRIBUTION`.
    #[serde(default)]
    pub packages: BTreeMap<Distribution, PackagesText>,
    /// Kernels by distribution; becomes the component `kernel-DISTRIBUTION`.
    #[serde(rename = "kernel", default)]
    pub kernels: BTreeMap<Distribution, KernelText>,
    /// Addons by name; becomes the component `addon-NAME` and one `image-…` for each image it needs.
    #[serde(rename = "addon", default)]
    pub addons: BTreeMap<ComponentName, AddonText>,
}

/// One component of the release.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComponentText {
    /// Upstream version; for a component from apt a series (`6.1`) will do, the lock then says which version exactly.
    pub version: Version,
    /// Where its files come from, in order; none if it is all templates.
    #[serde(rename = "artifact", default)]
    pub artifacts: Vec<Artifact>,
    /// Programs that come as OS packages, by distribution; the packages are added to that distribution's.
    #[serde(default)]
    pub packages: BTreeMap<Distribution, HostPackages>,
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

    /// `$releasever` for a repository that packages or kernels are taken from.
    pub fn releasever(&self, repository: &str) -> Option<&str> {
        let packages = self.release.packages.iter().map(|(distribution, text)| (distribution, &text.source));
        let kernels = self.release.kernels.iter().map(|(distribution, text)| (distribution, &text.source));
        packages.chain(kernels).find_map(|(distribution, source)| source.releasever(repository, distribution))
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
    for distribution in release.packages.keys().chain(release.kernels.keys()) {
        let promised = release.distributions.contains(distribution);
        check(promised, &format!("there are packages for `{distribution}`, which `distributions` does not promise"))?;
    }
    for (name, addon) in &release.addons {
        for architecture in &release.architectures {
            let places = Placeholders { version: &addon.version, architecture: *architecture };
            addon.artifact.expand(&places).with_context(|| format!("in addon `{name}` of `{}`", path.display()))?;
        }
    }
    for name in release.components.keys() {
        let made = ["packages-", "kernel-", "addon-", "image-"].iter().any(|prefix| name.as_str().starts_with(prefix));
        check(
            !made,
            &format!(
                "component `{name}`: names that begin with packages-, kernel-, addon- or image- are made by the builder"
            ),
        )?;
    }
    for (name, component) in &release.components {
        let something = !component.artifacts.is_empty() || !component.packages.is_empty();
        check(something, &format!("component `{name}` has neither an artifact nor packages"))?;
        for distribution in component.packages.keys() {
            let known = release.packages.contains_key(distribution);
            check(
                known,
                &format!(
                    "component `{name}` names packages of `{distribution}`, but there is no `[packages.{distribution}]`"
                ),
            )?;
        }
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

    const TABLES: &str = r#"
distributions = ["debian-12", "el9"]

[packages.debian-12]
suites = ["bookworm", "bookworm-security"]
[packages.el9]
repositories = ["baseos"]
releasever = "9"
install = ["socat"]
[kernel.debian-12]
install = ["linux-image-amd64"]
suites = ["bookworm"]
[addon.coredns]
version = "1.14.4"
url = "https://example.com/coredns-{version}.yaml"
sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
patch = [{ kind = "Service", name = "kube-dns", path = "/spec/clusterIP", value = "{{ cluster.dns }}" }]

[component.pause]
version = "3.10"
[[component.pause.artifact]]
image = "registry.k8s.io/pause:{version}"
[component.nginx]
version = "1.30"
[component.nginx.packages.debian-12]
install = ["nginx"]
programs = { "bin/nginx" = "/usr/sbin/nginx" }

[component.etcd]"#;

    #[test]
    fn packages_kernels_addons_and_images_read() {
        let text = GOOD.replacen("\n\n[component.etcd]", TABLES, 1);
        let release = parse(&text, Path::new("x.toml")).unwrap();
        let debian: Distribution = "debian-12".to_owned().try_into().unwrap();
        assert_eq!(release.packages[&debian].install.len(), 11);
        assert_eq!(release.kernels[&debian].roots(), ["linux-image-amd64"]);
        for (wrong, right, says) in [
            ("suites = [\"bookworm\"]", "", "say where to look"),
            ("repositories = [\"baseos\"]", "suites = [\"x\"]", "not both"),
            ("distributions = [\"debian-12\", \"el9\"]", "distributions = [\"el9\"]", "does not promise"),
            (
                "[component.pause]\nversion = \"3.10\"\n[[component.pause",
                "[component.image-pause]\nversion = \"3.10\"\n[[component.image-pause",
                "made by the builder",
            ),
            ("image = \"registry", "trust = \"first-use\"\nimage = \"registry", "bring their own proof"),
            ("image = \"registry", "suite = \"x\"\nimage = \"registry", "belong to `apt` only"),
            ("[packages.debian-12]", "[packages.\"Debian 12\"]", "not a distribution"),
            ("install = [\"linux-image-amd64\"]", "", "say which kernel"),
            ("releasever = \"9\"", "recommends = true", "`recommends` is for apt"),
            (
                "install = [\"linux-image-amd64\"]",
                "install = [\"linux-image-amd64\"]\nrecommends = true",
                "`recommends` belongs to",
            ),
            ("sha256 = \"e3", "sha256 = \"E3", "64 lower-case hex"),
        ] {
            let wrong = text.replacen(wrong, right, 1);
            assert_ne!(wrong, text);
            let message = message(&wrong);
            assert!(message.contains(says), "{message}");
        }
    }

    #[test]
    fn errors_name_the_line_and_the_remedy() {
        for (wrong, right, says) in [
            ("sequence = 1", "sequence = 1\nsequenze = 2", "unknown field `sequenze`"),
            ("created = \"2026-11-21\"", "created = \"yesterday\"", "expected YYYY-MM-DD"),
            ("apt = \"etcd-server\"", "apt = \"x\"\nurl = \"https://x/\"", "exactly one of"),
            ("apt = \"etcd-server\"", "url = \"ftp://x/\"", "not an https:"),
            ("apt = \"etcd-server\"", "url = \"https:///x\"", "not an https:"),
            ("apt = \"etcd-server\"", "url = \"https://me:secret@x/y\"", "a user or password"),
            (
                "apt = \"etcd-server\"",
                "url = \"https://x/\"\nchecksums = \"http://x/SUMS\"",
                "vouches for nothing over http",
            ),
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
