//! The Sealift bundle format: one signed tar file that holds an OCI image layout.
//!
//! This crate is the single arrow between `builder` and `installer`. It has no network, needs no root, reads no clock and
//! uses no `HashMap`: what it writes depends on its input alone. What it reads it does not trust until a signature by a
//! key of the caller has been checked ([`UnverifiedBundle::verify`]); only then can a blob be opened.
//!
//! The format and its reading rules are described in `docs/bundle-format.md`.

pub mod addon;
mod archive;
pub mod component;
pub mod debian_relation;
pub mod debian_version;
pub mod digest;
mod error;
#[cfg(feature = "fake")]
pub mod fake;
mod image;
mod json;
pub mod layer;
#[cfg(feature = "write")]
pub mod layout;
pub mod limit;
pub mod name;
mod oci;
mod pipe;
mod random;
mod release;
pub mod rpm_version;
pub mod sign;
mod sink;
mod unpack;
mod ustar;
mod verified;

pub use component::Component;
pub use digest::Digest;
pub use error::{Error, Reason, Refusal};
pub use image::Image;
pub use name::{Architecture, ComponentName, LayerPath, Version};
pub use oci::{DEB, Descriptor, Execution, RPM};
pub use random::{BlobReader, BundleFile};
pub use release::Release;
pub use sign::{PublicKey, Trust};
pub use sink::{Discard, HashOnly, Sink};
pub use unpack::Summary;
pub use verified::{Bundle, UnverifiedBundle};
