//! Picking out of archives: exactly what was meant, and nothing that an archive wants otherwise.

use std::io::Write as _;

use builder::manifest::{FileMap, Target};
use builder::pick::{Artifact, Picked, pick};
use bundle::Digest;

use crate::workshop::{Piece, tar_gz};

/// Path in the component and content.
type Named = (String, Vec<u8>);

fn map(from: &str, to: &str) -> FileMap {
    let target = match to.strip_suffix('/') {
        Some(directory) => Target::Directory(Some(directory.parse().unwrap())),
        None => Target::File(to.parse().unwrap()),
    };
    FileMap { from: from.into(), to: target, mode: 0o755 }
}

fn pick_from(name: &str, bytes: &[u8], maps: &[FileMap]) -> anyhow::Result<Vec<Vec<Named>>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("artifact");
    fs_err::write(&path, bytes).unwrap();
    let spool = directory.path().join("spool");
    fs_err::create_dir(&spool).unwrap();
    let artifact = Artifact { path: &path, file_name: name, sha256: &Digest::of(bytes) };
    let picked = pick(&artifact, &maps.iter().collect::<Vec<_>>(), &spool)?;
    let read = |file: &Picked| (file.to.to_string(), fs_err::read(&file.content).unwrap());
    Ok(picked.iter().map(|files| files.iter().map(read).collect()).collect())
}

fn message(name: &str, bytes: &[u8], from: &str) -> String {
    let error = pick_from(name, bytes, &[map(from, "x")]).unwrap_err();
    let hint = error.chain().map(|cause| format!("{cause:?}")).collect::<Vec<_>>().join(" ");
    format!("{error:#} {hint}")
}

fn sample() -> Vec<(&'static str, Piece<'static>)> {
    vec![
        ("./usr/lib/libz.so.1", Piece::Link("libz.so.1.2")),
        ("./usr/bin/etcd", Piece::File(b"etcd")),
        ("./usr/bin/etcdctl", Piece::File(b"etcdctl")),
        ("./usr/lib/libz.so.1.2", Piece::File(b"zlib")),
        ("./usr/bin/evil", Piece::Link("../../../etc/shadow")),
        ("./usr/bin/absolute", Piece::Link("/etc/shadow")),
        ("./usr/bin/loop", Piece::Link("loop")),
    ]
}

#[test]
fn files_are_picked_from_every_kind_of_archive() {
    let gz = tar_gz(&sample());
    let mut tar = Vec::new();
    std::io::copy(&mut flate2::read::GzDecoder::new(&gz[..]), &mut tar).unwrap();
    let zst = zstd::encode_all(&tar[..], 1).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&tar).unwrap();
    let xz = xz.finish().unwrap();
    let deb = |name: &str, data: &[u8]| {
        let mut deb = ar::Builder::new(Vec::new());
        for (name, content) in [("debian-binary", &b"2.0\n"[..]), ("control.tar.xz", b"never read"), (name, data)] {
            deb.append(&ar::Header::new(name.into(), content.len() as u64), content).unwrap();
        }
        deb.into_inner().unwrap()
    };
    let debs = [deb("data.tar.xz", &xz), deb("data.tar.zst", &zst), deb("data.tar.gz", &gz)];
    let archives = [
        ("a.tar.gz", &gz),
        ("a.tgz", &gz),
        ("a.tar", &tar),
        ("a.tar.zst", &zst),
        ("a.tar.xz", &xz),
        ("a.deb", &debs[0]),
        ("b.deb", &debs[1]),
        ("c.deb", &debs[2]),
    ];
    for (name, bytes) in archives {
        let maps =
            [map("usr/bin/etcd", "bin/etcd"), map("usr/lib/libz.so.1", "lib/libz.so.1"), map("usr/bin/etcd*", "all/")];
        let picked = pick_from(name, bytes, &maps).unwrap();
        assert_eq!(picked[0], [("bin/etcd".into(), b"etcd".to_vec())], "{name}");
        assert_eq!(
            picked[1],
            [("lib/libz.so.1".into(), b"zlib".to_vec())],
            "{name}: the link's content under the link's name"
        );
        assert_eq!(picked[2].len(), 2, "{name}");
    }
    assert_eq!(pick_from("kubectl", b"plain", &[map("kubectl", "bin/kubectl")]).unwrap()[0][0].1, b"plain");
}

#[test]
fn no_match_and_several_matches_are_errors_that_help() {
    let archive = tar_gz(&sample());
    let none = message("a.tar.gz", &archive, "usr/sbin/etcd");
    assert!(
        none.contains("`usr/sbin/etcd` matches nothing in `a.tar.gz`") && none.contains("did you mean `usr/bin/etcd`"),
        "{none}"
    );
    let several = message("a.tar.gz", &archive, "usr/bin/etcd*");
    assert!(
        several.contains("matches 2 files") && several.contains("`usr/bin/etcdctl`") && several.contains("many = true"),
        "{several}"
    );
}

#[test]
fn links_out_of_the_archive_are_refused() {
    let archive = tar_gz(&sample());
    for (name, says) in [("evil", "leaves the archive"), ("absolute", "leaves the archive"), ("loop", "leads nowhere")]
    {
        let message = message("a.tar.gz", &archive, &format!("usr/bin/{name}"));
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn hostile_names_and_duplicates_are_refused_even_if_not_picked() {
    for name in ["../evil", "/etc/cron.d/evil", "usr/../../evil"] {
        let archive = tar_gz(&[("good", Piece::File(b"x")), (name, Piece::File(b"y"))]);
        let message = message("a.tar.gz", &archive, "good");
        assert!(message.contains("refused"), "{message}");
    }
    let archive = tar_gz(&[("good", Piece::File(b"x")), ("./good", Piece::File(b"y"))]);
    assert!(message("a.tar.gz", &archive, "good").contains("twice"));
}

#[test]
fn damaged_archives_are_errors() {
    let archive = tar_gz(&sample());
    assert!(pick_from("a.tar.gz", &archive[..archive.len() / 2], &[map("usr/bin/etcd", "x")]).is_err());
    assert!(pick_from("a.deb", &archive, &[map("usr/bin/etcd", "x")]).is_err());
}

#[test]
fn an_artifact_that_changed_in_the_cache_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let archive = tar_gz(&sample());
    let path = directory.path().join("artifact");
    fs_err::write(&path, &archive).unwrap();
    let spool = directory.path().join("spool");
    fs_err::create_dir(&spool).unwrap();
    let artifact = Artifact { path: &path, file_name: "a.tar.gz", sha256: &Digest::of(b"other") };
    let error = pick(&artifact, &[&map("usr/bin/etcd", "x")], &spool).unwrap_err();
    assert!(format!("{error:#}").contains("changed in the cache"), "{error:#}");
}
