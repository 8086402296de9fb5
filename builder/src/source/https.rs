//! `https:`, `http:` and `file:` URLs, and files beside the manifest: one file, one digest.

use std::path::Path;

use anyhow::Context as _;
use bundle::Digest;

use crate::failure::Failure;
use crate::http::{Fetched, Unreachable, Wanted};
use crate::lock::{LockedArtifact, Resolved};
use crate::manifest::Trust;
use crate::output::Output;

/// The URL to fetch for a lock's `url`: files beside the manifest become `file:` URLs.
pub fn address(url: &str, manifest_directory: &Path) -> anyhow::Result<String> {
    match url.strip_prefix("file:").filter(|rest| !rest.starts_with('/')) {
        Some(relative) => {
            let directory = fs_err::canonicalize(manifest_directory)?;
            let path = directory.join(relative);
            Ok(format!("file://{}", path.to_str().with_context(|| format!("`{}` is not UTF-8", path.display()))?))
        }
        None => Ok(url.to_owned()),
    }
}

/// How one URL is resolved.
#[derive(Debug)]
pub enum Resolution {
    /// Without a download.
    Known(LockedArtifact),
    /// By a download.
    Download(Pending),
}

/// A URL whose size, and perhaps digest, only a download tells.
#[derive(Clone, Debug)]
pub struct Pending {
    /// What to download.
    pub wanted: Wanted,
    url: String,
    proof: &'static str,
}

/// Decides how to resolve one URL: with a digest the manifest vouches, without one the download does if the manifest says
/// so.
///
/// `before` are the entries of the last lock; one that still fits is kept, so that nothing is downloaded twice and a
/// first-use digest, once recorded, cannot change silently.
pub fn resolve(
    url: String,
    sha256: Option<Digest>,
    trust: Trust,
    before: &[Resolved],
    directory: &Path,
) -> anyhow::Result<Resolution> {
    let proof = match (sha256, trust) {
        (Some(_), _) => "manifest",
        (None, Trust::FirstUse) => "first-use",
        (None, Trust::Digest) => {
            let reason = "no sha256 in the manifest, and it does not say `trust = \"first-use\"`";
            return Ok(Resolution::Known(LockedArtifact::unresolved(url, reason)));
        }
    };
    let fits = |before: &&Resolved| {
        before.url == url && before.proof == proof && sha256.is_none_or(|sha256| sha256 == before.sha256)
    };
    if let Some(before) = before.iter().find(fits) {
        return Ok(Resolution::Known(before.clone().into()));
    }
    let wanted = Wanted { name: url.clone(), urls: vec![address(&url, directory)?], sha256, ..Wanted::default() };
    Ok(Resolution::Download(Pending { wanted, url, proof }))
}

impl Pending {
    /// The entry, from what the download brought. Not being reached leaves it unresolved; everything else is an error.
    pub fn finish(&self, fetched: Result<&Fetched, &anyhow::Error>, output: &Output) -> anyhow::Result<LockedArtifact> {
        let Self { wanted, url, proof } = self;
        match fetched {
            Ok(Fetched { size, sha256, .. }) => {
                let (url, proof) = (url.clone(), (*proof).to_owned());
                let (size, sha256) = (Some(*size), Some(*sha256));
                Ok(LockedArtifact { url, size, sha256, proof: Some(proof), ..LockedArtifact::default() })
            }
            Err(error) if error.is::<Unreachable>() => {
                output.warning(&format!("{error:#}"));
                let what = if wanted.sha256.is_some() { "size" } else { "size and sha256" };
                let reason = format!("{what} not known: not reached when the lock was written");
                let mut artifact = LockedArtifact::unresolved(url.clone(), reason);
                artifact.sha256 = wanted.sha256;
                artifact.proof = wanted.sha256.map(|_| (*proof).to_owned());
                Ok(artifact)
            }
            Err(error) => Err(Failure::new(format!("{error:#}"))
                .hint("if upstream is right, correct the manifest; compare with a second source first")
                .into()),
        }
    }
}
