//! Images → bundle file: index, signature, and the installer beside it; each file appears whole or not at all, the bundle
//! last. Nothing is signed before the installer's own reader has read all of it; images that it has taken before, which the
//! digest of their manifest tells, are only hashed again.

use std::io::{self, BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bundle::layout::Layout;
use bundle::sign::{SecretKey, sign_index};
use bundle::{Digest, Error, Image, LayerPath, Release, Sink, UnverifiedBundle};

use crate::cache::{self, Cache, Pending};
use crate::failure::Failure;

/// The installer that is published with a bundle.
#[derive(Debug)]
pub struct Installer {
    bytes: Vec<u8>,
}

impl Installer {
    /// Reads the program.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = fs_err::read(path).with_context(|| {
            Failure::usage("the installer cannot be read")
                .hint("`--installer PATH` names the program to put beside the bundle")
        })?;
        Ok(Self { bytes })
    }

    /// Its digest, for the index.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// Signs it, so that it can be checked before it is run.
    pub fn sign(&self, key: &SecretKey, release: &Release) -> anyhow::Result<String> {
        let Release { name, version, architecture, .. } = release;
        let comment = format!("sealift installer name={name} version={version} architecture={architecture}");
        Ok(key.sign(&self.bytes, &comment)?.text().to_owned())
    }
}

/// Writes `installer`, `installer.minisig` (when signing) and the bundle; returns the bundle's path and size.
pub fn write(
    layout: &Layout,
    installer: &Installer,
    key: Option<&SecretKey>,
    out: &Path,
    cache: &Cache,
) -> anyhow::Result<(PathBuf, u64)> {
    if key.is_some() {
        check(layout, cache).with_context(|| {
            Failure::new("every host would refuse the bundle: nothing was signed")
                .hint("if the cache was damaged or changed by others, delete it and build again")
        })?;
    }
    fs_err::create_dir_all(out)?;
    cache::write_atomic(&out.join("installer"), &installer.bytes, 0o755)?;
    let mut signatures = Vec::new();
    let minisig = out.join("installer.minisig");
    match key {
        Some(key) => {
            signatures.push(sign_index(key, layout.index_bytes(), layout.release())?);
            cache::write_atomic(&minisig, installer.sign(key, layout.release())?.as_bytes(), 0o644)?;
        }
        // A signature of another build's installer would only mislead.
        None if minisig.exists() => fs_err::remove_file(&minisig)?,
        None => {}
    }
    let path = out.join(layout.release().file_name());
    let pending = Pending::create(&path, 0o644)?;
    let mut writer = BufWriter::with_capacity(1 << 20, &pending.file);
    layout.write(&mut writer, &signatures)?;
    writer.flush()?;
    drop(writer);
    pending.finish()?;
    Ok((path, layout.size(&signatures)))
}

/// Reads the bundle by the rules of a host while it is written to nowhere. Digests of its index bind the file that is
/// written afterwards to what was read here.
fn check(layout: &Layout, cache: &Cache) -> anyhow::Result<()> {
    let (reader, writer) = std::io::pipe().context("making a pipe")?;
    let (written, read) = std::thread::scope(|scope| {
        let writing = scope.spawn(move || layout.write(BufWriter::with_capacity(256 << 10, writer), &[]));
        let read = read_all(reader, &mut NewImages { cache });
        (writing.join(), read)
    });
    match written.map_err(|_| Failure::new("writing the bundle ended abnormally"))? {
        // It ends with a broken pipe when the reader has refused.
        Ok(()) | Err(Error::Write(_)) => read?,
        Err(error) => return Err(error.into()),
    }
    for image in layout.images().iter().filter(|image| image.component.kind.has_files()) {
        let note = cache.checked(&image.manifest);
        if !cache.is_read_only() && !note.exists() {
            fs_err::File::create(note)?;
        }
    }
    Ok(())
}

/// Takes the reader and drops it, whatever happens: its writer must not wait for ever.
fn read_all(reader: std::io::PipeReader, sink: &mut NewImages<'_>) -> Result<(), Error> {
    UnverifiedBundle::open(reader)?.without_signatures()?.unpack(sink).map(|_| ())
}

/// Wants the layers that the reader has never taken, and keeps nothing. The manifest's digest covers layer and file list.
struct NewImages<'a> {
    cache: &'a Cache,
}

impl Sink for NewImages<'_> {
    fn begin(&mut self, image: &Image) -> io::Result<bool> {
        Ok(image.component.kind.has_files() && !self.cache.checked(&image.manifest).exists())
    }

    fn directory(&mut self, _: &Image, _: &LayerPath) -> io::Result<()> {
        Ok(())
    }

    fn file(&mut self, _: &Image, _: &LayerPath, _: u32, _: u64, _: &mut dyn Read) -> io::Result<()> {
        Ok(())
    }

    fn symlink(&mut self, _: &Image, _: &LayerPath, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn blob(&mut self, _: &Image, _: &Digest, _: u64, _: &mut dyn Read) -> io::Result<()> {
        Ok(())
    }
}
