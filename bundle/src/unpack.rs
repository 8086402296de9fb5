//! One pass over the rest of a verified bundle: everything is hashed to the end, and delivered on the way.
//!
//! Three threads, connected by bounded pipes: one reads and hashes the file as it is, one decompresses, and the caller's own
//! hashes the content and feeds the sink. A refusal found by any of them wins over an error that the sink reports because
//! its input broke off. Memory does not depend on the bundle.

use std::collections::BTreeMap;
use std::io::{BufRead, Read};

use sha2::{Digest as _, Sha256};

use crate::archive::{Archive, blob_name};
use crate::digest::Digest;
use crate::error::{Error, Reason, refuse};
use crate::image::{Contents, Image};
use crate::layer;
use crate::pipe::{CHUNK, Feed, Feeder, Gone, pipe};
use crate::sink::Sink;
use crate::verified::Bundle;

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Size of the bundle file.
    pub bundle_size: u64,
    /// Images that the sink wanted.
    pub images: u64,
    /// Regular files delivered from layers.
    pub files: u64,
    /// Their bytes.
    pub file_bytes: u64,
    /// Blobs delivered verbatim.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
}

/// A blob that is still to come.
struct Coming<'a> {
    digest: Digest,
    size: u64,
    purpose: Purpose<'a>,
}

enum Purpose<'a> {
    /// A component layer, for one image (or several, if it has no content).
    Layer(&'a Image, Vec<&'a Image>),
    /// A verbatim blob, for the first image that wants it.
    Blob(&'a Image),
    /// Nobody wants it: hashed only.
    Nothing,
}

impl<R: Read + Send> Bundle<R> {
    /// Reads the rest of the bundle, delivering what the sink wants.
    ///
    /// **What was delivered is proven only if this returns `Ok`**; the sink stages it until then. Errors of the sink come
    /// back as [`Error::Sink`], refusals as [`Error::Refused`].
    pub fn unpack(self, sink: &mut dyn Sink) -> Result<Summary, Error> {
        let Self { mut archive, contents, .. } = self;
        let mut summary = Summary::default();
        let coming = begin(&contents, sink, &mut summary)?;
        let (read_feeder, mut read_feed) = pipe();
        let (feeder, mut feed) = pipe();
        std::thread::scope(|scope| {
            let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
            let (archive, coming) = (&mut archive, &coming);
            // The outcome of each thread arrives through its pipe.
            let reader = move || report(read(archive, coming, &read_feeder), &read_feeder);
            thread("read-bundle").spawn_scoped(scope, reader).map_err(Error::Read)?;
            let decompressor = move || report(decompress(coming, &mut read_feed, &feeder), &feeder);
            thread("decompress").spawn_scoped(scope, decompressor).map_err(Error::Read)?;
            let result = deliver(coming, &mut feed, sink, &mut summary);
            // Without this the others would wait for ever for somebody to take their buffers.
            drop(feed);
            result
        })?;
        summary.bundle_size = archive.offset();
        Ok(summary)
    }
}

/// Asks the sink what it wants, gives it the metadata, and lists what is to come.
fn begin<'a>(contents: &'a Contents, sink: &mut dyn Sink, summary: &mut Summary) -> Result<Vec<Coming<'a>>, Error> {
    let mut layers: BTreeMap<Digest, Vec<&Image>> = BTreeMap::new();
    let mut blobs: BTreeMap<Digest, &Image> = BTreeMap::new();
    for image in &contents.images {
        if !sink.begin(image).map_err(Error::Sink)? {
            continue;
        }
        summary.images += 1;
        if image.component.kind.has_files() {
            for layer in &image.layers {
                layers.entry(layer.digest).or_default().push(image);
            }
        } else {
            for blob in &image.blobs {
                blobs.entry(blob.digest).or_insert(image);
            }
        }
    }
    for (digest, size) in &contents.metadata_order {
        if let (Some(image), Some(mut bytes)) = (blobs.get(digest), contents.metadata.get(digest).map(Vec::as_slice)) {
            sink.blob(image, digest, *size, &mut bytes).map_err(Error::Sink)?;
            summary.blobs += 1;
            summary.blob_bytes += size;
        }
    }
    let coming = contents.blobs.iter().map(|(digest, size)| {
        let images = layers.remove(digest).unwrap_or_default();
        let purpose = match (images.first(), blobs.get(digest)) {
            (Some(first), _) => Purpose::Layer(first, images),
            (None, Some(image)) => Purpose::Blob(image),
            (None, None) => Purpose::Nothing,
        };
        Coming { digest: *digest, size: *size, purpose }
    });
    Ok(coming.collect())
}

/// Why a thread stops early.
enum Stop {
    /// The next one has stopped, and knows why.
    Gone,
    Failed(Error),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

fn report(result: Result<(), Stop>, feeder: &Feeder) {
    if let Err(Stop::Failed(error)) = result {
        feeder.failed(error);
    }
}

/// The reading thread: headers, hashes and padding of every blob, then the end of the file.
fn read<R: Read>(archive: &mut Archive<R>, coming: &[Coming<'_>], feeder: &Feeder) -> Result<(), Stop> {
    // A buffer whose content nobody wants is used again at once.
    let mut unwanted = None;
    for Coming { digest, size, purpose } in coming {
        let name = blob_name(digest);
        archive.expect(&name, *size)?;
        let mut hash = Sha256::new();
        let mut left = *size;
        while left > 0 {
            let length = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            let mut buffer = match unwanted.take() {
                Some(buffer) => buffer,
                None => feeder.buffer()?,
            };
            buffer.resize(length, 0);
            archive.fill(&mut buffer, &format!("`{name}`"))?;
            hash.update(&buffer);
            left -= length as u64;
            if matches!(purpose, Purpose::Nothing) {
                unwanted = Some(buffer);
            } else {
                feeder.data(buffer)?;
            }
        }
        archive.padding(&name, *size)?;
        let found = Digest::from(hash);
        if found != *digest {
            return Err(refuse(Reason::Digest, format!("`{name}`"), digest.to_string(), found.to_string()).into());
        }
        feeder.end()?;
    }
    archive.end()?;
    feeder.end()?;
    Ok(())
}

/// The thread in the middle: layers become tar, everything else passes through.
fn decompress(coming: &[Coming<'_>], feed: &mut Feed, feeder: &Feeder) -> Result<(), Stop> {
    for Coming { digest, purpose, .. } in coming {
        feed.next_blob();
        match purpose {
            Purpose::Layer(image, _) => {
                let place = layer_place(image, digest);
                layer::frame::decompress(&place, &image.files, feed, feeder).map_err(|stop| match stop {
                    Stop::Failed(error) => Stop::Failed(damage_first(error, feed)),
                    Stop::Gone => Stop::Gone,
                })?;
            }
            Purpose::Blob(_) | Purpose::Nothing => pass(feed, feeder)?,
        }
        feed.drain()?;
        feeder.end()?;
    }
    // The end of the file.
    feed.next_blob();
    feed.drain()?;
    feeder.end()?;
    Ok(())
}

fn pass(feed: &mut Feed, feeder: &Feeder) -> Result<(), Stop> {
    loop {
        let Ok(chunk) = feed.fill_buf() else { return Err(feed.failure().into()) };
        if chunk.is_empty() {
            return Ok(());
        }
        let mut buffer = feeder.buffer()?;
        buffer.clear();
        buffer.extend_from_slice(chunk);
        feed.consume(buffer.len());
        feeder.data(buffer)?;
    }
}

/// The delivering side, in the caller's thread.
fn deliver(coming: &[Coming<'_>], feed: &mut Feed, sink: &mut dyn Sink, summary: &mut Summary) -> Result<(), Error> {
    for Coming { digest, size, purpose } in coming {
        feed.next_blob();
        match purpose {
            Purpose::Nothing => {}
            Purpose::Blob(image) => {
                let result = sink.blob(image, digest, *size, feed);
                if let Some(failure) = feed.take_failure() {
                    return Err(failure);
                }
                result.map_err(Error::Sink)?;
                summary.blobs += 1;
                summary.blob_bytes += size;
            }
            Purpose::Layer(first, images) => {
                let unpacked = layer::read::unpack(layer_place(first, digest), images, feed, sink)
                    .map_err(|error| damage_first(error, feed))?;
                summary.files += unpacked.files;
                summary.file_bytes += unpacked.bytes;
            }
        }
        feed.drain()?;
    }
    feed.next_blob();
    feed.drain()?;
    Ok(())
}

fn layer_place(image: &Image, digest: &Digest) -> String {
    format!("layer of {} (`{}`)", image.title(), blob_name(digest))
}

/// A layer that makes no sense may simply be damaged, which the hash of the whole blob tells: that is the better message.
fn damage_first(error: Error, feed: &mut Feed) -> Error {
    if !error.is_refusal() {
        return error;
    }
    match feed.drain() {
        Err(Error::Refused(refusal)) if matches!(refusal.reason, Reason::Digest | Reason::Truncated) => refusal.into(),
        _ => error,
    }
}
