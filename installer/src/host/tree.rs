//! Whole trees: where a path really leads, and deleting without leaving the file system.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};

use super::Host;
use super::files::{FileKind, MAX_LINKS, absent, push_reversed, split};
use crate::report::Explain as _;

impl Host {
    /// Where a path really leads: every link on it followed, as the kernel writes paths in `/proc`. What is not there yet
    /// stays as it is.
    pub fn resolve(&self, path: &Path) -> Result<PathBuf> {
        let mut left = Vec::new();
        push_reversed(&mut left, path);
        let mut at = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = left.pop() {
            if part == ".." {
                at.pop();
                continue;
            }
            at.push(part);
            let Some(target) = self.link_target(&at)? else { continue };
            links += 1;
            if links > MAX_LINKS {
                bail!("`{}` leads through too many links", path.display());
            }
            if target.is_absolute() {
                at = PathBuf::from("/");
            } else {
                at.pop();
            }
            push_reversed(&mut left, &target);
        }
        Ok(at)
    }

    /// Removes a file or a whole directory; fine when there is none. Links are removed, never followed. Nothing is removed
    /// when something in it lies on another file system: that is a mount, and somebody's data.
    pub fn remove_tree(&self, path: &Path) -> Result<()> {
        if self.entry(path)?.is_none_or(|entry| entry.kind != FileKind::Directory) {
            return self.remove(path);
        }
        self.operation("remove", path)?;
        let real = self.real_path(path);
        if let Some(other) = on_other_device(&real)? {
            let shown = path.join(other.strip_prefix(&real).unwrap_or(&other));
            return Err(anyhow!("`{}` is on another file system than `{}`", shown.display(), path.display()))
                .hint(format!("nothing was deleted there; `umount {}` if it is a mount", shown.display()));
        }
        absent(fs_err::remove_dir_all(real))?;
        self.sync_dir(split(path)?.0)
    }
}

/// A directory in a tree that lies on another device than the top of the tree. Reads only.
pub(super) fn on_other_device(top: &Path) -> io::Result<Option<PathBuf>> {
    let Some(device) = absent(fs_err::symlink_metadata(top))?.map(|top| top.dev()) else { return Ok(None) };
    let mut left = vec![top.to_owned()];
    while let Some(directory) = left.pop() {
        let Some(entries) = absent(fs_err::read_dir(&directory))? else { continue };
        for entry in entries {
            let entry = entry?;
            // Only directories can hold more; files of an overlay may be of any device.
            if !absent(entry.file_type())?.is_some_and(|kind| kind.is_dir()) {
                continue;
            }
            let Some(metadata) = absent(fs_err::symlink_metadata(entry.path()))? else { continue };
            if metadata.dev() != device {
                return Ok(Some(entry.path()));
            }
            left.push(entry.path());
        }
    }
    Ok(None)
}
