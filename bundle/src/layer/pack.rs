//! Writes a layer: the same files give the same bytes, whatever the order, umask, clock or number of threads.
//!
//! zstd runs with at least one worker (the frame then does not depend on their number), with its checksum, without a
//! pledged size and without flushes (each of these changes the bytes).

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use zstd::stream::write::Encoder;

use super::files;
use crate::component::{Entry, File};
use crate::digest::{Digest, Hashing};
use crate::error::Error;
use crate::name::LayerPath;
use crate::ustar::{self, END};

/// Where bytes come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Memory.
    Bytes(Vec<u8>),
    /// A file, read when it is needed.
    File(PathBuf),
}

impl Source {
    /// Opens it: a reader and the size it should give.
    pub(crate) fn open(&self) -> Result<(Box<dyn Read + '_>, u64), Error> {
        match self {
            Self::Bytes(bytes) => Ok((Box::new(bytes.as_slice()), bytes.len() as u64)),
            Self::File(path) => {
                let file = fs_err::File::open(path).map_err(Error::Source)?;
                let size = file.metadata().map_err(Error::Source)?.len();
                Ok((Box::new(file), size))
            }
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Bytes(_) => "bytes in memory".to_owned(),
            Self::File(path) => format!("`{}`", path.display()),
        }
    }

    /// Copies exactly `size` bytes, hashing them.
    pub(crate) fn copy(&self, size: u64, reader: Box<dyn Read + '_>, out: &mut dyn Write) -> Result<Digest, Error> {
        let mut reader = Hashing::new(reader);
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::Source(error)),
            };
            if reader.count() > size {
                break;
            }
            out.write_all(&buffer[..read]).map_err(Error::Write)?;
        }
        let (_, digest, count) = reader.finish();
        if count != size {
            return Err(Error::Input(format!("{} changed while it was read: expected {size} bytes", self.name())));
        }
        Ok(digest)
    }
}

/// What becomes of a path.
#[derive(Clone, Debug)]
pub enum PackEntry {
    /// A directory; parents of other entries need not be given.
    Directory,
    /// A regular file.
    Regular {
        /// Permission bits: one of 0755, 0644, 0555, 0444, 0700, 0600.
        mode: u32,
        /// Its content.
        source: Source,
    },
    /// A relative link that stays inside the layer.
    Symlink {
        /// Link target.
        target: String,
    },
}

/// A layer that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedLayer {
    /// Digest of the compressed layer.
    pub digest: Digest,
    /// Bytes of the compressed layer.
    pub size: u64,
    /// Digest of the uncompressed layer.
    pub diff_id: Digest,
    /// Bytes of the uncompressed layer.
    pub unpacked_size: u64,
    /// The list that the component's config carries.
    pub files: Vec<File>,
}

/// Packs a layer; files are streamed. `level` is 1 to 19, `workers` the number of compression threads (at least 1 is used,
/// and the bytes do not depend on it).
pub fn pack(
    entries: BTreeMap<LayerPath, PackEntry>,
    level: i32,
    workers: u32,
    out: impl Write,
) -> Result<PackedLayer, Error> {
    if !(1..=19).contains(&level) {
        return Err(Error::Input(format!("zstd level {level}: expected 1 to 19")));
    }
    let mut encoder = Encoder::new(Hashing::new(out), level).map_err(Error::Write)?;
    encoder.multithread(workers.max(1)).map_err(Error::Write)?;
    encoder.include_checksum(true).map_err(Error::Write)?;
    let mut tar = Hashing::new(encoder);

    let mut files = Vec::new();
    for (path, entry) in with_parents(entries) {
        let entry = write_entry(&path, entry, &mut tar)?;
        files.push(File { path, entry });
    }
    files::check(&files).map_err(Error::Input)?;
    tar.write_all(&[0; END]).map_err(Error::Write)?;

    let (encoder, diff_id, unpacked_size) = tar.finish();
    let mut layer = encoder.finish().map_err(Error::Write)?;
    layer.flush().map_err(Error::Write)?;
    let (_, digest, size) = layer.finish();
    Ok(PackedLayer { digest, size, diff_id, unpacked_size, files })
}

fn with_parents(entries: BTreeMap<LayerPath, PackEntry>) -> BTreeMap<LayerPath, PackEntry> {
    let mut all = entries;
    let paths = all.keys().cloned().collect::<Vec<_>>();
    for path in paths {
        let mut parent = path.parent();
        while let Some(directory) = parent {
            parent = directory.parent();
            all.entry(directory).or_insert(PackEntry::Directory);
        }
    }
    all
}

fn write_entry(path: &LayerPath, entry: PackEntry, tar: &mut dyn Write) -> Result<Entry, Error> {
    let wrong = |what: &str| Error::Input(format!("`{path}` cannot be in a layer: {what}"));
    let header = |item| ustar::header(path.as_str(), item).map_err(wrong);
    match entry {
        PackEntry::Directory => {
            tar.write_all(&header(ustar::Item::Directory)?).map_err(Error::Write)?;
            Ok(Entry::Directory)
        }
        PackEntry::Symlink { target } => {
            tar.write_all(&header(ustar::Item::Symlink { target: &target })?).map_err(Error::Write)?;
            Ok(Entry::Symlink { target })
        }
        PackEntry::Regular { mode, source } => {
            let (reader, size) = source.open()?;
            tar.write_all(&header(ustar::Item::Regular { mode, size })?).map_err(Error::Write)?;
            let sha256 = source.copy(size, reader, tar)?;
            tar.write_all(&[0; ustar::BLOCK][..ustar::padding(size)]).map_err(Error::Write)?;
            Ok(Entry::Regular { mode, size, sha256 })
        }
    }
}
