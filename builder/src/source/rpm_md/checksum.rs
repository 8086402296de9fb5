//! Checksums of rpm-md metadata: SHA-256 or SHA-512, over files as they lie in the repository and over what they unpack to.

use std::fmt;
use std::io::{self, Read, Write as _};
use std::path::Path;

use crate::failure::Failure;
use crate::sha512::{self, Sha512};
use anyhow::Context as _;
use bundle::Digest;

/// No metadata unpacks to more, whatever it says (the file lists of large distributions have about 1 GiB).
const UNPACKED_LIMIT: u64 = 4 << 30;

/// What metadata says the content of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// `sha256`
    Sha256(Digest),
    /// `sha512`
    Sha512(Sha512),
}

impl Checksum {
    /// Reads `type` and text of a `checksum` element; algorithms that collide are refused.
    pub fn parse(kind: &str, hex: &str) -> anyhow::Result<Self> {
        let wrong = || Failure::new(format!("`{}` is not a {kind} checksum", hex.escape_debug()));
        match kind {
            "sha256" => Ok(Self::Sha256(Digest::from_hex(hex).map_err(|_| wrong())?)),
            "sha512" => Ok(Self::Sha512(hex.parse().map_err(|_| wrong())?)),
            other => Err(Failure::new(format!(
                "the checksum is of type `{}`: neither SHA-256 nor SHA-512",
                other.escape_debug()
            ))
            .hint("for weaker ones colliding files can be made; create the metadata anew with `createrepo_c -s sha256`")
            .into()),
        }
    }

    /// Hex digits alone, as file lists name packages.
    pub fn hex(&self) -> String {
        match self {
            Self::Sha256(digest) => digest.hex(),
            Self::Sha512(digest) => digest.to_string(),
        }
    }

    /// The SHA-256, if that is what it is.
    pub fn sha256(&self) -> Option<Digest> {
        match self {
            Self::Sha256(digest) => Some(*digest),
            Self::Sha512(_) => None,
        }
    }

    /// The SHA-512, if that is what it is.
    pub fn sha512(&self) -> Option<Sha512> {
        match self {
            Self::Sha256(_) => None,
            Self::Sha512(digest) => Some(*digest),
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => digest.fmt(f),
            Self::Sha512(digest) => write!(f, "sha512:{digest}"),
        }
    }
}

/// How a metadata file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// gzip
    Gzip,
    /// xz
    Xz,
    /// zstd
    Zstd,
}

impl Packing {
    /// From a metadata file's name.
    pub fn of(name: &str) -> anyhow::Result<Self> {
        Ok(match name.rsplit_once('.').map(|(_, end)| end) {
            Some("xml") => Self::Plain,
            Some("gz") => Self::Gzip,
            Some("xz") => Self::Xz,
            Some("zst") => Self::Zstd,
            _ => {
                let text = format!("`{name}` is packed in a way that is not supported");
                return Err(Failure::new(text)
                    .hint("gzip, xz and zstd are: create the metadata anew with `createrepo_c --general-compress-type=gz`")
                    .into());
            }
        })
    }

    /// Unpacks a stream.
    pub fn unpack<'a>(self, file: impl Read + 'a) -> anyhow::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::Plain => Box::new(file),
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(file)),
            Self::Xz => Box::new(liblzma::read::XzDecoder::new_stream(file, crate::archive::xz()?)),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::new(file)?),
        })
    }
}

/// A stream whose length and content are compared at its end: **what was read is proven only if [`Checking::finish`]
/// returns `Ok`**. More than the expected bytes are an error at once.
#[derive(Debug)]
pub struct Checking<R> {
    inner: R,
    hash: Hash,
    expected: Option<Checksum>,
    size: Option<u64>,
    read: u64,
}

#[derive(Debug)]
enum Hash {
    Sha256(Box<bundle::digest::Hashing<io::Sink>>),
    Sha512(Box<sha512::Hashing>),
}

impl<R: Read> Checking<R> {
    /// Wraps a stream.
    pub fn new(inner: R, expected: Option<Checksum>, size: Option<u64>) -> Self {
        let hash = match &expected {
            Some(Checksum::Sha512(_)) => Hash::Sha512(Box::default()),
            _ => Hash::Sha256(Box::new(bundle::digest::Hashing::new(io::sink()))),
        };
        Self { inner, hash, expected, size, read: 0 }
    }

    /// Most bytes that are read: metadata that nobody has signed may say any size.
    fn limit(&self) -> u64 {
        self.size.unwrap_or(UNPACKED_LIMIT).min(UNPACKED_LIMIT)
    }

    /// Reads the rest and compares.
    pub fn finish(mut self) -> anyhow::Result<()> {
        io::copy(&mut self, &mut io::sink())?;
        let Self { hash, expected, size, read, .. } = self;
        if let Some(size) = size.filter(|size| *size != read) {
            return Err(Failure::new(format!("it unpacks to {read} bytes, the repository says {size}")).into());
        }
        let found = match hash {
            Hash::Sha256(hash) => Checksum::Sha256(hash.finish().1),
            Hash::Sha512(hash) => Checksum::Sha512(hash.finish()),
        };
        match expected {
            Some(expected) if expected != found => {
                Err(Failure::new(format!("wrong content: expected {expected}, got {found}")).into())
            }
            _ => Ok(()),
        }
    }
}

impl<R: Read> Read for Checking<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read += read as u64;
        let limit = self.limit();
        if self.read > limit {
            return Err(io::Error::other(format!("more than the expected {limit} bytes are unpacked")));
        }
        match &mut self.hash {
            Hash::Sha256(hash) => hash.write_all(&buffer[..read])?,
            Hash::Sha512(hash) => hash.write_all(&buffer[..read])?,
        }
        Ok(read)
    }
}

/// Opens a metadata file, unpacks and reads it through `parse`, and compares length and content at the end.
pub fn read_unpacked<T>(
    path: &Path,
    name: &str,
    open: Option<Checksum>,
    open_size: Option<u64>,
    parse: impl FnOnce(&mut dyn io::BufRead) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let place = || format!("reading the metadata `{name}`");
    let file = io::BufReader::new(fs_err::File::open(path)?);
    let plain = Packing::of(name)?.unpack(file).with_context(place)?;
    let mut checking = Checking::new(plain, open, open_size);
    let parsed = parse(&mut io::BufReader::with_capacity(64 << 10, &mut checking)).with_context(place)?;
    checking.finish().with_context(place)?;
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_checksums_are_refused() {
        for weak in ["sha", "sha1", "md5", "sha224", ""] {
            let error = Checksum::parse(weak, &"0".repeat(40)).unwrap_err().to_string();
            assert!(error.contains("neither SHA-256 nor SHA-512"), "{error}");
        }
        assert!(Checksum::parse("sha256", &"a".repeat(64)).is_ok());
        assert!(Checksum::parse("sha512", &"a".repeat(128)).is_ok());
        assert!(Checksum::parse("sha512", &"a".repeat(64)).is_err());
    }

    #[test]
    fn what_unpacks_to_something_else_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        fs_err::write(&path, zstd::encode_all(&b"content"[..], 1).unwrap()).unwrap();
        let open = Checksum::Sha256(Digest::of(b"content"));
        let read = |open: &Checksum, size| {
            let read = |reader: &mut dyn io::BufRead| -> anyhow::Result<String> {
                let mut text = String::new();
                reader.read_to_string(&mut text)?;
                Ok(text)
            };
            read_unpacked(&path, "x.xml.zst", Some(*open), size, read).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(read(&open, Some(7)).unwrap(), "content");
        assert_eq!(read(&open, None).unwrap(), "content");
        assert!(read(&open, Some(6)).unwrap_err().contains("more than the expected 6 bytes"));
        assert!(read(&open, Some(8)).unwrap_err().contains("unpacks to 7 bytes, the repository says 8"));
        assert!(read(&Checksum::Sha256(Digest::of(b"other")), None).unwrap_err().contains("wrong content"));
        assert_eq!(Checking::new(io::empty(), None, Some(u64::MAX)).limit(), UNPACKED_LIMIT);
        assert!(Packing::of("primary.xml.bz2").is_err() && Packing::of("primary.sqlite").is_err());
        let long = |bytes: &[u8]| Checksum::Sha512(Sha512::of(bytes));
        assert_eq!(read(&long(b"content"), None).unwrap(), "content");
        assert!(read(&long(b"other"), None).unwrap_err().contains("wrong content: expected sha512:"));
    }
}
