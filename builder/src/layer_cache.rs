//! Packed layers, kept by the digest of everything that decides their bytes, so that a warm build only assembles.
//!
//! An entry is a directory `layer/KEY` with the layer and its description; it appears by one rename. The layer's digest is
//! checked before an entry is used, and a damaged entry is removed.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use bundle::addon::Patch;
use bundle::component::File;
use bundle::layer::{PackEntry, PackedLayer, pack};
use bundle::{Digest, LayerPath};
use serde::{Deserialize, Serialize};

use crate::cache::{self, Cache, Scratch};
use crate::elf::{self, ElfFiles};

/// Raised whenever the same inputs give other bytes or another record: old entries are then not found.
const GENERATION: u32 = 2;

/// Everything that decides a layer's bytes.
#[derive(Debug, Serialize)]
pub struct LayerInputs<'a> {
    /// zstd level.
    pub level: i32,
    /// The artifacts in order.
    pub artifacts: Vec<ArtifactInput<'a>>,
    /// Links of the recipe.
    pub links: &'a BTreeMap<LayerPath, String>,
    /// For addons: what is changed in the objects, and the images they need.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addon: Option<AddonInput<'a>>,
}

/// What decides an addon's layer besides its YAML.
#[derive(Debug, Serialize)]
pub struct AddonInput<'a> {
    /// Kind, name and namespace of the objects of each patch, and the patch itself.
    pub patches: Vec<(&'a str, &'a str, Option<&'a str>, Patch)>,
    /// The images in the lock.
    pub images: &'a [String],
}

/// One artifact and what is picked from it.
#[derive(Debug, Serialize)]
pub struct ArtifactInput<'a> {
    /// Its digest.
    pub sha256: Digest,
    /// Its published name, which tells the format.
    pub name: &'a str,
    /// Patterns, targets and modes.
    pub files: Vec<(&'a str, String, u32)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    digest: Digest,
    size: u64,
    diff_id: Digest,
    unpacked_size: u64,
    files: Vec<File>,
    elf: ElfFiles,
}

/// A layer in the cache.
#[derive(Clone, Debug)]
pub struct CachedLayer {
    /// What it holds.
    pub layer: PackedLayer,
    /// What its programs and libraries need.
    pub elf: ElfFiles,
    /// Where its bytes lie.
    pub path: PathBuf,
}

impl LayerInputs<'_> {
    /// The name of the layer in the cache.
    pub fn key(&self) -> anyhow::Result<String> {
        let text = serde_json::to_vec(&(GENERATION, self)).context("writing the layer's inputs as JSON")?;
        Ok(Digest::of(&text).hex())
    }
}

/// The layer for `key`, if it is there and undamaged.
pub fn find(cache: &Cache, key: &str) -> anyhow::Result<Option<CachedLayer>> {
    let home = cache.layer(key);
    let path = home.join("layer");
    let record =
        fs_err::read(home.join("record.json")).ok().and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
    if let Some(Record { digest, size, diff_id, unpacked_size, files, elf }) = record
        && cache::digest_of(&path)? == Some((digest, size))
    {
        let layer = PackedLayer { digest, size, diff_id, unpacked_size, files };
        return Ok(Some(CachedLayer { layer, elf, path }));
    }
    if home.exists() && !cache.is_read_only() {
        fs_err::remove_dir_all(home).context("removing a damaged layer from the cache")?;
    }
    Ok(None)
}

/// Packs a layer and keeps it.
pub fn make(
    cache: &Cache,
    key: &str,
    entries: BTreeMap<LayerPath, PackEntry>,
    level: i32,
    workers: u32,
    scratch: &Scratch,
) -> anyhow::Result<CachedLayer> {
    let work = scratch.path().join(key);
    fs_err::create_dir(&work)?;
    let mut out = BufWriter::with_capacity(256 << 10, fs_err::File::create_new(work.join("layer"))?);
    let elf = elf::of_entries(&entries)?;
    let layer = pack(entries, level, workers, &mut out)?;
    out.flush()?;
    out.get_ref().sync_all()?;
    let PackedLayer { digest, size, diff_id, unpacked_size, files } = layer.clone();
    let record = serde_json::to_vec(&Record { digest, size, diff_id, unpacked_size, files, elf: elf.clone() })
        .context("describing the layer as JSON")?;
    cache::write_atomic(&work.join("record.json"), &record, 0o644)?;
    let home = cache.new_layer(key);
    match fs_err::rename(&work, &home) {
        Ok(()) => {}
        // Another builder has made the same layer meanwhile: same inputs, same bytes.
        Err(_) if home.join("record.json").exists() => return Ok(CachedLayer { layer, elf, path: home.join("layer") }),
        Err(error) => return Err(error.into()),
    }
    Ok(CachedLayer { layer, elf, path: home.join("layer") })
}
