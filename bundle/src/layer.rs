//! Component layers: deterministic ustar in one zstd frame.
//!
//! The signed file list (`dev.sealift.files`) determines every byte of a layer but the content of its files, and the
//! content by digest. `pack` writes a layer and makes the list; `frame` decompresses, `read` walks the list and compares.

pub(crate) mod files;
pub(crate) mod frame;
#[cfg(feature = "write")]
mod pack;
pub(crate) mod read;

#[cfg(feature = "write")]
pub use pack::{PackEntry, PackedLayer, Source, pack};
