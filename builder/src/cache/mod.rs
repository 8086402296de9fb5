//! The cache: `$XDG_CACHE_HOME/sealift`, shared by all builds of a user and safe to delete at any time.
//!
//! `sha256/HEX` are finished downloads, `part/KEY` unfinished ones, `layer/KEY` packed layers, `contents/HEX.json` what packages
//! hold, `tmp/` spool directories.
//! All of it is its owner's alone. A finished file is believed for its digest only: it is hashed before use, and replaced
//! when it is damaged. Files get their final name by one rename after fsync, so a killed builder leaves nothing half-written under
//! one. A cache that cannot be written serves what it has; what is made anew then lies in a directory of this run.

mod file;
mod scratch;

use std::fs::TryLockError;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use bundle::Digest;
use fs_err::OpenOptions;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use tempfile::TempDir;

pub use self::file::{Pending, digest_of, drain, write_atomic};
use self::file::{is_at, sync_parent};
pub use self::scratch::Scratch;
use crate::failure::Failure;
use crate::interrupt::Temporary;

/// The cache directory.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
    /// Stands in for it where it cannot be written.
    substitute: Option<Arc<Substitute>>,
    /// Where layers are instead of `layer/`.
    layers: Option<PathBuf>,
}

#[derive(Debug)]
struct Substitute {
    directory: TempDir,
    _temporary: Temporary,
}

/// What the cache has under a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Nothing.
    Missing,
    /// A file whose digest is another.
    Damaged(PathBuf),
    /// The file and its bytes, hashed now.
    Whole(PathBuf, u64),
}

/// A file that is being downloaded; locked against other builders for as long as it lives.
#[derive(Debug)]
pub struct Partial {
    path: PathBuf,
    /// Opened for reading and writing.
    pub file: fs_err::File,
}

impl Cache {
    /// Opens the cache, making its directories.
    pub fn open(directory: Option<&Path>) -> anyhow::Result<Self> {
        let root = match directory {
            Some(directory) => directory.to_owned(),
            None => default_directory()?,
        };
        let hint = || Failure::new("the cache cannot be used").hint("`--cache DIR` names another directory");
        let mut substitute = None;
        for part in ["", "sha256", "part", "layer", "contents", "checked", "tmp"] {
            let path = root.join(part);
            match create_private(&path) {
                Err(error) if is_read_only(&error) && root.is_dir() => substitute = Some(Arc::new(Substitute::new()?)),
                made => {
                    made.with_context(|| format!("making `{}`", path.display())).with_context(hint)?;
                    refuse_shared(&path)?;
                }
            }
        }
        if tempfile::tempfile_in(root.join("tmp")).is_err_and(|error| is_read_only(&error)) {
            substitute = Some(Arc::new(Substitute::new()?));
        }
        Ok(Self { root: fs_err::canonicalize(root)?, substitute, layers: None })
    }

    /// The same downloads, but layers of its own in an empty directory: what is packed before is not believed.
    #[must_use]
    pub fn with_layers_in(&self, directory: &Path) -> Self {
        Self { layers: Some(directory.to_owned()), ..self.clone() }
    }

    /// Whether it cannot be written.
    pub fn is_read_only(&self) -> bool {
        self.substitute.is_some()
    }

    /// A place that can be written.
    fn place(&self, part: &str) -> PathBuf {
        self.substitute.as_ref().map_or(self.root.as_path(), |substitute| substitute.directory.path()).join(part)
    }

    /// Where a finished file lies, if it is there.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join("sha256").join(digest.hex())
    }

    /// What lies there under this digest.
    pub fn look(&self, digest: &Digest) -> anyhow::Result<Stored> {
        let path = self.path(digest);
        Ok(match digest_of(&path)? {
            None => Stored::Missing,
            Some((found, size)) if found == *digest => Stored::Whole(path, size),
            Some(_) => Stored::Damaged(path),
        })
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
        if self.is_read_only() {
            let text = format!("nothing can be downloaded: the cache `{}` cannot be written", self.root.display());
            let hint = "make it writable, or give another with `--cache DIR`";
            return Err(Failure::new(text).hint(hint).into());
        }
        let path = self.place("part").join(key);
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
        if let Stored::Whole(path, _) = self.look(&digest)? {
            return Ok(path);
        }
        let mut partial = self.partial(&digest.hex())?;
        partial.clear()?;
        partial.file.write_all(bytes)?;
        self.finish(&partial, &digest)
    }

    /// Where a packed layer lies, if it is there.
    pub fn layer(&self, name: &str) -> PathBuf {
        self.layers.clone().unwrap_or_else(|| self.root.join("layer")).join(name)
    }

    /// Where a new layer goes.
    pub fn new_layer(&self, name: &str) -> PathBuf {
        self.layers.clone().unwrap_or_else(|| self.place("layer")).join(name)
    }

    /// A fresh directory for this run; those of killed runs are removed.
    pub fn scratch(&self) -> anyhow::Result<Scratch> {
        Scratch::new(&self.place("tmp"))
    }

    /// Where the description of a package with this digest lies, if it is there.
    pub fn contents(&self, package: &Digest) -> PathBuf {
        self.root.join("contents").join(format!("{}.json", package.hex()))
    }

    /// Where it is noted that the reader has taken the image with this manifest, if it has.
    pub fn checked(&self, manifest: &Digest) -> PathBuf {
        self.root.join("checked").join(manifest.hex())
    }
}

impl Substitute {
    fn new() -> anyhow::Result<Self> {
        let directory =
            tempfile::Builder::new().prefix("sealift-").tempdir().context("making a temporary directory")?;
        for part in ["layer", "tmp"] {
            fs_err::create_dir(directory.path().join(part))?;
        }
        let temporary = Temporary::new(directory.path());
        Ok(Self { directory, _temporary: temporary })
    }
}

fn is_read_only(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied)
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
