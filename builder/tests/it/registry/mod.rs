//! Registries that lie, move and ask for logins: the right image or a clear refusal, and no secret where it does not belong.

mod login;
mod pull;
mod release;

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::PathBuf;
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
pub(crate) struct Shelf(BTreeMap<String, (String, Vec<u8>)>);

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
    pub(crate) fn index(&mut self, repository: &str, tag: &str, seed: u32) -> Digest {
        let mut children = Vec::new();
        for (architecture, seed) in [("amd64", seed), ("arm64", seed + 2)] {
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

pub(crate) fn honest(shelf: Shelf) -> Server {
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
