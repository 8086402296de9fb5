//! The store `/opt/sealift/store`: verified components unpacked, container images and packages as blobs.
//!
//! Nothing gets its name in the store before the last byte of the bundle has proven right; a refusal removes what was
//! staged and leaves the host as it was. From then on the store, which only root can write, is the trust boundary.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, anyhow};
use bundle::component::{Entry, Package};
use bundle::{Bundle, Digest, Image};

use crate::context::{Context, HOME};
use crate::host::packages::Archive;
use crate::host::{FileKind, Host};
use crate::report::{Exit, Explain as _};
use crate::share::Share;
use crate::step::{Change, Check, Step};

mod footprint;
mod program;
mod staging;

pub use footprint::Footprint;
pub use program::{Program, program_path, running_program};

/// The store.
pub const STORE: &str = "/opt/sealift/store";
/// Blobs of container images and packages, by the hex of their digest.
pub const BLOBS: &str = "/opt/sealift/store/blobs";
/// Room left free beside what is unpacked, bytes.
const SPARE: u64 = 64 << 20;

/// Name of a program component's directory in the store: `COMPONENT-VERSION-DIGEST12`.
pub fn entry_name(image: &Image) -> String {
    format!("{}-{}-{}", image.component.name, image.component.version, image.manifest.short())
}

/// Its path.
pub fn entry_path(image: &Image) -> PathBuf {
    Path::new(STORE).join(entry_name(image))
}

/// Path of a blob. Whoever hands it on hashes it again through the descriptor that is passed on.
pub fn blob_path(digest: &Digest) -> PathBuf {
    Path::new(BLOBS).join(digest.hex())
}

/// A package's file in the store.
pub fn archive(package: &Package) -> Archive {
    Archive {
        name: package.name.clone(),
        version: package.version.clone(),
        path: blob_path(&package.sha256),
        digest: package.sha256,
        size: package.size,
    }
}

/// Whether the store has an image: every file it lists with its kind, mode, size or target. The content was proven before
/// it got its name, and only root can write there.
pub fn is_present(host: &Host, image: &Image) -> Result<bool> {
    if !image.component.kind.has_files() {
        for blob in &image.blobs {
            let found = host.entry(&blob_path(&blob.digest))?;
            if found.is_none_or(|found| found.kind != FileKind::Regular || found.size != blob.size) {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    let root = entry_path(image);
    if host.entry(&root)?.is_none_or(|found| found.kind != FileKind::Directory) {
        return Ok(false);
    }
    for file in &image.files {
        let path = root.join(file.path.as_str());
        let Some(found) = host.entry(&path)? else { return Ok(false) };
        let same = match &file.entry {
            Entry::Directory => found.kind == FileKind::Directory,
            Entry::Regular { mode, size, .. } => {
                found.kind == FileKind::Regular && found.mode == mode & 0o555 && found.size == *size
            }
            Entry::Symlink { target } => host.link_target(&path)?.as_deref() == Some(Path::new(target)),
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Counts what is read through it.
pub struct Metered<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R> Metered<R> {
    /// Wraps a reader; the counter can be read from elsewhere.
    pub fn new(inner: R) -> (Self, Arc<AtomicU64>) {
        let count = Arc::new(AtomicU64::new(0));
        (Self { inner, count: Arc::clone(&count) }, count)
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if crate::engine::interrupted() {
            return Err(std::io::Error::other("interrupted"));
        }
        let read = self.inner.read(buffer)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

impl<R> fmt::Debug for Metered<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Metered").field(&self.count).finish()
    }
}

/// A bundle whose signatures are checked and whose content is still to come.
pub type Stream = Bundle<Metered<Box<dyn Read + Send>>>;

/// The step that verifies the whole bundle and unpacks what the roles need. Without a stream (`plan`, `resume`) it only
/// compares.
pub struct Store {
    stream: Mutex<Option<(Stream, Arc<AtomicU64>)>>,
    size: u64,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Store {
    /// Unpacks this stream; `size` is that of the whole bundle, 0 when it comes through a pipe.
    pub fn of(stream: Stream, count: Arc<AtomicU64>, size: u64) -> Self {
        Self { stream: Mutex::new(Some((stream, count))), size }
    }

    /// Only compares.
    pub fn comparing() -> Self {
        Self { stream: Mutex::new(None), size: 0 }
    }
}

fn missing<'a>(host: &Host, images: &'a [Image], share: Share<'_>) -> Result<Vec<&'a Image>> {
    let mut missing = Vec::new();
    for image in images.iter().filter(|image| share.has(&image.component)) {
        if !is_present(host, image)? {
            missing.push(image);
        }
    }
    Ok(missing)
}

/// Staging directories of runs that were killed; the lock says that nobody uses them. Anything else of such a name is not
/// ours to remove.
fn left_over(host: &Host) -> Result<Vec<PathBuf>> {
    let mut left = Vec::new();
    for name in host.list(Path::new(STORE))?.iter().filter(|name| name.starts_with(".tmp-")) {
        let path = Path::new(STORE).join(name);
        let found = host.entry(&path)?;
        if found.is_some_and(|found| found.kind == FileKind::Directory && found.uid == host.owner()) {
            left.push(path);
        }
    }
    Ok(left)
}

/// The store is the trust boundary: whoever else could write there, or swap it, could change what was verified.
fn require_private(host: &Host) -> Result<()> {
    host.require_private(Path::new(BLOBS))
        .with_context(|| format!("others could change what is unpacked below {HOME}"))
        .exit(Exit::Preflight)
        .hint("find out who has changed it, then `chown root:root` and `chmod go-w` what is named")
}

impl Step for Store {
    fn name(&self) -> &'static str {
        "store"
    }

    fn title(&self) -> &'static str {
        "Verify the bundle and unpack it"
    }

    fn check(&self, context: &Context<'_>) -> Result<Check> {
        require_private(context.host)?;
        let mut changes = Vec::new();
        for image in missing(context.host, context.images, context.share())? {
            changes.push(Change::new(format!("unpack {} ({})", image.title(), size(image.installed_size()))));
        }
        for path in left_over(context.host)? {
            changes.push(Change::new(format!("remove {} of a run that was killed", path.display())));
        }
        let unread = self.stream.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        Ok(if unread || !changes.is_empty() { Check::Needed(changes) } else { Check::Done })
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        let host = context.host;
        let taken = self.stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((stream, count)) = taken else {
            let error: Result<()> = Err(anyhow!("the store is not complete, and this run has no bundle to unpack"));
            return error.hint("run `installer --role … --bundle … --config …` again");
        };
        let missing = missing(host, context.images, context.share())?;
        let needed: u64 = missing.iter().map(|image| image.installed_size()).sum();
        let free = host.free_bytes(Path::new(STORE))?;
        if needed > 0 && free < needed.saturating_add(SPARE) {
            let error: Result<()> = Err(anyhow!(
                "{} are free below {STORE}, {} are needed",
                size(free),
                size(needed.saturating_add(SPARE))
            ));
            return error
                .exit(Exit::Preflight)
                .hint(format!("free some space, or mount a larger file system at {HOME}"));
        }
        let mut footprint = Footprint::new(host);
        if !missing.is_empty() {
            footprint.directory(Path::new(STORE), 0o755)?;
        }
        let unpacked = unpack(stream, &count, self.size, !missing.is_empty(), context);
        match unpacked {
            Ok(summary) => {
                context.note(format!(
                    "bundle verified: {} read, {} files and {} blobs unpacked",
                    size(summary.bundle_size),
                    summary.files,
                    summary.blobs
                ));
                Ok(())
            }
            Err(error) => {
                for path in left_over(host).unwrap_or_default() {
                    let _ = host.remove_tree(&path);
                }
                footprint.take_back();
                Err(error)
            }
        }
    }
}

fn unpack(
    stream: Stream,
    count: &AtomicU64,
    total: u64,
    something: bool,
    context: &Context<'_>,
) -> Result<bundle::Summary> {
    for path in left_over(context.host)? {
        context.host.remove_tree(&path)?;
    }
    let mut said = 0;
    let mut progress = || {
        let done = count.load(Ordering::Relaxed);
        if done - said > 4 << 20 {
            said = done;
            context.progress(done, total, "bytes");
        }
    };
    let mut staging = staging::Staging::new(context.host, context.share(), &mut progress);
    if something {
        staging.begin_at(&Path::new(STORE).join(format!(".tmp-{}", std::process::id())))?;
    }
    let summary = stream.unpack(&mut staging).map_err(classify)?;
    staging.commit()?;
    Ok(summary)
}

/// Refusals end with their own exit code.
pub fn classify(error: bundle::Error) -> anyhow::Error {
    let refused = error.is_refusal() || matches!(error, bundle::Error::Key { .. });
    let hint = error.hint();
    let error = anyhow::Error::from(error);
    let error = if refused { error.exit(Exit::Bundle) } else { error };
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Bytes as people read them: `112 B`, `45.1 MiB`.
#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} GiB")
}
