//! Files of the host: reads that tell absence from failure, and writes that are atomic and durable.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use fs_err::os::unix::fs::OpenOptionsExt as _;

use super::Host;

/// As many links as the kernel follows on one way.
pub(super) const MAX_LINKS: usize = 40;

/// What a path is, without following a link at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, socket or fifo.
    Other,
}

/// One entry of the file tree (`lstat`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
}

impl Entry {
    pub(super) fn of(metadata: &std::fs::Metadata) -> Self {
        let kind = match metadata.file_type() {
            kind if kind.is_file() => FileKind::Regular,
            kind if kind.is_dir() => FileKind::Directory,
            kind if kind.is_symlink() => FileKind::Symlink,
            _ => FileKind::Other,
        };
        Self { kind, mode: metadata.mode() & 0o7777, uid: metadata.uid(), gid: metadata.gid(), size: metadata.len() }
    }
}

pub(super) fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Host {
    /// The bytes of a file; `None` when there is none.
    pub fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        Ok(absent(fs_err::read(self.real_path(path)))?)
    }

    /// The text of a file; `None` when there is none, an error when it is not UTF-8.
    pub fn read_text(&self, path: &Path) -> Result<Option<String>> {
        let Some(bytes) = self.read(path)? else { return Ok(None) };
        Ok(Some(String::from_utf8(bytes).with_context(|| format!("`{}` is not UTF-8 text", path.display()))?))
    }

    /// The text of somebody else's file, for what is looked for in it: what is not UTF-8 is replaced. `None` when there is none.
    pub fn read_lossy(&self, path: &Path) -> Result<Option<String>> {
        Ok(self.read(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Opens a file for reading; `None` when there is none. A symbolic link at its end is followed.
    pub fn open(&self, path: &Path) -> Result<Option<fs_err::File>> {
        Ok(absent(fs_err::File::open(self.real_path(path)))?)
    }

    /// What is at a path (`lstat`); `None` when there is nothing.
    pub fn entry(&self, path: &Path) -> Result<Option<Entry>> {
        Ok(absent(fs_err::symlink_metadata(self.real_path(path)))?.map(|metadata| Entry::of(&metadata)))
    }

    /// Whether something is at a path (`lstat`).
    pub fn exists(&self, path: &Path) -> Result<bool> {
        Ok(self.entry(path)?.is_some())
    }

    /// The names in a directory, sorted; empty when there is none. Names that are not UTF-8 are an error.
    pub fn list(&self, path: &Path) -> Result<Vec<String>> {
        let Some(entries) = absent(fs_err::read_dir(self.real_path(path)))? else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let name = name.into_string().map_err(|name| {
                anyhow::anyhow!("`{}` has an entry whose name is not UTF-8: {}", path.display(), name.display())
            })?;
            names.push(name);
        }
        names.sort();
        Ok(names)
    }

    /// Where a symbolic link points; `None` when there is nothing or no link.
    pub fn link_target(&self, path: &Path) -> Result<Option<PathBuf>> {
        match self.entry(path)? {
            Some(Entry { kind: FileKind::Symlink, .. }) => Ok(Some(fs_err::read_link(self.real_path(path))?)),
            _ => Ok(None),
        }
    }

    /// Whether a file could be opened for writing (`/proc/sys` is read-only in many containers). Writes nothing.
    pub fn writable(&self, path: &Path) -> bool {
        fs_err::OpenOptions::new().write(true).open(self.real_path(path)).is_ok()
    }

    /// Whether a file has exactly these bytes and this mode.
    pub fn has(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<bool> {
        let same = self.entry(path)?.is_some_and(|entry| {
            entry.kind == FileKind::Regular && entry.mode == mode && entry.size == bytes.len() as u64
        });
        Ok(same && self.read(path)?.as_deref() == Some(bytes))
    }

    /// Writes a file: a temporary file in the same directory that has `mode` from its first byte, fsync, rename, fsync of
    /// the directory. Missing parents are created (0755). A file that is replaced hands its SELinux label on.
    pub fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
        self.write_from(path, &mut &bytes[..], mode)
    }

    /// As [`Host::write`], for a file of this user and group.
    pub fn write_owned(&self, path: &Path, bytes: &[u8], mode: u32, owner: (u32, u32)) -> Result<()> {
        self.replace(path, &mut &bytes[..], mode, Some(owner))
    }

    /// As [`Host::write`], from a stream. An error of the stream leaves nothing under the final name.
    pub fn write_from(&self, path: &Path, content: &mut dyn Read, mode: u32) -> Result<()> {
        self.replace(path, content, mode, None)
    }

    fn replace(&self, path: &Path, content: &mut dyn Read, mode: u32, owner: Option<(u32, u32)>) -> Result<()> {
        let (parent, name) = split(path)?;
        self.create_dir(parent, 0o755)?;
        self.sweep(parent, name)?;
        let temporary = parent.join(temporary_name(name));
        let label = super::label::read(&self.real_path(path))?;
        let written = self.write_temporary(&temporary, content, mode, owner).and_then(|()| {
            if let Some(label) = &label {
                super::label::set(&self.real_path(&temporary), label)?;
            }
            self.operation("rename", path)?;
            fs_err::rename(self.real_path(&temporary), self.real_path(path))?;
            self.sync_dir(parent)
        });
        if let Err(error) = written {
            // A killed program (a test's fault) cannot tidy up; the next write of this file does.
            if self.operation("remove", &temporary).is_ok() {
                let _ = fs_err::remove_file(self.real_path(&temporary));
            }
            return Err(error).with_context(|| format!("writing `{}`", path.display()));
        }
        Ok(())
    }

    /// Writes a file that must not be there yet, with `mode` from its first byte. Nothing is left of one that fails.
    pub fn write_new(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
        let (parent, _) = split(path)?;
        self.operation("create", path)?;
        let mut file =
            fs_err::OpenOptions::new().write(true).create_new(true).mode(mode & 0o700).open(self.real_path(path))?;
        let written = (|| {
            file.set_permissions(std::fs::Permissions::from_mode(mode))?;
            self.operation("fill", path)?;
            file.write_all(bytes)?;
            self.sync(&file)?;
            self.sync_dir(parent)
        })();
        if written.is_err() && self.operation("remove", path).is_ok() {
            let _ = fs_err::remove_file(self.real_path(path));
        }
        written.with_context(|| format!("writing `{}`", path.display()))
    }

    fn write_temporary(
        &self,
        temporary: &Path,
        content: &mut dyn Read,
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> Result<()> {
        self.operation("create", temporary)?;
        // Created private: the umask can only take bits away, and `fchmod` gives exactly the wanted ones before any byte.
        let mut file = fs_err::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode & 0o700)
            .open(self.real_path(temporary))?;
        // The owner first: `fchown` takes the setuid bit away.
        if let Some((uid, gid)) =
            owner.filter(|owner| file.metadata().is_ok_and(|own| (own.uid(), own.gid()) != *owner))
        {
            std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        if let Err(fault) = self.operation("fill", temporary) {
            if fault.kind() == io::ErrorKind::StorageFull {
                let mut half = Vec::new();
                content.read_to_end(&mut half)?;
                file.write_all(&half[..half.len() / 2])?;
            }
            return Err(fault.into());
        }
        io::copy(content, &mut file)?;
        self.sync(&file)
    }

    /// Removes what earlier runs that were killed while they wrote a file left beside it.
    pub(crate) fn sweep_beside(&self, path: &Path) -> Result<()> {
        let (parent, name) = split(path)?;
        self.sweep(parent, name)
    }

    fn sweep(&self, parent: &Path, name: &str) -> Result<()> {
        let prefix = format!(".{name}.sealift-");
        for other in self.list(parent)? {
            let Some(pid) = other.strip_prefix(&prefix).and_then(|pid| pid.parse::<i32>().ok()) else { continue };
            if !super::kernel::other_process_runs(pid) {
                self.remove(&parent.join(&other))?;
            }
        }
        Ok(())
    }

    /// Makes a directory with this mode, and its missing parents with 0755. An existing directory keeps its mode.
    pub fn create_dir(&self, path: &Path, mode: u32) -> Result<()> {
        match self.entry(path)? {
            Some(Entry { kind: FileKind::Directory, .. }) => return Ok(()),
            // A link to a directory (`/var/run`) serves as well.
            Some(Entry { kind: FileKind::Symlink, .. }) if self.real_path(path).is_dir() => return Ok(()),
            Some(_) => bail!("`{}` is in the way: a directory is needed there", path.display()),
            None => {}
        }
        if let Some(parent) = path.parent() {
            self.create_dir(parent, 0o755)?;
        }
        self.operation("mkdir", path)?;
        let real = self.real_path(path);
        match std::fs::DirBuilder::new().mode(mode & 0o700).create(&real) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && real.is_dir() => return Ok(()),
            other => other.with_context(|| format!("creating directory `{}`", path.display()))?,
        }
        fs_err::set_permissions(&real, std::fs::Permissions::from_mode(mode))?;
        path.parent().map_or(Ok(()), |parent| self.sync_dir(parent))
    }

    /// Makes a directory that must not be there yet, with this mode from the first moment; its parent must be there.
    pub fn create_new_dir(&self, path: &Path, mode: u32) -> Result<()> {
        self.operation("mkdir", path)?;
        std::fs::DirBuilder::new()
            .mode(mode)
            .create(self.real_path(path))
            .with_context(|| format!("creating directory `{}`", path.display()))
    }

    /// Sets the permission bits of a file or directory.
    pub fn set_mode(&self, path: &Path, mode: u32) -> Result<()> {
        self.operation("chmod", path)?;
        Ok(fs_err::set_permissions(self.real_path(path), std::fs::Permissions::from_mode(mode))?)
    }

    /// Gives a file or directory to a user and group, by number.
    pub fn set_owner(&self, path: &Path, uid: u32, gid: u32) -> Result<()> {
        self.operation("chown", path)?;
        std::os::unix::fs::lchown(self.real_path(path), Some(uid), Some(gid))
            .with_context(|| format!("giving `{}` to {uid}:{gid}", path.display()))
    }

    /// Points a symbolic link at `target` (stored as it is), replacing what was there in one rename.
    pub fn symlink(&self, link: &Path, target: &Path) -> Result<()> {
        let (parent, name) = split(link)?;
        self.create_dir(parent, 0o755)?;
        self.sweep(parent, name)?;
        let temporary = parent.join(temporary_name(name));
        self.operation("create", &temporary)?;
        fs_err::os::unix::fs::symlink(target, self.real_path(&temporary))?;
        self.rename(&temporary, link)
    }

    /// Renames, durably.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.operation("rename", to)?;
        fs_err::rename(self.real_path(from), self.real_path(to))?;
        self.sync_dir(split(to)?.0)
    }

    /// Removes a file, link or empty directory; fine when there is none.
    pub fn remove(&self, path: &Path) -> Result<()> {
        let Some(entry) = self.entry(path)? else { return Ok(()) };
        self.operation("remove", path)?;
        let real = self.real_path(path);
        let removed =
            if entry.kind == FileKind::Directory { fs_err::remove_dir(real) } else { fs_err::remove_file(real) };
        absent(removed)?;
        self.sync_dir(split(path)?.0)
    }

    /// Makes sure that a file exists (0600 or the like from its first byte) and that `bytes` of disk are set aside for it,
    /// where the file system can do that. Its length does not change.
    pub fn reserve(&self, path: &Path, mode: u32, bytes: u64) -> Result<()> {
        let (parent, _) = split(path)?;
        self.create_dir(parent, 0o755)?;
        let created = !self.exists(path)?;
        self.operation("reserve", path)?;
        let file = fs_err::OpenOptions::new().append(true).create(true).mode(mode).open(self.real_path(path))?;
        // Not every file system can; then the file grows as it is written.
        let reserved = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, bytes);
        if reserved == Err(rustix::io::Errno::NOSPC) {
            return Err(io::Error::from(rustix::io::Errno::NOSPC))
                .with_context(|| format!("setting {} MiB aside for `{}`", bytes >> 20, path.display()));
        }
        self.sync(&file)?;
        if created { self.sync_dir(parent) } else { Ok(()) }
    }

    /// Puts bytes at `offset`, which is the end of what counts: anything behind it (a torn record) is cut off. Durable
    /// when it returns. For append-only records; everything else is for [`Host::write`].
    pub fn append_at(&self, path: &Path, offset: u64, bytes: &[u8], mode: u32) -> Result<()> {
        use std::io::{Seek as _, SeekFrom};
        let fault = self.operation("append", path);
        if let Err(fault) = &fault
            && fault.kind() != io::ErrorKind::StorageFull
        {
            bail!("{fault}");
        }
        let mut file = fs_err::OpenOptions::new().write(true).create(true).mode(mode).open(self.real_path(path))?;
        if file.metadata()?.len() > offset {
            file.set_len(offset)?;
        }
        file.seek(SeekFrom::Start(offset))?;
        if let Err(fault) = fault {
            file.write_all(&bytes[..bytes.len() / 2])?;
            return Err(fault.into());
        }
        file.write_all(bytes)?;
        self.sync(&file)
    }

    /// Opens a file for locking, made (0600, empty) when there is none.
    pub(crate) fn open_lock(&self, path: &Path) -> Result<fs_err::File> {
        if !self.exists(path)? {
            self.operation("create", path)?;
        }
        Ok(fs_err::OpenOptions::new().append(true).create(true).mode(0o600).open(self.real_path(path))?)
    }

    /// Makes renames in a directory durable.
    pub(crate) fn sync_dir(&self, path: &Path) -> Result<()> {
        self.sync(&fs_err::File::open(self.real_path(path))?)
    }

    /// Waits until a file is on disk. Tests of a directory need no disk, and there are thousands of these.
    fn sync(&self, file: &fs_err::File) -> Result<()> {
        if self.is_real() { Ok(file.sync_all()?) } else { Ok(()) }
    }

    /// Fails unless `path` and everything on the way to it belongs to root and nobody else may write there: what others can
    /// swap cannot be trusted. Links are followed one by one, so that the way to their targets is looked at as well. Sticky
    /// directories (`/tmp`) do not count as safe. What is not there yet ends the way.
    pub fn require_private(&self, path: &Path) -> Result<()> {
        let mut left = Vec::new();
        push_reversed(&mut left, path);
        let mut at = PathBuf::from("/");
        let mut links = 0;
        // Below a directory that plays a host, only what is inside it counts.
        if self.is_real() {
            self.require_own(&at)?;
        }
        while let Some(part) = left.pop() {
            if part == ".." {
                at.pop();
                continue;
            }
            at.push(part);
            match self.require_own(&at)? {
                None => return Ok(()),
                Some(FileKind::Symlink) => {}
                Some(_) => continue,
            }
            links += 1;
            if links > MAX_LINKS {
                bail!("`{}` leads through too many links", path.display());
            }
            let target = fs_err::read_link(self.real_path(&at))?;
            if target.is_absolute() {
                at = PathBuf::from("/");
            } else {
                at.pop();
            }
            push_reversed(&mut left, &target);
        }
        Ok(())
    }

    /// What is at a path, which must be root's and nobody else's to write; `None` when there is nothing.
    fn require_own(&self, path: &Path) -> Result<Option<FileKind>> {
        let Some(entry) = self.entry(path)? else { return Ok(None) };
        let shown = path.display();
        if entry.uid != self.owner() {
            bail!("`{shown}` belongs to user {}, not to root", entry.uid);
        }
        // A link has no mode of its own: whoever can write its directory can change it.
        if entry.kind != FileKind::Symlink && entry.mode & 0o022 != 0 {
            bail!("`{shown}` can be written by others (mode {:04o})", entry.mode);
        }
        Ok(Some(entry.kind))
    }
}

/// The parts of a path, last first: a stack of what is still to be walked.
pub(super) fn push_reversed(left: &mut Vec<OsString>, path: &Path) {
    let parts = path.components().rev().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    left.extend(parts.map(|part| part.as_os_str().to_owned()));
}

pub(super) fn split(path: &Path) -> Result<(&Path, &str)> {
    match (path.parent(), path.file_name().and_then(OsStr::to_str)) {
        (Some(parent), Some(name)) => Ok((parent, name)),
        _ => bail!("`{}` does not name a file", path.display()),
    }
}

fn temporary_name(name: &str) -> String {
    format!(".{name}.sealift-{}", std::process::id())
}
