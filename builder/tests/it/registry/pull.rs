//! What registries send: the right bytes, or a clear refusal and nothing in the cache.

use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use bundle::{Architecture, Digest};

use super::{AMD64, BOTH, INDEX, LAYER, MANIFEST, Shelf, User, error, honest, host, serve, start};
use crate::server::{Server, respond};
use crate::workshop::bytes;

#[test]
fn an_image_is_resolved_and_fetched_verbatim_and_then_needs_no_registry() {
    let mut shelf = Shelf::default();
    let digest = shelf.index("team/app", "1.0", 10);
    let registry = honest(shelf.clone());
    let user = User::new();
    let reference = format!("{}/team/app:1.0", host(&registry));
    let pinned = user.resolve(&reference, Some(digest), &BOTH).unwrap();
    assert_eq!(pinned.digest, digest);
    for architecture in BOTH {
        let image = user.fetch(&pinned, architecture).unwrap();
        assert_eq!((image.reference.as_str(), image.root.media_type.as_str()), (reference.as_str(), INDEX));
        // Index, manifest and config; two layers.
        assert_eq!((image.metadata.len(), image.blobs.len()), (3, 2));
        for bytes in &image.metadata {
            assert!(shelf.0.values().any(|(_, known)| known == bytes));
        }
    }
    let asked: Vec<String> = registry.requests().iter().map(|request| request.target().to_owned()).collect();
    let once: std::collections::BTreeSet<&String> = asked.iter().collect();
    assert_eq!(asked.len(), once.len(), "{asked:#?}");
    assert!(registry.requests()[0].header("accept").unwrap().contains("manifest.list.v2+json"));
    drop(registry);
    let offline = User { offline: true, ..user };
    assert_eq!(offline.fetch(&pinned, Architecture::Amd64).unwrap().blobs.len(), 2);
}

#[test]
fn a_tag_that_moves_changes_nothing_after_the_lock() {
    let mut shelf = Shelf::default();
    let old = shelf.index("app", "1", 10);
    let moved = Arc::new(Mutex::new(shelf.clone()));
    let shared = moved.clone();
    let registry = Server::start(move |_, request, stream| shared.lock().unwrap().answer(request, stream));
    let user = User::new();
    let reference = format!("{}/app:1", host(&registry));
    let pinned = user.resolve(&reference, None, &AMD64).unwrap();
    let new = moved.lock().unwrap().index("app", "1", 20);
    assert_ne!(old, new);
    let other = User::new();
    assert_eq!(other.fetch(&pinned, Architecture::Amd64).unwrap().root.digest, old);
    let current = user.registry().current_digest(&reference.parse().unwrap(), &user.network()).unwrap();
    assert_eq!(current, new);
    let text = error(user.resolve(&reference, Some(old), &AMD64));
    assert!(text.contains(&old.to_string()) && text.contains(&new.to_string()), "{text}");
}

#[test]
fn what_is_named_by_digest_is_asked_for_by_digest() {
    let mut shelf = Shelf::default();
    let digest = shelf.index("app", "1", 10);
    shelf.0.remove("/v2/app/manifests/1");
    let registry = honest(shelf);
    let user = User::new();
    let pinned = user.resolve(&format!("{}/app:gone@{digest}", host(&registry)), None, &BOTH).unwrap();
    let image = user.fetch(&pinned, Architecture::Arm64).unwrap();
    assert_eq!(image.reference, format!("{}/app@{digest}", host(&registry)));
    let other = Digest::of(b"other");
    let text = error(user.resolve(&format!("{}/app@{digest}", host(&registry)), Some(other), &BOTH));
    assert!(text.contains(&digest.to_string()) && text.contains(&other.to_string()), "{text}");
}

#[test]
fn another_blob_for_a_digest_is_refused() {
    let mut shelf = Shelf::default();
    shelf.index("app", "1", 10);
    let layer = Shelf::layer(77);
    let path = Shelf::blob_path("app", &layer);
    let registry = start(shelf.clone(), move |request, stream| {
        let lies = request.target() == path;
        if lies {
            serve(stream, LAYER, &bytes(5, 20_000));
        }
        lies
    });
    let user = User::new();
    let pinned = user.resolve(&format!("{}/app:1", host(&registry)), None, &AMD64).unwrap();
    let text = error(user.fetch(&pinned, Architecture::Amd64));
    assert!(text.contains(&format!("expected {layer}")), "{text}");
    assert!(!user.cache.path(&layer).exists());

    // And another manifest for a digest.
    let (manifest, other) = (shelf.index("app", "2", 30), shelf.index("app", "3", 40));
    let swapped = shelf.0[&format!("/v2/app/manifests/{other}")].clone();
    shelf.0.insert(format!("/v2/app/manifests/{manifest}"), swapped);
    let registry = honest(shelf);
    let text = error(user.resolve(&format!("{}/app@{manifest}", host(&registry)), None, &AMD64));
    assert!(text.contains("expected sha256:"), "{text}");
}

/// Answers with something else than the content.
type Lie = fn(&mut TcpStream, &[u8]);

#[test]
fn lengths_that_are_not_the_manifests_are_refused() {
    let cases: [(&str, Lie); 4] = [
        ("too long", |stream, content| {
            let longer = [content, b"more"].concat();
            respond(stream, "200 OK", &[], &longer);
        }),
        ("announced too long", |stream, content| {
            respond(stream, "200 OK", &["Content-Length: 9999999".to_owned()], content);
        }),
        ("announced too short", |stream, content| {
            respond(stream, "200 OK", &["Content-Length: 10".to_owned()], content);
        }),
        ("cut", |stream, content| {
            respond(stream, "200 OK", &[format!("Content-Length: {}", content.len())], &content[..100]);
        }),
    ];
    for (case, lie) in cases {
        let mut shelf = Shelf::default();
        shelf.index("app", "1", 10);
        let path = Shelf::blob_path("app", &Shelf::layer(10));
        let registry = start(shelf, move |request, stream| {
            let lies = request.target() == path;
            if lies {
                lie(stream, &bytes(10, 20_000));
            }
            lies
        });
        let user = User::new();
        let pinned = user.resolve(&format!("{}/app:1", host(&registry)), None, &AMD64).unwrap();
        let text = error(user.fetch(&pinned, Architecture::Amd64));
        assert!(text.contains("20000"), "{case}: {text}");
        assert!(!user.cache.path(&Shelf::layer(10)).exists(), "{case}");
    }
}

#[test]
fn a_cut_layer_is_resumed() {
    let mut shelf = Shelf::default();
    shelf.index("app", "1", 10);
    let path = Shelf::blob_path("app", &Shelf::layer(10));
    let registry = start(shelf, move |request, stream| {
        let content = bytes(10, 20_000);
        let ours = request.target() == path;
        if ours && request.offset().is_none() {
            let headers = ["ETag: \"x\"".to_owned(), "Content-Length: 20000".to_owned()];
            respond(stream, "200 OK", &headers, &content[..5000]);
        } else if ours {
            crate::server::honest(request, stream, &content);
        }
        ours
    });
    let user = User::new();
    let pinned = user.resolve(&format!("{}/app:1", host(&registry)), None, &AMD64).unwrap();
    user.fetch(&pinned, Architecture::Amd64).unwrap();
    assert!(registry.requests().iter().any(|request| request.offset() == Some(5000)));
}

#[test]
fn a_digest_header_that_contradicts_the_bytes_is_refused() {
    let mut shelf = Shelf::default();
    let digest = shelf.index("app", "1", 10);
    let index = shelf.0[&format!("/v2/app/manifests/{digest}")].1.clone();
    let registry = start(shelf, move |request, stream| {
        let ours = request.target().ends_with("/manifests/1");
        if ours {
            let headers = [
                format!("Docker-Content-Digest: {}", Digest::of(b"other")),
                format!("Content-Length: {}", index.len()),
                format!("Content-Type: {INDEX}"),
            ];
            respond(stream, "200 OK", &headers, &index);
        }
        ours
    });
    let text = error(User::new().resolve(&format!("{}/app:1", host(&registry)), None, &AMD64));
    assert!(text.contains("announces") && text.contains(&digest.to_string()), "{text}");
}

#[test]
fn what_cannot_be_bundled_is_refused_when_it_is_locked() {
    let mut shelf = Shelf::default();
    shelf.single("single", "1", 10);
    let old = br#"{"schemaVersion":1,"name":"x","tag":"y","fsLayers":[]}"#.to_vec();
    shelf.0.insert(
        "/v2/old/manifests/1".into(),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws".into(), old),
    );
    let huge = format!(r#"{{"schemaVersion":2,"x":"{}"}}"#, "x".repeat(4 << 20)).into_bytes();
    shelf.0.insert("/v2/huge/manifests/1".into(), (MANIFEST.into(), huge));
    let text = String::from_utf8(shelf.image("foreign", 10, "amd64")).unwrap();
    let text = text.replace("layer.v1.tar+gzip", "layer.nondistributable.v1.tar+gzip");
    shelf.put("foreign", MANIFEST, text.as_bytes());
    shelf.tag("foreign", "1", &Digest::of(text.as_bytes()));
    let registry = honest(shelf);
    let user = User::new();
    let cases = [
        ("single", "linux/amd64 alone"),
        ("old", "schema 1"),
        ("huge", "4194304 bytes"),
        ("foreign", "outside the registry"),
        ("missing", "has no"),
    ];
    for (repository, says) in cases {
        let text = error(user.resolve(&format!("{}/{repository}:1", host(&registry)), None, &BOTH));
        assert!(text.contains(says), "{repository}: {text}");
    }
    assert!(user.resolve(&format!("{}/single:1", host(&registry)), None, &AMD64).is_ok());
}

#[test]
fn an_architecture_that_is_missing_is_named_with_those_on_offer() {
    let mut shelf = Shelf::default();
    let digest = shelf.index("app", "1", 10);
    let index = String::from_utf8(shelf.0[&format!("/v2/app/manifests/{digest}")].1.clone()).unwrap();
    let index = index.replace(r#""architecture":"arm64""#, r#""architecture":"s390x""#);
    shelf.put("app", INDEX, index.as_bytes());
    shelf.tag("app", "1", &Digest::of(index.as_bytes()));
    let registry = honest(shelf);
    let text = error(User::new().resolve(&format!("{}/app:1", host(&registry)), None, &BOTH));
    assert!(text.contains("linux/arm64") && text.contains("linux/amd64, linux/s390x"), "{text}");
}

#[test]
fn a_mirror_may_keep_repositories_below_a_path() {
    let mut shelf = Shelf::default();
    let digest = shelf.index("copies/k8s/pause", "3.10", 10);
    let registry = honest(shelf);
    let mirror = ("https://registry.k8s.io/v2/".to_owned(), format!("{}/v2/copies/k8s/", registry.url));
    let user = User { mirrors: vec![mirror], ..User::new() };
    let pinned = user.resolve("registry.k8s.io/pause:3.10", Some(digest), &AMD64).unwrap();
    let image = user.fetch(&pinned, Architecture::Amd64).unwrap();
    assert_eq!(image.reference, "registry.k8s.io/pause:3.10");
}

#[test]
fn plain_http_elsewhere_needs_permission() {
    let mirror = ("https://registry.invalid/".to_owned(), "http://registry.example.invalid:5000/".to_owned());
    let user = User { mirrors: vec![mirror.clone()], ..User::new() };
    let text = error(user.resolve("registry.invalid/x:1", None, &AMD64));
    assert!(text.contains("plain http"), "{text}");
    let insecure = vec!["registry.example.invalid:5000".to_owned()];
    let allowed = User { mirrors: vec![mirror], insecure, ..User::new() };
    let text = error(allowed.resolve("registry.invalid/x:1", None, &AMD64));
    assert!(!text.contains("plain http"), "{text}");
}
