//! One pass over the rest of a verified bundle: everything is hashed to the end, and delivered on the way.
//!
//! One thread reads and hashes the file as it is; the caller's thread decompresses, hashes the content and feeds the sink.
//! A refusal found by either thread wins over an error that the sink reports because its input broke off.

use std::collections::BTreeMap;
use std::io::Read;

use sha2::{Digest as _, Sha256};

use crate::archive::{Archive, blob_name};
use crate::component::Kind;
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
    /// Component layer (all images that have it and are wanted), or verbatim blob (the first that is wanted).
    purpose: Purpose<'a>,
}

enum Purpose<'a> {
    Layer(Vec<&'a Image>),
    Blob(&'a Image),
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
        let (feeder, mut feed) = pipe();
        std::thread::scope(|scope| {
            let reader = std::thread::Builder::new().name("read-bundle".to_owned());
            let (archive, order) = (&mut archive, &coming);
            // The thread's outcome arrives through the pipe.
            reader
                .spawn_scoped(scope, move || match read(archive, order, &feeder) {
                    Ok(()) | Err(Stop::Gone) => {}
                    Err(Stop::Failed(error)) => feeder.failed(error),
                })
                .map_err(Error::Read)?;
            let result = deliver(&coming, &mut feed, sink, &mut summary);
            // Without this the reader would wait for ever for somebody to take its buffers.
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
        if image.component.kind == Kind::Program {
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
        let purpose = match (layers.remove(digest), blobs.get(digest)) {
            (Some(images), _) => Purpose::Layer(images),
            (None, Some(image)) => Purpose::Blob(image),
            (None, None) => Purpose::Nothing,
        };
        Coming { digest: *digest, size: *size, purpose }
    });
    Ok(coming.collect())
}

enum Stop {
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
            Purpose::Layer(images) => {
                let unpacked = layer::read::unpack(&blob_name(digest), images, feed, sink)
                    .map_err(|error| if error.is_refusal() { damaged(feed).unwrap_or(error) } else { error })?;
                summary.files += unpacked.files;
                summary.file_bytes += unpacked.bytes;
            }
        }
        feed.drain()?;
    }
    // The end of the file.
    feed.next_blob();
    feed.drain()?;
    Ok(())
}

/// A layer that makes no sense may simply be damaged, which the hash of the whole blob tells: that is the better message.
fn damaged(feed: &mut Feed) -> Option<Error> {
    feed.drain().err().filter(Error::is_refusal)
}
