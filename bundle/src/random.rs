//! Random access to a bundle that is a file: one scan over the headers, then any blob by digest.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};

use sha2::{Digest as _, Sha256};

use crate::archive::{Archive, blob_name};
use crate::digest::Digest;
use crate::error::{Error, Reason, refuse};
use crate::image::{Contents, Image};
use crate::release::Release;
use crate::sign::Trust;
use crate::ustar;
use crate::verified::{Bundle, UnverifiedBundle};

/// A verified bundle with random access.
pub struct BundleFile<R> {
    reader: R,
    index: Vec<u8>,
    signers: Vec<String>,
    contents: Contents,
    /// Where the content of a blob starts, and its size.
    offsets: BTreeMap<Digest, (u64, u64)>,
}

impl<R> fmt::Debug for BundleFile<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BundleFile").field("release", self.release()).finish_non_exhaustive()
    }
}

impl<R: Read + Seek> Bundle<R> {
    /// Scans the rest of the headers, seeking over the content, and checks that the file ends where it must.
    pub fn random_access(self) -> Result<BundleFile<R>, Error> {
        let Self { archive, index, signers, contents } = self;
        let (mut reader, _) = archive.into_parts();
        let mut position = reader.stream_position().map_err(Error::Read)?;
        let mut offsets = BTreeMap::new();
        for (digest, size) in &contents.blobs {
            Archive::at(&mut reader, position)?.expect(&blob_name(digest), *size)?;
            position += ustar::BLOCK as u64;
            offsets.insert(*digest, (position, *size));
            position += size + ustar::padding(*size) as u64;
        }
        Archive::at(&mut reader, position)?.end()?;
        Ok(BundleFile { reader, index, signers, contents, offsets })
    }
}

impl<R: Read + Seek> BundleFile<R> {
    /// Opens, verifies and scans a bundle.
    pub fn open(reader: R, trust: &Trust) -> Result<Self, Error> {
        UnverifiedBundle::open(reader)?.verify(trust)?.random_access()
    }

    /// The content of a blob. The reader fails at its end if the content does not have the blob's digest: believe nothing
    /// before that.
    pub fn blob(&mut self, digest: &Digest) -> Result<BlobReader<'_>, Error> {
        let memory = self.contents.metadata.get(digest);
        let (archive, size): (Archive<Box<dyn Read + '_>>, u64) = match (memory, self.offsets.get(digest)) {
            (Some(bytes), _) => {
                // In memory there is no padding; a chain makes it look alike.
                let size = bytes.len() as u64;
                let padding = io::repeat(0).take(ustar::padding(size) as u64);
                (Archive::new(Box::new(bytes.chain(padding))), size)
            }
            (None, Some((offset, size))) => {
                self.reader.seek(SeekFrom::Start(*offset)).map_err(Error::Read)?;
                (Archive::new(Box::new(&mut self.reader)), *size)
            }
            (None, None) => return Err(Error::Input(format!("the bundle has no blob `{digest}`"))),
        };
        Ok(BlobReader { archive, digest: *digest, size, left: size, hash: Some(Sha256::new()) })
    }
}

impl<R> BundleFile<R> {
    /// What the bundle is.
    pub fn release(&self) -> &Release {
        &self.contents.release
    }

    /// Digest of `index.json`.
    pub fn index_digest(&self) -> Digest {
        Digest::of(&self.index)
    }

    /// Key ids of the trusted keys whose signatures were checked.
    pub fn signers(&self) -> &[String] {
        &self.signers
    }

    /// The images, in the order of the index.
    pub fn images(&self) -> &[Image] {
        &self.contents.images
    }

    /// Size of a blob, if the bundle has it.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        let memory = self.contents.metadata.get(digest).map(|bytes| bytes.len() as u64);
        memory.or_else(|| self.offsets.get(digest).map(|(_, size)| *size))
    }
}

/// Reads one blob and fails at its end if its digest is wrong.
pub struct BlobReader<'a> {
    archive: Archive<Box<dyn Read + 'a>>,
    digest: Digest,
    size: u64,
    left: u64,
    hash: Option<Sha256>,
}

impl fmt::Debug for BlobReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobReader({}, {} of {} bytes left)", self.digest, self.left, self.size)
    }
}

impl BlobReader<'_> {
    fn advance(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let name = blob_name(&self.digest);
        if self.left == 0 {
            let Some(hash) = self.hash.take() else { return Ok(0) };
            self.archive.padding(&name, self.size)?;
            let found = Digest::from(hash);
            if found != self.digest {
                return Err(refuse(Reason::Digest, format!("`{name}`"), self.digest.to_string(), found.to_string()));
            }
            return Ok(0);
        }
        let length = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        self.archive.fill(&mut buffer[..length], &name)?;
        if let Some(hash) = &mut self.hash {
            hash.update(&buffer[..length]);
        }
        self.left -= length as u64;
        Ok(length)
    }
}

impl Read for BlobReader<'_> {
    /// Errors carry a [`Error`] as their inner error.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.advance(buffer).map_err(|error| match error {
            Error::Read(error) => error,
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        })
    }
}
