//! What differs between two bundles, or between a bundle and its rebuild: release, components, and down to files and packages.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bundle::component::{Entry, File};
use bundle::{Component, Digest, Image, Release};
use serde::Serialize;
use serde_json::Value;

use crate::output::{bytes, total};

/// One of both.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// What it is.
    pub release: &'a Release,
    /// What is in it.
    pub images: &'a [Image],
}

/// What differs; empty lists if nothing does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Fields of the release.
    pub release: Vec<Change>,
    /// Components that only the new one has, `NAME VERSION`.
    pub added: Vec<String>,
    /// Components that only the old one has, `NAME VERSION`.
    pub removed: Vec<String>,
    /// Components that both have, and that differ.
    pub changed: Vec<ComponentChange>,
    /// What of the new one the old one has not got.
    pub bytes: Bytes,
}

/// A value that differs; an absent one is empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Which.
    pub what: String,
    /// Before.
    pub old: String,
    /// Now.
    pub new: String,
}

/// A component that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ComponentChange {
    /// Its name.
    pub name: String,
    /// Version before.
    pub old: String,
    /// Version now.
    pub new: String,
    /// Fields that differ.
    pub fields: Vec<Change>,
    /// Files that differ: digest, mode or target; empty where there is none.
    pub files: Vec<Change>,
    /// OS packages that differ: versions; empty where there is none.
    pub packages: Vec<Change>,
}

/// What a transfer to somebody who has the old one would carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bytes {
    /// All blobs of the new one.
    pub total: u64,
    /// Those that the old one has not got.
    pub added: u64,
}

/// Compares.
pub fn compare(old: Side<'_>, new: Side<'_>) -> Difference {
    let named = |side: Side<'_>| -> BTreeMap<String, Image> {
        side.images.iter().map(|image| (image.component.name.to_string(), image.clone())).collect()
    };
    let (before, after) = (named(old), named(new));
    let only = |these: &BTreeMap<String, Image>, those: &BTreeMap<String, Image>| {
        these.iter().filter(|(name, _)| !those.contains_key(*name)).map(|(_, image)| image.title()).collect()
    };
    let both = after.iter().filter_map(|(name, image)| Some((before.get(name)?, image)));
    Difference {
        release: release(old.release, new.release),
        added: only(&after, &before),
        removed: only(&before, &after),
        changed: both.filter_map(|(old, new)| component(old, new)).collect(),
        bytes: transfer(old, new),
    }
}

fn transfer(old: Side<'_>, new: Side<'_>) -> Bytes {
    let blobs = |side: Side<'_>| -> BTreeMap<Digest, u64> {
        side.images.iter().flat_map(|image| &image.blobs).map(|blob| (blob.digest, blob.size)).collect()
    };
    let (before, after) = (blobs(old), blobs(new));
    let added = total(after.iter().filter(|(digest, _)| !before.contains_key(*digest)).map(|(_, size)| *size));
    Bytes { total: total(after.values().copied()), added }
}

fn change(what: &str, old: &impl ToString, new: &impl ToString) -> Option<Change> {
    let (old, new) = (old.to_string(), new.to_string());
    (old != new).then(|| Change { what: what.to_owned(), old, new })
}

fn release(old: &Release, new: &Release) -> Vec<Change> {
    let changes = [
        change("name", &old.name, &new.name),
        change("version", &old.version, &new.version),
        change("architecture", &old.architecture, &new.architecture),
        change("sequence", &old.sequence, &new.sequence),
        change("created", &old.created, &new.created),
        change("lock", &old.lock, &new.lock),
        change("installer", &old.installer, &new.installer),
    ];
    changes.into_iter().flatten().collect()
}

fn component(old: &Image, new: &Image) -> Option<ComponentChange> {
    let files = maps(&files(&old.files), &files(&new.files));
    let packages = maps(&packages(&old.component), &packages(&new.component));
    let mut fields = fields(&old.component, &new.component);
    let reference = |image: &Image| image.reference.clone().unwrap_or_default();
    fields.extend(change("reference", &reference(old), &reference(new)));
    let layers =
        |image: &Image| image.layers.iter().map(|layer| layer.digest.to_string()).collect::<Vec<_>>().join(" ");
    if files.is_empty() && packages.is_empty() {
        // Another compression of the same files, or for containers other content.
        fields.extend(change("layers", &layers(old), &layers(new)));
    }
    let anything = !(fields.is_empty() && files.is_empty() && packages.is_empty());
    if !anything && old.component.version == new.component.version {
        // What is left: the image's own documents.
        fields.extend(change("manifest", &old.manifest, &new.manifest));
        if fields.is_empty() {
            return None;
        }
    }
    Some(ComponentChange {
        name: new.component.name.to_string(),
        old: old.component.version.to_string(),
        new: new.component.version.to_string(),
        fields,
        files,
        packages,
    })
}

/// Fields of the descriptions, but for those that are compared by themselves.
fn fields(old: &Component, new: &Component) -> Vec<Change> {
    let value = |component: &Component| serde_json::to_value(component).unwrap_or_default();
    let (old, new) = (value(old), value(new));
    let keys =
        |value: &Value| value.as_object().into_iter().flat_map(|map| map.keys().cloned()).collect::<BTreeSet<_>>();
    let mut changes = Vec::new();
    for key in keys(&old).union(&keys(&new)) {
        match key.as_str() {
            "name" | "version" | "packages" => {}
            "upstream" => changes.extend(lists("artifact", &old[key], &new[key], "url")),
            "templates" => changes.extend(lists("template", &old[key], &new[key], "name")),
            _ => changes.extend(change(key, &text(&old[key]), &text(&new[key]))),
        }
    }
    changes
}

/// Members of two lists of objects that differ, by the member that names them.
fn lists(what: &str, old: &Value, new: &Value, name: &str) -> Vec<Change> {
    let named = |value: &Value| -> BTreeMap<String, String> {
        let member = |value: &Value| {
            let mut rest = value.clone();
            let named = text(&value[name]);
            // Long texts are told apart by their digests.
            if let Some(text) = value["text"].as_str() {
                rest["text"] = Digest::of(text.as_bytes()).to_string().into();
            }
            if let Some(map) = rest.as_object_mut() {
                map.remove(name);
            }
            (format!("{what} {named}"), pairs(&rest))
        };
        value.as_array().into_iter().flatten().map(member).collect()
    };
    maps(&named(old), &named(new))
}

fn pairs(value: &Value) -> String {
    let pair = |(key, value): (&String, &Value)| format!("{key} {}", text(value));
    value.as_object().into_iter().flatten().map(pair).collect::<Vec<_>>().join(", ")
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().map(text).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}

fn files(files: &[File]) -> BTreeMap<String, String> {
    let what = |file: &File| match &file.entry {
        Entry::Directory => "directory".to_owned(),
        Entry::Regular { mode, size, sha256 } => format!("{mode:04o} {size} {sha256}"),
        Entry::Symlink { target } => format!("-> {target}"),
    };
    files.iter().map(|file| (file.path.to_string(), what(file))).collect()
}

fn packages(component: &Component) -> BTreeMap<String, String> {
    let named = |package: &bundle::component::Package| (package.name.clone(), package.version.clone());
    let mut versions: BTreeMap<String, String> = component.packages.iter().map(named).collect();
    // Several versions of one name, as kernels have: each by itself.
    if versions.len() != component.packages.len() {
        versions = component.packages.iter().map(|package| (package.file.clone(), package.version.clone())).collect();
    }
    versions
}

fn maps(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<Change> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let of = |map: &BTreeMap<String, String>, name: &str| map.get(name).cloned().unwrap_or_default();
    names.into_iter().filter_map(|name| change(name, &of(old, name), &of(new, name))).collect()
}

impl Difference {
    /// Whether both hold the same.
    pub fn is_empty(&self) -> bool {
        self.release.is_empty() && self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

impl Bytes {
    /// Tenths of a percent that are added, rounded up: what is not nothing does not look like it.
    pub fn permille(&self) -> u64 {
        u64::try_from((u128::from(self.added) * 1000).div_ceil(u128::from(self.total.max(1)))).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let permille = self.permille();
        let (added, total) = (bytes(self.added), bytes(self.total));
        write!(f, "{added} of {total} are new ({}.{} %)", permille / 10, permille % 10)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, old, new } = self;
        match (old.as_str(), new.as_str()) {
            ("", new) => write!(f, "+ {what} {new}"),
            (_, "") => write!(f, "- {what}"),
            (old, new) if what.len() + old.len() + new.len() > 80 => {
                write!(f, "~ {what}\n        {old}\n     -> {new}")
            }
            (old, new) => write!(f, "~ {what} {old} -> {new}"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.release {
            writeln!(f, "{change}")?;
        }
        for (mark, list) in [('+', &self.added), ('-', &self.removed)] {
            for title in list {
                writeln!(f, "{mark} component {title}")?;
            }
        }
        for ComponentChange { name, old, new, fields, files, packages } in &self.changed {
            let version = if old == new { new.clone() } else { format!("{old} -> {new}") };
            writeln!(f, "~ component {name} {version}")?;
            for (what, changes) in [("", fields), ("file ", files), ("package ", packages)] {
                for change in changes {
                    let named = Change { what: format!("{what}{}", change.what), ..change.clone() };
                    writeln!(f, "    {}", named.to_string().replace('\n', "\n    "))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_claimed_sizes_do_not_wrap() {
        assert_eq!(Bytes { total: u64::MAX, added: u64::MAX }.permille(), 1000);
        assert_eq!(Bytes { total: 10_000, added: 1 }.permille(), 1);
    }
}
