//! The file tree of a host as a value: two of them compared answer "what changed?".

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::Result;
use bundle::Digest;
use bundle::digest::Hashing;

/// What was at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    mode: u32,
    owner: (u32, u32),
    content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Directory,
    File { size: u64, digest: Digest },
    Link(PathBuf),
    Other(&'static str),
}

/// Everything below some directories.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Snapshot {
    /// Reads `directories` (absolute as the host sees them) below `root`, leaving out what is at or below `without`.
    pub fn take(root: &Path, directories: &[&str], without: &[&str]) -> Result<Self> {
        let mut snapshot = Self::default();
        for directory in directories {
            snapshot.add(root, Path::new(directory), without)?;
        }
        Ok(snapshot)
    }

    fn add(&mut self, root: &Path, path: &Path, without: &[&str]) -> Result<()> {
        if without.iter().any(|left_out| path.starts_with(left_out)) {
            return Ok(());
        }
        let real = root.join(path.strip_prefix("/").unwrap_or(path));
        let metadata = match fs_err::symlink_metadata(&real) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let kind = metadata.file_type();
        let content = if kind.is_dir() {
            for entry in fs_err::read_dir(&real)? {
                self.add(root, &path.join(entry?.file_name()), without)?;
            }
            Content::Directory
        } else if kind.is_symlink() {
            Content::Link(fs_err::read_link(&real)?)
        } else if kind.is_file() {
            let mut hashing = Hashing::new(fs_err::File::open(&real)?);
            std::io::copy(&mut hashing, &mut std::io::sink())?;
            Content::File { size: hashing.count(), digest: hashing.finish().1 }
        } else if kind.is_socket() {
            Content::Other("socket")
        } else if kind.is_fifo() {
            Content::Other("fifo")
        } else {
            Content::Other("device")
        };
        let owner = (metadata.uid(), metadata.gid());
        self.entries.insert(path.to_owned(), Entry { mode: metadata.mode() & 0o7777, owner, content });
        Ok(())
    }

    /// Number of paths.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when nothing was found.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// One line for each path that differs in `later`.
    pub fn changes(&self, later: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        for (path, before) in &self.entries {
            match later.entries.get(path) {
                None => changes.push(format!("removed {}", path.display())),
                Some(after) if after != before => {
                    changes.push(format!("changed {}: {before} -> {after}", path.display()));
                }
                Some(_) => {}
            }
        }
        let added = later.entries.keys().filter(|path| !self.entries.contains_key(*path));
        changes.extend(added.map(|path| format!("added {}", path.display())));
        changes
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:04o} {}:{} ", self.mode, self.owner.0, self.owner.1)?;
        match &self.content {
            Content::Directory => write!(out, "directory"),
            Content::File { size, digest } => write!(out, "{size} bytes {digest}"),
            Content::Link(target) => write!(out, "link to {}", target.display()),
            Content::Other(kind) => write!(out, "{kind}"),
        }
    }
}
