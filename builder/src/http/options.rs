//! How downloads are done.

use std::path::PathBuf;
use std::time::Duration;

use crate::cli::NetworkArgs;

/// How downloads are done.
#[derive(Clone, Debug)]
pub struct Options {
    /// URL prefixes and what they are replaced with; all that fit are tried in this order, and then nothing else.
    pub mirrors: Vec<(String, String)>,
    /// More certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// Use the cache alone.
    pub offline: bool,
    /// Downloads at the same time.
    pub downloads: usize,
    /// Downloads at the same time from one server.
    pub per_host: usize,
    /// Nothing arrives for so long, or less than 1 KiB/s on average: given up.
    pub stall: Duration,
    /// Attempts after the first that make no progress.
    pub retries: usize,
    /// First pause before another attempt; doubles up to 50 times that.
    pub pause: Duration,
}

impl Default for Options {
    /// As the command line has them.
    fn default() -> Self {
        Self {
            mirrors: Vec::new(),
            ca_file: None,
            offline: false,
            downloads: 8,
            per_host: 4,
            stall: Duration::from_secs(30),
            retries: 5,
            pause: Duration::from_millis(300),
        }
    }
}

impl From<&NetworkArgs> for Options {
    fn from(args: &NetworkArgs) -> Self {
        Self {
            mirrors: args.mirrors.clone(),
            ca_file: args.ca_file.clone(),
            offline: args.offline,
            downloads: usize::from(args.downloads),
            per_host: usize::from(args.per_host),
            stall: Duration::from_secs(args.stall),
            retries: args.retries,
            ..Self::default()
        }
    }
}
