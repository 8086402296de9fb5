//! Limits of the format, each there because the reader would otherwise spend what an attacker chooses.

/// Largest `index.json`, manifest or config.
pub const JSON_LIMIT: u64 = 4 << 20;
/// Largest sum of all manifests and configs: they are held in memory until the end.
pub const METADATA_LIMIT: u64 = 16 << 20;
/// Most signatures.
pub const SIGNATURES_LIMIT: usize = 16;
/// Largest signature file.
pub const SIGNATURE_LIMIT: u64 = 4 << 10;
/// Largest zstd window, as a power of two: 8 MiB. It bounds the decoder's memory.
pub const WINDOW_LOG_MAX: u32 = 23;
