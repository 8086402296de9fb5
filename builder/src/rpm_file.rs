//! The head of an .rpm file: lead, signature header and main header (rpm's docs/manual/format_v4.md); the payload follows.
//!
//! Headers are hostile until the file's digest or signature is known to be right: lengths are bounded, and memory grows
//! only as bytes arrive.

use std::io::Read;

use anyhow::Context as _;

use crate::failure::Failure;
use bundle::rpm_version::Evr;

const LEAD_SIZE: usize = 96;
const LEAD_MAGIC: [u8; 4] = [0xed, 0xab, 0xee, 0xdb];
const HEADER_MAGIC: [u8; 4] = [0x8e, 0xad, 0xe8, 0x01];
/// Entries of a header: those of the largest packages have about 100.
const INDEX_LIMIT: u32 = 1 << 12;
/// Bytes of a header: kernels and documentation with tens of thousands of files have a few MiB.
const STORE_LIMIT: u32 = 64 << 20;

/// Tags of rpmtag.h that are used here.
mod tag {
    pub(super) const NAME: u32 = 1000;
    pub(super) const VERSION: u32 = 1001;
    pub(super) const RELEASE: u32 = 1002;
    pub(super) const EPOCH: u32 = 1003;
    pub(super) const ARCH: u32 = 1022;
    pub(super) const PAYLOAD_FORMAT: u32 = 1124;
    pub(super) const PAYLOAD_COMPRESSOR: u32 = 1125;
    pub(super) const PAYLOAD_DIGEST: u32 = 5092;
    pub(super) const PAYLOAD_DIGEST_ALGORITHM: u32 = 5093;
    /// Signatures over the main header alone (RPMSIGTAG_DSA, RPMSIGTAG_RSA).
    pub(super) const HEADER_SIGNATURES: [u32; 2] = [268, 267];
}

/// What stands before the payload.
#[derive(Clone, Debug)]
pub struct Head {
    signature: Header,
    main: Header,
}

/// One header structure, as it lies in the file.
#[derive(Clone, Debug)]
struct Header {
    bytes: Vec<u8>,
    entries: usize,
}

impl Head {
    /// Reads up to the payload's first byte.
    pub fn read(reader: &mut dyn Read) -> anyhow::Result<Self> {
        let lead = take(reader, LEAD_SIZE).context("not an RPM package")?;
        if lead[..4] != LEAD_MAGIC {
            return Err(Failure::new("not an RPM package").into());
        }
        let signature = Header::read(reader).context("reading its signature header")?;
        // Only this header is padded.
        take(reader, (8 - signature.bytes.len() % 8) % 8).context("reading its signature header")?;
        let main = Header::read(reader).context("reading its header")?;
        Ok(Self { signature, main })
    }

    /// Package name.
    pub fn name(&self) -> anyhow::Result<String> {
        self.main.needed(tag::NAME, "name")
    }

    /// Epoch, version and release.
    pub fn evr(&self) -> anyhow::Result<Evr> {
        let epoch = self.main.number(tag::EPOCH)?.map(u64::from);
        let version = self.main.needed(tag::VERSION, "version")?.into();
        let release = Some(self.main.needed(tag::RELEASE, "release")?.into());
        Ok(Evr { epoch, version, release })
    }

    /// Architecture.
    pub fn arch(&self) -> anyhow::Result<String> {
        self.main.needed(tag::ARCH, "architecture")
    }

    /// How the payload is packed, `gzip` where nothing is said.
    pub fn payload_compressor(&self) -> anyhow::Result<String> {
        Ok(self.main.text(tag::PAYLOAD_COMPRESSOR)?.unwrap_or_else(|| "gzip".into()))
    }

    /// What the payload is, `cpio` where nothing is said.
    pub fn payload_format(&self) -> anyhow::Result<String> {
        Ok(self.main.text(tag::PAYLOAD_FORMAT)?.unwrap_or_else(|| "cpio".into()))
    }

    /// SHA-256 of the payload as packed, if the header names it so: what ties it to a signed header.
    pub fn payload_sha256(&self) -> anyhow::Result<Option<String>> {
        let sha256 = self.main.number(tag::PAYLOAD_DIGEST_ALGORITHM)? == Some(8);
        Ok(self.main.text(tag::PAYLOAD_DIGEST)?.filter(|_| sha256))
    }

    /// The main header's bytes, which the signature is over.
    pub fn signed_bytes(&self) -> &[u8] {
        &self.main.bytes
    }

    /// The OpenPGP signature over the main header, if there is one.
    pub fn header_signature(&self) -> anyhow::Result<Option<&[u8]>> {
        for tag in tag::HEADER_SIGNATURES {
            if let Some((kind, offset, count)) = self.signature.entry(tag)? {
                let end = offset.checked_add(count).filter(|_| kind == Header::BINARY);
                let bytes = end.and_then(|end| self.signature.store().get(offset..end));
                return bytes.map(Some).context("its signature cannot be read");
            }
        }
        Ok(None)
    }
}

impl Header {
    const INTRODUCTION: usize = 16;
    const INT32: u32 = 4;
    const STRING: u32 = 6;
    const BINARY: u32 = 7;
    const STRING_ARRAY: u32 = 8;

    fn read(reader: &mut dyn Read) -> anyhow::Result<Self> {
        let mut bytes = take(reader, Self::INTRODUCTION)?;
        if bytes[..4] != HEADER_MAGIC {
            return Err(Failure::new("there is no header where one should be").into());
        }
        let (entries, size) = (number(&bytes, 8)?, number(&bytes, 12)?);
        if entries > INDEX_LIMIT || size > STORE_LIMIT {
            return Err(Failure::new(format!("a header of {entries} entries and {size} bytes is refused")).into());
        }
        let entries = entries as usize;
        bytes.extend(take(reader, entries * 16 + size as usize)?);
        Ok(Self { bytes, entries })
    }

    fn store(&self) -> &[u8] {
        self.bytes.get(Self::INTRODUCTION + self.entries * 16..).unwrap_or_default()
    }

    /// Type, offset and count of a tag.
    fn entry(&self, tag: u32) -> anyhow::Result<Option<(u32, usize, usize)>> {
        for at in 0..self.entries {
            let at = Self::INTRODUCTION + at * 16;
            if number(&self.bytes, at)? == tag {
                let (offset, count) = (number(&self.bytes, at + 8)?, number(&self.bytes, at + 12)?);
                return Ok(Some((number(&self.bytes, at + 4)?, offset as usize, count as usize)));
            }
        }
        Ok(None)
    }

    fn number(&self, tag: u32) -> anyhow::Result<Option<u32>> {
        match self.entry(tag)? {
            None => Ok(None),
            Some((Self::INT32, offset, 1)) => number(self.store(), offset).map(Some),
            Some(_) => Err(Failure::new(format!("the header's tag {tag} is not one number")).into()),
        }
    }

    /// A text, or the only one of a list.
    fn text(&self, tag: u32) -> anyhow::Result<Option<String>> {
        let wrong = || Failure::new(format!("the header's tag {tag} is not a text"));
        let Some((kind, offset, count)) = self.entry(tag)? else { return Ok(None) };
        if !matches!(kind, Self::STRING | Self::STRING_ARRAY) || count != 1 {
            return Err(wrong().into());
        }
        let rest = self.store().get(offset..).ok_or_else(wrong)?;
        let end = rest.iter().position(|byte| *byte == 0).ok_or_else(wrong)?;
        Ok(Some(String::from_utf8(rest[..end].to_vec()).map_err(|_| wrong())?))
    }

    fn needed(&self, tag: u32, what: &str) -> anyhow::Result<String> {
        Ok(self.text(tag)?.ok_or_else(|| Failure::new(format!("the package's header has no {what}")))?)
    }
}

/// A big-endian number.
fn number(bytes: &[u8], at: usize) -> anyhow::Result<u32> {
    let end = at.checked_add(4);
    let bytes = end.and_then(|end| bytes.get(at..end)).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    Ok(u32::from_be_bytes(bytes.ok_or_else(|| Failure::new("the header points outside of itself"))?))
}

/// Exactly so many bytes; memory grows as they arrive.
fn take(reader: &mut dyn Read, count: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(count as u64).read_to_end(&mut bytes)?;
    if bytes.len() < count {
        return Err(Failure::new("the file ends too early").into());
    }
    Ok(bytes)
}
