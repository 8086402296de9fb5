//! What a run created before it knew that the bundle is good, so that a refusal can take it back.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::host::Host;

/// Directories and files that were not there before this run, in the order of their creation.
#[derive(Debug)]
pub struct Footprint<'a> {
    host: &'a Host,
    created: Vec<PathBuf>,
}

impl<'a> Footprint<'a> {
    /// Nothing so far.
    pub fn new(host: &'a Host) -> Self {
        Self { host, created: Vec::new() }
    }

    /// Makes a directory with this mode and its missing parents (0755), and remembers what was missing.
    pub fn directory(&mut self, path: &Path, mode: u32) -> Result<()> {
        let mut missing = Vec::new();
        for part in path.ancestors() {
            if self.host.exists(part)? {
                break;
            }
            missing.push(part.to_owned());
        }
        self.created.extend(missing.into_iter().rev());
        self.host.create_dir(path, mode)
    }

    /// Remembers a file that is going to be created, and makes its directory.
    pub fn file(&mut self, path: &Path) -> Result<()> {
        if let Some(parent) = path.parent() {
            self.directory(parent, 0o755)?;
        }
        if !self.host.exists(path)? {
            self.created.push(path.to_owned());
        }
        Ok(())
    }

    /// Removes what was created, last first; directories only when nothing else has come into them. Best effort: the error
    /// that led here is what the operator needs to see.
    pub fn take_back(self) {
        for path in self.created.iter().rev() {
            let _ = self.host.remove(path);
        }
    }
}
