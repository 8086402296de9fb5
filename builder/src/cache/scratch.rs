//! Directories for the files of one run.
//!
//! A lock lies beside each, is made before it and removed after it: whatever moment a run is killed at, a directory without a
//! held lock is abandoned, and the next run removes it.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::interrupt::Temporary;

/// A directory for files of one run; removed when dropped, or by the next run if this one is killed.
#[derive(Debug)]
pub struct Scratch {
    directory: PathBuf,
    lock: PathBuf,
    _held: File,
    _temporary: Temporary,
}

impl Scratch {
    /// A fresh directory in `place`; those of killed runs are removed.
    pub(super) fn new(place: &Path) -> anyhow::Result<Self> {
        for entry in fs_err::read_dir(place)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "lock") {
                remove_if_abandoned(&path);
            }
        }
        loop {
            let lock = tempfile::Builder::new().prefix("run-").suffix(".lock").tempfile_in(place)?;
            let (file, path) = lock.keep().context("making a lock in the cache")?;
            // Another builder may have taken the new, not yet locked file for abandoned.
            if file.try_lock().is_ok() && path.exists() {
                let directory = path.with_extension("");
                let temporary = Temporary::with_lock(&directory, &path);
                fs_err::create_dir(&directory)?;
                return Ok(Self { directory, lock: path, _held: file, _temporary: temporary });
            }
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.directory, &self.lock);
    }
}

fn remove_if_abandoned(lock: &Path) {
    let Ok(file) = fs_err::File::open(lock) else { return };
    if matches!(file.file().try_lock(), Err(TryLockError::WouldBlock)) {
        return;
    }
    remove(&lock.with_extension(""), lock);
}

/// What cannot be removed now is tried again by the next run.
fn remove(directory: &Path, lock: &Path) {
    let gone = match fs_err::remove_dir_all(directory) {
        Ok(()) => true,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if gone {
        let _ = fs_err::remove_file(lock);
    }
}
