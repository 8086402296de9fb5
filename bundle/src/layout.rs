//! Writes bundles: image manifests and configs, the index, and the tar around them.
//!
//! Bytes depend on the input alone. What is written is first resolved by the reader's own code, so a [`Layout`] that exists
//! can be read; sizes and digests of blobs are checked again while they are copied.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use crate::archive::blob_name;
use crate::component::{Component, Kind};
use crate::digest::Digest;
use crate::error::Error;
use crate::image::{Contents, Image, annotations};
use crate::layer::PackedLayer;
pub use crate::layer::Source;
use crate::limit::SIGNATURES_LIMIT;
use crate::name::Architecture;
use crate::oci::{
    self, Config, DEB, Descriptor, Execution, History, Index, IndexEntry, Manifest, OCI_LAYOUT, Platform, RPM, RootFs,
};
use crate::release::Release;
use crate::sign::Signature;
use crate::ustar::{self, BLOCK, END, Item};
use crate::verified::UnverifiedBundle;

/// A blob and where its bytes come from.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Where they are.
    pub source: Source,
}

impl Blob {
    /// A blob in memory.
    pub fn bytes(bytes: Vec<u8>) -> Self {
        Self { digest: Digest::of(&bytes), size: bytes.len() as u64, source: Source::Bytes(bytes) }
    }
}

/// An image to be written.
#[derive(Clone, Debug)]
pub struct ImageSource {
    component: Component,
    reference: Option<String>,
    root: Descriptor,
    /// Manifests and configs.
    metadata: Vec<Vec<u8>>,
    /// Layers and packages.
    blobs: Vec<Blob>,
}

fn json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::Input(format!("cannot be written as JSON: {error}")))
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor { media_type: media_type.to_owned(), digest: Digest::of(bytes), size: bytes.len() as u64 }
}

/// Makes the manifest around a config and layers.
fn ours(
    component: Component,
    reference: Option<String>,
    config: &Config,
    layers: Vec<Descriptor>,
    blobs: Vec<Blob>,
) -> Result<ImageSource, Error> {
    let config = json(config)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: oci::MANIFEST.to_owned(),
        config: descriptor(oci::CONFIG, &config),
        layers,
    };
    let manifest = json(&manifest)?;
    let root = descriptor(oci::MANIFEST, &manifest);
    Ok(ImageSource { component, reference, root, metadata: vec![manifest, config], blobs })
}

fn config(architecture: Architecture, diff_ids: Vec<Digest>, what: &str) -> Config {
    let created = || oci::CREATED.to_owned();
    let history =
        diff_ids.iter().map(|_| History { created: created(), created_by: format!("sealift {what}") }).collect();
    Config {
        created: created(),
        architecture: architecture.to_string(),
        os: "linux".to_owned(),
        execution: None,
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids },
        history,
        component: None,
        files: None,
    }
}

fn packed(layer: &PackedLayer, source: Source) -> (Descriptor, Blob) {
    let descriptor = Descriptor { media_type: oci::LAYER.to_owned(), digest: layer.digest, size: layer.size };
    (descriptor, Blob { digest: layer.digest, size: layer.size, source })
}

impl ImageSource {
    /// A component with one layer of files; `source` holds the layer's compressed bytes.
    pub fn program(
        component: Component,
        architecture: Architecture,
        layer: &PackedLayer,
        source: Source,
    ) -> Result<Self, Error> {
        let mut config = config(architecture, vec![layer.diff_id], "component");
        config.component = Some(component.clone());
        config.files = Some(layer.files.clone());
        let (descriptor, blob) = packed(layer, source);
        ours(component, None, &config, vec![descriptor], vec![blob])
    }

    /// OS packages, in the order of `component.packages`.
    pub fn packages(component: Component, architecture: Architecture, sources: Vec<Source>) -> Result<Self, Error> {
        if sources.len() != component.packages.len() {
            return Err(Error::Input(format!("{} needs one file for each of its packages", component.name)));
        }
        let mut layers = Vec::new();
        let mut blobs = Vec::new();
        for (package, source) in component.packages.iter().zip(sources) {
            let rpm = std::path::Path::new(&package.file).extension().is_some_and(|extension| extension == "rpm");
            let media_type = if rpm { RPM } else { DEB };
            layers.push(Descriptor { media_type: media_type.to_owned(), digest: package.sha256, size: package.size });
            blobs.push(Blob { digest: package.sha256, size: package.size, source });
        }
        let diff_ids = layers.iter().map(|layer| layer.digest).collect();
        let mut config = config(architecture, diff_ids, "package");
        config.component = Some(component.clone());
        ours(component, None, &config, layers, blobs)
    }

    /// A container image copied verbatim. `root` is what its reference names, a manifest or an index; `metadata` holds the
    /// bytes of root, manifests and configs, `blobs` its layers. What belongs to other platforms is left out.
    pub fn container(
        component: Component,
        reference: String,
        root: Descriptor,
        metadata: Vec<Vec<u8>>,
        blobs: Vec<Blob>,
    ) -> Self {
        Self { component, reference: Some(reference), root, metadata, blobs }
    }

    /// A container image of one layer that we pack ourselves.
    pub fn packed_container(
        component: Component,
        reference: String,
        architecture: Architecture,
        execution: Execution,
        layer: &PackedLayer,
        source: Source,
    ) -> Result<Self, Error> {
        let mut config = config(architecture, vec![layer.diff_id], "container");
        config.execution = Some(execution);
        let (descriptor, blob) = packed(layer, source);
        ours(component, Some(reference), &config, vec![descriptor], vec![blob])
    }

    fn index_entry(&self, release: &Release) -> Result<IndexEntry, Error> {
        let mut annotations = annotations(release, &self.component, self.reference.as_deref());
        if self.component.kind == Kind::Container {
            let component = String::from_utf8_lossy(&json(&self.component)?).into_owned();
            annotations.insert("dev.sealift.component".to_owned(), component);
        }
        let platform = Platform { architecture: release.architecture.to_string(), os: "linux".to_owned() };
        let Descriptor { media_type, digest, size } = self.root.clone();
        Ok(IndexEntry { media_type, digest, size, platform, annotations })
    }
}

/// A bundle ready to be signed and written.
#[derive(Clone, Debug)]
pub struct Layout {
    index: Vec<u8>,
    contents: Contents,
    blobs: BTreeMap<Digest, Blob>,
}

impl Layout {
    /// Puts images together (sorted by component name) and checks the result with the reader's rules.
    pub fn new(release: &Release, images: Vec<ImageSource>) -> Result<Self, Error> {
        let mut images = images;
        images.sort_by(|a, b| a.component.name.cmp(&b.component.name));
        let manifests = images.iter().map(|image| image.index_entry(release)).collect::<Result<Vec<_>, _>>()?;
        let mut names = BTreeSet::new();
        for entry in &manifests {
            let name = entry.annotations.get("org.opencontainers.image.ref.name");
            if let Some(name) = name.filter(|name| !names.insert(*name)) {
                return Err(Error::Input(format!("two images would be called `{name}`")));
            }
        }
        let index = Index {
            schema_version: 2,
            media_type: oci::INDEX.to_owned(),
            manifests,
            annotations: release.annotations()?,
        };
        let index = json(&index)?;
        let mut metadata = BTreeMap::new();
        let mut blobs = BTreeMap::new();
        for image in images {
            metadata.extend(image.metadata.into_iter().map(|bytes| (Digest::of(&bytes), bytes)));
            blobs.extend(image.blobs.into_iter().map(|blob| (blob.digest, blob)));
        }
        let missing =
            |digest: &Digest| Error::Input(format!("blob `{digest}` is named by a manifest but was not given"));
        let mut fetch = |digest: &Digest, _: u64| metadata.get(digest).cloned().ok_or_else(|| missing(digest));
        let contents = Contents::resolve(&index, &mut fetch).map_err(|error| match error {
            Error::Refused(refusal) => Error::Input(format!("the bundle would be refused: {}", refusal.statement())),
            other => other,
        })?;
        for (digest, size) in &contents.metadata_order {
            let found = contents.metadata.get(digest).map_or(0, Vec::len) as u64;
            if found != *size {
                return Err(Error::Input(format!("blob `{digest}` has {found} bytes, its descriptor says {size}")));
            }
        }
        for (digest, size) in &contents.blobs {
            let blob = blobs.get(digest).ok_or_else(|| missing(digest))?;
            if blob.size != *size {
                return Err(Error::Input(format!(
                    "blob `{digest}` has {} bytes, its descriptor says {size}",
                    blob.size
                )));
            }
        }
        Ok(Self { index, contents, blobs })
    }

    /// The bytes of `index.json`: what is signed.
    pub fn index_bytes(&self) -> &[u8] {
        &self.index
    }

    /// Their digest: what names the bundle.
    pub fn index_digest(&self) -> Digest {
        Digest::of(&self.index)
    }

    /// What the bundle is.
    pub fn release(&self) -> &Release {
        &self.contents.release
    }

    /// Its images, as a reader will see them.
    pub fn images(&self) -> &[Image] {
        &self.contents.images
    }

    /// Size of the file with these signatures.
    pub fn size(&self, signatures: &[Signature]) -> u64 {
        let entry = |size: u64| BLOCK as u64 + size + ustar::padding(size) as u64;
        let head = [OCI_LAYOUT.len() as u64, self.index.len() as u64];
        let signatures = signatures.iter().map(|signature| signature.text().len() as u64);
        let blobs = self.contents.metadata_order.iter().chain(&self.contents.blobs).map(|(_, size)| *size);
        head.into_iter().chain(signatures).chain(blobs).map(entry).sum::<u64>() + END as u64
    }

    /// Writes the bundle. Without a signature it can be signed later, but nobody will accept it before.
    pub fn write(&self, out: impl Write, signatures: &[Signature]) -> Result<(), Error> {
        let mut out = out;
        write_head(&mut out, &self.index, signatures)?;
        for (digest, _) in &self.contents.metadata_order {
            let bytes = self.contents.metadata.get(digest).map_or(&[][..], Vec::as_slice);
            write_entry(&mut out, &blob_name(digest), bytes)?;
        }
        for (digest, size) in &self.contents.blobs {
            let Some(blob) = self.blobs.get(digest) else { continue };
            let (reader, found) = blob.source.open()?;
            if found != *size {
                return Err(Error::Input(format!("the source of blob `{digest}` has {found} bytes, expected {size}")));
            }
            write_header(&mut out, &blob_name(digest), *size)?;
            let found = blob.source.copy(*size, reader, &mut out)?;
            if found != *digest {
                return Err(Error::Input(format!(
                    "the source of blob `{digest}` has changed: its digest is `{found}`"
                )));
            }
            write_padding(&mut out, *size)?;
        }
        out.write_all(&[0; END]).and_then(|()| out.flush()).map_err(Error::Write)
    }
}

fn write_head(out: &mut dyn Write, index: &[u8], signatures: &[Signature]) -> Result<(), Error> {
    write_entry(out, "oci-layout", OCI_LAYOUT)?;
    write_entry(out, "index.json", index)?;
    let sorted = signatures.iter().map(|signature| (signature.entry_name(), signature)).collect::<BTreeMap<_, _>>();
    if sorted.len() != signatures.len() || sorted.len() > SIGNATURES_LIMIT {
        return Err(Error::Input(format!("at most {SIGNATURES_LIMIT} signatures, each by a key id of its own")));
    }
    for (name, signature) in sorted {
        write_entry(out, &name, signature.text().as_bytes())?;
    }
    Ok(())
}

fn write_header(out: &mut dyn Write, name: &str, size: u64) -> Result<(), Error> {
    let header = ustar::header(name, Item::Regular { mode: 0o644, size })
        .map_err(|what| Error::Input(format!("`{name}` cannot be in a bundle: {what}")))?;
    out.write_all(&header).map_err(Error::Write)
}

fn write_padding(out: &mut dyn Write, size: u64) -> Result<(), Error> {
    out.write_all(&[0; BLOCK][..ustar::padding(size)]).map_err(Error::Write)
}

fn write_entry(out: &mut dyn Write, name: &str, bytes: &[u8]) -> Result<(), Error> {
    write_header(out, name, bytes.len() as u64)?;
    out.write_all(bytes).map_err(Error::Write)?;
    write_padding(out, bytes.len() as u64)
}

impl<R: Read> UnverifiedBundle<R> {
    /// Copies the bundle with one more signature (one by the same key id is replaced). Only the head is rewritten; the rest
    /// is copied as it is, so whoever cares verifies the result.
    pub fn add_signature(self, signature: Signature, out: impl Write) -> Result<(), Error> {
        let mut out = out;
        let mut signatures = self.signatures;
        signatures.retain(|other| other.entry_name() != signature.entry_name());
        signatures.push(signature);
        write_head(&mut out, &self.index, &signatures)?;
        let (mut rest, header) = self.archive.into_parts();
        out.write_all(header.as_ref().map_or(&[][..], |header| &header[..])).map_err(Error::Write)?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            match rest.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => out.write_all(&buffer[..read]).map_err(Error::Write)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Read(error)),
            }
        }
        out.flush().map_err(Error::Write)
    }

    /// The index and the release it names, for signing; neither is believed. Refused if it is no index of ours.
    pub fn unsigned_index(&self) -> Result<(&[u8], Release), Error> {
        let index: Index = crate::json::parse("`index.json`", &self.index)?;
        Ok((&self.index, Release::from_annotations(&index.annotations)?))
    }
}
