//! Builds signed, byte-reproducible Sealift bundles from pinned upstream artifacts.
//!
//! Data flows one way: manifest → lock → cache → images → layout → bundle file. The network is reached through `http`
//! alone, processes are started through `process` alone, text is printed through `output` alone. Nothing the builder
//! writes depends on the clock, the user, the directory or the number of threads.

pub mod cli;
pub mod commands;
pub mod failure;
pub mod glob;
pub mod lock;
pub mod manifest;
pub mod output;
pub mod recipe;
