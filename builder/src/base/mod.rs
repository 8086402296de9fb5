//! What a target is known to have before a bundle comes: `bases/NAME.toml` beside the manifest, one file a distribution.
//!
//! A closure leaves out what the base has, completeness counts it as present: the base is a promise about every target of
//! that distribution. Versions are lower bounds. `builder base` writes the file from a root directory ([`from_root`]).

mod from_root;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;

use crate::failure::Failure;
use crate::manifest::toml_text;

pub use from_root::{Source, survey};

/// How packages of a distribution are made and installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// dpkg.
    Deb,
    /// rpm.
    Rpm,
}

/// A stated base.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// Name of the distribution, as manifests write it: `debian-12`, `el9`.
    pub distribution: String,
    /// Kind of its packages.
    pub family: Family,
    /// Version of its C library: the highest `GLIBC_x` that programs may need.
    pub glibc: String,
    /// Shared libraries by the name under which the loader finds them.
    pub libraries: BTreeSet<String>,
    /// Programs by absolute path.
    pub programs: BTreeSet<String>,
    /// Modules of the distribution's own kernel, loadable or built in, with `_`; directories of plain hardware are left out.
    pub modules: BTreeSet<String>,
    /// Packages and the lowest version that a target has; an empty version is older than every real one.
    pub packages: BTreeMap<String, String>,
    /// For packages that stand for others: their `Provides`, as dpkg has it. What is not stated is taken from an index that
    /// lists the package.
    #[serde(default)]
    pub provides: BTreeMap<String, String>,
}

impl Base {
    /// Reads `bases/NAME.toml` below the manifest's directory.
    pub fn read(directory: &Path, name: &str) -> anyhow::Result<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            return Err(Failure::usage(format!("`{name}` is no name of a distribution")).into());
        }
        let path = directory.join("bases").join(format!("{name}.toml"));
        let text = fs_err::read_to_string(&path).with_context(|| {
            Failure::usage(format!("nothing states what a target with `{name}` has"))
                .hint(format!("make the file with `builder base --from-root DIR --distribution {name} --out FILE`"))
        })?;
        let base: Self = toml_text(&text, &path)?;
        if base.distribution != name {
            let text = format!("`{}` is the base of `{}`, expected `{name}`", path.display(), base.distribution);
            return Err(Failure::usage(text).into());
        }
        Ok(base)
    }

    /// Whether a target has the program with this absolute path; `/bin` and `/usr/bin` are one directory where the base
    /// lists nothing below `/bin` (merged-usr).
    pub fn has_program(&self, path: &str) -> bool {
        let merged = ["/bin/", "/sbin/"].iter().any(|directory| {
            path.starts_with(directory)
                && self.programs.contains(&format!("/usr{path}"))
                && !self.programs.iter().any(|program| program.starts_with(directory))
        });
        merged || self.programs.contains(path)
    }

    /// Whether the loader of a target finds this library; the loader itself, named otherwise on each architecture, is
    /// there when the C library is.
    pub fn has_library(&self, name: &str) -> bool {
        self.libraries.contains(name) || (name.starts_with("ld-linux") && self.libraries.contains("libc.so.6"))
    }

    /// Whether the distribution's own kernel has this module, loadable or built in.
    pub fn has_module(&self, name: &str) -> bool {
        self.modules.contains(&name.replace('-', "_"))
    }

    /// The file, sorted, a line at most 120 columns.
    #[expect(clippy::format_push_string, reason = "writing to a String would need a `Result` that cannot fail")]
    pub fn to_toml(&self) -> String {
        let family = match self.family {
            Family::Deb => "deb",
            Family::Rpm => "rpm",
        };
        let mut text = format!(
            "# What every target with this distribution has; written by `builder base`.\n\
             distribution = {}\nfamily = {}\nglibc = {}\n",
            quoted(&self.distribution),
            quoted(family),
            quoted(&self.glibc)
        );
        for (name, list) in [("libraries", &self.libraries), ("programs", &self.programs), ("modules", &self.modules)] {
            text += &format!("\n{name} = [\n{}]\n", wrapped(list));
        }
        for (table, values) in [("packages", &self.packages), ("provides", &self.provides)] {
            if !values.is_empty() {
                text += &format!("\n[{table}]\n");
            }
            for (name, value) in values {
                text += &format!("{} = {}\n", key(name), quoted(value));
            }
        }
        text
    }
}

/// A bare key where TOML allows one.
fn key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.chars().all(bare) { name.to_owned() } else { quoted(name) }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Elements of an array, as many a line as fit.
#[expect(clippy::format_push_string, reason = "writing to a String would need a `Result` that cannot fail")]
fn wrapped(list: &BTreeSet<String>) -> String {
    let mut text = String::new();
    let mut line = String::new();
    for item in list.iter().map(|item| format!("{},", quoted(item))) {
        if !line.is_empty() && line.len() + item.len() + 4 > 120 {
            text += &format!("   {line}\n");
            line.clear();
        }
        line += &format!(" {item}");
    }
    if !line.is_empty() {
        text += &format!("   {line}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn base() -> Base {
        Base {
            distribution: "debian-12".into(),
            family: Family::Deb,
            glibc: "2.36".into(),
            libraries: set(&["libc.so.6", "libstdc++.so.6"]),
            programs: (0..40).map(|number| format!("/usr/bin/program-{number}")).collect(),
            modules: set(&["overlay", "nf_conntrack"]),
            packages: [("libstdc++6", "12.2.0-14"), ("adduser", "3.134")]
                .map(|(name, version)| (name.to_owned(), version.to_owned()))
                .into(),
            provides: BTreeMap::from([("adduser".to_owned(), "useradd (= 1)".to_owned())]),
        }
    }

    #[test]
    fn a_base_reads_what_it_writes() {
        let directory = tempfile::tempdir().unwrap();
        fs_err::create_dir(directory.path().join("bases")).unwrap();
        let text = base().to_toml();
        assert!(text.lines().all(|line| line.len() <= 120), "{text}");
        let path = directory.path().join("bases/debian-12.toml");
        fs_err::write(&path, &text).unwrap();
        let read = Base::read(directory.path(), "debian-12").unwrap();
        assert_eq!(read, base());
        assert_eq!(read.to_toml(), text);

        fs_err::write(&path, text.replace("glibc", "glib")).unwrap();
        let error = format!("{:#}", Base::read(directory.path(), "debian-12").unwrap_err());
        assert!(error.contains("unknown field `glib`") && error.contains("line 4"), "{error}");
        fs_err::write(directory.path().join("bases/el9.toml"), &text).unwrap();
        let error = format!("{:#}", Base::read(directory.path(), "el9").unwrap_err());
        assert!(error.contains("is the base of `debian-12`, expected `el9`"), "{error}");
        for name in ["../x", "a/b", "", ".hidden"] {
            assert!(format!("{:#}", Base::read(directory.path(), name).unwrap_err()).contains("no name"), "{name}");
        }
        let error = format!("{:#}", Base::read(directory.path(), "debian-13").unwrap_err());
        assert!(error.contains("nothing states what a target with `debian-13` has"), "{error}");
    }

    #[test]
    fn a_base_knows_merged_directories_loaders_and_module_names() {
        let mut base = base();
        assert!(base.has_program("/usr/bin/program-3") && base.has_program("/bin/program-3"));
        assert!(!base.has_program("/sbin/program-3"));
        base.programs.insert("/bin/true".into());
        assert!(!base.has_program("/bin/program-3"), "not merged");
        assert!(base.has_library("ld-linux-aarch64.so.1") && !base.has_library("libm.so.6"));
        assert!(base.has_module("nf-conntrack") && !base.has_module("ip_vs"));
    }
}
