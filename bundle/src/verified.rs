//! From a stream of bytes to a [`Bundle`]: the typestate that carries trust.
//!
//! [`UnverifiedBundle::open`] reads the head (layout mark, index, signatures) and believes none of it.
//! [`UnverifiedBundle::verify`] checks the signatures first, and only then parses the index and reads manifests and
//! configs, each against its signed digest and size. Only the [`Bundle`] it returns can hand out content.

use std::fmt;
use std::io::Read;

use crate::archive::{Archive, blob_name};
use crate::digest::Digest;
use crate::error::{Error, Reason, quote, refuse, refuse_with};
use crate::image::{Contents, Image};
use crate::limit::{JSON_LIMIT, SIGNATURE_LIMIT, SIGNATURES_LIMIT};
use crate::oci::OCI_LAYOUT;
use crate::release::Release;
use crate::sign::{Signature, Trust};
use crate::ustar;

/// A bundle of which only the head was read; nothing in it is believed yet.
pub struct UnverifiedBundle<R> {
    pub(crate) archive: Archive<R>,
    pub(crate) index: Vec<u8>,
    pub(crate) signatures: Vec<Signature>,
}

impl<R> fmt::Debug for UnverifiedBundle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnverifiedBundle").field("signatures", &self.signatures).finish_non_exhaustive()
    }
}

impl<R: Read> UnverifiedBundle<R> {
    /// Reads the head of a bundle, up to and including the signatures. The reader need not be buffered.
    pub fn open(reader: R) -> Result<Self, Error> {
        let mut archive = Archive::new(reader);
        let layout = archive.expect_up_to("oci-layout", JSON_LIMIT)?;
        let layout = archive.content("oci-layout", layout)?;
        if layout != OCI_LAYOUT {
            let found = format!("`{}`", quote(&String::from_utf8_lossy(&layout)));
            return Err(refuse(
                Reason::Metadata,
                "`oci-layout`",
                format!("`{}`", String::from_utf8_lossy(OCI_LAYOUT)),
                found,
            ));
        }
        let size = archive.expect_up_to("index.json", JSON_LIMIT)?;
        let index = archive.content("index.json", size)?;
        let mut signatures: Vec<Signature> = Vec::new();
        while let Some((name, _)) =
            ustar::parse_regular(&archive.peek()?).filter(|(name, _)| name.ends_with(".minisig"))
        {
            let place = || format!("`{}`", quote(&name));
            if signatures.len() == SIGNATURES_LIMIT {
                return Err(refuse(Reason::Size, place(), format!("at most {SIGNATURES_LIMIT} signatures"), "another"));
            }
            let size = archive.expect_up_to(&name, SIGNATURE_LIMIT)?;
            let signature = Signature::read(&name, &archive.content(&name, size)?)?;
            if signatures.last().is_some_and(|last| last.entry_name() >= name) {
                return Err(refuse(
                    Reason::Entry,
                    place(),
                    "signatures in the order of their names, each once",
                    "another order",
                ));
            }
            signatures.push(signature);
        }
        // So that a damaged signature is told as damage, not as a missing signature.
        archive.peek_prefix("blobs/sha256/")?;
        Ok(Self { archive, index, signatures })
    }

    /// Digest of the index: what names a bundle exactly. Not yet believed.
    pub fn index_digest(&self) -> Digest {
        Digest::of(&self.index)
    }

    /// Key ids of all signatures; hints, not yet believed.
    pub fn claimed_signers(&self) -> Vec<String> {
        self.signatures.iter().map(Signature::key_id).collect()
    }

    /// Checks the signatures against the host's keys, then reads manifests and configs. From here on everything is known
    /// except the content of layers, packages and container blobs.
    pub fn verify(self, trust: &Trust) -> Result<Bundle<R>, Error> {
        let believed = trust.check(&self.index, &self.signatures)?.into_iter().cloned().collect::<Vec<_>>();
        self.contents(&believed)
    }

    /// As [`Self::verify`], but without asking for any signature: for the builder, which inspects bundles and checks a
    /// bundle before it signs it. All other rules hold.
    #[cfg(feature = "write")]
    pub fn without_signatures(self) -> Result<Bundle<R>, Error> {
        self.contents(&[])
    }

    fn contents(mut self, believed: &[Signature]) -> Result<Bundle<R>, Error> {
        let archive = &mut self.archive;
        let mut fetch = |digest: &Digest, size: u64| {
            let name = blob_name(digest);
            archive.expect(&name, size)?;
            archive.content(&name, size)
        };
        let contents = Contents::resolve(&self.index, &mut fetch)?;
        let expected = contents.release.trusted_comment();
        if let Some(other) = believed.iter().find(|signature| signature.trusted_comment() != expected) {
            return Err(refuse_with(
                Reason::Signature,
                format!("`{}`", other.entry_name()),
                format!("the trusted comment `{expected}`, as `index.json` says"),
                format!("`{}`", quote(other.trusted_comment())),
                Some("the signature was not made for this bundle: sign with `builder sign`"),
            ));
        }
        let signers = believed.iter().map(Signature::key_id).collect();
        Ok(Bundle { archive: self.archive, index: self.index, signers, contents })
    }
}

/// A bundle whose index is signed as the host demands, with all manifests and configs checked and in memory.
pub struct Bundle<R> {
    pub(crate) archive: Archive<R>,
    pub(crate) index: Vec<u8>,
    pub(crate) signers: Vec<String>,
    pub(crate) contents: Contents,
}

impl<R> fmt::Debug for Bundle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle")
            .field("release", self.release())
            .field("signers", &self.signers)
            .finish_non_exhaustive()
    }
}

impl<R> Bundle<R> {
    /// What the bundle is.
    pub fn release(&self) -> &Release {
        &self.contents.release
    }

    /// Digest of `index.json`: what names a bundle exactly.
    pub fn index_digest(&self) -> Digest {
        Digest::of(&self.index)
    }

    /// The bytes of `index.json`.
    pub fn index_bytes(&self) -> &[u8] {
        &self.index
    }

    /// Key ids of the trusted keys whose signatures were checked.
    pub fn signers(&self) -> &[String] {
        &self.signers
    }

    /// The images, in the order of the index.
    pub fn images(&self) -> &[Image] {
        &self.contents.images
    }

    /// A manifest or config by digest.
    pub fn metadata(&self, digest: &Digest) -> Option<&[u8]> {
        self.contents.metadata.get(digest).map(Vec::as_slice)
    }

    /// Bytes of layers, packages and container blobs that are still to come.
    pub fn remaining_size(&self) -> u64 {
        self.contents.blobs.iter().map(|(_, size)| size).fold(0, |sum, size| sum.saturating_add(*size))
    }
}
