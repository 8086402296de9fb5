//! What is in a bundle: its images with their components, resolved from the index, the manifests and the configs.
//!
//! [`Contents::resolve`] is used by both sides: the reader feeds it the blobs as they come, which fixes the one order they
//! may come in; the writer feeds it what it is about to write, so that it cannot write what it would not read.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::archive::blob_name;
use crate::component::{Component, Entry, File, Kind, Role};
use crate::digest::Digest;
use crate::error::{Error, Reason, quote, refuse};
use crate::json;
use crate::layer::files;
use crate::limit::{JSON_LIMIT, METADATA_LIMIT};
use crate::name::Architecture;
use crate::oci::{self, Config, Descriptor, ForeignIndex, ForeignManifest, Index, IndexEntry, Manifest};
use crate::release::Release;

/// One image of a bundle. The installer keeps them, as JSON, with the generation made from them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// What it is.
    pub component: Component,
    /// For components with files: exactly what the layer holds, in order.
    pub files: Vec<File>,
    /// For [`Kind::Container`]: the full reference (`io.containerd.image.name`).
    pub reference: Option<String>,
    /// What `index.json` names: a manifest, or for containers possibly an index.
    pub root: Descriptor,
    /// Digest of the manifest for this bundle's architecture (the root, unless that is an index).
    pub manifest: Digest,
    /// Its config.
    pub config: Descriptor,
    /// Its layers; for OS packages one per package, in the order of the component's list.
    pub layers: Vec<Descriptor>,
    /// Every blob of it that is in the bundle, root first, each once.
    pub blobs: Vec<Descriptor>,
    /// For components with files: digest of the uncompressed layer.
    pub(crate) diff_id: Option<Digest>,
}

impl Image {
    /// Bytes it takes on the host: its files unpacked, or its blobs.
    pub fn installed_size(&self) -> u64 {
        match self.component.kind {
            Kind::Program | Kind::Addon => self.files.iter().map(|file| file.entry.size()).fold(0, u64::saturating_add),
            Kind::Container | Kind::Packages | Kind::Kernel => {
                self.blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add)
            }
        }
    }

    /// Name for messages: `COMPONENT VERSION`.
    pub fn title(&self) -> String {
        format!("{} {}", self.component.name, self.component.version)
    }
}

/// Everything that is known before the first layer.
#[derive(Clone, Debug)]
pub(crate) struct Contents {
    pub release: Release,
    pub images: Vec<Image>,
    /// Manifests and configs by digest.
    pub metadata: BTreeMap<Digest, Vec<u8>>,
    /// The same in the order of the file, with sizes.
    pub metadata_order: Vec<(Digest, u64)>,
    /// Layers and packages in the order of the file, with sizes.
    pub blobs: Vec<(Digest, u64)>,
}

/// Gets a manifest or config of a given size.
pub(crate) type Fetch<'a> = dyn FnMut(&Digest, u64) -> Result<Vec<u8>, Error> + 'a;

/// Collects blobs in the groups of the format: roots, manifests below a root index, configs, layers.
struct Collector<'a> {
    fetch: &'a mut Fetch<'a>,
    sizes: BTreeMap<Digest, u64>,
    metadata: BTreeMap<Digest, Vec<u8>>,
    order: Vec<(Digest, u64)>,
    total: u64,
}

impl Collector<'_> {
    /// Notes the signed size of a blob, which must be the same wherever it is named.
    fn note(&mut self, descriptor: &Descriptor) -> Result<(), Error> {
        let size = *self.sizes.entry(descriptor.digest).or_insert(descriptor.size);
        if size == descriptor.size {
            return Ok(());
        }
        let place = format!("`{}`", blob_name(&descriptor.digest));
        Err(refuse(
            Reason::Metadata,
            place,
            "one size wherever it is named",
            format!("{size} and {} bytes", descriptor.size),
        ))
    }

    /// Fetches a group of manifests or configs, in the order of their digests.
    fn group<'b>(&mut self, descriptors: impl Iterator<Item = &'b Descriptor>) -> Result<(), Error> {
        let mut digests = BTreeSet::new();
        for descriptor in descriptors {
            self.note(descriptor)?;
            if !self.metadata.contains_key(&descriptor.digest) {
                digests.insert((descriptor.digest, descriptor.size));
            }
        }
        for (digest, size) in digests {
            let place = || format!("`{}`", blob_name(&digest));
            self.total = self.total.saturating_add(size);
            if size > JSON_LIMIT {
                let expected = format!("a manifest or config of at most {JSON_LIMIT} bytes");
                return Err(refuse(Reason::Size, place(), expected, format!("{size} bytes")));
            }
            if self.total > METADATA_LIMIT {
                let expected = format!("at most {METADATA_LIMIT} bytes of manifests and configs");
                return Err(refuse(Reason::Size, place(), expected, format!("{} bytes", self.total)));
            }
            let bytes = (self.fetch)(&digest, size)?;
            let found = Digest::of(&bytes);
            if found != digest {
                return Err(refuse(Reason::Digest, place(), digest.to_string(), found.to_string()));
            }
            self.metadata.insert(digest, bytes);
            self.order.push((digest, size));
        }
        Ok(())
    }

    fn document<T: serde::de::DeserializeOwned>(&self, digest: &Digest) -> Result<T, Error> {
        let place = format!("`{}`", blob_name(digest));
        let bytes = self.metadata.get(digest).map_or(&[][..], Vec::as_slice);
        json::parse(&place, bytes)
    }
}

/// A root with its manifests, the first being the one for our architecture.
struct Tree {
    manifests: Vec<Descriptor>,
    below: Vec<ForeignManifest>,
}

impl Contents {
    /// Resolves an index. `fetch` is asked for each manifest and config once, in the order of the file.
    pub(crate) fn resolve<'a>(index_bytes: &[u8], fetch: &'a mut Fetch<'a>) -> Result<Self, Error> {
        let index: Index = json::parse("`index.json`", index_bytes)?;
        if index.schema_version != 2 || index.media_type != oci::INDEX {
            let found = format!("schema {} of type `{}`", index.schema_version, quote(&index.media_type));
            return Err(refuse(Reason::Metadata, "`index.json`", format!("schema 2 of type `{}`", oci::INDEX), found));
        }
        let release = Release::from_annotations(&index.annotations)?;
        let mut collector =
            Collector { fetch, sizes: BTreeMap::new(), metadata: BTreeMap::new(), order: Vec::new(), total: 0 };

        let roots = index.manifests.iter().map(IndexEntry::descriptor).collect::<Vec<_>>();
        collector.group(roots.iter())?;
        let mut trees = Vec::new();
        for root in &roots {
            trees.push(Tree { manifests: manifests(&collector, root, release.architecture)?, below: Vec::new() });
        }
        collector.group(trees.iter().flat_map(|tree| &tree.manifests))?;
        for tree in &mut trees {
            for manifest in &tree.manifests {
                tree.below.push(collector.document(&manifest.digest)?);
            }
        }
        collector.group(trees.iter().flat_map(|tree| &tree.below).map(|manifest| &manifest.config))?;

        let mut images = Vec::new();
        for (entry, tree) in index.manifests.iter().zip(trees) {
            images.push(image(&collector, &release, entry, &tree)?);
        }
        let mut blobs = BTreeMap::new();
        for descriptor in images.iter().flat_map(|image| &image.blobs) {
            collector.note(descriptor)?;
            if !collector.metadata.contains_key(&descriptor.digest) {
                blobs.insert(descriptor.digest, descriptor.size);
            }
        }
        check_set(&images, &collector.metadata)?;
        let Collector { metadata, order, .. } = collector;
        Ok(Self { release, images, metadata, metadata_order: order, blobs: blobs.into_iter().collect() })
    }
}

/// The manifests a root leads to: itself, or of an index every child for our architecture. The others are not in a bundle.
fn manifests(
    collector: &Collector<'_>,
    root: &Descriptor,
    architecture: Architecture,
) -> Result<Vec<Descriptor>, Error> {
    let place = || format!("`{}`", blob_name(&root.digest));
    match root.media_type.as_str() {
        oci::MANIFEST | oci::DOCKER_MANIFEST => Ok(vec![root.clone()]),
        oci::INDEX | oci::DOCKER_INDEX => {
            let index: ForeignIndex = collector.document(&root.digest)?;
            let ours = index.manifests.into_iter().filter(|entry| {
                let platform = entry.platform.as_ref();
                platform.is_none_or(|platform| platform.os == "linux" && platform.architecture == architecture.as_str())
            });
            let ours = ours.map(|entry| entry.descriptor).collect::<Vec<_>>();
            if ours.is_empty() {
                return Err(refuse(Reason::Metadata, place(), format!("a manifest for linux/{architecture}"), "none"));
            }
            match ours.iter().find(|child| ![oci::MANIFEST, oci::DOCKER_MANIFEST].contains(&child.media_type.as_str()))
            {
                Some(child) => {
                    Err(refuse(Reason::Metadata, place(), "manifests in it", format!("`{}`", quote(&child.media_type))))
                }
                None => Ok(ours),
            }
        }
        other => Err(refuse(
            Reason::Metadata,
            place(),
            "the media type of a manifest or index",
            format!("`{}`", quote(other)),
        )),
    }
}

fn image(collector: &Collector<'_>, release: &Release, entry: &IndexEntry, tree: &Tree) -> Result<Image, Error> {
    let root = entry.descriptor();
    let place = format!("`{}`", blob_name(&root.digest));
    let wrong = |expected: &str, found: String| Err(refuse(Reason::Metadata, &place, expected, found));
    if entry.platform.os != "linux" || entry.platform.architecture != release.architecture.as_str() {
        let found = format!("{}/{}", quote(&entry.platform.os), quote(&entry.platform.architecture));
        return wrong(&format!("the platform linux/{}", release.architecture), found);
    }
    let annotation = |key: &str| entry.annotations.get(key).map(String::as_str);
    let (Some(manifest), Some(first)) = (tree.manifests.first(), tree.below.first()) else {
        return wrong("a manifest", "none".to_owned());
    };
    let manifest = manifest.digest;
    let (config, layers) = (first.config.clone(), first.layers.clone());

    let (component, files, diff_id) = if let Some(text) = annotation("dev.sealift.component") {
        let component: Component = json::parse(&format!("the component of {place}"), text.as_bytes())?;
        if component.kind != Kind::Container {
            return wrong("a component in its config, as it is not a container", "one in `index.json`".to_owned());
        }
        (component, Vec::new(), None)
    } else {
        // Ours: read again, with nothing unknown in it.
        let strict: Manifest = collector.document(&manifest)?;
        let types = (strict.schema_version, strict.media_type.as_str(), config.media_type.as_str());
        if types != (2, oci::MANIFEST, oci::CONFIG) || root.digest != manifest {
            return wrong("an OCI image manifest with an OCI config", format!("{types:?}"));
        }
        let config: Config = collector.document(&config.digest)?;
        ours(&place, release, config, &layers)?
    };

    component.check().map_err(|found| {
        refuse(
            Reason::Metadata,
            &place,
            "names that can be file names and arguments, and text without control characters",
            found,
        )
    })?;
    let reference = annotation("io.containerd.image.name").map(str::to_owned);
    match (&reference, component.kind) {
        (Some(reference), Kind::Container) if is_reference(reference) => {}
        (None, Kind::Program | Kind::Packages | Kind::Kernel | Kind::Addon) => {}
        (found, kind) => {
            let found = found.as_deref().map_or("none".to_owned(), |found| format!("`{}`", quote(found)));
            return wrong(&format!("an image reference exactly for containers (this is {kind:?})"), found);
        }
    }
    let expected = annotations(release, &component, reference.as_deref());
    if let Some((key, value)) = expected.iter().find(|(key, value)| annotation(key) != Some(value.as_str())) {
        return wrong(&format!("`{key}` to be `{value}` in `index.json`"), format!("{:?}", annotation(key)));
    }

    let mut blobs = vec![root.clone()];
    let below = tree.below.iter().flat_map(|manifest| std::iter::once(&manifest.config).chain(&manifest.layers));
    for descriptor in tree.manifests.iter().chain(below) {
        if blobs.iter().all(|blob| blob.digest != descriptor.digest) {
            blobs.push(descriptor.clone());
        }
    }
    Ok(Image { component, files, reference, root, manifest, config, layers, blobs, diff_id })
}

type Ours = (Component, Vec<File>, Option<Digest>);

/// Checks the config of an image that we packed against its manifest.
fn ours(place: &str, release: &Release, config: Config, layers: &[Descriptor]) -> Result<Ours, Error> {
    let wrong = |expected: &str, found: String| Err(refuse(Reason::Metadata, place, expected, found));
    if config.os != "linux" || config.architecture != release.architecture.as_str() {
        let found = format!("{}/{}", quote(&config.os), quote(&config.architecture));
        return wrong(&format!("a config for linux/{}", release.architecture), found);
    }
    let Some(component) = config.component else {
        return wrong("a config with `dev.sealift.component`", "none".to_owned());
    };
    let diff_ids = &config.rootfs.diff_ids;
    match (component.kind, config.files) {
        (kind, Some(files)) if kind.has_files() => {
            let ([layer], [diff_id]) = (layers, diff_ids.as_slice()) else {
                return wrong("one layer", format!("{} layers, {} diff_ids", layers.len(), diff_ids.len()));
            };
            if layer.media_type != oci::LAYER {
                return wrong(&format!("a layer of type `{}`", oci::LAYER), format!("`{}`", quote(&layer.media_type)));
            }
            if component.packages.iter().len() != 0 {
                return wrong("no packages in a program component", format!("{}", component.packages.len()));
            }
            files::check(&files)
                .map_err(|what| refuse(Reason::Metadata, place, "a well-formed `dev.sealift.files`", what))?;
            for program in &component.programs {
                let found = files.iter().find(|file| file.path == *program);
                if !found.is_some_and(|file| !matches!(file.entry, Entry::Directory)) {
                    return wrong(
                        &format!("the promised program `{program}` in its file list"),
                        "no such file".to_owned(),
                    );
                }
            }
            Ok((component, files, Some(*diff_id)))
        }
        (kind, None) if kind.has_packages() => {
            let listed = component.packages.iter().map(|package| (package.sha256, package.size));
            if !listed.eq(layers.iter().map(|layer| (layer.digest, layer.size))) {
                return wrong("its layers to be its packages, in order", "a difference".to_owned());
            }
            Ok((component, Vec::new(), None))
        }
        (kind, files) => {
            let found = format!("{kind:?} with{} files", if files.is_some() { "" } else { "out" });
            wrong("a program with files, or packages without", found)
        }
    }
}

/// Checks what concerns all images together.
fn check_set(images: &[Image], metadata: &BTreeMap<Digest, Vec<u8>>) -> Result<(), Error> {
    let wrong = |expected: &str, found: String| Err(refuse(Reason::Metadata, "`index.json`", expected, found));
    let mut names = BTreeSet::new();
    let mut references = BTreeSet::new();
    for image in images {
        if !names.insert(&image.component.name) {
            return wrong("each component once", format!("`{}` twice", image.component.name));
        }
        if let Some(reference) = &image.reference
            && !references.insert(reference)
        {
            return wrong("each image reference once", format!("`{}` twice", quote(reference)));
        }
    }
    // A layer with content streams past once, so it can be unpacked for one component only.
    let mut layers: BTreeMap<Digest, &Image> = BTreeMap::new();
    for image in images.iter().filter(|image| image.component.kind.has_files()) {
        for layer in &image.layers {
            if metadata.contains_key(&layer.digest) {
                return wrong("layers apart from manifests and configs", format!("`{}` as both", layer.digest));
            }
            let Some(other) = layers.insert(layer.digest, image) else { continue };
            let content = image.files.iter().any(|file| matches!(file.entry, Entry::Regular { .. }));
            if content || other.files != image.files {
                let found = format!("`{}` and `{}` with the same", other.component.name, image.component.name);
                return wrong("a layer of its own for each component", found);
            }
        }
    }
    let shared = images.iter().filter(|image| !image.component.kind.has_files()).flat_map(|image| &image.blobs);
    for blob in shared {
        if let Some(image) = layers.get(&blob.digest) {
            return wrong("program layers used once", format!("that of `{}` in another image", image.component.name));
        }
    }
    Ok(())
}

/// A full image reference: what containerd takes, without spaces or control characters.
fn is_reference(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/@+".contains(&byte);
    text.len() <= 255 && text.contains('/') && text.bytes().all(good)
}

/// The index annotations of an image, but for a container's component.
pub(crate) fn annotations(
    release: &Release,
    component: &Component,
    reference: Option<&str>,
) -> BTreeMap<String, String> {
    let kind = component.kind.as_str();
    let roles = component.roles.iter().map(|role| match role {
        Role::Master => "master",
        Role::Worker => "worker",
        Role::Etcd => "etcd",
    });
    let mut annotations = BTreeMap::from([
        ("dev.sealift.kind".to_owned(), kind.to_owned()),
        ("dev.sealift.roles".to_owned(), roles.collect::<Vec<_>>().join(",")),
        ("org.opencontainers.image.ref.name".to_owned(), reference_name(release, component)),
    ]);
    if let Some(reference) = reference {
        annotations.insert("io.containerd.image.name".to_owned(), reference.to_owned());
    }
    annotations
}

/// `NAME-VERSION-ARCHITECTURE` in the grammar of reference names (OCI image-spec, `annotations.md`), which has single
/// separators and no `~`: what does not fit becomes `-`.
fn reference_name(release: &Release, component: &Component) -> String {
    let text = format!("{}-{}-{}", component.name, component.version, release.architecture);
    let mut name = String::new();
    let mut separators = String::new();
    for letter in text.chars() {
        if letter.is_ascii_alphanumeric() {
            match separators.as_str() {
                one @ ("" | "." | "-" | "_" | ":" | "+") => name.push_str(one),
                _ => name.push('-'),
            }
            separators.clear();
            name.push(letter);
        } else {
            separators.push(letter);
        }
    }
    name
}
