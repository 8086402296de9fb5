//! Rules for the signed file list of a layer, the same for writing and reading.

use std::collections::BTreeMap;

use crate::component::{Entry, File};
use crate::error::quote;
use crate::name::LayerPath;
use crate::ustar::{self, Item};

/// The permission bits a file can have. No setuid, no group or world write.
pub(crate) const MODES: [u32; 6] = [0o755, 0o644, 0o555, 0o444, 0o700, 0o600];

/// Checks a list: strictly ascending by the bytes of the path, parents as directories before children, modes from
/// [`MODES`], links relative and inside. Returns what is wrong with it.
pub(crate) fn check(files: &[File]) -> Result<(), String> {
    let mut seen: BTreeMap<&LayerPath, &Entry> = BTreeMap::new();
    for file in files {
        let path = &file.path;
        let problem = |what: &str| Err(format!("`{}`: {what}", quote(path.as_str())));
        if seen.last_key_value().is_some_and(|(last, _)| *last >= path) {
            return problem("out of order or listed twice");
        }
        if let Some(parent) = path.parent()
            && !matches!(seen.get(&parent), Some(Entry::Directory))
        {
            return problem("its parent is not a listed directory");
        }
        if path.file_name().starts_with(".wh.") {
            return problem("a whiteout name of OCI layers");
        }
        match &file.entry {
            Entry::Regular { mode, .. } if !MODES.contains(mode) => return problem(&format!("mode {mode:04o}")),
            Entry::Symlink { target } => check_link(path, target).or_else(|what| problem(&what))?,
            Entry::Regular { .. } | Entry::Directory => {}
        }
        ustar::header(path.as_str(), item(&file.entry)).or_else(|what| problem(what).map(|()| [0; 512]))?;
        seen.insert(path, &file.entry);
    }
    Ok(())
}

/// A link may go up only at its start, and not further than the layer's top. Its own directory has no links in it, and
/// every link obeys this, so following it can never leave the layer.
fn check_link(path: &LayerPath, target: &str) -> Result<(), String> {
    let mut parts = target.split('/').peekable();
    let mut ups = 0;
    while parts.next_if_eq(&"..").is_some() {
        ups += 1;
    }
    let depth = path.components().count() - 1;
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.chars().any(char::is_control);
    if target.is_empty() || ups > depth || !parts.all(plain) {
        return Err(format!("a link to `{}`, which is not relative and inside the layer", quote(target)));
    }
    Ok(())
}

/// The tar item of an entry.
pub(crate) fn item(entry: &Entry) -> Item<'_> {
    match entry {
        Entry::Directory => Item::Directory,
        Entry::Regular { mode, size, .. } => Item::Regular { mode: *mode, size: *size },
        Entry::Symlink { target } => Item::Symlink { target },
    }
}

/// Size of the uncompressed layer. The list is short (4 MiB of JSON) and sizes are below 8 GiB: no overflow.
pub(crate) fn unpacked_size(files: &[File]) -> u64 {
    let entry = |file: &File| {
        let size = file.entry.size();
        ustar::BLOCK as u64 + size + ustar::padding(size) as u64
    };
    files.iter().map(entry).sum::<u64>() + ustar::END as u64
}
