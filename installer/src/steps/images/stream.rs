//! An OCI image layout as a tar stream, made on the fly from blobs of the store: what `ctr images import -` reads.
//!
//! Blobs were verified when they came in, but time has passed since: each is hashed again as it flows, and the stream
//! fails at the end of a blob whose content is not what its name says.

use std::collections::VecDeque;
use std::io::{self, Read};

use bundle::Digest;
use bundle::digest::Hashing;

const BLOCK: usize = 512;

/// The stream; read it to its end.
pub(super) struct LayoutStream {
    segments: VecDeque<Segment>,
}

impl std::fmt::Debug for LayoutStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayoutStream").field("segments", &self.segments.len()).finish()
    }
}

enum Segment {
    Bytes(io::Cursor<Vec<u8>>),
    Blob { content: Option<Hashing<io::Take<Box<dyn Read + Send>>>>, digest: Digest, size: u64 },
}

impl LayoutStream {
    /// A layout with this `index.json`; blobs follow with [`LayoutStream::blob`], then [`LayoutStream::end`].
    pub(super) fn new(index: &[u8]) -> Self {
        let mut stream = Self { segments: VecDeque::new() };
        stream.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        stream.file("index.json", index);
        stream
    }

    fn file(&mut self, name: &str, content: &[u8]) {
        let mut bytes = header(name, content.len() as u64);
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        self.segments.push_back(Segment::Bytes(io::Cursor::new(bytes)));
    }

    /// Adds a blob of the store.
    pub(super) fn blob(&mut self, digest: Digest, size: u64, content: Box<dyn Read + Send>) {
        let head = header(&format!("blobs/sha256/{}", digest.hex()), size);
        self.segments.push_back(Segment::Bytes(io::Cursor::new(head)));
        // One byte more than promised, so that a longer file is noticed.
        let content = Some(Hashing::new(content.take(size + 1)));
        self.segments.push_back(Segment::Blob { content, digest, size });
        let padding = usize::try_from(size.next_multiple_of(BLOCK as u64) - size).unwrap_or(0);
        self.segments.push_back(Segment::Bytes(io::Cursor::new(vec![0; padding])));
    }

    /// Closes the archive.
    #[must_use]
    pub(super) fn end(mut self) -> Self {
        self.segments.push_back(Segment::Bytes(io::Cursor::new(vec![0; 2 * BLOCK])));
        self
    }
}

impl Read for LayoutStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(segment) = self.segments.front_mut() {
            let count = match segment {
                Segment::Bytes(bytes) => bytes.read(buffer)?,
                Segment::Blob { content, digest, size } => read_blob(content, *digest, *size, buffer)?,
            };
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            self.segments.pop_front();
        }
        Ok(0)
    }
}

fn read_blob(
    content: &mut Option<Hashing<io::Take<Box<dyn Read + Send>>>>,
    digest: Digest,
    size: u64,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let Some(reader) = content.as_mut() else { return Ok(0) };
    let count = reader.read(buffer)?;
    if count == 0 || reader.count() > size {
        let found = content.take().map(Hashing::finish).map(|(_, found, count)| (found, count));
        if found != Some((digest, size)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("blob {digest} of the store does not hold what its name says"),
            ));
        }
    }
    Ok(count)
}

/// A ustar header of a regular file (POSIX.1-1988), owner root, mode 0644, no time.
fn header(name: &str, size: u64) -> Vec<u8> {
    let mut block = vec![0_u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name.as_bytes()[..name.len().min(100)]);
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream_of(content: &'static [u8], digest: Digest, size: u64) -> io::Result<Vec<u8>> {
        let mut stream = LayoutStream::new(b"{}");
        stream.blob(digest, size, Box::new(content));
        let mut bytes = Vec::new();
        stream.end().read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn every_part_starts_at_a_block() {
        let bytes = stream_of(b"hello", Digest::of(b"hello"), 5).unwrap();
        assert_eq!(bytes.len() % BLOCK, 0);
        assert!(bytes.starts_with(b"oci-layout\0"));
        let at = bytes.windows(12).position(|window| window == b"blobs/sha256").unwrap();
        assert_eq!(at % BLOCK, 0);
        assert_eq!(&bytes[at + BLOCK..at + BLOCK + 5], b"hello");
        assert!(bytes.ends_with(&[0; 2 * BLOCK]));
    }

    #[test]
    fn a_changed_short_or_long_blob_ends_the_stream_with_an_error() {
        let digest = Digest::of(b"hello");
        for content in [b"hallo".as_slice(), b"hell", b"hello!"] {
            assert!(stream_of(content, digest, 5).is_err(), "{content:?}");
        }
        assert!(stream_of(b"hello!", Digest::of(b"hello!"), 5).is_err());
    }
}
