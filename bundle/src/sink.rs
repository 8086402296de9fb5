//! Where the content of a bundle goes. The format decides what may exist; the sink decides where it lands.

use std::io::{self, Read};

use crate::digest::Digest;
use crate::image::Image;
use crate::name::LayerPath;

/// Receives the content of a [`crate::Bundle`] in one pass.
///
/// Names, modes, sizes and link targets come from the signed lists. **Content is proven only when
/// [`crate::Bundle::unpack`] has returned `Ok`**: until then it belongs into a staging directory that is removed on any error.
/// A content reader fails at its end if the content is wrong; one that is not read to its end is read further by the caller.
///
/// Order: first `begin` for every image in the order of the index; then the manifests and configs of the wanted containers
/// and packages; then layers and blobs in the order of the file, which mixes images. A blob shared by several images comes
/// once, with the first wanted one.
pub trait Sink {
    /// Whether the sink wants this image's content. What nobody wants is hashed but not delivered (nor decompressed).
    fn begin(&mut self, image: &Image) -> io::Result<bool>;
    /// A directory of a component layer, mode 0755; parents come before children.
    fn directory(&mut self, image: &Image, path: &LayerPath) -> io::Result<()>;
    /// A regular file of a component layer.
    fn file(&mut self, image: &Image, path: &LayerPath, mode: u32, size: u64, content: &mut dyn Read)
    -> io::Result<()>;
    /// A symbolic link of a component layer; relative, and inside the layer.
    fn symlink(&mut self, image: &Image, path: &LayerPath, target: &str) -> io::Result<()>;
    /// A blob of a container or packages image, verbatim.
    fn blob(&mut self, image: &Image, digest: &Digest, size: u64, content: &mut dyn Read) -> io::Result<()>;
}

/// A sink that wants everything and keeps nothing: unpacking into it checks the whole bundle.
#[derive(Debug, Default)]
pub struct Discard;

impl Sink for Discard {
    fn begin(&mut self, _: &Image) -> io::Result<bool> {
        Ok(true)
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

/// A sink that wants nothing: unpacking into it hashes every byte and decompresses none. It proves that the file is, bit for
/// bit, what the trusted keys signed; that its layers obey the format is then only the signer's word ([`Discard`] checks it).
#[derive(Debug, Default)]
pub struct HashOnly;

impl Sink for HashOnly {
    fn begin(&mut self, _: &Image) -> io::Result<bool> {
        Ok(false)
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
