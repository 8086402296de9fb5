//! Reads a layer against its signed file list and feeds a sink.
//!
//! Each header must be, byte for byte, the one the list demands; each content must have its listed size and digest; after
//! the last entry come 1024 zero bytes, the end of the one zstd frame, and the end of the blob.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};
use zstd::stream::read::Decoder;

use super::files;
use crate::archive::describe_difference;
use crate::component::{Entry, File};
use crate::digest::Digest;
use crate::error::{Error, Reason, quote, refuse};
use crate::image::Image;
use crate::limit::WINDOW_LOG_MAX;
use crate::pipe::Feed;
use crate::sink::Sink;
use crate::ustar::{self, BLOCK, END};

const SCRATCH: usize = 256 << 10;

/// Counts of what was delivered.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    pub files: u64,
    pub bytes: u64,
}

/// Unpacks a layer for the images that have it: one, or several whose identical lists have no content.
pub(crate) fn unpack(blob: &str, images: &[&Image], feed: &mut Feed, sink: &mut dyn Sink) -> Result<Unpacked, Error> {
    let mut unpacked = Unpacked::default();
    let Some(first) = images.first() else { return Ok(unpacked) };
    let place = format!("layer of {} (`{blob}`)", first.title());
    let mut layer = Layer::new(place, feed)?;
    for File { path, entry } in &first.files {
        layer.expect(path.as_str(), entry)?;
        for image in images {
            match entry {
                Entry::Directory => sink.directory(image, path).map_err(Error::Sink)?,
                Entry::Symlink { target } => sink.symlink(image, path, target).map_err(Error::Sink)?,
                Entry::Regular { mode, size, sha256 } => {
                    let mut content = Content {
                        layer: &mut layer,
                        path: path.as_str(),
                        left: *size,
                        sha256,
                        hash: Some(Sha256::new()),
                        failure: None,
                    };
                    let result = sink.file(image, path, *mode, *size, &mut content);
                    if let Some(failure) = content.failure.take() {
                        return Err(failure);
                    }
                    result.map_err(Error::Sink)?;
                    content.finish()?;
                    layer.padding(path.as_str(), *size)?;
                    unpacked.files += 1;
                    unpacked.bytes += size;
                }
            }
        }
    }
    layer.end(first.diff_id.as_ref())?;
    Ok(unpacked)
}

struct Layer<'a> {
    place: String,
    decoder: Decoder<'static, &'a mut Feed>,
    /// Of the uncompressed layer.
    hash: Sha256,
    offset: u64,
    /// For content that the sink did not read.
    scratch: Vec<u8>,
}

impl<'a> Layer<'a> {
    fn new(place: String, feed: &'a mut Feed) -> Result<Self, Error> {
        let mut decoder = Decoder::with_buffer(feed).map_err(Error::Read)?.single_frame();
        decoder.window_log_max(WINDOW_LOG_MAX).map_err(Error::Read)?;
        Ok(Self { place, decoder, hash: Sha256::new(), offset: 0, scratch: Vec::new() })
    }

    /// What a failed read means: the bundle's reader failed, or the frame is bad.
    fn failure(&mut self, error: &io::Error) -> Error {
        let offset = self.offset;
        self.decoder.get_mut().take_failure().unwrap_or_else(|| {
            let place = format!("{}, uncompressed offset {offset}", self.place);
            refuse(Reason::Compression, place, "a zstd frame with a window of at most 8 MiB", quote(&error.to_string()))
        })
    }

    /// Reads once; `Ok(0)` is the end of the frame.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        loop {
            match self.decoder.read(buffer) {
                Ok(read) => {
                    self.hash.update(&buffer[..read]);
                    self.offset += read as u64;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failure(&error)),
            }
        }
    }

    fn fill(&mut self, buffer: &mut [u8], what: &str) -> Result<(), Error> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..])? {
                0 => return Err(self.short(what)),
                read => filled += read,
            }
        }
        Ok(())
    }

    fn short(&self, what: &str) -> Error {
        refuse(
            Reason::Layer,
            format!("{}, uncompressed offset {}", self.place, self.offset),
            quote(what),
            "the end of the layer",
        )
    }

    fn expect(&mut self, path: &str, entry: &Entry) -> Result<(), Error> {
        let item = files::item(entry);
        let expected = ustar::describe_item(path, item);
        // `files::check` has made every header once.
        let wanted = ustar::header(path, item).map_err(|what| refuse(Reason::Layer, &self.place, &expected, what))?;
        let mut block = [0; BLOCK];
        self.fill(&mut block, &expected)?;
        if block == wanted {
            return Ok(());
        }
        Err(refuse(Reason::Layer, &self.place, expected, describe_difference(&block, &wanted)))
    }

    fn padding(&mut self, path: &str, size: u64) -> Result<(), Error> {
        let mut block = [0; BLOCK];
        let padding = &mut block[..ustar::padding(size)];
        self.fill(padding, &format!("the padding after `{path}`"))?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(refuse(
                Reason::Layer,
                &self.place,
                format!("zero bytes after `{}`", quote(path)),
                "other bytes",
            ));
        }
        Ok(())
    }

    fn end(mut self, diff_id: Option<&Digest>) -> Result<(), Error> {
        let mut end = [0; END];
        self.fill(&mut end, "the 1024 zero bytes at the end of a layer")?;
        if end != [0; END] {
            let mut block = [0; BLOCK];
            block.copy_from_slice(&end[..BLOCK]);
            return Err(refuse(Reason::Layer, &self.place, "the end of the layer", ustar::describe(&block)));
        }
        if self.read(&mut [0])? != 0 {
            return Err(refuse(Reason::Trailing, &self.place, "nothing after the end of the layer", "more bytes"));
        }
        let found = Digest::from(self.hash);
        if let Some(expected) = diff_id.filter(|expected| **expected != found) {
            return Err(refuse(Reason::Digest, &self.place, format!("the diff_id {expected}"), found.to_string()));
        }
        let left = self.decoder.finish().drain()?;
        if left != 0 {
            return Err(refuse(Reason::Trailing, &self.place, "nothing after the zstd frame", format!("{left} bytes")));
        }
        Ok(())
    }
}

/// The content of one file, for the sink.
struct Content<'l, 'a> {
    layer: &'l mut Layer<'a>,
    path: &'l str,
    left: u64,
    sha256: &'l Digest,
    hash: Option<Sha256>,
    failure: Option<Error>,
}

impl Content<'_, '_> {
    fn advance(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        if self.left == 0 || buffer.is_empty() {
            return if self.left == 0 { self.prove().map(|()| 0) } else { Ok(0) };
        }
        let length = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = self.layer.read(&mut buffer[..length])?;
        if read == 0 {
            return Err(self.layer.short(&format!("{} more bytes of `{}`", self.left, self.path)));
        }
        if let Some(hash) = &mut self.hash {
            hash.update(&buffer[..read]);
        }
        self.left -= read as u64;
        Ok(read)
    }

    /// Compares the digest, once.
    fn prove(&mut self) -> Result<(), Error> {
        let Some(hash) = self.hash.take() else { return Ok(()) };
        let found = Digest::from(hash);
        if found != *self.sha256 {
            let place = format!("`{}` in the {}", quote(self.path), self.layer.place);
            return Err(refuse(Reason::Digest, place, self.sha256.to_string(), found.to_string()));
        }
        Ok(())
    }

    /// Reads what the sink left, and proves the content.
    fn finish(&mut self) -> Result<(), Error> {
        if self.left > 0 {
            let mut buffer = std::mem::take(&mut self.layer.scratch);
            buffer.resize(SCRATCH, 0);
            while self.left > 0 {
                self.advance(&mut buffer)?;
            }
            self.layer.scratch = buffer;
        }
        self.prove()
    }
}

impl Read for Content<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.advance(buffer).map_err(|error| {
            let shown = io::Error::new(io::ErrorKind::InvalidData, error.to_string());
            self.failure.get_or_insert(error);
            shown
        })
    }
}
