//! `https:`, `http:` and `file:` URLs, and files beside the manifest: one file, one digest.

use std::path::Path;

use anyhow::Context as _;
use bundle::Architecture;

use super::checksums::{Checksums, Lists};
use crate::failure::Failure;
use crate::http::{Fetched, Unreachable, Wanted, host, shown};
use crate::lock::{LockedArtifact, Resolved};
use crate::manifest::{Artifact, Trust};
use crate::output::Output;
use crate::session::Session;
use crate::sha512::Sha512;

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
    mirrors: Vec<String>,
    proof: String,
}

/// Resolves URLs and files.
#[derive(Debug)]
pub struct Resolver<'a> {
    before: &'a [Resolved],
    directory: &'a Path,
    lists: Lists<'a>,
    asking: Asking,
}

/// Who is asked while resolving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// Upstreams of what the last lock does not tell.
    WhatIsOpen,
    /// Everybody who publishes digests, also of what the last lock tells; no artifact is downloaded for that.
    Everybody,
}

impl<'a> Resolver<'a> {
    /// `before` are the entries of the last lock; one that still fits is kept, so that nothing is downloaded twice and a
    /// digest that a first use or upstream's list told, once recorded, cannot change silently. Files lie in `directory`.
    pub fn new(before: &'a [Resolved], directory: &'a Path, session: &'a Session) -> Self {
        let lists = Lists::new(&session.network, &session.output);
        Self { before, directory, lists, asking: Asking::WhatIsOpen }
    }

    /// The same, asking others.
    #[must_use]
    pub fn asking(self, asking: Asking) -> Self {
        Self { asking, ..self }
    }

    /// Decides how to resolve one URL: what the manifest's digest, or else upstream's list of checksums vouches for, or what
    /// arrives if the manifest trusts the first use.
    pub fn resolve(&self, artifact: &Artifact, architecture: Architecture) -> anyhow::Result<Resolution> {
        let (url, mirrors) = (artifact.source.label(), artifact.mirrors.clone());
        let sha256 = artifact.sha256.get(&architecture).copied();
        let sha512 = artifact.sha512.get(&architecture).map(|hex| hex.parse::<Sha512>()).transpose()?;
        let told = sha256.is_some() || sha512.is_some();
        if let Some(list) = artifact.checksums.as_ref().filter(|list| !told && list.starts_with("http://")) {
            let text = format!("`checksums = \"{}\"` vouches for nothing over http", shown(list));
            return Err(Failure::new(text).hint("say https:, or pin a digest for each architecture").into());
        }
        let mut proof = match (&artifact.checksums, artifact.trust) {
            _ if told => "manifest".to_owned(),
            (Some(list), _) => format!("checksums:{list}"),
            (None, Trust::FirstUse) => "first-use".to_owned(),
            (None, Trust::Digest) => {
                let reason = "no sha256 in the manifest, and it does not say `trust = \"first-use\"`";
                return Ok(Resolution::Known(LockedArtifact { mirrors, ..LockedArtifact::unresolved(url, reason) }));
            }
        };
        // Upstream's own list is the better witness for what the manifest says.
        let confirmed = artifact.checksums.as_ref().map(|list| format!("checksums:{list}"));
        let fits = |before: &&Resolved| {
            let wanted512 = sha512.is_none_or(|sha512| before.sha512 == Some(sha512.to_string()));
            let digests = sha256.is_none_or(|sha256| sha256 == before.sha256) && wanted512;
            before.url == url && (before.proof == proof || confirmed.as_ref() == Some(&before.proof)) && digests
        };
        let before = self.before.iter().find(fits).cloned().map(|before| {
            // One that neither the manifest nor upstream's list says any more is not carried on.
            let said = sha512.is_some() || confirmed.as_ref() == Some(&before.proof);
            Resolved { sha512: before.sha512.filter(|_| said), ..before }
        });
        let known = |entry: LockedArtifact| Ok(Resolution::Known(LockedArtifact { mirrors: mirrors.clone(), ..entry }));
        if let Some(before) = &before
            && (artifact.checksums.is_none()
                || (self.asking == Asking::WhatIsOpen && confirmed.as_ref() == Some(&before.proof)))
        {
            return known(before.clone().into());
        }
        let published = match &artifact.checksums {
            None => Checksums::default(),
            Some(list) => match self.lists.find(list, &url) {
                Ok(published) => published,
                // The manifest's own digest is enough to go on.
                Err(error) if error.is::<Unreachable>() && told && self.asking == Asking::WhatIsOpen => {
                    self.lists.warn(list, &error);
                    Checksums::default()
                }
                Err(error) if error.is::<Unreachable>() => {
                    self.lists.warn(list, &error);
                    let reason = "upstream's list of checksums was not reached when the lock was written";
                    return known(LockedArtifact::unresolved(url, reason));
                }
                Err(error) => return Err(error),
            },
        };
        published.check(artifact.checksums.as_deref().unwrap_or_default(), sha256, sha512)?;
        if published != Checksums::default() {
            proof = confirmed.unwrap_or(proof);
        }
        if let Some(before) = &before {
            let listed512 = published.sha512.map(|sha512| sha512.to_string());
            let agrees512 = listed512.is_none() || before.sha512.is_none() || listed512 == before.sha512;
            let same = published.sha256.is_none_or(|sha256| sha256 == before.sha256) && agrees512;
            // A list vouches for what was compared with it only.
            let compared = published.sha256.is_some() || listed512.is_none() || before.sha512.is_some();
            let entry = LockedArtifact { proof: Some(proof.clone()), ..before.clone().into() };
            match (same && compared, self.asking) {
                (true, _) => return known(entry),
                (false, Asking::Everybody) if same => return known(before.clone().into()),
                // Another digest than before: its size is not known, and nothing is downloaded to learn it.
                (false, Asking::Everybody) => {
                    return known(LockedArtifact { size: None, sha256: published.sha256, sha512: listed512, ..entry });
                }
                (false, Asking::WhatIsOpen) => {}
            }
        }
        let urls = std::iter::once(address(&url, self.directory)).chain(mirrors.iter().cloned().map(Ok));
        let wanted = Wanted {
            name: url.clone(),
            urls: urls.collect::<anyhow::Result<_>>()?,
            sha256: sha256.or(published.sha256),
            sha512: sha512.or(published.sha512),
            ..Wanted::default()
        };
        Ok(Resolution::Download(Pending { wanted, url, mirrors, proof }))
    }
}

impl Pending {
    /// The entry, from what the download brought. Not being reached leaves it unresolved; everything else is an error.
    pub fn finish(&self, fetched: Result<&Fetched, &anyhow::Error>, output: &Output) -> anyhow::Result<LockedArtifact> {
        let Self { wanted, url, mirrors, proof } = self.clone();
        let known = LockedArtifact {
            mirrors,
            sha512: wanted.sha512.map(|digest| digest.to_string()),
            ..LockedArtifact::default()
        };
        match fetched {
            Ok(Fetched { size, sha256, .. }) => {
                Ok(LockedArtifact { url, size: Some(*size), sha256: Some(*sha256), proof: Some(proof), ..known })
            }
            Err(error) if error.is::<Unreachable>() => {
                output.warning_once(host(&url), &format!("{error:#}"));
                let what = if wanted.sha256.is_some() { "size" } else { "size and sha256" };
                let unresolved = Some(format!("{what} not known: not reached when the lock was written"));
                let proof = wanted.sha256.map(|_| proof);
                Ok(LockedArtifact { url, sha256: wanted.sha256, proof, unresolved, ..known })
            }
            Err(error) => Err(Failure::new(format!("{error:#}"))
                .hint("if upstream is right, correct the manifest; compare with a second source first")
                .into()),
        }
    }
}
