//! Small whole bundles, good and hostile, for the tests of all crates. The keys are public: never trust them on a host.
//!
//! ```
//! let dir = tempfile::tempdir().unwrap();
//! let fake = bundle::fake::Fake::new().sequence(7);
//! let path = fake.write_to(dir.path()).unwrap();
//! let unverified = bundle::UnverifiedBundle::open(std::fs::File::open(path).unwrap()).unwrap();
//! assert_eq!(unverified.verify(&fake.trust()).unwrap().release().sequence, 7);
//! ```

mod forge;
mod forged;
mod hostile;

use std::collections::BTreeMap;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use crate::component::{Component, Kind, Package, Relations, Role, Template, TemplateKind, Upstream};
use crate::digest::Digest;
use crate::error::Error;
use crate::layer::{PackEntry, Source, pack};
use crate::layout::{Blob, ImageSource, Layout};
use crate::name::{Architecture, ComponentName, LayerPath, NameError, Version};
use crate::oci::{self, Descriptor, Execution};
use crate::release::Release;
use crate::sign::{PublicKey, SecretKey, Signature, Trust, sign_index};

pub use hostile::{Hostile, hostile, refused_by_installers, write_all};

/// One of the fixed key pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The key that tests trust.
    Publisher,
    /// A second key, for tests of thresholds, and of signatures by strangers.
    Other,
}

impl Key {
    /// Text of the `.pub` file.
    pub fn public_text(self) -> &'static str {
        match self {
            Self::Publisher => include_str!("fake/publisher.pub"),
            Self::Other => include_str!("fake/other.pub"),
        }
    }

    /// Text of the secret key file (no password).
    pub fn secret_text(self) -> &'static str {
        match self {
            Self::Publisher => include_str!("fake/publisher.key"),
            Self::Other => include_str!("fake/other.key"),
        }
    }

    /// The public key.
    pub fn public(self) -> Result<PublicKey, Error> {
        PublicKey::parse(self.public_text())
    }

    /// The secret key.
    pub fn secret(self) -> Result<SecretKey, Error> {
        SecretKey::parse(self.secret_text(), None)
    }
}

/// Builds a small bundle: programs `etcd` and `kubelet` (files, a link, templates), container `pause` (verbatim, below an
/// index whose other platforms are absent), container `busybox` (packed by us), packages `linux`.
#[derive(Clone, Debug)]
pub struct Fake {
    name: String,
    version: String,
    architecture: Architecture,
    sequence: u64,
    marker: String,
    keys: Vec<Key>,
    installer: Digest,
    more: Vec<(Component, BTreeMap<LayerPath, PackEntry>)>,
}

impl Default for Fake {
    fn default() -> Self {
        Self::new()
    }
}

impl Fake {
    /// `fake-1.0` version 1.0.0, amd64, sequence 2, signed by [`Key::Publisher`].
    pub fn new() -> Self {
        Self {
            name: "fake-1.0".to_owned(),
            version: "1.0.0".to_owned(),
            architecture: Architecture::Amd64,
            sequence: 2,
            marker: "fake".to_owned(),
            keys: vec![Key::Publisher],
            installer: Digest::of(b"fake installer"),
            more: Vec::new(),
        }
    }

    /// Another bundle name (release line).
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Another version.
    #[must_use]
    pub fn version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.version);
        self
    }

    /// Another architecture.
    #[must_use]
    pub fn architecture(mut self, architecture: Architecture) -> Self {
        self.architecture = architecture;
        self
    }

    /// Another sequence.
    #[must_use]
    pub fn sequence(mut self, sequence: u64) -> Self {
        self.sequence = sequence;
        self
    }

    /// Text that goes into the programs: other text, other digests.
    #[must_use]
    pub fn marker(mut self, marker: &str) -> Self {
        marker.clone_into(&mut self.marker);
        self
    }

    /// Signed by these keys; none leaves it unsigned.
    #[must_use]
    pub fn signed_by(mut self, keys: &[Key]) -> Self {
        self.keys = keys.to_vec();
        self
    }

    /// The digest of the installer that the index names.
    #[must_use]
    pub fn installer(mut self, installer: Digest) -> Self {
        self.installer = installer;
        self
    }

    /// One more program component (it replaces a built-in one of the same name).
    #[must_use]
    pub fn program(mut self, component: Component, files: BTreeMap<LayerPath, PackEntry>) -> Self {
        self.more.push((component, files));
        self
    }

    /// Trust in [`Key::Publisher`] alone.
    pub fn trust(&self) -> Trust {
        trust(&[Key::Publisher], 1)
    }

    /// What the bundle says about itself.
    pub fn release(&self) -> Result<Release, Error> {
        Ok(Release {
            name: self.name.parse().map_err(input)?,
            version: self.version.parse().map_err(input)?,
            architecture: self.architecture,
            sequence: self.sequence,
            created: "2026-01-01".to_owned(),
            lock: Digest::of(b"fake lock"),
            installer: self.installer,
        })
    }

    /// The bundle before it is signed.
    pub fn layout(&self) -> Result<Layout, Error> {
        let mut programs = vec![self.etcd()?, self.kubelet()?];
        for (component, files) in &self.more {
            programs.retain(|(other, _)| other.name != component.name);
            programs.push((component.clone(), files.clone()));
        }
        let mut images = Vec::new();
        for (component, files) in programs {
            let mut bytes = Vec::new();
            let layer = pack(files, 3, 1, &mut bytes)?;
            images.push(ImageSource::program(component, self.architecture, &layer, Source::Bytes(bytes))?);
        }
        images.push(self.pause()?);
        images.push(self.busybox()?);
        images.push(self.linux()?);
        Layout::new(&self.release()?, images)
    }

    /// The signatures over a layout.
    pub fn signatures(&self, layout: &Layout) -> Result<Vec<Signature>, Error> {
        self.keys.iter().map(|key| sign_index(&key.secret()?, layout.index_bytes(), layout.release())).collect()
    }

    /// The bundle. Signatures are randomised, everything else is the same each time.
    pub fn bytes(&self) -> Result<Vec<u8>, Error> {
        let layout = self.layout()?;
        let mut bytes = Vec::new();
        layout.write(&mut bytes, &self.signatures(&layout)?)?;
        Ok(bytes)
    }

    /// Writes the bundle into a directory under its usual name, beside it `fake.pub` with the publisher's key; returns the
    /// bundle's path.
    pub fn write_to(&self, directory: &Path) -> Result<PathBuf, Error> {
        let path = directory.join(self.release()?.file_name());
        fs_err::write(&path, self.bytes()?).map_err(Error::Write)?;
        fs_err::write(directory.join("fake.pub"), Key::Publisher.public_text()).map_err(Error::Write)?;
        Ok(path)
    }

    fn etcd(&self) -> Result<(Component, BTreeMap<LayerPath, PackEntry>), Error> {
        let mut component = component("etcd", "3.5.1", Kind::Program, &[Role::Master, Role::Etcd])?;
        component.programs = vec![path("bin/etcd")?];
        component.templates = vec![Template {
            name: path("etcd.service")?,
            kind: TemplateKind::Unit,
            text: "[Service]\nExecStart={{ program(\"etcd\", \"bin/etcd\") }}\n".to_owned(),
        }];
        let files = BTreeMap::from([
            (path("bin/etcd")?, script(&format!("#!/bin/sh\necho etcd {}\n", self.marker))),
            (path("bin/etcdctl")?, PackEntry::Symlink { target: "../share/etcd/etcdctl".to_owned() }),
            (path("share/etcd/etcdctl")?, script("#!/bin/sh\nexit 0\n")),
            (path("share/etcd/empty")?, PackEntry::Regular { mode: 0o444, source: Source::Bytes(Vec::new()) }),
        ]);
        Ok((component, files))
    }

    fn kubelet(&self) -> Result<(Component, BTreeMap<LayerPath, PackEntry>), Error> {
        let mut component = component("kubelet", "1.20.2", Kind::Program, &[Role::Master, Role::Worker])?;
        component.programs = vec![path("bin/kubelet")?];
        // More than one block, and exactly a multiple of one.
        let noise = noise(2048, &self.marker);
        let files = BTreeMap::from([
            (path("bin/kubelet")?, PackEntry::Regular { mode: 0o755, source: Source::Bytes(noise) }),
            (path("doc/README")?, PackEntry::Regular { mode: 0o644, source: Source::Bytes(b"fake\n".to_vec()) }),
        ]);
        Ok((component, files))
    }

    fn pause(&self) -> Result<ImageSource, Error> {
        let layer = noise(700, "pause layer");
        let config = serde_json::json!({"architecture": self.architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer)]}});
        let config = config.to_string().into_bytes();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": oci::MANIFEST,
            "config": descriptor(oci::CONFIG, &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer)],
            "annotations": {"kept": "verbatim"},
        });
        let manifest = manifest.to_string().into_bytes();
        let mut entry = serde_json::json!(descriptor(oci::MANIFEST, &manifest));
        entry["platform"] = serde_json::json!({"architecture": self.architecture, "os": "linux"});
        let mut absent = serde_json::json!(descriptor(oci::MANIFEST, b"absent"));
        absent["platform"] = serde_json::json!({"architecture": "s390x", "os": "linux"});
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": oci::INDEX, "manifests": [absent, entry]});
        let index = index.to_string().into_bytes();
        let root = descriptor(oci::INDEX, &index);
        let component = component("pause", "3.5", Kind::Container, &[Role::Master, Role::Worker])?;
        let reference = "registry.example/pause:3.5".to_owned();
        Ok(ImageSource::container(component, reference, root, vec![index, manifest, config], vec![Blob::bytes(layer)]))
    }

    fn busybox(&self) -> Result<ImageSource, Error> {
        let mut bytes = Vec::new();
        let layer = pack(BTreeMap::from([(path("bin/sh")?, script("busybox\n"))]), 3, 1, &mut bytes)?;
        let component = component("busybox", "1.35", Kind::Container, &[Role::Worker])?;
        let reference = "registry.example/busybox:1.35".to_owned();
        let execution = Execution { entrypoint: vec!["/bin/sh".to_owned()], ..Execution::default() };
        let source = Source::Bytes(bytes);
        ImageSource::packed_container(component, reference, self.architecture, execution, &layer, source)
    }

    fn linux(&self) -> Result<ImageSource, Error> {
        let mut component = component("linux", "6.1.153-1", Kind::Packages, &[Role::Master, Role::Worker])?;
        let mut sources = Vec::new();
        // Of the same size, so that swapping them is a crime of its own.
        for name in ["linux-image", "linux-modules"] {
            let bytes = noise(900, name);
            component.packages.push(Package {
                name: name.to_owned(),
                version: "6.1.153-1".to_owned(),
                file: format!("{name}_6.1.153-1_{}.deb", self.architecture),
                sha256: Digest::of(&bytes),
                size: bytes.len() as u64,
                architecture: String::new(),
                relations: Relations::default(),
            });
            sources.push(Source::Bytes(bytes));
        }
        ImageSource::packages(component, self.architecture, sources)
    }
}

/// Trust in fixed keys. The keys are good and `threshold` must fit them.
pub fn trust(keys: &[Key], threshold: usize) -> Trust {
    let keys = keys.iter().filter_map(|key| key.public().ok()).collect();
    match Trust::new(keys, threshold) {
        Ok(trust) => trust,
        Err(error) => panic!("a test asks for trust that cannot be: {error}"),
    }
}

/// A component with nothing in it yet.
pub fn component(name: &str, version: &str, kind: Kind, roles: &[Role]) -> Result<Component, Error> {
    Ok(Component {
        name: name.parse::<ComponentName>().map_err(input)?,
        version: version.parse::<Version>().map_err(input)?,
        kind,
        roles: roles.to_vec(),
        licence: "Apache-2.0".to_owned(),
        upstream: vec![Upstream {
            url: format!("https://example.org/{name}-{version}.tar.gz"),
            size: 4,
            sha256: Digest::of(name.as_bytes()),
            sha512: None,
            proof: "manifest".to_owned(),
            licence: None,
        }],
        programs: Vec::new(),
        modules: Vec::new(),
        templates: Vec::new(),
        packages: Vec::new(),
        distribution: None,
        host_programs: BTreeMap::new(),
        images: Vec::new(),
    })
}

/// An executable file with this content.
pub fn script(text: &str) -> PackEntry {
    PackEntry::Regular { mode: 0o755, source: Source::Bytes(text.as_bytes().to_vec()) }
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(length: usize, seed: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 32);
    let mut block = Digest::of(seed.as_bytes());
    while bytes.len() < length {
        bytes.extend_from_slice(block.as_bytes());
        block = Digest::of(block.as_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Where an entry of a bundle file lies, for tests that damage real bundles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Name of the entry.
    pub name: String,
    /// Offset of its header.
    pub header: u64,
    /// Offset of its content.
    pub content: u64,
    /// Bytes of content; padding follows up to the next 512.
    pub size: u64,
}

/// Lists the entries of a bundle file without checking more than their headers.
pub fn regions(bundle: &mut (impl Read + Seek)) -> io::Result<Vec<Region>> {
    let mut regions = Vec::new();
    let mut header = 0;
    loop {
        let mut block = [0; crate::ustar::BLOCK];
        bundle.seek(io::SeekFrom::Start(header))?;
        bundle.read_exact(&mut block)?;
        let Some((name, size)) = crate::ustar::parse_regular(&block) else { return Ok(regions) };
        let content = header + block.len() as u64;
        regions.push(Region { name, header, content, size });
        header = content + size + crate::ustar::padding(size) as u64;
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor { media_type: media_type.to_owned(), digest: Digest::of(bytes), size: bytes.len() as u64 }
}

fn path(text: &str) -> Result<LayerPath, Error> {
    text.parse().map_err(input)
}

// By value, for `map_err`.
#[allow(clippy::needless_pass_by_value)]
fn input(error: NameError) -> Error {
    Error::Input(error.to_string())
}
