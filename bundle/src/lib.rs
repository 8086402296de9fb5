//! The Sealift bundle format: one signed tar file that holds an OCI image layout.
//!
//! This crate is the single arrow between `builder` and `installer`. It has no network, needs no root, reads no clock and
//! uses no `HashMap`: what it writes depends on its input alone. What it reads it does not trust until a signature by a
//! key of the caller has been checked ([`UnverifiedBundle::verify`]); only then can a blob be opened.
//!
//! The format and its reading rules are described in `docs/bundle-format.md`.

pub mod component;
pub mod digest;
pub mod name;

pub use component::Component;
pub use digest::Digest;
pub use name::{Architecture, ComponentName, LayerPath, Version};
