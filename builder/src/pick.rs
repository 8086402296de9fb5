//! Picks files out of an artifact by pattern, in one pass over the stream for all components that use it.
//!
//! Picked files are spooled under numbers, never under names from the archive. Links are followed within the archive; a
//! second pass is made only when a link's target was not picked itself.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use bundle::{Digest, LayerPath};

use crate::archive::{self, Member, MemberKind};
use crate::failure::Failure;
use crate::glob;
use crate::manifest::{FileMap, Target};

/// A file of a component, spooled on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picked {
    /// Path in the component.
    pub to: LayerPath,
    /// Permission bits.
    pub mode: u32,
    /// Where its content lies.
    pub content: PathBuf,
    /// Bytes.
    pub size: u64,
}

/// An artifact to pick from.
#[derive(Clone, Copy, Debug)]
pub struct Artifact<'a> {
    /// Where it lies in the cache.
    pub path: &'a Path,
    /// Its published name: tells the format.
    pub file_name: &'a str,
    /// Its digest.
    pub sha256: &'a Digest,
}

/// Spooled content by archive path.
struct Spool<'a> {
    directory: &'a Path,
    files: BTreeMap<String, (PathBuf, u64)>,
}

impl Spool<'_> {
    fn take(&mut self, path: &str, content: &mut dyn Read) -> anyhow::Result<()> {
        let place = self.directory.join(self.files.len().to_string());
        let mut file = fs_err::File::create_new(&place)?;
        let size = std::io::copy(content, &mut file)?;
        self.files.insert(path.to_owned(), (place, size));
        Ok(())
    }
}

/// Picks what `maps` ask for; one list a map, in their order. `spool` is an empty private directory.
pub fn pick(artifact: &Artifact<'_>, maps: &[&FileMap], spool: &Path) -> anyhow::Result<Vec<Vec<Picked>>> {
    let mut spool = Spool { directory: spool, files: BTreeMap::new() };
    let mut members: BTreeMap<String, MemberKind> = BTreeMap::new();
    walk(artifact, &mut |member, content| {
        let wanted = maps.iter().any(|map| glob::matches(&map.from, &member.path));
        if wanted && member.kind == MemberKind::Regular {
            spool.take(&member.path, content)?;
        }
        members.insert(member.path.clone(), member.kind.clone());
        Ok(())
    })?;

    let chosen = maps.iter().map(|map| choose(map, &members, artifact)).collect::<anyhow::Result<Vec<_>>>()?;
    let missing: BTreeSet<&str> = chosen
        .iter()
        .flatten()
        .map(|(_, content)| content.as_str())
        .filter(|content| !spool.files.contains_key(*content))
        .collect();
    if !missing.is_empty() {
        walk(artifact, &mut |member, content| {
            if missing.contains(member.path.as_str()) { spool.take(&member.path, content) } else { Ok(()) }
        })?;
    }
    maps.iter()
        .zip(&chosen)
        .map(|(map, chosen)| chosen.iter().map(|(name, content)| picked(map, name, content, &spool)).collect())
        .collect()
}

fn walk(
    artifact: &Artifact<'_>,
    visit: &mut dyn FnMut(&Member, &mut dyn Read) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    archive::walk(artifact.path, artifact.file_name, artifact.sha256, visit)
}

/// The members a map asks for, each with the regular file its content comes from.
fn choose(
    map: &FileMap,
    members: &BTreeMap<String, MemberKind>,
    artifact: &Artifact<'_>,
) -> anyhow::Result<Vec<(String, String)>> {
    let is_file = |kind: &MemberKind| *kind != MemberKind::Other;
    let matching: Vec<&str> = members
        .iter()
        .filter(|(path, kind)| is_file(kind) && glob::matches(&map.from, path))
        .map(|(path, _)| path.as_str())
        .collect();
    match (&matching[..], &map.to) {
        ([], _) => {
            let near = glob::near_misses(
                &map.from,
                members.iter().filter(|(_, kind)| is_file(kind)).map(|(path, _)| path.as_str()),
            );
            let hint = if near.is_empty() {
                "nothing in it looks like that".to_owned()
            } else {
                format!("did you mean {}?", quoted(&near))
            };
            return Err(Failure::new(format!("`{}` matches nothing in `{}`", map.from, artifact.file_name))
                .hint(hint)
                .into());
        }
        ([_], _) | (_, Target::Directory(_)) => {}
        (several, Target::File(_)) => {
            let text = format!(
                "`{}` matches {} files in `{}`: {}",
                map.from,
                several.len(),
                artifact.file_name,
                quoted(&several[..several.len().min(5)])
            );
            return Err(Failure::new(text)
                .hint("make the pattern exact, or take all with `many = true` and a directory in `to`")
                .into());
        }
    }
    matching.into_iter().map(|path| Ok((path.to_owned(), follow(path, members, artifact)?))).collect()
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Follows links to a regular file of the archive.
fn follow(path: &str, members: &BTreeMap<String, MemberKind>, artifact: &Artifact<'_>) -> anyhow::Result<String> {
    let refused =
        |what: &str| Failure::new(format!("`{path}` in `{}` is a link that {what}: refused", artifact.file_name));
    let mut place = path.to_owned();
    for _ in 0..16 {
        let target = match members.get(&place) {
            Some(MemberKind::Regular) => return Ok(place),
            Some(MemberKind::Symlink(target)) => archive::link_target(&place, target),
            Some(MemberKind::HardLink(target)) => archive::link_target("", target),
            Some(MemberKind::Other) => return Err(refused("leads to something that is no file").into()),
            None => return Err(refused(&format!("leads to `{place}`, which is not there")).into()),
        };
        place = target.ok_or_else(|| refused("leaves the archive"))?;
    }
    Err(refused("leads nowhere").into())
}

fn picked(map: &FileMap, name: &str, content: &str, spool: &Spool<'_>) -> anyhow::Result<Picked> {
    let file_name = name.rsplit('/').next().unwrap_or(name);
    let to = match &map.to {
        Target::File(path) => path.clone(),
        Target::Directory(Some(directory)) => directory.join(file_name)?,
        Target::Directory(None) => file_name.parse()?,
    };
    let (content, size) = spool
        .files
        .get(content)
        .ok_or_else(|| Failure::new(format!("`{name}` vanished from the archive between two readings")))?;
    Ok(Picked { to, mode: map.mode, content: content.clone(), size: *size })
}
