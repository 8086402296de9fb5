//! Files that appear under their name only when they are complete.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bundle::Digest;
use bundle::digest::Hashing;
use fs_err::OpenOptions;
use fs_err::os::unix::fs::OpenOptionsExt as _;

use crate::failure::Failure;
use crate::interrupt::Temporary;

/// Digest and size of a file; `None` if it does not exist.
pub fn digest_of(path: &Path) -> anyhow::Result<Option<(Digest, u64)>> {
    let file = match fs_err::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut hashing = Hashing::new(file);
    drain(&mut hashing)?;
    let (_, digest, size) = hashing.finish();
    Ok(Some((digest, size)))
}

/// Reads to the end, keeping nothing.
pub fn drain(reader: &mut impl std::io::Read) -> std::io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    while reader.read(&mut buffer)? > 0 {}
    Ok(())
}

/// Writes a file: temporary name in the same directory, fsync, rename, fsync of the directory.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let mut pending = Pending::create(path, mode)?;
    pending.file.write_all(bytes)?;
    pending.finish()
}

/// A file that will replace `path` when it is finished. Its temporary name is fixed and locked, so that what a killed run
/// left is overwritten by the next, and two runs at once are told apart.
#[derive(Debug)]
pub struct Pending {
    path: PathBuf,
    temporary: PathBuf,
    /// Until it has its name.
    unfinished: Option<Temporary>,
    /// Where the content goes.
    pub file: fs_err::File,
}

impl Pending {
    /// Begins a file.
    pub fn create(path: &Path, mode: u32) -> anyhow::Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .with_context(|| format!("`{}` is no file name", path.display()))?;
        let temporary = path.with_file_name(format!(".{name}.partial"));
        let file = loop {
            let file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(mode).open(&temporary)?;
            if file.file().try_lock().is_err() {
                return Err(Failure::new(format!("another builder is writing `{}`", path.display()))
                    .hint("wait until it is done, or write somewhere else")
                    .into());
            }
            // Between opening and locking it another builder may have given it the final name: not ours to empty.
            if is_at(&file, &temporary)? {
                break file;
            }
        };
        file.set_len(0)?;
        // The mode must not depend on the umask.
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        let unfinished = Some(Temporary::new(&temporary));
        Ok(Self { path: path.to_owned(), temporary, unfinished, file })
    }

    /// Gives the file its name.
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.file.flush()?;
        self.file.sync_all()?;
        // From here on the temporary name may be another builder's.
        let unfinished = self.unfinished.take();
        drop(unfinished);
        if let Err(error) = fs_err::rename(&self.temporary, &self.path) {
            self.unfinished = Some(Temporary::new(&self.temporary));
            return Err(error.into());
        }
        sync_parent(&self.path)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.unfinished.is_some() {
            // A failed run leaves nothing; what a killed run leaves is overwritten by the next.
            let _ = fs_err::remove_file(&self.temporary);
        }
    }
}

/// Whether the open file still is the one at `path`.
pub(super) fn is_at(file: &fs_err::File, path: &Path) -> anyhow::Result<bool> {
    let ours = file.metadata()?;
    match fs_err::symlink_metadata(path) {
        Ok(there) => Ok(there.ino() == ours.ino() && there.dev() == ours.dev()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn sync_parent(path: &Path) -> anyhow::Result<()> {
    let parent = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    fs_err::File::open(parent)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finished_file_is_never_emptied_by_another_writer() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let contents: Vec<Vec<u8>> = (0..4).map(|byte| vec![byte; 5000]).collect();
        write_atomic(&path, &contents[0], 0o644).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_millis(700);
        std::thread::scope(|scope| {
            for content in &contents {
                let path = &path;
                scope.spawn(move || {
                    while std::time::Instant::now() < deadline {
                        // One of several that begin at the same time is told so.
                        let _ = write_atomic(path, content, 0o644);
                    }
                });
            }
            while std::time::Instant::now() < deadline {
                let found = fs_err::read(&path).unwrap();
                assert!(contents.contains(&found), "{} bytes", found.len());
            }
        });
        assert!(contents.contains(&fs_err::read(&path).unwrap()));
    }
}
