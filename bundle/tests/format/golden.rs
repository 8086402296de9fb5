//! Bytes do not move: not with the number of threads, the order of input, or the version of a dependency. If one of these
//! digests changes, every released bundle changes with it: that is a decision, not a side effect.

use std::collections::BTreeMap;
use std::io::Read;

use bundle::fake::{self, Fake};
use bundle::layer::{PackEntry, PackedLayer, Source, pack};
use bundle::{Digest, LayerPath};

fn entries() -> BTreeMap<LayerPath, PackEntry> {
    let mut entries = BTreeMap::new();
    let mut put = |path: &str, entry| entries.insert(path.parse().unwrap(), entry);
    // Several compression jobs at level 12 (a job is at least a few MiB), partly compressible.
    let mut large = fake::noise(6 << 20, "golden");
    large.extend(std::iter::repeat_n(b"sealift ".as_slice(), 2 << 20).flatten());
    put("bin/large", PackEntry::Regular { mode: 0o755, source: Source::Bytes(large) });
    put("bin/tool", fake::script("#!/bin/sh\n"));
    put("etc/tool.conf", PackEntry::Regular { mode: 0o644, source: Source::Bytes(b"x = 1\n".to_vec()) });
    put("lib/libtool.so", PackEntry::Symlink { target: "libtool.so.1".to_owned() });
    let long = format!("share/{}/{}", "d".repeat(90), "f".repeat(90));
    put(&long, PackEntry::Regular { mode: 0o444, source: Source::Bytes(Vec::new()) });
    entries
}

fn packed(workers: u32) -> (PackedLayer, Vec<u8>) {
    let mut bytes = Vec::new();
    let layer = pack(entries(), 12, workers, &mut bytes).unwrap();
    (layer, bytes)
}

#[test]
fn a_layer_has_the_same_bytes_for_any_number_of_threads() {
    let (one, bytes) = packed(1);
    assert_eq!((one.digest, one.size), (Digest::of(&bytes), bytes.len() as u64));
    for workers in [0, 2, 4] {
        assert_eq!(packed(workers), (one.clone(), bytes.clone()), "{workers} workers");
    }
    let golden = [
        "sha256:965b195d909c997921cfedc2b8760168013612b9a3acc401d675d5da9e9f8f14",
        "sha256:806bdc7376870f2df523b8e1b3f36079177c3d9cfe0dffb8bc095ae22388d8c8",
    ];
    assert_eq!([one.digest.to_string(), one.diff_id.to_string()], golden);
}

#[test]
fn a_file_and_the_same_bytes_in_memory_make_the_same_layer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x");
    fs_err::write(&path, b"content").unwrap();
    let make = |source| {
        let entries = BTreeMap::from([("x".parse().unwrap(), PackEntry::Regular { mode: 0o644, source })]);
        pack(entries, 12, 2, std::io::sink()).unwrap()
    };
    assert_eq!(make(Source::File(path)), make(Source::Bytes(b"content".to_vec())));
}

#[test]
fn a_bundle_keeps_its_bytes() {
    let layout = Fake::new().layout().unwrap();
    let mut bytes = Vec::new();
    layout.write(&mut bytes, &[]).unwrap();
    let golden = [
        "sha256:47c9e33cae81ee6980be1dcad9ac41f36c4c55a9456450b90e29d858f4eb9ce2",
        "sha256:ea5dfba8b259c26537ead90d61171c610b9fad4c7782660fc1cc895e373a8069",
    ];
    assert_eq!([layout.index_digest().to_string(), Digest::of(&bytes).to_string()], golden);
}

/// Another reader's opinion: every entry of bundle and layer, as the `tar` crate sees it.
#[test]
fn an_independent_reader_sees_the_same() {
    let bytes = Fake::new().bytes().unwrap();
    let mut names = Vec::new();
    for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        assert_eq!((entry.header().mode().unwrap(), entry.header().mtime().unwrap()), (0o644, 315_532_800));
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        if let Some(hex) = name.strip_prefix("blobs/sha256/") {
            assert_eq!(Digest::of(&content).hex(), hex);
        }
        names.push(name);
    }
    assert_eq!(names[..2], ["oci-layout", "index.json"]);
    let (layer, bytes) = packed(2);
    let decoded = zstd::decode_all(bytes.as_slice()).unwrap();
    assert_eq!((Digest::of(&decoded), decoded.len() as u64), (layer.diff_id, layer.unpacked_size));
    let mut archive = tar::Archive::new(decoded.as_slice());
    let seen = archive.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        let header = entry.header();
        assert!(header.as_ustar().is_some());
        assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 315_532_800));
        entry.path().unwrap().to_str().unwrap().trim_end_matches('/').to_owned()
    });
    assert_eq!(seen.collect::<Vec<_>>(), layer.files.iter().map(|file| file.path.to_string()).collect::<Vec<_>>());
}
