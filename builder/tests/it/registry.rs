//! Registries that lie, move and ask for logins: the right image or a clear refusal, and no secret where it does not belong.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use builder::cache::Cache;
use builder::failure::Failure;
use builder::http::{Network, Options};
use builder::output::Output;
use builder::source::registry::{Image, Pinned, Reference, Registry};
use bundle::{Architecture, Digest};

use crate::server::{Request, Server, respond};
use crate::workshop::bytes;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const BOTH: [Architecture; 2] = [Architecture::Amd64, Architecture::Arm64];
const AMD64: [Architecture; 1] = [Architecture::Amd64];

/// Everything a registry has: media type and bytes, by path.
#[derive(Clone, Default)]
struct Shelf(BTreeMap<String, (String, Vec<u8>)>);

impl Shelf {
    fn put(&mut self, repository: &str, kind: &str, bytes: &[u8]) -> String {
        let place = if [INDEX, MANIFEST].contains(&kind) { "manifests" } else { "blobs" };
        let digest = Digest::of(bytes);
        self.0.insert(format!("/v2/{repository}/{place}/{digest}"), (kind.to_owned(), bytes.to_vec()));
        format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":{}}}"#, bytes.len())
    }

    fn tag(&mut self, repository: &str, tag: &str, digest: &Digest) {
        let found = self.0[&format!("/v2/{repository}/manifests/{digest}")].clone();
        self.0.insert(format!("/v2/{repository}/manifests/{tag}"), found);
    }

    /// An image of two layers; its manifest's bytes.
    fn image(&mut self, repository: &str, seed: u32, architecture: &str) -> Vec<u8> {
        let config = format!(r#"{{"architecture":"{architecture}","os":"linux","rootfs":{{}},"seed":{seed}}}"#);
        let config = self.put(repository, CONFIG, config.as_bytes());
        let layers = [seed, 77].map(|seed| self.put(repository, LAYER, &bytes(seed, 20_000)));
        let layers = layers.join(",");
        format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{config},"layers":[{layers}]}}"#).into_bytes()
    }

    /// An image for both architectures, with an attestation; the digest of its index.
    fn index(&mut self, repository: &str, tag: &str, seed: u32) -> Digest {
        let mut children = Vec::new();
        for (architecture, seed) in [("amd64", seed), ("arm64", seed + 1)] {
            let manifest = self.image(repository, seed, architecture);
            let child = self.put(repository, MANIFEST, &manifest);
            let platform = format!(r#","platform":{{"architecture":"{architecture}","os":"linux"}}}}"#);
            children.push(child.strip_suffix('}').unwrap().to_owned() + &platform);
        }
        // Never asked for, and not there.
        let attestation = format!(r#"{{"mediaType":"{MANIFEST}","digest":"{}","size":9"#, Digest::of(b"provenance"));
        children.push(attestation + r#","platform":{"architecture":"unknown","os":"unknown"}}"#);
        let index = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, children.join(","));
        self.put(repository, INDEX, index.as_bytes());
        let digest = Digest::of(index.as_bytes());
        self.tag(repository, tag, &digest);
        digest
    }

    /// An image for one architecture, without an index.
    fn single(&mut self, repository: &str, tag: &str, seed: u32) -> Digest {
        let manifest = self.image(repository, seed, "amd64");
        self.put(repository, MANIFEST, &manifest);
        let digest = Digest::of(&manifest);
        self.tag(repository, tag, &digest);
        digest
    }

    fn layer(seed: u32) -> Digest {
        Digest::of(&bytes(seed, 20_000))
    }

    fn blob_path(repository: &str, digest: &Digest) -> String {
        format!("/v2/{repository}/blobs/{digest}")
    }

    fn answer(&self, request: &Request, stream: &mut TcpStream) {
        match self.0.get(request.target()) {
            Some((kind, bytes)) => serve(stream, kind, bytes),
            None => respond(stream, "404 Not Found", &["Content-Length: 0".to_owned()], b""),
        }
    }
}

fn serve(stream: &mut TcpStream, kind: &str, bytes: &[u8]) {
    let headers = [
        format!("Content-Type: {kind}"),
        format!("Docker-Content-Digest: {}", Digest::of(bytes)),
        format!("Content-Length: {}", bytes.len()),
    ];
    respond(stream, "200 OK", &headers, bytes);
}

fn refuse(stream: &mut TcpStream, challenge: &str) {
    let headers = [format!("WWW-Authenticate: {challenge}"), "Content-Length: 0".to_owned()];
    respond(stream, "401 Unauthorized", &headers, b"");
}

/// A registry that does as `special` says, and is honest where that says `false`.
fn start(shelf: Shelf, special: impl Fn(&Request, &mut TcpStream) -> bool + Send + 'static) -> Server {
    Server::start(move |_, request, stream| {
        if !special(request, stream) {
            shelf.answer(request, stream);
        }
    })
}

fn honest(shelf: Shelf) -> Server {
    start(shelf, |_, _| false)
}

/// One user of registries: a cache, and perhaps logins.
struct User {
    directory: tempfile::TempDir,
    cache: Cache,
    mirrors: Vec<(String, String)>,
    insecure: Vec<String>,
    offline: bool,
}

impl User {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(&directory.path().join("cache"))).unwrap();
        Self { directory, cache, mirrors: Vec::new(), insecure: Vec::new(), offline: false }
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("config.json")
    }

    fn login(&self, server: &Server, user: &str, password: &str) {
        let auth = BASE64_STANDARD.encode(format!("{user}:{password}"));
        let text = format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, host(server));
        fs_err::write(self.config(), text).unwrap();
    }

    fn network(&self) -> Network {
        let options = Options {
            mirrors: self.mirrors.clone(),
            offline: self.offline,
            stall: Duration::from_secs(5),
            retries: 2,
            pause: Duration::from_millis(5),
            ..Options::default()
        };
        Network::new(options, &Output::silent())
    }

    fn registry(&self) -> Registry {
        Registry::new(&self.insecure, Some(self.config()))
    }

    fn resolve(
        &self,
        reference: &str,
        expected: Option<Digest>,
        architectures: &[Architecture],
    ) -> anyhow::Result<Pinned> {
        let reference: Reference = reference.parse().unwrap();
        self.registry().resolve(&reference, expected, architectures, &self.network(), &self.cache)
    }

    fn fetch(&self, pinned: &Pinned, architecture: Architecture) -> anyhow::Result<Image> {
        let fetched = self.registry().fetch(std::slice::from_ref(pinned), architecture, &self.network(), &self.cache);
        self.assert_every_file_is_what_its_name_says();
        Ok(fetched?.pop().unwrap())
    }

    fn assert_every_file_is_what_its_name_says(&self) {
        for entry in fs_err::read_dir(self.directory.path().join("cache/sha256")).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(path.file_name().unwrap().to_str().unwrap(), Digest::of(&fs_err::read(&path).unwrap()).hex());
        }
    }
}

fn host(server: &Server) -> String {
    server.url.trim_start_matches("http://").to_owned()
}

/// Everything that a user would be told, hints too.
fn error<T: std::fmt::Debug>(result: anyhow::Result<T>) -> String {
    let error = result.unwrap_err();
    let failures: Vec<_> = error.chain().filter_map(|cause| cause.downcast_ref::<Failure>()).collect();
    format!("{error:#} {:?} {failures:?}", error.downcast_ref::<Failure>())
}

fn authorizations(server: &Server) -> Vec<Option<String>> {
    server.requests().iter().map(|request| request.header("authorization").map(str::to_owned)).collect()
}

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

#[test]
fn lengths_that_are_not_the_manifests_are_refused() {
    let cases: [(&str, fn(&mut TcpStream, &[u8])); 4] = [
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

/// A registry for which `alice` needs the password `wonderland`.
fn basic(shelf: Shelf, storage: Option<String>) -> Server {
    let right = format!("Basic {}", BASE64_STANDARD.encode("alice:wonderland"));
    start(shelf, move |request, stream| {
        if request.header("authorization") != Some(&right) {
            refuse(stream, "Basic realm=\"registry\"");
            return true;
        }
        let Some(storage) = storage.as_ref().filter(|_| request.target().contains("/blobs/")) else { return false };
        let headers = [format!("Location: {storage}{}", request.target()), "Content-Length: 0".to_owned()];
        respond(stream, "307 Temporary Redirect", &headers, b"");
        true
    })
}

#[test]
fn a_redirect_to_another_host_never_sees_the_login() {
    let mut shelf = Shelf::default();
    shelf.index("app", "1", 10);
    let storage = honest(shelf.clone());
    let registry = basic(shelf, Some(storage.url.clone()));
    let user = User::new();
    user.login(&registry, "alice", "wonderland");
    let pinned = user.resolve(&format!("{}/app:1", host(&registry)), None, &AMD64).unwrap();
    user.fetch(&pinned, Architecture::Amd64).unwrap();
    assert!(authorizations(&registry).iter().any(Option::is_some));
    assert_eq!(authorizations(&storage), [None, None, None]);
}

#[test]
fn a_redirect_that_asks_for_a_login_gets_none() {
    let mut shelf = Shelf::default();
    shelf.index("app", "1", 10);
    let thief = Server::start(|_, _, stream| refuse(stream, "Basic realm=\"registry\""));
    let registry = basic(shelf, Some(thief.url.clone()));
    let user = User::new();
    user.login(&registry, "alice", "wonderland");
    let pinned = user.resolve(&format!("{}/app:1", host(&registry)), None, &AMD64).unwrap();
    let text = error(user.fetch(&pinned, Architecture::Amd64));
    assert!(text.contains("401"), "{text}");
    assert!(!thief.requests().is_empty());
    assert!(authorizations(&thief).iter().all(Option::is_none));
}

#[test]
fn a_wrong_or_missing_login_is_said_without_showing_it() {
    let mut shelf = Shelf::default();
    shelf.index("app", "1", 10);
    let registry = basic(shelf, None);
    let user = User::new();
    let reference = format!("{}/app:1", host(&registry));
    let text = error(user.resolve(&reference, None, &AMD64));
    assert!(text.contains("wants a login") && text.contains("config.json"), "{text}");
    user.login(&registry, "alice", "looking-glass");
    let text = error(user.resolve(&reference, None, &AMD64));
    assert!(text.contains("does not let us have"), "{text}");
    assert!(
        !text.contains("looking-glass") && !text.contains(&BASE64_STANDARD.encode("alice:looking-glass")),
        "{text}"
    );
    assert!(registry.requests().len() < 8);
}

/// A registry with a token server: `pull` tokens for its repositories, given to `alice` alone.
struct Guarded {
    registry: Server,
    tokens: Server,
    valid: Arc<Mutex<String>>,
}

fn guarded(shelf: Shelf) -> Guarded {
    let valid = Arc::new(Mutex::new("one".to_owned()));
    let (given, wanted) = (valid.clone(), valid.clone());
    let login = format!("Basic {}", BASE64_STANDARD.encode("alice:wonderland"));
    let tokens = Server::start(move |_, request, stream| {
        if request.header("authorization") != Some(&login) {
            respond(stream, "401 Unauthorized", &["Content-Length: 0".to_owned()], b"");
            return;
        }
        let token = given.lock().unwrap().clone();
        // Both names are in use.
        let name = if request.target().contains("team%2Fa") { "token" } else { "access_token" };
        serve(stream, "application/json", format!(r#"{{"{name}":"{token}","expires_in":60}}"#).as_bytes());
    });
    let realm = format!("{}/token", tokens.url);
    let registry = start(shelf, move |request, stream| {
        let right = format!("Bearer {}", wanted.lock().unwrap());
        if request.header("authorization") == Some(&right) {
            return false;
        }
        let repository = request.target().trim_start_matches("/v2/").split("/manifests/").next().unwrap();
        let repository = repository.split("/blobs/").next().unwrap();
        let scope = format!("repository:{repository}:pull,push");
        refuse(stream, &format!(r#"Bearer realm="{realm}",service="the registry",scope="{scope}""#));
        true
    });
    Guarded { registry, tokens, valid }
}

#[test]
fn a_token_is_asked_for_once_a_repository_and_only_to_pull() {
    let mut shelf = Shelf::default();
    shelf.index("team/a", "1", 10);
    shelf.index("team/b", "1", 20);
    let Guarded { registry, tokens, .. } = guarded(shelf);
    let user = User::new();
    user.login(&registry, "alice", "wonderland");
    let client = user.registry();
    let network = user.network();
    for repository in ["team/a", "team/b"] {
        let reference: Reference = format!("{}/{repository}:1", host(&registry)).parse().unwrap();
        let pinned = client.resolve(&reference, None, &BOTH, &network, &user.cache).unwrap();
        client.fetch(&[pinned], Architecture::Amd64, &network, &user.cache).unwrap();
    }
    let asked: Vec<String> = tokens.requests().iter().map(|request| request.target().to_owned()).collect();
    let query = |repository: &str| format!("/token?service=the+registry&scope=repository%3Ateam%2F{repository}%3Apull");
    assert_eq!(asked, [query("a"), query("b")]);
    // The password went to the token server, the token to the registry.
    let sent = authorizations(&registry);
    assert!(sent.iter().flatten().all(|sent| sent == "Bearer one"), "{sent:?}");
}

#[test]
fn a_token_that_has_expired_is_renewed() {
    let mut shelf = Shelf::default();
    shelf.index("team/a", "1", 10);
    let Guarded { registry, tokens, valid } = guarded(shelf);
    let user = User::new();
    user.login(&registry, "alice", "wonderland");
    let (client, network) = (user.registry(), user.network());
    let reference: Reference = format!("{}/team/a:1", host(&registry)).parse().unwrap();
    let pinned = client.resolve(&reference, None, &AMD64, &network, &user.cache).unwrap();
    *valid.lock().unwrap() = "two".to_owned();
    client.fetch(&[pinned], Architecture::Amd64, &network, &user.cache).unwrap();
    assert!(tokens.requests().len() > 1);
}

#[test]
fn a_token_server_that_refuses_is_named_without_the_password() {
    let mut shelf = Shelf::default();
    shelf.index("team/a", "1", 10);
    let Guarded { registry, tokens, .. } = guarded(shelf);
    let user = User::new();
    let reference = format!("{}/team/a:1", host(&registry));
    let text = error(user.resolve(&reference, None, &AMD64));
    assert!(text.contains("wants a login"), "{text}");
    user.login(&registry, "alice", "looking-glass");
    let text = error(user.resolve(&reference, None, &AMD64));
    assert!(text.contains("does not accept the login") && !text.contains("looking-glass"), "{text}");
    assert_eq!(tokens.requests().len(), 2);
}

#[test]
fn a_registry_that_never_has_enough_is_left() {
    let mut shelf = Shelf::default();
    shelf.index("app", "1", 10);
    let tokens = Server::start(|number, _, stream| {
        serve(stream, "application/json", format!(r#"{{"token":"token-{number}"}}"#).as_bytes());
    });
    let realm = format!(r#"Bearer realm="{}/token",service="x""#, tokens.url);
    let registry = start(shelf, move |_, stream| {
        refuse(stream, &realm);
        true
    });
    let text = error(User::new().resolve(&format!("{}/app:1", host(&registry)), None, &AMD64));
    assert!(text.contains("does not let us have"), "{text}");
    assert_eq!((registry.requests().len(), tokens.requests().len()), (2, 1));
}

#[test]
fn a_token_server_without_tls_elsewhere_is_never_asked() {
    let mut shelf = Shelf::default();
    shelf.index("app", "1", 10);
    let registry = start(shelf, |_, stream| {
        refuse(stream, r#"Bearer realm="http://auth.example.invalid/token",service="x""#);
        true
    });
    let user = User::new();
    user.login(&registry, "alice", "wonderland");
    let text = error(user.resolve(&format!("{}/app:1", host(&registry)), None, &AMD64));
    assert!(text.contains("token server") && text.contains("not https"), "{text}");
    assert!(!text.contains("wonderland"), "{text}");
}

#[test]
fn a_token_server_that_sends_us_on_does_not_take_the_password_along() {
    let mut shelf = Shelf::default();
    shelf.index("app", "1", 10);
    let thief = Server::start(|_, _, stream| serve(stream, "application/json", br#"{"token":"x"}"#));
    let location = format!("Location: {}/", thief.url);
    let tokens = Server::start(move |_, _, stream| {
        respond(stream, "307 Temporary Redirect", &[location.clone(), "Content-Length: 0".to_owned()], b"");
    });
    let realm = format!(r#"Bearer realm="{}/token""#, tokens.url);
    let registry = start(shelf, move |_, stream| {
        refuse(stream, &realm);
        true
    });
    let user = User::new();
    user.login(&registry, "alice", "wonderland");
    let _ = user.resolve(&format!("{}/app:1", host(&registry)), None, &AMD64);
    assert!(authorizations(&tokens).iter().all(Option::is_some));
    assert!(authorizations(&thief).iter().all(Option::is_none));
}

#[test]
fn a_login_is_for_its_own_host_only() {
    let mut shelf = Shelf::default();
    shelf.index("app", "1", 10);
    let (mine, theirs) = (basic(shelf.clone(), None), basic(shelf, None));
    let user = User::new();
    user.login(&mine, "alice", "wonderland");
    assert!(user.resolve(&format!("{}/app:1", host(&mine)), None, &AMD64).is_ok());
    // The same machine, another port: another registry.
    assert!(user.resolve(&format!("{}/app:1", host(&theirs)), None, &AMD64).is_err());
    // A mirror is another registry, too.
    let mirror = (format!("{}/", mine.url), format!("{}/", theirs.url));
    let mirrored = User { mirrors: vec![mirror], ..user };
    assert!(mirrored.resolve(&format!("{}/app:1", host(&mine)), None, &AMD64).is_err());
    assert!(authorizations(&theirs).iter().all(Option::is_none));
}
