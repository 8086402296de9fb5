//! Where artifacts come from: one file a kind of source.

pub mod apt;
pub mod checksums;
pub mod https;
mod openpgp;
pub mod registry;
pub mod rpm_md;
