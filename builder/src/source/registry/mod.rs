//! Container images from registries (OCI distribution-spec): resolved when a lock is made, fetched by digest, kept verbatim.
//!
//! Registries are not trusted. A digest is computed from the bytes that came, and what comes later must have it: whoever
//! serves something else, or moves a tag, is refused or changes nothing. Manifests, configs and layers go into the cache
//! under their digests like every other download; what is there is not asked for again.

mod challenge;
mod credentials;
mod document;
mod login;
mod reference;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use bundle::layer::Source;
use bundle::layout::Blob;
use bundle::{Architecture, Descriptor, Digest};

use self::document::{ACCEPT, DOCUMENT_LIMIT, Document, Manifest};
use self::login::Visitor;
pub use self::reference::Reference;
use crate::cache::Cache;
use crate::failure::Failure;
use crate::http::{Answer, Fetched, Network, Request, Wanted};
use crate::lock::Resolved;

/// All registries: what they may be asked for, and with whose login.
#[derive(Clone, Debug)]
pub struct Registry {
    visitor: Arc<Visitor>,
}

/// An image that is known by digest: what is fetched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pinned {
    /// Where it is.
    pub reference: Reference,
    /// Digest of its manifest or index.
    pub digest: Digest,
    /// Bytes of that.
    pub size: u64,
}

impl Pinned {
    /// What a lock says of an image.
    pub fn of(artifact: &Resolved) -> anyhow::Result<Self> {
        let reference = artifact.reference().context("not an image")?.parse()?;
        Ok(Self { reference, digest: artifact.sha256, size: artifact.size })
    }
}

/// An image in the cache, for one architecture: verbatim, all that belongs to it and nothing else.
#[derive(Clone, Debug)]
pub struct Image {
    /// The reference it is found by on a host.
    pub reference: String,
    /// Its manifest or index.
    pub root: Descriptor,
    /// The bytes of root, manifests and configs.
    pub metadata: Vec<Vec<u8>>,
    /// Its layers.
    pub blobs: Vec<Blob>,
}

/// What a registry's documents say about one image on one architecture.
#[derive(Debug)]
struct Tree {
    root: Descriptor,
    /// The manifests below an index; none if the root is one.
    below: Vec<Descriptor>,
    /// All manifests, the one that is run first.
    manifests: Vec<Manifest>,
    metadata: Vec<Vec<u8>>,
}

impl Registry {
    /// `insecure` are the hosts (`HOST:PORT`) that may be asked over plain http; `config` replaces Docker's `config.json`.
    pub fn new(insecure: &[String], config: Option<PathBuf>) -> Self {
        Self { visitor: Arc::new(Visitor::new(insecure, config)) }
    }

    /// What the reference names today: asked of the registry, whatever the cache holds.
    pub fn current_digest(&self, reference: &Reference, network: &Network) -> anyhow::Result<Digest> {
        self.ask(reference, network).map(|bytes| Digest::of(&bytes))
    }

    /// What a reference names, for a lock: size and digest of its manifest or index.
    ///
    /// `expected` is the digest that the manifest demands. The image must be there for all of `architectures`, and be one
    /// that can be bundled; its manifests come into the cache. Fails with [`Unreachable`](crate::http::Unreachable) if no registry answers.
    pub fn resolve(
        &self,
        reference: &Reference,
        expected: Option<Digest>,
        architectures: &[Architecture],
        network: &Network,
        cache: &Cache,
    ) -> anyhow::Result<Pinned> {
        let place = || format!("resolving image `{reference}`");
        if let (Some(expected), Some(written)) = (expected, reference.digest())
            && expected != written
        {
            let text = format!("`digest` is {expected}, the reference says {written}");
            return Err(anyhow::Error::new(Failure::usage(text)).context(place()));
        }
        let pinned = if let Some(digest) = reference.digest() {
            let wanted = self.document(reference, digest, None);
            let Fetched { size, sha256, .. } = network.fetch(cache, &wanted).with_context(place)?;
            Pinned { reference: reference.clone(), digest: sha256, size }
        } else {
            let bytes = self.ask(reference, network).with_context(place)?;
            let digest = Digest::of(&bytes);
            if let Some(expected) = expected
                && expected != digest
            {
                let text = format!("image `{reference}` is {digest}, the manifest says {expected}");
                let hint = "the tag has been moved, or the manifest is wrong: compare with a second source first";
                return Err(Failure::new(text).hint(hint).into());
            }
            cache.insert(&bytes)?;
            Pinned { reference: reference.clone(), digest, size: bytes.len() as u64 }
        };
        for architecture in architectures {
            let tree = self.trees(std::slice::from_ref(&pinned), *architecture, network, cache)?.pop();
            let tree = tree.context("an image without a manifest")?;
            if tree.below.is_empty()
                && let Some(manifest) = tree.manifests.first()
            {
                let config = self.blob(reference, &manifest.config, "config");
                check_config(&network.fetch(cache, &config).with_context(place)?, *architecture).with_context(place)?;
            }
        }
        Ok(pinned)
    }

    /// Brings images into the cache, each blob once; one result each, in order. Offline, all must be there.
    pub fn fetch(
        &self,
        images: &[Pinned],
        architecture: Architecture,
        network: &Network,
        cache: &Cache,
    ) -> anyhow::Result<Vec<Image>> {
        let trees = self.trees(images, architecture, network, cache)?;
        let mut wanted: BTreeMap<Digest, Wanted> = BTreeMap::new();
        for (image, tree) in images.iter().zip(&trees) {
            for (at, blob) in tree.manifests.iter().flat_map(Manifest::blobs).enumerate() {
                let part = if at == 0 { "config".to_owned() } else { format!("layer {at}") };
                let new = self.blob(&image.reference, &blob, &part);
                match wanted.get_mut(&blob.digest) {
                    // The same blob in another repository is one more address of it.
                    Some(known) => known
                        .urls
                        .extend(new.urls.into_iter().filter(|url| !known.urls.contains(url)).collect::<Vec<_>>()),
                    None => drop(wanted.insert(blob.digest, new)),
                }
            }
        }
        // Largest first: the last to arrive should not be one that has just begun.
        let mut wanted: Vec<Wanted> = wanted.into_values().collect();
        wanted.sort_by_key(|wanted| std::cmp::Reverse(wanted.size));
        network.fetch_all(cache, &wanted)?;
        let finish = |(image, tree): (&Pinned, Tree)| {
            tree.image(&image.reference, architecture, cache).with_context(|| format!("in image `{}`", image.reference))
        };
        images.iter().zip(trees).map(finish).collect()
    }

    /// Roots and manifests for an architecture, fetched and read.
    fn trees(
        &self,
        images: &[Pinned],
        architecture: Architecture,
        network: &Network,
        cache: &Cache,
    ) -> anyhow::Result<Vec<Tree>> {
        let roots: Vec<Wanted> =
            images.iter().map(|image| self.document(&image.reference, image.digest, Some(image.size))).collect();
        let roots = network.fetch_all(cache, &roots)?;
        let mut trees = Vec::new();
        for (image, root) in images.iter().zip(&roots) {
            let tree = Tree::begin(root, architecture).with_context(|| format!("in image `{}`", image.reference))?;
            trees.push(tree);
        }
        let below: Vec<Wanted> = images
            .iter()
            .zip(&trees)
            .flat_map(|(image, tree)| tree.below.iter().map(|child| (&image.reference, child)))
            .map(|(reference, child)| self.document(reference, child.digest, Some(child.size)))
            .collect();
        let mut below = network.fetch_all(cache, &below)?.into_iter();
        for (image, tree) in images.iter().zip(&mut trees) {
            for child in tree.below.clone() {
                let file = below.next().context("a manifest was not fetched")?;
                tree.add(&child, &file).with_context(|| format!("in image `{}`", image.reference))?;
            }
        }
        Ok(trees)
    }

    /// The manifest or index that a reference names now, asked of its registry.
    fn ask(&self, reference: &Reference, network: &Network) -> anyhow::Result<Vec<u8>> {
        let mut request =
            Request::new(self.url(reference, &format!("manifests/{}", reference.target())), DOCUMENT_LIMIT);
        request = request.header("accept", ACCEPT);
        request.login = Some(self.visitor.clone());
        let answer = network.get(&request)?;
        let bytes = accept(answer, reference)?;
        Ok(bytes)
    }

    /// What is downloaded for a manifest or an index.
    fn document(&self, reference: &Reference, digest: Digest, size: Option<u64>) -> Wanted {
        Wanted {
            name: format!("{reference} manifest {}", digest.short()),
            urls: vec![self.url(reference, &format!("manifests/{digest}"))],
            size,
            limit: DOCUMENT_LIMIT,
            sha256: Some(digest),
            accept: Some(ACCEPT.to_owned()),
            login: Some(self.visitor.clone()),
            ..Wanted::default()
        }
    }

    /// What is downloaded for a config or a layer.
    fn blob(&self, reference: &Reference, blob: &Descriptor, part: &str) -> Wanted {
        Wanted {
            name: format!("{reference} {part}"),
            urls: vec![self.url(reference, &format!("blobs/{}", blob.digest))],
            size: Some(blob.size),
            limit: blob.size,
            sha256: Some(blob.digest),
            login: Some(self.visitor.clone()),
            ..Wanted::default()
        }
    }

    /// The address at the registry itself; mirrors are the network's business.
    fn url(&self, reference: &Reference, rest: &str) -> String {
        let host = reference.api_host();
        format!("{}://{host}/v2/{}/{rest}", self.visitor.scheme(host), reference.repository())
    }
}

impl Tree {
    /// Reads a root.
    fn begin(root: &Fetched, architecture: Architecture) -> anyhow::Result<Self> {
        let bytes = read(root)?;
        let document = Document::parse(&bytes, None)?;
        let root = Descriptor { media_type: document.media_type().to_owned(), digest: root.sha256, size: root.size };
        let (below, manifests) = match document {
            Document::Manifest(manifest) => (Vec::new(), vec![manifest]),
            Document::Index(index) => (index.manifests(architecture)?, Vec::new()),
        };
        Ok(Self { root, below, manifests, metadata: vec![bytes] })
    }

    /// Reads a manifest below an index.
    fn add(&mut self, child: &Descriptor, file: &Fetched) -> anyhow::Result<()> {
        let bytes = read(file)?;
        let Document::Manifest(manifest) = Document::parse(&bytes, Some(&child.media_type))? else {
            return Err(Failure::new(format!("`{}` is an index below an index", child.digest)).into());
        };
        self.manifests.push(manifest);
        self.metadata.push(bytes);
        Ok(())
    }

    /// Everything about it, from the cache.
    fn image(self, reference: &Reference, architecture: Architecture, cache: &Cache) -> anyhow::Result<Image> {
        let Self { root, manifests, mut metadata, .. } = self;
        let mut blobs: BTreeMap<Digest, Blob> = BTreeMap::new();
        for (at, manifest) in manifests.iter().enumerate() {
            let Descriptor { digest, size, .. } = manifest.config;
            let config = Fetched { path: cache.path(&digest), size, sha256: digest };
            if at == 0 {
                check_config(&config, architecture)?;
            }
            metadata.push(read(&config)?);
            for layer in &manifest.layers {
                let Descriptor { digest, size, .. } = *layer;
                blobs.insert(digest, Blob { digest, size, source: Source::File(cache.path(&digest)) });
            }
        }
        Ok(Image { reference: reference.image_name(), root, metadata, blobs: blobs.into_values().collect() })
    }
}

/// The bytes of a manifest or config in the cache, which may have been changed there since they were fetched.
fn read(file: &Fetched) -> anyhow::Result<Vec<u8>> {
    let bytes = fs_err::read(&file.path)?;
    let found = Digest::of(&bytes);
    if found != file.sha256 {
        let text =
            format!("`{}` has changed in the cache: expected {}, found {found}", file.path.display(), file.sha256);
        return Err(Failure::new(text).hint("run the same command again").into());
    }
    Ok(bytes)
}

fn check_config(config: &Fetched, architecture: Architecture) -> anyhow::Result<()> {
    Ok(document::check_platform(&read(config)?, architecture)?)
}

/// The bytes of a manifest that was asked for by name, if the answer is one and is consistent.
fn accept(answer: Answer, reference: &Reference) -> anyhow::Result<Vec<u8>> {
    match answer.status {
        200 => {}
        401 | 403 => {
            return Err(Failure::new(format!(
                "`{}` does not let us have `{}`",
                reference.host(),
                reference.repository()
            ))
            .hint(format!("check the name; if it is private, run `docker login {}`", reference.host()))
            .into());
        }
        404 | 410 => {
            return Err(Failure::new(format!("`{}` has no `{reference}`", reference.host()))
                .hint("check repository and tag")
                .into());
        }
        status => {
            return Err(Failure::new(format!("`{}` answered {status}", reference.host()))
                .hint("try again later; if it stays so, ask whoever runs the registry")
                .into());
        }
    }
    let digest = Digest::of(&answer.body);
    let announced = answer.header("docker-content-digest").and_then(|text| text.trim().parse::<Digest>().ok());
    for (who, said) in [("the registry announces", announced), ("the reference says", reference.digest())] {
        if let Some(said) = said
            && said != digest
        {
            let text = format!("`{reference}` came as {digest}, {who} {said}");
            return Err(Failure::new(text)
                .hint("something between here and the registry changes what it sends")
                .into());
        }
    }
    Document::parse(&answer.body, answer.header("content-type")).with_context(|| format!("in image `{reference}`"))?;
    Ok(answer.body)
}
