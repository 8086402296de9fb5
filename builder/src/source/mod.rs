//! Where artifacts come from: one file a kind of source.

pub mod apt;
pub mod https;
