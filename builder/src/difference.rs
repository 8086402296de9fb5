//! What differs between two locks, component by component: shown by `builder lock`, `--check` and `--update` alike.
//!
//! Artifacts are paired by what they are, not by their version: a package by its name, an image by its repository, a URL by
//! itself or else by its place. So a newer version shows as a change, and not as one thing gone and another come.

use std::collections::{BTreeMap, BTreeSet};

use bundle::{Architecture, ComponentName};
use serde::Serialize;

use crate::lock::{Lock, LockedArtifact, LockedComponent};

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The component it is about.
    pub component: ComponentName,
    /// The architecture, unless it is about the component as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Architecture>,
    /// `apt:NAME`, `image:REPOSITORY`, a URL …; absent for the component as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact: Option<String>,
    /// What happened to it.
    pub change: Change,
    /// Field → value before and after, for what is in both or new.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<&'static str, Values>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Was not there before.
    New,
    /// Is not there any more.
    Gone,
    /// Some fields have another value.
    Changed,
}

/// A field's value before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Values {
    /// Before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// After.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}

/// Everything that differs, in the order of the locks. Indexes that moved without moving a package are not a difference.
pub fn differences(before: Option<&Lock>, after: &Lock) -> Vec<Difference> {
    let nothing = BTreeMap::new();
    let before = before.map_or(&nothing, |lock| &lock.component);
    let names: BTreeSet<_> = before.keys().chain(after.component.keys()).collect();
    names.into_iter().flat_map(|name| component(name, before.get(name), after.component.get(name))).collect()
}

fn component(
    name: &ComponentName,
    before: Option<&LockedComponent>,
    after: Option<&LockedComponent>,
) -> Vec<Difference> {
    let version = |component: Option<&LockedComponent>| component.map(|component| component.version.to_string());
    let (old, new) = (version(before), version(after));
    let mut all = Vec::new();
    if old != new {
        let change = change(before.is_some(), after.is_some());
        let fields = BTreeMap::from([("version", Values { old, new })]);
        all.push(Difference { component: name.clone(), architecture: None, artifact: None, change, fields });
    }
    let architectures: BTreeSet<Architecture> =
        before.into_iter().chain(after).flat_map(|component| component.artifacts.keys().copied()).collect();
    for architecture in architectures {
        let list = |component: Option<&LockedComponent>| {
            component.and_then(|component| component.artifacts.get(&architecture)).cloned().unwrap_or_default()
        };
        for (old, new) in pairs(list(before), list(after)) {
            let fields = fields(old.as_ref(), new.as_ref());
            if !fields.is_empty() {
                all.push(Difference {
                    component: name.clone(),
                    architecture: Some(architecture),
                    artifact: new.as_ref().or(old.as_ref()).map(|artifact| identity(&artifact.url).to_owned()),
                    change: change(old.is_some(), new.is_some()),
                    fields,
                });
            }
        }
    }
    all
}

fn change(before: bool, after: bool) -> Change {
    match (before, after) {
        (false, _) => Change::New,
        (true, false) => Change::Gone,
        (true, true) => Change::Changed,
    }
}

/// What an artifact is, whatever its version: the name of a package, the repository of an image, else the URL.
fn identity(url: &str) -> &str {
    let package = ["apt:", "rpm:"].iter().any(|scheme| url.starts_with(scheme));
    if package {
        return url.split_once('=').map_or(url, |(name, _)| name);
    }
    match url.strip_prefix("image:").and_then(|reference| reference.rsplit_once(':')) {
        Some((repository, tag)) if !tag.contains('/') => &url[.."image:".len() + repository.len()],
        _ => url,
    }
}

/// Pairs of the same thing before and after, in the order of `after`; what is gone comes last.
fn pairs(
    before: Vec<LockedArtifact>,
    after: Vec<LockedArtifact>,
) -> Vec<(Option<LockedArtifact>, Option<LockedArtifact>)> {
    let mut before: Vec<Option<LockedArtifact>> = before.into_iter().map(Some).collect();
    let mut pairs: Vec<(Option<LockedArtifact>, Option<LockedArtifact>)> = after
        .into_iter()
        .map(|new| {
            let same = |old: &&mut Option<LockedArtifact>| {
                old.as_ref().is_some_and(|old| identity(&old.url) == identity(&new.url))
            };
            (before.iter_mut().find(same).and_then(Option::take), Some(new))
        })
        .collect();
    // URLs carry their version: what is left on both sides belongs together by its place.
    let is_file = |url: &str| !["apt:", "rpm:", "image:"].iter().any(|scheme| url.starts_with(scheme));
    for (old, new) in &mut pairs {
        if old.is_none() && new.as_ref().is_some_and(|new| is_file(&new.url)) {
            let file = |old: &&mut Option<LockedArtifact>| old.as_ref().is_some_and(|old| is_file(&old.url));
            *old = before.iter_mut().find(file).and_then(Option::take);
        }
    }
    pairs.extend(before.into_iter().flatten().map(|old| (Some(old), None)));
    pairs
}

fn fields(old: Option<&LockedArtifact>, new: Option<&LockedArtifact>) -> BTreeMap<&'static str, Values> {
    type Field = (&'static str, fn(&LockedArtifact) -> Option<String>);
    let all: [Field; 10] = [
        ("url", |artifact| Some(artifact.url.clone())),
        ("mirrors", |artifact| (!artifact.mirrors.is_empty()).then(|| artifact.mirrors.join(" "))),
        ("path", |artifact| artifact.path.clone()),
        ("size", |artifact| artifact.size.map(|size| size.to_string())),
        ("sha256", |artifact| artifact.sha256.map(|digest| digest.hex())),
        ("sha512", |artifact| artifact.sha512.clone()),
        ("licence", |artifact| artifact.licence.clone()),
        ("proof", |artifact| artifact.proof.clone()),
        ("needed_by", |artifact| artifact.needed_by.clone()),
        ("unresolved", |artifact| artifact.unresolved.clone()),
    ];
    all.into_iter()
        .filter_map(|(name, value)| {
            let (old, new) = (old.and_then(value), new.and_then(value));
            (old != new).then_some((name, Values { old, new }))
        })
        .collect()
}

impl Difference {
    /// A line for what it is about and one for each field that people compare; a resolved artifact that only appeared gets
    /// one line.
    pub fn lines(&self) -> Vec<String> {
        let Self { component, architecture, artifact, change, fields } = self;
        let place = architecture.map(|architecture| format!(" ({architecture})")).unwrap_or_default();
        let what = artifact.as_ref().map(|artifact| format!(": {artifact}")).unwrap_or_default();
        let head = format!("{component}{place}{what}");
        let new = |name| fields.get(name).and_then(|values| values.new.as_deref());
        match change {
            Change::Gone => return vec![format!("{head}: gone")],
            Change::New => {
                let url = new("url").map(|url| format!(": {url}")).unwrap_or_default();
                let reason = new("unresolved").map(|reason| format!(": unresolved: {reason}")).unwrap_or_default();
                let version = new("version").map(|version| format!(" {version}")).unwrap_or_default();
                return vec![format!("{component}{place}{version}{url}: new{reason}")];
            }
            Change::Changed => {}
        }
        let mut lines = Vec::new();
        if artifact.is_some() {
            lines.push(head);
        }
        let order =
            ["version", "url", "size", "sha256", "sha512", "licence", "proof", "mirrors", "needed_by", "unresolved"];
        for (name, Values { old, new }) in order.iter().filter_map(|name| Some((name, fields.get(name)?))) {
            let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".into());
            let line = format!("{name} {} -> {}", shown(old), shown(new));
            lines.push(if artifact.is_some() { format!("    {line}") } else { format!("{component}: {line}") });
        }
        lines
    }

    /// Whether a digest that only its first download vouched for was replaced.
    pub fn replaces_first_use(&self, before: &Lock) -> bool {
        let was = |(name, architecture, artifact): (&ComponentName, Architecture, &LockedArtifact)| {
            *name == self.component
                && Some(architecture) == self.architecture
                && artifact.proof.as_deref() == Some("first-use")
                && self.fields.get("sha256").is_some_and(|values| {
                    values.old.is_some() && values.old == artifact.sha256.map(|digest| digest.hex())
                })
                && !self.fields.contains_key("url")
        };
        self.change == Change::Changed && before.entries().any(was)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(components: &str) -> Lock {
        let head = format!(
            "format = 1\nname = \"demo\"\nversion = \"1-1\"\nmanifest = \"sha256:{}\"\nlevel = 1\n",
            "0".repeat(64)
        );
        toml::from_str(&(head + components)).unwrap()
    }

    fn text(before: &str, after: &str) -> String {
        let (before, after) = (lock(before), lock(after));
        differences(Some(&before), &after).iter().flat_map(Difference::lines).collect::<Vec<_>>().join("\n")
    }

    const ETCD: &str = "[component.etcd]\nversion = \"3.7.0\"\n[[component.etcd.amd64]]\nurl = \"https://x/etcd-3.7.0.tgz\"\nsize = 7\nproof = \"manifest\"\n";

    #[test]
    fn a_newer_file_is_a_change_and_not_one_gone_and_one_come() {
        assert_eq!(text(ETCD, ETCD), "");
        let newer = ETCD.replace("3.7.0", "3.7.1").replace("size = 7", "size = 8");
        let expected = "etcd: version 3.7.0 -> 3.7.1\netcd (amd64): https://x/etcd-3.7.1.tgz\n    \
                        url https://x/etcd-3.7.0.tgz -> https://x/etcd-3.7.1.tgz\n    size 7 -> 8";
        assert_eq!(text(ETCD, &newer), expected);
    }

    #[test]
    fn packages_pair_by_name_and_images_by_repository() {
        let before = "[component.p]\nversion = \"1\"\n[[component.p.amd64]]\nurl = \"apt:curl=1\"\n[[component.p.amd64]]\nurl = \"apt:jq=1\"\n[[component.p.amd64]]\nurl = \"image:r:5000/a/pause:3.9\"\n";
        let after = "[component.p]\nversion = \"1\"\n[[component.p.amd64]]\nurl = \"apt:jq=2\"\nneeded_by = \"x\"\n[[component.p.amd64]]\nurl = \"apt:socat=1\"\n[[component.p.amd64]]\nurl = \"image:r:5000/a/pause:3.10\"\n";
        let expected = "p (amd64): apt:jq\n    url apt:jq=1 -> apt:jq=2\n    needed_by none -> x\np (amd64): apt:socat=1: new\n\
                        p (amd64): image:r:5000/a/pause\n    url image:r:5000/a/pause:3.9 -> image:r:5000/a/pause:3.10\n\
                        p (amd64): apt:curl: gone";
        assert_eq!(text(before, after), expected);
    }

    #[test]
    fn a_first_use_digest_that_is_replaced_is_known_as_such() {
        let entry = |digit: &str, proof: &str| {
            let digest = digit.repeat(64);
            let file = "[component.f]\nversion = \"1\"\n[[component.f.amd64]]\nurl = \"https://x/f\"\n";
            lock(&format!("{file}size = 1\nsha256 = \"sha256:{digest}\"\nproof = \"{proof}\"\n"))
        };
        for (old, new, proof, replaced) in
            [("1", "2", "first-use", true), ("1", "1", "first-use", false), ("1", "2", "manifest", false)]
        {
            let (before, after) = (entry(old, proof), entry(new, "first-use"));
            let found = differences(Some(&before), &after);
            assert_eq!(found.iter().any(|difference| difference.replaces_first_use(&before)), replaced);
        }
    }
}
