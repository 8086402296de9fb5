//! Servers that cut, stall and lie: the right bytes or a clear error, never a bad file in the cache.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use builder::cache::Cache;
use builder::http::{Fetched, Network, Options, Wanted};
use builder::output::Output;
use bundle::Digest;

use crate::server::{Server, honest, respond};

fn content() -> Vec<u8> {
    (0..300_000_u32).flat_map(|number| (number.wrapping_mul(2_654_435_761) >> 8).to_le_bytes()).take(600_000).collect()
}

fn options() -> Options {
    Options {
        mirrors: Vec::new(),
        ca_file: None,
        offline: false,
        downloads: 2,
        per_host: 2,
        stall: Duration::from_millis(700),
        retries: 3,
        pause: Duration::from_millis(5),
    }
}

fn wanted(server: &Server) -> Wanted {
    let (content, urls) = (content(), vec![format!("{}/x.tar.gz", server.url)]);
    let (size, sha256) = (Some(content.len() as u64), Some(Digest::of(&content)));
    Wanted { name: "x".into(), urls, size, limit: 1 << 30, sha256, ..Wanted::default() }
}

struct Place {
    directory: tempfile::TempDir,
    cache: Cache,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(directory.path())).unwrap();
        Self { directory, cache }
    }

    fn fetch(&self, wanted: &Wanted) -> anyhow::Result<Fetched> {
        let result = Network::new(options(), &Output::silent()).fetch(&self.cache, wanted);
        self.assert_every_file_is_what_its_name_says();
        result
    }

    fn finished(&self) -> Vec<std::path::PathBuf> {
        let list = |path: &Path| fs_err::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        list(&self.directory.path().join("sha256"))
    }

    fn assert_every_file_is_what_its_name_says(&self) {
        for path in self.finished() {
            assert_eq!(path.file_name().unwrap().to_str().unwrap(), Digest::of(&fs_err::read(&path).unwrap()).hex());
        }
    }

    fn assert_good(&self, wanted: &Wanted) {
        let fetched = self.fetch(wanted).unwrap();
        assert_eq!(fs_err::read(fetched.path).unwrap(), content());
    }

    fn assert_refused(&self, wanted: &Wanted, says: &str) {
        let error = format!("{:#}", self.fetch(wanted).unwrap_err());
        assert!(error.contains(says), "{error}");
        assert_eq!(self.finished().len(), 0);
    }
}

fn cut(stream: &mut std::net::TcpStream) {
    let content = content();
    let headers = ["ETag: \"one\"".to_owned(), format!("Content-Length: {}", content.len())];
    respond(stream, "200 OK", &headers, &content[..200_000]);
}

#[test]
fn a_cut_download_is_resumed_where_it_ended() {
    let server = Server::start(|number, request, stream| match number {
        0 => cut(stream),
        _ => honest(request, stream, &content()),
    });
    Place::new().assert_good(&wanted(&server));
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests[1].offset().is_some_and(|offset| offset > 0), "{requests:?}");
    assert_eq!(requests[1].header("if-range"), Some("\"one\""));
}

#[test]
fn a_stalled_download_is_given_up_and_resumed() {
    let server = Server::start(|number, request, stream| match number {
        0 => {
            cut(stream);
            // Longer than the client's patience; the connection stays open meanwhile.
            std::thread::sleep(Duration::from_millis(1500));
        }
        _ => honest(request, stream, &content()),
    });
    let started = Instant::now();
    Place::new().assert_good(&wanted(&server));
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_server_that_trickles_is_given_up_for_the_next() {
    let trickle = Server::start(|_, request, stream| {
        let from = request.offset().unwrap_or(0);
        let length = format!("Content-Length: {}", 600_000 - from);
        let range = format!("Content-Range: bytes {from}-599999/600000");
        let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
        respond(stream, status, &[length, range], b"");
        for byte in &content()[from..] {
            if stream.write_all(&[*byte]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let good = Server::start(|_, request, stream| honest(request, stream, &content()));
    let started = Instant::now();
    let mut both = wanted(&trickle);
    let error = Place::new().fetch(&both).unwrap_err();
    assert!(format!("{error:#}").contains("less than 1 KiB/s arrives"), "{error:#}");
    assert_eq!(trickle.requests().len(), 4, "each attempt brings some bytes, and none of them counts as progress");
    both.urls.extend(wanted(&good).urls);
    Place::new().assert_good(&both);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn a_wrong_length_is_refused() {
    for length in [599_999, 600_001] {
        let server = Server::start(move |_, _, stream| {
            respond(stream, "200 OK", &[format!("Content-Length: {length}")], &vec![7; length]);
        });
        Place::new().assert_refused(&wanted(&server), "expected 600000");
    }
    // Without a Content-Length the end of the connection is the end of the body.
    let server = Server::start(|_, _, stream| respond(stream, "200 OK", &[], &content()[..599_999]));
    Place::new().assert_refused(&wanted(&server), "ended after 599999 of 600000 bytes");
}

#[test]
fn a_wrong_range_is_not_believed() {
    for range in [
        "bytes 0-599999/600000",
        "bytes 200001-599999/600000",
        "bytes 200000-599998/600000",
        "bytes 200000-599999/600001",
        "nonsense",
    ] {
        let server = Server::start(move |number, request, stream| match (number, request.offset()) {
            (0, _) => cut(stream),
            (_, Some(offset)) => {
                let range = format!("Content-Range: {}", range.replace("200000", &offset.to_string()));
                respond(stream, "206 Partial Content", &[range], &content()[offset..]);
            }
            (_, None) => honest(request, stream, &content()),
        });
        Place::new().assert_good(&wanted(&server));
        assert_eq!(server.requests().last().unwrap().offset(), None, "{range}: started again from the beginning");
    }
    let server = Server::start(|_, _, stream| {
        respond(stream, "206 Partial Content", &["Content-Range: bytes 0-599999/600000".into()], &content());
    });
    Place::new().assert_refused(&wanted(&server), "the whole was asked for");
}

#[test]
fn an_answer_of_200_to_a_range_starts_again() {
    let server = Server::start(|number, _, stream| match number {
        0 => cut(stream),
        _ => respond(stream, "200 OK", &["Content-Length: 600000".into()], &content()),
    });
    Place::new().assert_good(&wanted(&server));
}

#[test]
fn wrong_content_is_refused_and_not_kept() {
    let server =
        Server::start(|_, _, stream| respond(stream, "200 OK", &["Content-Length: 600000".into()], &vec![0; 600_000]));
    let place = Place::new();
    place.assert_refused(&wanted(&server), "sent wrong content: expected sha256:");
    assert_eq!(server.requests().len(), 1, "the same lie is not asked for twice");
}

#[test]
fn content_that_changed_between_two_parts_is_fetched_anew() {
    let server = Server::start(|number, request, stream| match (number, request.offset()) {
        (0, _) => cut(stream),
        (_, Some(_)) => honest(request, stream, &vec![0; 600_000]),
        (_, None) => honest(request, stream, &content()),
    });
    Place::new().assert_good(&wanted(&server));
}

#[test]
fn an_endless_body_is_cut_off() {
    let server = Server::start(|_, _, stream| {
        respond(stream, "200 OK", &[], &[]);
        // Until the client has had enough.
        while stream.write_all(&[0; 8192]).is_ok() {}
    });
    Place::new().assert_refused(&wanted(&server), "more arrives than the expected 600000 bytes");
}

#[test]
fn an_encoded_body_is_refused() {
    let server =
        Server::start(|_, _, stream| respond(stream, "200 OK", &["Content-Encoding: gzip".into()], &content()));
    Place::new().assert_refused(&wanted(&server), "encoded body");
}

#[test]
fn a_missing_file_is_an_error_at_once_and_a_sick_server_is_asked_again() {
    let server = Server::start(|_, _, stream| respond(stream, "404 Not Found", &["Content-Length: 0".into()], &[]));
    Place::new().assert_refused(&wanted(&server), "answered 404");
    assert_eq!(server.requests().len(), 1);
    let server = Server::start(|number, request, stream| match number {
        0 => respond(stream, "503 Service Unavailable", &["Content-Length: 0".into()], &[]),
        _ => honest(request, stream, &content()),
    });
    Place::new().assert_good(&wanted(&server));
}

#[test]
fn without_a_digest_parts_are_joined_only_under_one_validator() {
    let server = Server::start(|number, request, stream| match number {
        // No ETag: the second part could belong to another file.
        0 => respond(stream, "200 OK", &["Content-Length: 600000".into()], &content()[..200_000]),
        _ => honest(request, stream, &content()),
    });
    let place = Place::new();
    place.assert_good(&Wanted { size: None, sha256: None, ..wanted(&server) });
    assert_eq!(server.requests()[1].offset(), None);
}

#[test]
fn a_damaged_file_in_the_cache_is_fetched_anew() {
    let server = Server::start(|_, request, stream| honest(request, stream, &content()));
    let place = Place::new();
    place.assert_good(&wanted(&server));
    let path = place.finished().remove(0);
    fs_err::write(&path, b"damaged").unwrap();
    place.assert_good(&wanted(&server));
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn mirrors_replace_prefixes_and_may_be_directories() {
    let directory = tempfile::tempdir().unwrap();
    fs_err::write(directory.path().join("x.tar.gz"), content()).unwrap();
    let mirrors = vec![("https://upstream.invalid/".to_owned(), format!("file://{}/", directory.path().display()))];
    let network = Network::new(Options { mirrors, ..options() }, &Output::silent());
    let wanted = Wanted {
        name: "x".into(),
        urls: vec!["https://upstream.invalid/x.tar.gz".into()],
        size: None,
        limit: 1 << 30,
        sha256: Some(Digest::of(&content())),
        ..Wanted::default()
    };
    let place = Place::new();
    assert_eq!(network.fetch(&place.cache, &wanted).unwrap().size, 600_000);
}

#[test]
fn two_builders_share_one_cache() {
    let server = Server::start(|_, request, stream| honest(request, stream, &content()));
    let place = Place::new();
    let wanted = wanted(&server);
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| Network::new(options(), &Output::silent()).fetch(&place.cache, &wanted)))
            .collect();
        assert!(runs.into_iter().all(|run| run.join().unwrap().is_ok()));
    });
    place.assert_every_file_is_what_its_name_says();
    assert_eq!(server.requests().len(), 1, "one fetches, the others wait for it");
}

#[test]
fn a_download_of_unknown_size_is_capped() {
    let server = Server::start(|number, request, stream| match number {
        0 => honest(request, stream, &content()),
        _ => respond(stream, "200 OK", &[], &content()),
    });
    let place = Place::new();
    let wanted = Wanted { size: None, sha256: None, limit: 599_999, ..wanted(&server) };
    place.assert_refused(&wanted, "offers 600000 bytes, expected at most 599999");
    place.assert_refused(&wanted, "more arrives than the expected at most 599999 bytes");
    assert_eq!(place.finished(), Vec::<std::path::PathBuf>::new());
    place.assert_good(&Wanted { limit: 600_000, ..wanted });
}

#[test]
fn a_password_in_a_mirrors_address_is_not_stored() {
    let server = Server::start(|_, request, stream| {
        let head = ["ETag: \"one\"".to_owned(), "Content-Length: 600000".to_owned()];
        match request.offset() {
            None => respond(stream, "200 OK", &head, &content()[..300_000]),
            Some(_) => respond(stream, "503 Service Unavailable", &[], b""),
        }
    });
    let place = Place::new();
    let wanted = Wanted { urls: vec![server.url.replace("//", "//user:secret@") + "/x"], ..wanted(&server) };
    place.fetch(&wanted).unwrap_err();
    assert_eq!(server.requests().last().unwrap().offset(), Some(300_000));
    assert!(server.requests().last().unwrap().header("if-range").is_some(), "the address is known again");
    let parts = fs_err::read_dir(place.directory.path().join("part")).unwrap().map(|entry| entry.unwrap().path());
    let notes: Vec<String> = parts
        .filter(|path| path.extension().is_some_and(|end| end == "note"))
        .map(|path| fs_err::read_to_string(path).unwrap())
        .collect();
    assert_eq!(notes.len(), 1);
    assert!(!notes[0].contains("secret") && notes[0].ends_with("\n\"one\""), "{notes:?}");
}

#[test]
fn without_a_known_size_the_end_of_a_resumed_download_is_not_believed() {
    let part = |range: &str, end: usize| {
        let range = range.to_owned();
        Server::start(move |number, request, stream| {
            let etag = "ETag: \"one\"".to_owned();
            match number {
                0 => respond(stream, "200 OK", &[etag, "Content-Length: 600000".to_owned()], &content()[..300_000]),
                1 => respond(
                    stream,
                    "206 Partial Content",
                    &[etag, format!("Content-Range: bytes {range}")],
                    &content()[300_000..end],
                ),
                _ => honest(request, stream, &content()),
            }
        })
    };
    // No total, a total that is not reached, a part that is not the rest.
    for (range, end) in
        [("300000-399999/*", 400_000), ("300000-599999/600000", 400_000), ("300000-399999/600000", 400_000)]
    {
        let server = part(range, end);
        Place::new().assert_good(&Wanted { size: None, sha256: None, ..wanted(&server) });
        assert_eq!(server.requests().len(), 3, "{range}");
    }
    // More than was announced: nothing of it is taken.
    let server = part("300000-399999/400000", 500_000);
    Place::new().assert_refused(&Wanted { size: None, sha256: None, ..wanted(&server) }, "400000 were announced");
    // The lock knows the size: the server need not say it.
    let server = part("300000-599999/*", 600_000);
    Place::new().assert_good(&wanted(&server));
    assert_eq!(server.requests().len(), 2);
}
