//! Puts bundles together without any check, to make those that must be refused.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Fake, Key, descriptor};
use crate::archive::blob_name;
use crate::digest::Digest;
use crate::error::Error;
use crate::layer::{PackEntry, pack};
use crate::name::LayerPath;
use crate::oci::{self, OCI_LAYOUT};
use crate::sign::sign_index;
use crate::ustar::{self, BLOCK, Block, END, Item};

/// A tar entry whose header may be anything.
#[derive(Clone)]
pub(super) struct Raw {
    pub header: Block,
    /// Content with its padding.
    pub body: Vec<u8>,
}

impl Raw {
    pub(super) fn regular(name: &str, mode: u32, content: &[u8]) -> Result<Self, Error> {
        Self::new(name, Item::Regular { mode, size: content.len() as u64 }, content)
    }

    pub(super) fn new(name: &str, item: Item<'_>, content: &[u8]) -> Result<Self, Error> {
        let header = ustar::header(name, item).map_err(|what| Error::Input(what.to_owned()))?;
        let mut body = content.to_vec();
        body.resize(content.len() + ustar::padding(content.len() as u64), 0);
        Ok(Self { header, body })
    }

    /// Changes header bytes and makes the checksum right again.
    pub(super) fn patch(mut self, at: usize, bytes: &[u8]) -> Self {
        self.header[at..at + bytes.len()].copy_from_slice(bytes);
        let sum = format!("{:06o}\0 ", ustar::checksum(&self.header));
        self.header[148..156].copy_from_slice(sum.as_bytes());
        self
    }

    /// Changes the type flag.
    pub(super) fn kind(self, kind: u8) -> Self {
        self.patch(156, &[kind])
    }

    /// Changes the name.
    pub(super) fn name(self, name: &str) -> Self {
        let mut field = [0; 100];
        field[..name.len()].copy_from_slice(name.as_bytes());
        self.patch(0, &field)
    }
}

/// A tar of such entries, with its end.
pub(super) fn tar(entries: &[Raw]) -> Vec<u8> {
    let mut bytes = open_tar(entries);
    bytes.extend([0; END]);
    bytes
}

/// The same without its end.
pub(super) fn open_tar(entries: &[Raw]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.header.iter().chain(&entry.body)).copied().collect()
}

/// Splits a bundle into its entries; the end is left out.
pub(super) fn split(bundle: &[u8]) -> Vec<Raw> {
    let mut entries = Vec::new();
    let mut rest = bundle;
    while let Some((header, after)) = rest.split_first_chunk::<BLOCK>() {
        let Some((_, size)) = ustar::parse_regular(header) else { break };
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        let (body, after) = after.split_at(length + ustar::padding(size));
        entries.push(Raw { header: *header, body: body.to_vec() });
        rest = after;
    }
    entries
}

pub(super) fn zstd(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    zstd::encode_all(bytes, 3).map_err(Error::Write)
}

type Edit = Box<dyn Fn(&mut Value)>;
type TextEdit = Box<dyn Fn(String) -> String>;

/// A bundle with one program component, `etcd`, of which any part can be forged; it is properly signed.
pub(super) struct Forge {
    /// The uncompressed layer.
    pub layer: Vec<u8>,
    /// The compressed layer, if it is not just the layer compressed.
    pub compressed: Option<Vec<u8>>,
    /// `dev.sealift.files`.
    pub files: Value,
    /// Other changes to the config, the manifest, the index, in this order.
    pub edit: [Edit; 3],
    /// Changes to the text of config, manifest and index.
    pub text: [TextEdit; 3],
    pub trusted_comment: Option<String>,
}

impl Forge {
    /// The innocent start: `bin/`, `bin/tool`, `link`, and entries to build a layer from.
    pub(super) fn new() -> Result<(Self, Vec<Raw>), Error> {
        let paths = |text: &str| text.parse::<LayerPath>().map_err(|error| Error::Input(error.to_string()));
        let entries = BTreeMap::from([
            (paths("bin/tool")?, super::script("tool\n")),
            (paths("link")?, PackEntry::Symlink { target: "bin/tool".to_owned() }),
        ]);
        let files = pack(entries, 3, 1, std::io::sink())?.files;
        let raw = vec![
            Raw::new("bin", Item::Directory, b"")?,
            Raw::regular("bin/tool", 0o755, b"tool\n")?,
            Raw::new("link", Item::Symlink { target: "bin/tool" }, b"")?,
        ];
        let forge = Self {
            layer: tar(&raw),
            compressed: None,
            files: json!(files),
            edit: [Box::new(|_| ()), Box::new(|_| ()), Box::new(|_| ())],
            text: [Box::new(|text| text), Box::new(|text| text), Box::new(|text| text)],
            trusted_comment: None,
        };
        Ok((forge, raw))
    }

    pub(super) fn bytes(&self) -> Result<Vec<u8>, Error> {
        let fake = Fake::new();
        let release = fake.release()?;
        let component =
            super::component("etcd", "1.0", super::Kind::Program, &[super::Role::Master, super::Role::Etcd])?;
        let compressed = match &self.compressed {
            Some(bytes) => bytes.clone(),
            None => zstd(&self.layer)?,
        };
        let finish = |at: usize, mut value: Value| {
            (self.edit[at])(&mut value);
            (self.text[at])(value.to_string()).into_bytes()
        };
        let config = finish(
            0,
            json!({
                "created": oci::CREATED, "architecture": release.architecture, "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": [Digest::of(&self.layer)]},
                "history": [{"created": oci::CREATED, "created_by": "forged"}],
                "dev.sealift.component": component,
                "dev.sealift.files": self.files,
            }),
        );
        let manifest = finish(
            1,
            json!({
                "schemaVersion": 2, "mediaType": oci::MANIFEST,
                "config": descriptor(oci::CONFIG, &config),
                "layers": [descriptor(oci::LAYER, &compressed)],
            }),
        );
        let mut entry = json!(descriptor(oci::MANIFEST, &manifest));
        entry["platform"] = json!({"architecture": release.architecture, "os": "linux"});
        entry["annotations"] = json!(crate::image::annotations(&release, &component, None));
        let index = finish(
            2,
            json!({
                "schemaVersion": 2, "mediaType": oci::INDEX,
                "manifests": [entry],
                "annotations": release.annotations()?,
            }),
        );
        let key = Key::Publisher.secret()?;
        let signature = match &self.trusted_comment {
            Some(comment) => key.sign(&index, comment)?,
            None => sign_index(&key, &index, &release)?,
        };
        let mut entries = vec![
            Raw::regular("oci-layout", 0o644, OCI_LAYOUT)?,
            Raw::regular("index.json", 0o644, &index)?,
            Raw::regular(&signature.entry_name(), 0o644, signature.text().as_bytes())?,
        ];
        for blob in [&manifest, &config, &compressed] {
            entries.push(Raw::regular(&blob_name(&Digest::of(blob)), 0o644, blob)?);
        }
        Ok(tar(&entries))
    }
}
