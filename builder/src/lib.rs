//! Builds signed, byte-reproducible Sealift bundles from pinned upstream artifacts.
//!
//! Data flows one way: manifest → lock → cache → images → layout → bundle file. The network is reached through `http`
//! alone, processes are started through `process` alone, text is printed through `output` alone. Nothing the builder
//! writes depends on the clock, the user, the directory or the number of threads.

pub mod addon;
pub mod archive;
pub mod assemble;
pub mod base;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod closure;
pub mod commands;
pub mod completeness;
pub mod debian_package;
pub mod describe;
pub mod diff;
pub mod difference;
pub mod elf;
pub mod emit;
pub mod failure;
pub mod fit;
pub mod glob;
pub mod http;
pub mod interrupt;
pub mod kernel_modules;
pub mod keys;
pub mod layer_cache;
pub mod lock;
pub mod manifest;
pub mod output;
pub mod pack;
pub mod package_contents;
pub mod parallel;
pub mod pick;
pub mod process;
pub mod recipe;
pub mod resolve;
pub mod rpm_file;
pub mod sbom;
pub mod session;
pub mod sha512;
pub mod source;
