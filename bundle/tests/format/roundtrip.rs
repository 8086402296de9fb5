//! What is written is read back, in one pass and by random access, and delivered exactly once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Cursor, Read};

use bundle::component::{Kind, Package, Relations, Role};
use bundle::fake::{self, Fake, Key};
use bundle::layer::{PackEntry, Source};
use bundle::layout::{Blob, ImageSource, Layout};
use bundle::{
    Architecture, Bundle, BundleFile, Digest, Discard, Error, HashOnly, Image, LayerPath, Reason, Sink,
    UnverifiedBundle,
};

/// Keeps everything, and what it wants.
#[derive(Default)]
struct Memory {
    unwanted: BTreeSet<String>,
    begun: Vec<String>,
    entries: BTreeMap<String, Vec<u8>>,
}

impl Memory {
    fn put(&mut self, key: String, value: Vec<u8>) {
        let twice = self.entries.insert(key, value);
        assert!(twice.is_none(), "delivered twice: {twice:?}");
    }
}

impl Sink for Memory {
    fn begin(&mut self, image: &Image) -> io::Result<bool> {
        assert!(self.entries.is_empty());
        self.begun.push(image.component.name.to_string());
        Ok(!self.unwanted.contains(image.component.name.as_str()))
    }

    fn directory(&mut self, image: &Image, path: &LayerPath) -> io::Result<()> {
        self.put(format!("{}:{path}/", image.component.name), Vec::new());
        Ok(())
    }

    fn file(&mut self, image: &Image, path: &LayerPath, mode: u32, _: u64, content: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        self.put(format!("{}:{path} {mode:o}", image.component.name), bytes);
        Ok(())
    }

    fn symlink(&mut self, image: &Image, path: &LayerPath, target: &str) -> io::Result<()> {
        self.put(format!("{}:{path} -> {target}", image.component.name), Vec::new());
        Ok(())
    }

    fn blob(&mut self, image: &Image, digest: &Digest, size: u64, content: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        assert_eq!((Digest::of(&bytes), bytes.len() as u64), (*digest, size));
        self.put(format!("{}:{digest}", image.component.name), bytes);
        Ok(())
    }
}

fn open<'a>(fake: &Fake, bytes: &'a [u8]) -> Bundle<&'a [u8]> {
    UnverifiedBundle::open(bytes).unwrap().verify(&fake.trust()).unwrap()
}

#[test]
fn everything_is_delivered_once() {
    let fake = Fake::new().sequence(7);
    let bytes = fake.bytes().unwrap();
    let bundle = open(&fake, &bytes);
    assert_eq!(*bundle.release(), fake.release().unwrap());
    assert_eq!(bundle.index_digest(), fake.layout().unwrap().index_digest());
    assert_eq!(bundle.signers(), [Key::Publisher.public().unwrap().key_id()]);
    let pause = bundle.images().iter().find(|image| image.component.name.as_str() == "pause").unwrap().clone();
    assert_ne!(pause.root.digest, pause.manifest);
    assert_eq!(pause.reference.as_deref(), Some("registry.example/pause:3.5"));
    let mut memory = Memory::default();
    let summary = bundle.unpack(&mut memory).unwrap();
    assert_eq!(summary.bundle_size, bytes.len() as u64);
    assert_eq!((summary.images, summary.files, summary.blobs), (5, 5, 4 + 3 + 4));
    assert_eq!(memory.begun, ["busybox", "etcd", "kubelet", "linux", "pause"]);
    let keys = memory.entries.keys().filter(|key| !key.contains("sha256:")).map(String::as_str).collect::<Vec<_>>();
    let expected = [
        "etcd:bin/",
        "etcd:bin/etcd 755",
        "etcd:bin/etcdctl -> ../share/etcd/etcdctl",
        "etcd:share/",
        "etcd:share/etcd/",
        "etcd:share/etcd/empty 444",
        "etcd:share/etcd/etcdctl 755",
        "kubelet:bin/",
        "kubelet:bin/kubelet 755",
        "kubelet:doc/",
        "kubelet:doc/README 644",
    ];
    assert_eq!(keys, expected);
    assert_eq!(memory.entries["etcd:bin/etcd 755"], b"#!/bin/sh\necho etcd fake\n");
    for blob in &pause.blobs {
        assert!(memory.entries.contains_key(&format!("pause:{}", blob.digest)));
    }
}

#[test]
fn what_is_not_wanted_is_checked_but_not_delivered() {
    let fake = Fake::new();
    let mut bytes = fake.bytes().unwrap();
    let all = ["busybox", "etcd", "kubelet", "linux", "pause"].map(str::to_owned);
    let mut memory = Memory { unwanted: BTreeSet::from(all), ..Memory::default() };
    let summary = open(&fake, &bytes).unpack(&mut memory).unwrap();
    assert!(memory.entries.is_empty());
    assert_eq!(summary.images, 0);
    open(&fake, &bytes).unpack(&mut HashOnly).unwrap();
    let last = fake::regions(&mut Cursor::new(&bytes)).unwrap().pop().unwrap();
    bytes[usize::try_from(last.content).unwrap()] ^= 1;
    let error = open(&fake, &bytes).unpack(&mut HashOnly).unwrap_err();
    assert_eq!(error.refusal().unwrap().reason, Reason::Digest);
}

#[test]
fn random_access_finds_every_blob() {
    let fake = Fake::new();
    let mut bytes = fake.bytes().unwrap();
    let mut file = BundleFile::open(Cursor::new(bytes.clone()), &fake.trust()).unwrap();
    for blob in file.images().iter().flat_map(|image| image.blobs.clone()).collect::<Vec<_>>() {
        let mut content = Vec::new();
        file.blob(&blob.digest).unwrap().read_to_end(&mut content).unwrap();
        assert_eq!((Digest::of(&content), file.size(&blob.digest)), (blob.digest, Some(blob.size)));
    }
    assert!(file.blob(&Digest::of(b"none")).is_err());
    let last = fake::regions(&mut Cursor::new(&bytes)).unwrap().pop().unwrap();
    bytes[usize::try_from(last.content).unwrap()] ^= 1;
    let mut file = BundleFile::open(Cursor::new(bytes), &fake.trust()).unwrap();
    let digest = format!("sha256:{}", last.name.rsplit('/').next().unwrap()).parse().unwrap();
    let error = io::copy(&mut file.blob(&digest).unwrap(), &mut io::sink()).unwrap_err();
    let inner = error.into_inner().unwrap().downcast::<Error>().unwrap();
    assert_eq!(inner.refusal().unwrap().reason, Reason::Digest);
}

/// Fails at its first file.
struct Full;

impl Sink for Full {
    fn begin(&mut self, _: &Image) -> io::Result<bool> {
        Ok(true)
    }

    fn directory(&mut self, _: &Image, _: &LayerPath) -> io::Result<()> {
        Ok(())
    }

    fn file(&mut self, _: &Image, _: &LayerPath, _: u32, _: u64, _: &mut dyn Read) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn symlink(&mut self, _: &Image, _: &LayerPath, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn blob(&mut self, _: &Image, _: &Digest, _: u64, _: &mut dyn Read) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_not_a_refusal() {
    let fake = Fake::new();
    let bytes = fake.bytes().unwrap();
    let error = open(&fake, &bytes).unpack(&mut Full).unwrap_err();
    assert!(matches!(&error, Error::Sink(cause) if cause.kind() == io::ErrorKind::StorageFull), "{error:?}");
    assert!(!error.is_refusal());
}

#[test]
fn a_large_component_passes_through_small_buffers() {
    let files = |paths: &[(&str, usize)]| {
        let file = |(path, size): &(&str, usize)| {
            let source = Source::Bytes(fake::noise(*size, path));
            (path.parse::<LayerPath>().unwrap(), PackEntry::Regular { mode: 0o644, source })
        };
        paths.iter().map(file).collect::<BTreeMap<_, _>>()
    };
    let sizes = [("a", (3 << 20) + 1), ("b", 512 << 10), ("c", (512 << 10) - 512), ("d", 511), ("e", 0)];
    let component = fake::component("large", "1", Kind::Program, &[Role::Master]).unwrap();
    let fake = Fake::new().program(component, files(&sizes));
    let bytes = fake.bytes().unwrap();
    let mut memory = Memory::default();
    open(&fake, &bytes).unpack(&mut memory).unwrap();
    for (path, size) in sizes {
        assert_eq!(memory.entries[&format!("large:{path} 644")], fake::noise(size, path));
    }
    open(&fake, &bytes).unpack(&mut Discard).unwrap();
}

#[test]
fn components_without_files_may_share_the_empty_layer_but_no_other() {
    let component = |name| fake::component(name, "1", Kind::Program, &[Role::Master]).unwrap();
    let fake = Fake::new().program(component("x"), BTreeMap::new()).program(component("y"), BTreeMap::new());
    let bytes = fake.bytes().unwrap();
    open(&fake, &bytes).unpack(&mut Discard).unwrap();
    let files = BTreeMap::from([("same".parse().unwrap(), fake::script("same"))]);
    let fake = Fake::new().program(component("x"), files.clone()).program(component("y"), files);
    assert!(fake.bytes().unwrap_err().to_string().contains("a layer of its own"));
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let release = Fake::new().release().unwrap();
    let pack = |entry: (&str, PackEntry)| {
        let entries = BTreeMap::from([(entry.0.parse().unwrap(), entry.1)]);
        bundle::layer::pack(entries, 3, 1, io::sink())
    };
    let regular = |mode| PackEntry::Regular { mode, source: Source::Bytes(Vec::new()) };
    let link = |target: &str| PackEntry::Symlink { target: target.to_owned() };
    for bad in [("a", regular(0o4755)), ("a", regular(0o666)), ("a", link("/etc")), ("a/b", link("../../etc"))] {
        assert!(matches!(pack(bad.clone()), Err(Error::Input(_))), "{bad:?}");
    }
    assert!(pack(("a/b", link("../c"))).is_ok());
    assert!(bundle::layer::pack(BTreeMap::new(), 20, 1, io::sink()).is_err());

    let mut bytes = Vec::new();
    let entries = BTreeMap::from([("a".parse().unwrap(), fake::script("a"))]);
    let layer = bundle::layer::pack(entries, 3, 1, &mut bytes).unwrap();
    let component = fake::component("x", "1", Kind::Program, &[Role::Master]).unwrap();
    let image = |architecture, bytes: &[u8]| {
        ImageSource::program(component.clone(), architecture, &layer, Source::Bytes(bytes.to_vec())).unwrap()
    };
    assert!(Layout::new(&release, vec![image(Architecture::Arm64, &bytes)]).is_err());
    let twice = vec![image(Architecture::Amd64, &bytes), image(Architecture::Amd64, &bytes)];
    assert!(Layout::new(&release, twice).is_err());
    let changed = Layout::new(&release, vec![image(Architecture::Amd64, &vec![0; bytes.len()])]).unwrap();
    assert!(matches!(changed.write(io::sink(), &[]), Err(Error::Input(_))));
    let shorter = Layout::new(&release, vec![image(Architecture::Amd64, &bytes[1..])]).unwrap();
    assert!(matches!(shorter.write(io::sink(), &[]), Err(Error::Input(_))));
    for (name, file) in
        [("--force-all", "a.deb"), ("a", "../a.deb"), ("a", "/a.deb"), ("a", ""), ("a", ".."), ("a", "-i")]
    {
        let mut component = fake::component("packages", "1", Kind::Packages, &[Role::Master]).unwrap();
        let (sha256, size) = (Digest::of(b"deb"), 3);
        component.packages.push(Package {
            name: name.into(),
            version: "1:2-3".into(),
            file: file.into(),
            sha256,
            size,
            architecture: String::new(),
            relations: Relations::default(),
        });
        let source = vec![Source::Bytes(b"deb".to_vec())];
        let image = ImageSource::packages(component, Architecture::Amd64, source).unwrap();
        assert!(matches!(Layout::new(&release, vec![image]), Err(Error::Input(_))), "{name} {file}");
    }
    let missing = Blob::bytes(b"not the root".to_vec());
    let container = fake::component("c", "1", Kind::Container, &[Role::Master]).unwrap();
    let descriptor = bundle::Descriptor {
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        digest: missing.digest,
        size: missing.size,
    };
    let container = ImageSource::container(container, "r.example/c:1".to_owned(), descriptor, vec![], vec![]);
    assert!(matches!(Layout::new(&release, vec![container]), Err(Error::Input(_))));
}

#[test]
fn the_size_is_known_before_writing() {
    let fake = Fake::new();
    let layout = fake.layout().unwrap();
    let signatures = fake.signatures(&layout).unwrap();
    let mut bytes = Vec::new();
    layout.write(&mut bytes, &signatures).unwrap();
    assert_eq!(layout.size(&signatures), bytes.len() as u64);
}
