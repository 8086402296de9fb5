//! Unpacking: the [`Sink`] of a verified bundle, over [`Host`].
//!
//! Everything lands in one private staging directory. Below it every path component is opened with
//! `openat(O_NOFOLLOW|O_DIRECTORY)` from the directory before it, and every file is created anew (`O_EXCL`), so no link
//! can lead a write elsewhere. Only when the whole bundle has proven right: one `syncfs`, then the renames.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use bundle::{Digest, Image, LayerPath, Sink};
use rustix::fs::{AtFlags, Mode, OFlags, fchmod, mkdirat, openat, symlinkat, syncfs};

use super::{BLOBS, STORE, blob_path, entry_name, entry_path, is_present};
use crate::host::Host;
use crate::report::{Exit, Explain as _};
use crate::share::Share;

/// A bundle on its way into the store.
pub(super) struct Staging<'a> {
    host: &'a Host,
    share: Share<'a>,
    /// `.tmp-PID` in the store; none when no image is wanted.
    root: Option<(PathBuf, OwnedFd)>,
    /// Program images to move into place: staged name → final path.
    entries: BTreeMap<String, PathBuf>,
    blobs: BTreeSet<Digest>,
    progress: &'a mut dyn FnMut(),
}

impl<'a> Staging<'a> {
    pub(super) fn new(host: &'a Host, share: Share<'a>, progress: &'a mut dyn FnMut()) -> Self {
        Self { host, share, root: None, entries: BTreeMap::new(), blobs: BTreeSet::new(), progress }
    }

    /// Makes the staging directory: a new one, private from the start. What has its name already is not used.
    pub(super) fn begin_at(&mut self, path: &Path) -> Result<()> {
        self.host
            .create_new_dir(path, 0o700)
            .exit(Exit::Preflight)
            .hint(format!("if `{}` is there, find out who put it there and remove it", path.display()))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(self.host.real_path(path), flags, Mode::empty())?;
        self.root = Some((path.to_owned(), fd));
        Ok(())
    }

    fn root(&self) -> io::Result<&OwnedFd> {
        self.root.as_ref().map(|(_, fd)| fd).ok_or_else(|| io::Error::other("no staging directory"))
    }

    /// Makes a directory directly below the staging root.
    fn top(&self, name: &str) -> io::Result<()> {
        let shown = Path::new(STORE).join(name);
        self.host.operation("stage", &shown)?;
        let root = self.root()?;
        match mkdirat(root, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => fchmod(open_directory(root, name)?, Mode::from_raw_mode(0o755))?,
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Opens the directory that holds `path` inside a staged image, one component at a time.
    fn parent(&self, image: &Image, path: &LayerPath) -> io::Result<OwnedFd> {
        let mut directory = open_directory(self.root()?, &entry_name(image))?;
        if let Some(parent) = path.parent() {
            for part in parent.components() {
                directory = open_directory(&directory, part)?;
            }
        }
        Ok(directory)
    }

    fn create(
        &mut self,
        directory: &OwnedFd,
        name: &str,
        mode: u32,
        content: &mut dyn Read,
        shown: &Path,
    ) -> io::Result<()> {
        if crate::engine::interrupted() {
            return Err(io::Error::other("interrupted"));
        }
        let fault = self.host.operation("unpack", shown);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if let Err(fault) = &fault
            && fault.kind() != io::ErrorKind::StorageFull
        {
            return Err(io::Error::new(fault.kind(), fault.to_string()));
        }
        let fd = openat(directory, name, flags, Mode::from_raw_mode(0o600))?;
        fchmod(&fd, Mode::from_raw_mode(mode))?;
        let mut file = std::fs::File::from(fd);
        if let Err(fault) = fault {
            file.write_all(b"half")?;
            return Err(fault);
        }
        let mut buffer = vec![0; 256 << 10];
        loop {
            match content.read(&mut buffer)? {
                0 => return Ok(()),
                read => file.write_all(&buffer[..read])?,
            }
            (self.progress)();
        }
    }

    /// Makes durable what was staged and moves it into place.
    pub(super) fn commit(mut self) -> Result<()> {
        let Some((path, fd)) = self.root.take() else { return Ok(()) };
        self.host.operation("syncfs", &path)?;
        if self.host.is_real() {
            syncfs(fd.as_fd()).context("writing the store to disk")?;
        }
        for (name, target) in &self.entries {
            if self.host.exists(target)? {
                // There, but not what was signed (see `is_present`): put aside, because a process may still use it.
                self.host.rename(target, &path.join(format!("replaced-{name}")))?;
            }
            self.host.rename(&path.join(name), target)?;
        }
        if !self.blobs.is_empty() {
            self.host.create_dir(Path::new(BLOBS), 0o755)?;
        }
        for digest in &self.blobs {
            self.host.rename(&path.join("blobs").join(digest.hex()), &blob_path(digest))?;
        }
        self.host.remove_tree(&path)
    }
}

fn open_directory(at: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(at, name, flags, Mode::empty())?)
}

/// Where an entry of an image will be, for records and messages.
fn shown(image: &Image, path: &LayerPath) -> PathBuf {
    entry_path(image).join(path.as_str())
}

impl Sink for Staging<'_> {
    fn begin(&mut self, image: &Image) -> io::Result<bool> {
        if !self.share.has(&image.component) || is_present(self.host, image).map_err(io::Error::other)? {
            return Ok(false);
        }
        if image.component.kind.has_files() {
            self.top(&entry_name(image))?;
            self.entries.insert(entry_name(image), entry_path(image));
        } else {
            self.top("blobs")?;
        }
        Ok(true)
    }

    fn directory(&mut self, image: &Image, path: &LayerPath) -> io::Result<()> {
        self.host.operation("unpack", &shown(image, path))?;
        let parent = self.parent(image, path)?;
        mkdirat(&parent, path.file_name(), Mode::from_raw_mode(0o755))?;
        Ok(fchmod(open_directory(&parent, path.file_name())?, Mode::from_raw_mode(0o755))?)
    }

    fn file(&mut self, image: &Image, path: &LayerPath, mode: u32, _: u64, content: &mut dyn Read) -> io::Result<()> {
        let parent = self.parent(image, path)?;
        // The store is read-only: what changes belongs elsewhere.
        self.create(&parent, path.file_name(), mode & 0o555, content, &shown(image, path))
    }

    fn symlink(&mut self, image: &Image, path: &LayerPath, target: &str) -> io::Result<()> {
        self.host.operation("unpack", &shown(image, path))?;
        let parent = self.parent(image, path)?;
        Ok(symlinkat(target, &parent, path.file_name())?)
    }

    fn blob(&mut self, _: &Image, digest: &Digest, _: u64, content: &mut dyn Read) -> io::Result<()> {
        let directory = open_directory(self.root()?, "blobs")?;
        let name = digest.hex();
        if rustix::fs::statat(&directory, name.as_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return Ok(());
        }
        self.create(&directory, &name, 0o444, content, &blob_path(digest))?;
        self.blobs.insert(*digest);
        Ok(())
    }
}
