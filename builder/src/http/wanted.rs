//! What is to be downloaded, and what has been.

use std::path::PathBuf;
use std::sync::Arc;

use bundle::Digest;

use super::{Authorization, Login};
use crate::sha512::Sha512;

/// Largest artifact whose size is not known beforehand.
pub const ARTIFACT_LIMIT: u64 = 8 << 30;

/// What is to be downloaded.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Name for people.
    pub name: String,
    /// Where it may be, in order of preference, before mirrors.
    pub urls: Vec<String>,
    /// Expected bytes.
    pub size: Option<u64>,
    /// Most bytes that are taken when none are expected exactly.
    pub limit: u64,
    /// Expected digest; without one whatever arrives complete is taken.
    pub sha256: Option<Digest>,
    /// Expected second digest; checked whenever the file is downloaded.
    pub sha512: Option<Sha512>,
    /// `Accept` header.
    pub accept: Option<String>,
    /// For the server of the first of the `urls` alone.
    pub authorization: Option<Authorization>,
    /// Finds the authorization for the servers of all `urls` and their mirrors.
    pub login: Option<Arc<dyn Login>>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            name: String::new(),
            urls: Vec::new(),
            size: None,
            limit: ARTIFACT_LIMIT,
            sha256: None,
            sha512: None,
            accept: None,
            authorization: None,
            login: None,
        }
    }
}

impl Wanted {
    /// Most bytes that are taken.
    pub(super) fn cap(&self) -> u64 {
        self.size.unwrap_or(self.limit)
    }

    /// How many bytes are expected, for messages.
    pub(super) fn expected(&self) -> String {
        self.size.map_or_else(|| format!("at most {}", self.limit), |size| size.to_string())
    }

    /// The name of its unfinished file in the cache.
    pub(super) fn key(&self) -> String {
        match &self.sha256 {
            Some(digest) => digest.hex(),
            None => Digest::of(self.urls.join("\n").as_bytes()).hex(),
        }
    }
}

/// A file in the cache whose digest is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Where it lies.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// Digest.
    pub sha256: Digest,
}
