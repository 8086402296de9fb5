//! Reads an uncompressed layer against its signed file list and feeds a sink.
//!
//! Each header must be, byte for byte, the one the list demands; each content must have its listed size and digest; after
//! the last entry come 1024 zero bytes and nothing else.

use std::io::{self, BufRead, Read};

use sha2::{Digest as _, Sha256};

use super::files;
use crate::archive::describe_difference;
use crate::component::{Entry, File};
use crate::digest::Digest;
use crate::error::{Error, Reason, quote, refuse};
use crate::image::Image;
use crate::pipe::Feed;
use crate::sink::Sink;
use crate::ustar::{self, BLOCK, END};

/// Counts of what was delivered.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    pub files: u64,
    pub bytes: u64,
}

/// Unpacks a layer for the images that have it: one, or several whose identical lists have no content.
pub(crate) fn unpack(
    place: String,
    images: &[&Image],
    feed: &mut Feed,
    sink: &mut dyn Sink,
) -> Result<Unpacked, Error> {
    let mut unpacked = Unpacked::default();
    let Some(first) = images.first() else { return Ok(unpacked) };
    let mut layer = Layer { place, feed, hash: Sha256::new(), offset: 0 };
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
    feed: &'a mut Feed,
    /// Of the uncompressed layer.
    hash: Sha256,
    offset: u64,
}

impl Layer<'_> {
    /// Looks at the next bytes, at most `limit`; takes what `take` says. No bytes: the end.
    fn next(&mut self, limit: usize, take: impl FnOnce(&[u8])) -> Result<usize, Error> {
        let Ok(chunk) = self.feed.fill_buf() else { return Err(self.feed.failure()) };
        let chunk = &chunk[..chunk.len().min(limit)];
        self.hash.update(chunk);
        take(chunk);
        let length = chunk.len();
        self.feed.consume(length);
        self.offset += length as u64;
        Ok(length)
    }

    fn fill(&mut self, buffer: &mut [u8], what: &str) -> Result<(), Error> {
        let mut filled = 0;
        while filled < buffer.len() {
            let rest = &mut buffer[filled..];
            match self.next(rest.len(), |chunk| rest[..chunk.len()].copy_from_slice(chunk))? {
                0 => return Err(self.short(what)),
                read => filled += read,
            }
        }
        Ok(())
    }

    fn short(&self, what: &str) -> Error {
        let place = format!("{}, uncompressed offset {}", self.place, self.offset);
        refuse(Reason::Layer, place, quote(what), "the end of the layer")
    }

    fn expect(&mut self, path: &str, entry: &Entry) -> Result<(), Error> {
        let item = files::item(entry);
        // `files::check` has made every header once.
        let wanted = ustar::header(path, item).map_err(|what| refuse(Reason::Layer, &self.place, quote(path), what))?;
        let mut block = [0; BLOCK];
        self.fill(&mut block, "another entry")?;
        if block == wanted {
            return Ok(());
        }
        let expected = ustar::describe_item(path, item);
        Err(refuse(Reason::Layer, &self.place, expected, describe_difference(&block, &wanted)))
    }

    fn padding(&mut self, path: &str, size: u64) -> Result<(), Error> {
        let mut block = [0; BLOCK];
        let padding = &mut block[..ustar::padding(size)];
        self.fill(padding, "padding")?;
        if padding.iter().any(|byte| *byte != 0) {
            let expected = format!("zero bytes after `{}`", quote(path));
            return Err(refuse(Reason::Layer, &self.place, expected, "other bytes"));
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
        if self.next(1, |_| ())? != 0 {
            return Err(refuse(Reason::Trailing, &self.place, "nothing after the end of the layer", "more bytes"));
        }
        let found = Digest::from(self.hash);
        match diff_id {
            Some(expected) if *expected != found => {
                Err(refuse(Reason::Digest, &self.place, format!("the diff_id {expected}"), found.to_string()))
            }
            _ => Ok(()),
        }
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
    fn advance(&mut self, limit: usize, mut take: impl FnMut(&[u8])) -> Result<usize, Error> {
        let limit = usize::try_from(self.left).map_or(limit, |left| left.min(limit));
        let hash = &mut self.hash;
        let read = self.layer.next(limit, |chunk| {
            if let Some(hash) = hash {
                hash.update(chunk);
            }
            take(chunk);
        })?;
        if read == 0 && limit > 0 {
            return Err(self.layer.short(&format!("{} more bytes of `{}`", self.left, self.path)));
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
        while self.left > 0 {
            self.advance(usize::MAX, |_| ())?;
        }
        self.prove()
    }
}

impl Read for Content<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = match self.left {
            0 => self.prove().map(|()| 0),
            _ => self.advance(buffer.len(), |chunk| buffer[..chunk.len()].copy_from_slice(chunk)),
        };
        result.map_err(|error| {
            let shown = io::Error::new(io::ErrorKind::InvalidData, error.to_string());
            self.failure.get_or_insert(error);
            shown
        })
    }
}
