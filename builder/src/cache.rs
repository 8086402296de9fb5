//! The cache: `$XDG_CACHE_HOME/sealift`, shared by all builds of a user and safe to delete at any time.
//!
//! `sha256/HEX` are finished downloads, `part/KEY` unfinished ones, `layer/KEY` packed layers, `contents/HEX.json` what packages
//! hold, `tmp/` spool directories.
//! All of it is its owner's alone. A finished file is believed for its digest only: it is hashed before use, and removed when it is damaged. Files get
//! their final name by one rename after fsync, so a killed builder leaves nothing half-written under one.

use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bundle::Digest;
use bundle::digest::Hashing;
use fs_err::OpenOptions;
use fs_err::os::unix::fs::OpenOptionsExt as _;

use crate::failure::Failure;

/// The cache directory.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// A file that is being downloaded; locked against other builders for as long as it lives.
#[derive(Debug)]
pub struct Partial {
    path: PathBuf,
    /// Opened for reading and writing.
    pub file: fs_err::File,
}

/// A directory for files of one run; removed when dropped, or by the next run if this one is killed.
#[derive(Debug)]
pub struct Scratch {
    directory: PathBuf,
    lock: PathBuf,
    _held: File,
}

impl Cache {
    /// Opens the cache, making its directories.
    pub fn open(directory: Option<&Path>) -> anyhow::Result<Self> {
        let root = match directory {
            Some(directory) => directory.to_owned(),
            None => default_directory()?,
        };
        let hint = || Failure::new("the cache cannot be used").hint("`--cache DIR` names another directory");
        for part in ["", "sha256", "part", "layer", "contents", "tmp"] {
            let path = root.join(part);
            create_private(&path).with_context(|| format!("making `{}`", path.display())).with_context(hint)?;
            refuse_shared(&path)?;
        }
        Ok(Self { root: fs_err::canonicalize(root)? })
    }

    /// Where a finished file lies, if it is there.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join("sha256").join(digest.hex())
    }

    /// The finished file with this digest, hashed now; a damaged one is removed.
    pub fn find(&self, digest: &Digest) -> anyhow::Result<Option<(PathBuf, u64)>> {
        let path = self.path(digest);
        let Some((found, size)) = digest_of(&path)? else { return Ok(None) };
        if found == *digest {
            return Ok(Some((path, size)));
        }
        fs_err::remove_file(&path).context("removing a damaged file from the cache")?;
        Ok(None)
    }

    /// Opens and locks the unfinished file for `key` (32 or more hex digits); waits for another builder that has it.
    pub fn partial(&self, key: &str) -> anyhow::Result<Partial> {
        loop {
            let (path, file) = self.open_partial(key)?;
            file.file().lock().with_context(|| format!("locking `{}`", path.display()))?;
            // Another builder may have finished and renamed the file while we waited for its lock.
            if is_at(&file, &path)? {
                return Ok(Partial { path, file });
            }
        }
    }

    /// The same without waiting: `None` while another download has it.
    pub fn try_partial(&self, key: &str) -> anyhow::Result<Option<Partial>> {
        loop {
            let (path, file) = self.open_partial(key)?;
            match file.file().try_lock() {
                Ok(()) if is_at(&file, &path)? => return Ok(Some(Partial { path, file })),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("locking `{}`", path.display()));
                }
            }
        }
    }

    fn open_partial(&self, key: &str) -> anyhow::Result<(PathBuf, fs_err::File)> {
        let path = self.root.join("part").join(key);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(&path)?;
        Ok((path, file))
    }

    /// Gives a complete, verified partial file its final name.
    pub fn finish(&self, partial: &Partial, digest: &Digest) -> anyhow::Result<PathBuf> {
        partial.file.sync_all()?;
        let path = self.path(digest);
        fs_err::rename(&partial.path, &path)?;
        sync_parent(&path)?;
        Ok(path)
    }

    /// Puts bytes from memory into the cache.
    pub fn insert(&self, bytes: &[u8]) -> anyhow::Result<PathBuf> {
        let digest = Digest::of(bytes);
        let mut partial = self.partial(&digest.hex())?;
        if let Some((path, _)) = self.find(&digest)? {
            partial.discard()?;
            return Ok(path);
        }
        partial.clear()?;
        partial.file.write_all(bytes)?;
        self.finish(&partial, &digest)
    }

    /// A path below `layer/`.
    pub fn layer(&self, name: &str) -> PathBuf {
        self.root.join("layer").join(name)
    }

    /// Where the description of a package with this digest lies, if it is there.
    pub fn contents(&self, package: &Digest) -> PathBuf {
        self.root.join("contents").join(format!("{}.json", package.hex()))
    }

    /// A fresh directory for this run; those of killed runs are removed.
    ///
    /// Its lock lies beside it, is made before it and removed after it: whatever moment a run is killed at, a directory
    /// without a held lock is abandoned.
    pub fn scratch(&self) -> anyhow::Result<Scratch> {
        let tmp = self.root.join("tmp");
        for entry in fs_err::read_dir(&tmp)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "lock") {
                remove_if_abandoned(&path);
            }
        }
        loop {
            let lock = tempfile::Builder::new().prefix("run-").suffix(".lock").tempfile_in(&tmp)?;
            let (file, path) = lock.keep().context("making a lock in the cache")?;
            // Another builder may have taken the new, not yet locked file for abandoned.
            if file.try_lock().is_ok() && path.exists() {
                let directory = path.with_extension("");
                fs_err::create_dir(&directory)?;
                return Ok(Scratch { directory, lock: path, _held: file });
            }
        }
    }
}

fn remove_if_abandoned(lock: &Path) {
    let Ok(file) = fs_err::File::open(lock) else { return };
    if matches!(file.file().try_lock(), Err(TryLockError::WouldBlock)) {
        return;
    }
    remove_scratch(&lock.with_extension(""), lock);
}

/// What cannot be removed now is tried again by the next run.
fn remove_scratch(directory: &Path, lock: &Path) {
    let gone = match fs_err::remove_dir_all(directory) {
        Ok(()) => true,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if gone {
        let _ = fs_err::remove_file(lock);
    }
}

impl Partial {
    /// Empties it.
    pub fn clear(&mut self) -> anyhow::Result<()> {
        use std::io::Seek as _;
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.set_note(None)
    }

    /// What the first answer said about the content, for resuming: kept beside the file.
    pub fn note(&self) -> Option<String> {
        fs_err::read_to_string(self.note_path()).ok().filter(|text| text.len() < 8192)
    }

    /// Replaces the note.
    pub fn set_note(&self, note: Option<&str>) -> anyhow::Result<()> {
        let path = self.note_path();
        match note {
            Some(note) => fs_err::write(path, note)?,
            None if path.exists() => fs_err::remove_file(path)?,
            None => {}
        }
        Ok(())
    }

    /// Removes file and note.
    pub fn discard(self) -> anyhow::Result<()> {
        self.set_note(None)?;
        fs_err::remove_file(&self.path)?;
        Ok(())
    }

    fn note_path(&self) -> PathBuf {
        self.path.with_extension("note")
    }
}

impl Scratch {
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove_scratch(&self.directory, &self.lock);
    }
}

fn create_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Layers and downloads are believed because nobody else could have put them there.
fn refuse_shared(path: &Path) -> anyhow::Result<()> {
    let metadata = fs_err::metadata(path)?;
    let me = rustix::process::geteuid().as_raw();
    if metadata.uid() != me {
        let text = format!("the cache directory `{}` belongs to user {}, not to {me}", path.display(), metadata.uid());
        return Err(Failure::new(text).hint("`--cache DIR` names another directory").into());
    }
    if metadata.mode() & 0o022 != 0 {
        let text = format!("others may write to the cache directory `{}`", path.display());
        let hint = "delete it if others could have used it, else `chmod go-w` it; or name another with `--cache DIR`";
        return Err(Failure::new(text).hint(hint).into());
    }
    Ok(())
}

fn default_directory() -> anyhow::Result<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    let cache = cache.ok_or_else(|| {
        Failure::usage("there is no place for the cache").hint("set HOME or XDG_CACHE_HOME, or give `--cache DIR`")
    })?;
    Ok(cache.join("sealift"))
}

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
    finished: bool,
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
                return Err(Failure::new(format!("another builder is writing `{}`", path.display())).into());
            }
            // Between opening and locking it another builder may have given it the final name: not ours to empty.
            if is_at(&file, &temporary)? {
                break file;
            }
        };
        file.set_len(0)?;
        // The mode must not depend on the umask.
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        Ok(Self { path: path.to_owned(), temporary, finished: false, file })
    }

    /// Gives the file its name.
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.file.flush()?;
        self.file.sync_all()?;
        fs_err::rename(&self.temporary, &self.path)?;
        self.finished = true;
        sync_parent(&self.path)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.finished {
            // A failed run leaves nothing; what a killed run leaves is overwritten by the next.
            let _ = fs_err::remove_file(&self.temporary);
        }
    }
}

/// Whether the open file still is the one at `path`.
fn is_at(file: &fs_err::File, path: &Path) -> anyhow::Result<bool> {
    let ours = file.metadata()?;
    match fs_err::symlink_metadata(path) {
        Ok(there) => Ok(there.ino() == ours.ino() && there.dev() == ours.dev()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn sync_parent(path: &Path) -> anyhow::Result<()> {
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
