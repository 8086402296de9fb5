//! Who sees a password, how much is taken, who is asked next, and how many at a time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use builder::cache::Cache;
use builder::http::{Authorization, Login, Network, Options, Request, Unreachable, Wanted};
use builder::output::Output;
use builder::sha512::Sha512;
use bundle::Digest;

use crate::server::{Server, honest, respond};

const SECRET: &str = "s3cret";

fn network(mirrors: &[(&str, &str)]) -> Network {
    let mirrors = mirrors.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
    let (stall, pause) = (Duration::from_secs(10), Duration::from_millis(5));
    Network::new(Options { mirrors, stall, pause, retries: 2, ..Options::default() }, &Output::silent())
}

fn redirect(to: String) -> Server {
    Server::start(move |_, _, stream| {
        respond(stream, "302 Found", &[format!("Location: {to}"), "Content-Length: 0".into()], b"");
    })
}

fn text(content: &'static str) -> Server {
    Server::start(move |_, request, stream| honest(request, stream, content.as_bytes()))
}

fn seen(server: &Server) -> Vec<Option<String>> {
    server.requests().iter().map(|request| request.header("authorization").map(str::to_owned)).collect()
}

fn bearer() -> Authorization {
    Authorization::Bearer(SECRET.into())
}

fn temporary() -> (tempfile::TempDir, Cache) {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(Some(directory.path())).unwrap();
    (directory, cache)
}

/// What a registry does: a token for whoever is challenged.
#[derive(Debug, Default)]
struct Tokens {
    challenges: Mutex<Vec<(String, String)>>,
}

impl Login for Tokens {
    fn authorization(&self, _: &Network, url: &str, challenge: Option<&str>) -> anyhow::Result<Option<Authorization>> {
        let Some(challenge) = challenge else { return Ok(None) };
        self.challenges.lock().unwrap().push((url.to_owned(), challenge.to_owned()));
        Ok(Some(bearer()))
    }
}

#[test]
fn an_authorization_is_for_one_server_and_lost_on_the_way_to_another() {
    let target = text("blob");
    // The same host, another port.
    let first = redirect(format!("{}/blob", target.url));
    let (_directory, cache) = temporary();
    let wanted = |url: &str| Wanted {
        name: "blob".into(),
        urls: vec![url.to_owned()],
        authorization: Some(bearer()),
        ..Wanted::default()
    };
    let by_name = first.url.replace("127.0.0.1", "localhost");
    for url in [&first.url, &by_name] {
        network(&[]).fetch(&cache, &wanted(&format!("{url}/v2/x"))).unwrap();
        let request = Request { authorization: Some(bearer()), ..Request::new(format!("{url}/v2/x"), 100) };
        assert_eq!(network(&[]).get(&request).unwrap().ok().unwrap(), b"blob");
    }
    assert_eq!(seen(&first), vec![Some(format!("Bearer {SECRET}")); 4]);
    assert_eq!(seen(&target), vec![None; 4], "a redirect carried the token to another server");

    // Nor does a mirror get what is for the original, nor a password in a mirror's address whoever it redirects to.
    let (original, mirror) = ("https://registry.invalid/", format!("{}/", target.url));
    network(&[(original, &mirror)]).fetch(&cache, &wanted("https://registry.invalid/a")).unwrap();
    assert_eq!(seen(&target)[4], None, "a mirror got the token");
    let with_password = format!("{}/", first.url.replace("//", &format!("//user:{SECRET}@")));
    let plain = Wanted { authorization: None, ..wanted("https://registry.invalid/b") };
    network(&[(original, &with_password)]).fetch(&cache, &plain).unwrap();
    assert_eq!(seen(&first)[4], Some("Basic dXNlcjpzM2NyZXQ=".into()));
    assert_eq!(seen(&target)[5], None, "a redirect carried the mirror's password to another server");
}

#[test]
fn neither_passwords_nor_signatures_of_addresses_are_printed() {
    let (_directory, cache) = temporary();
    let loops = Server::start(|_, request, stream| {
        let target = request.line().split(' ').nth(1).unwrap().to_owned();
        respond(stream, "302 Found", &[format!("Location: {target}"), "Content-Length: 0".into()], b"");
    });
    for server in ["http://127.0.0.1:1", &loops.url] {
        let url = format!("{}/x?signature={SECRET}", server.replace("//", &format!("//user:{SECRET}@")));
        let wanted = Wanted { name: "x".into(), urls: vec![url.clone()], ..Wanted::default() };
        let error = network(&[]).fetch(&cache, &wanted).unwrap_err();
        let other = network(&[]).get(&Request::new(url, 9)).unwrap_err();
        let said = format!("{error:#} {error:?} {other:#} {other:?}");
        assert!(said.contains(&format!("{server}/x")) && !said.contains(SECRET), "{said}");
    }
}

#[test]
fn a_challenge_is_answered_to_the_server_that_was_asked_and_to_no_other() {
    let challenge = || "WWW-Authenticate: Bearer realm=\"https://auth.invalid/token\",service=\"x\"".to_owned();
    let guarded = move |_, request: &crate::server::Request, stream: &mut _| match request.header("authorization") {
        Some(value) if value == format!("Bearer {SECRET}") => honest(request, stream, b"blob"),
        _ => respond(stream, "401 Unauthorized", &[challenge(), "Content-Length: 0".into()], b""),
    };
    let server = Server::start(guarded);
    let tokens = Arc::new(Tokens::default());
    let request = |url: String| Request { login: Some(tokens.clone()), ..Request::new(url, 100) };
    let answer = network(&[]).get(&request(format!("{}/v2/a", server.url))).unwrap();
    assert_eq!((answer.status, &answer.body[..]), (200, &b"blob"[..]));
    let asked = tokens.challenges.lock().unwrap().clone();
    let header = "Bearer realm=\"https://auth.invalid/token\",service=\"x\"";
    assert_eq!(asked, [(format!("{}/v2/a", server.url), header.to_owned())]);
    // The same for a download.
    let (_directory, cache) = temporary();
    let wanted = Wanted { urls: vec![format!("{}/b", server.url)], login: Some(tokens.clone()), ..Wanted::default() };
    network(&[]).fetch(&cache, &wanted).unwrap();
    assert_eq!(tokens.challenges.lock().unwrap().len(), 2);
    // Another server that challenges after a redirect gets nothing.
    let first = redirect(format!("{}/v2/a", server.url));
    let answer = network(&[]).get(&request(format!("{}/v2/a", first.url))).unwrap();
    assert_eq!(answer.status, 401);
    assert_eq!(tokens.challenges.lock().unwrap().len(), 2);
    assert!(seen(&first).iter().all(Option::is_none));
    // A server that is never content is asked twice, not for ever.
    let never =
        Server::start(move |_, _, stream| respond(stream, "401 Unauthorized", &["Content-Length: 0".into()], b""));
    assert_eq!(network(&[]).get(&request(format!("{}/v2/a", never.url))).unwrap().status, 401);
    assert_eq!(never.requests().len(), 2);
}

#[test]
fn an_answer_in_memory_is_capped_and_says_status_and_headers() {
    let server = Server::start(|number, request, stream| match number {
        0 => respond(stream, "200 OK", &[], b"12345"),
        1 | 2 => honest(request, stream, b"12345"),
        3 => respond(stream, "404 Not Found", &["X-What: none".into(), "Content-Length: 2".into()], b"no"),
        4 => respond(stream, "200 OK", &["Content-Encoding: gzip".into()], b"12345"),
        _ => respond(stream, "200 OK", &["Content-Length: 9".into()], b"12345"),
    });
    let get = |limit| network(&[]).get(&Request::new(format!("{}/x", server.url), limit).header("accept", "a/b"));
    for _ in 0..2 {
        let error = format!("{:#}", get(4).unwrap_err());
        assert!(error.contains("answers with more than 4 bytes"), "{error}");
    }
    assert_eq!(get(5).unwrap().body, b"12345");
    let missing = get(5).unwrap();
    assert_eq!((missing.status, missing.header("x-what")), (404, Some("none")));
    assert!(missing.ok().unwrap_err().to_string().ends_with("answered 404"));
    assert!(format!("{:#}", get(5).unwrap_err()).contains("encoded body"));
    assert!(get(9).unwrap_err().is::<Unreachable>(), "cut off again and again");
    assert!(server.requests().iter().all(|request| request.header("accept") == Some("a/b")));
    let offline = Network::new(Options { offline: true, ..Options::default() }, &Output::silent());
    assert!(offline.get(&Request::new(format!("{}/x", server.url), 5)).unwrap_err().is::<Unreachable>());
}

#[test]
fn the_next_address_is_asked_after_one_that_is_gone_has_nothing_or_lies() {
    const RIGHT: &[u8] = b"the right bytes";
    let missing = Server::start(|_, _, stream| respond(stream, "404 Not Found", &["Content-Length: 0".into()], b""));
    let liar = text("the wrong bytes");
    let cuts = Server::start(|_, _, stream| respond(stream, "200 OK", &["Content-Length: 15".into()], b"the ri"));
    let good = Server::start(|_, request, stream| honest(request, stream, RIGHT));
    // Port 1 of loopback refuses.
    let all = ["http://127.0.0.1:1", &missing.url, &liar.url, &cuts.url, &good.url];
    let mirrors: Vec<(&str, String)> = all.iter().map(|url| ("https://x.invalid/", format!("{url}/"))).collect();
    let mirrors: Vec<(&str, &str)> = mirrors.iter().map(|(from, to)| (*from, to.as_str())).collect();
    let wanted = |urls: &[&str]| Wanted {
        name: "x".into(),
        urls: urls.iter().map(|url| (*url).to_owned()).collect(),
        size: Some(15),
        sha256: Some(Digest::of(RIGHT)),
        ..Wanted::default()
    };
    let (_directory, cache) = temporary();
    let fetched = network(&mirrors).fetch(&cache, &wanted(&["https://x.invalid/a"])).unwrap();
    assert_eq!(fs_err::read(&fetched.path).unwrap(), RIGHT);
    assert_eq!((missing.requests().len(), liar.requests().len(), cuts.requests().len()), (1, 1, 3));
    assert_eq!(good.requests()[0].offset(), Some(6), "what an honest server has sent is not asked for again");
    // The same with several URLs of one artifact instead of mirrors; and with all together.
    fs_err::remove_file(&fetched.path).unwrap();
    let several = [format!("{}/a", missing.url), format!("{}/a", good.url)];
    let several: Vec<&str> = several.iter().map(String::as_str).collect();
    network(&[]).fetch(&cache, &wanted(&several)).unwrap();
    fs_err::remove_file(&fetched.path).unwrap();
    network(&mirrors[..2]).fetch(&cache, &wanted(&["https://x.invalid/a", several[1]])).unwrap();
    fs_err::remove_file(&fetched.path).unwrap();
    // If none has it, the error is that of who answered wrongly, not of who was not there.
    let error = network(&[mirrors[2], mirrors[0]]).fetch(&cache, &wanted(&["https://x.invalid/a"])).unwrap_err();
    assert!(!error.is::<Unreachable>());
    let error = format!("{error:#}");
    assert!(
        error.contains("from any of 2 addresses") && error.contains(&format!("`{}/a` sent wrong content", liar.url))
    );
    let error = network(&mirrors[..1]).fetch(&cache, &wanted(&["https://x.invalid/a"])).unwrap_err();
    assert!(error.is::<Unreachable>(), "{error:#}");
    // A question in memory goes the same way.
    let answer = network(&mirrors).get(&Request::new("https://x.invalid/a", 100)).unwrap();
    assert_eq!(answer.url, format!("{}/a", liar.url), "nobody can tell a lie from the truth without a digest");
    let answer = network(&mirrors[1..2]).get(&Request::new("https://x.invalid/a", 100)).unwrap();
    assert_eq!(answer.status, 404);
}

#[test]
fn a_server_that_was_lost_is_asked_last_from_then_on() {
    let sick =
        Server::start(|_, _, stream| respond(stream, "503 Service Unavailable", &["Content-Length: 0".into()], b""));
    let good = text("content");
    let (sick_url, good_url) = (format!("{}/", sick.url), format!("{}/", good.url));
    let network = network(&[("https://x.invalid/", &sick_url), ("https://x.invalid/", &good_url)]);
    let (_directory, cache) = temporary();
    for name in ["a", "b", "c"] {
        let wanted = Wanted { urls: vec![format!("https://x.invalid/{name}")], ..Wanted::default() };
        network.fetch(&cache, &wanted).unwrap();
    }
    assert_eq!((sick.requests().len(), good.requests().len()), (3, 3));
}

#[test]
fn a_second_digest_is_checked_in_the_same_pass() {
    let server = text("content");
    let (_directory, cache) = temporary();
    let wanted = |sha512| Wanted {
        urls: vec![format!("{}/x", server.url)],
        sha256: Some(Digest::of(b"content")),
        sha512: Some(sha512),
        ..Wanted::default()
    };
    let error = format!("{:#}", network(&[]).fetch(&cache, &wanted(Sha512::of(b"other"))).unwrap_err());
    assert!(error.contains("sent wrong content: expected sha512:"), "{error}");
    network(&[]).fetch(&cache, &wanted(Sha512::of(b"content"))).unwrap();
}

#[test]
fn a_server_that_asks_for_a_pause_gets_it() {
    let server = Server::start(|number, request, stream| match number {
        0 => respond(stream, "429 Too Many Requests", &["Retry-After: 1".into(), "Content-Length: 0".into()], b""),
        1 => honest(request, stream, b"content"),
        _ => respond(stream, "503 Service Unavailable", &["Retry-After: 86400".into()], b""),
    });
    let (_directory, cache) = temporary();
    let wanted = Wanted { urls: vec![format!("{}/x", server.url)], ..Wanted::default() };
    let network = network(&[]);
    let started = Instant::now();
    network.fetch(&cache, &wanted).unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    // A day is too long.
    assert!(network.get(&Request::new(format!("{}/x", server.url), 9)).unwrap_err().is::<Unreachable>());
    assert_eq!(server.requests().len(), 3);
}

/// Most requests at a time, by server, when each server answers as soon as it has got `limit` of them, or after a while.
fn crowd(servers: usize, limit: usize, options: Options) -> Vec<usize> {
    let most: Arc<Mutex<BTreeMap<usize, usize>>> = Arc::default();
    let servers: Vec<Server> = (0..servers)
        .map(|server| {
            let (most, now) = (most.clone(), AtomicUsize::new(0));
            Server::start_parallel(move |_, request, stream| {
                let crowd = now.fetch_add(1, Ordering::SeqCst) + 1;
                let mut most = most.lock().unwrap();
                let known = most.entry(server).or_default();
                *known = crowd.max(*known);
                drop(most);
                let started = Instant::now();
                while now.load(Ordering::SeqCst) < limit && started.elapsed() < Duration::from_millis(300) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                // Time for one too many to appear.
                std::thread::sleep(Duration::from_millis(30));
                now.fetch_sub(1, Ordering::SeqCst);
                honest(request, stream, b"content");
            })
        })
        .collect();
    let wanted: Vec<Wanted> = servers
        .iter()
        .flat_map(|server| (0..8).map(|number| format!("{}/{number}", server.url)))
        .map(|url| Wanted { urls: vec![url], ..Wanted::default() })
        .collect();
    let (_directory, cache) = temporary();
    let results = Network::new(options, &Output::silent()).fetch_each(&cache, &wanted);
    assert!(results.iter().all(Result::is_ok));
    let most = most.lock().unwrap().clone();
    most.into_values().collect()
}

#[test]
fn one_server_gets_few_downloads_at_a_time_and_all_together_their_number() {
    let options = |downloads, per_host| Options { downloads, per_host, ..Options::default() };
    assert_eq!(crowd(1, 3, options(8, 3)), [3]);
    assert_eq!(crowd(2, 2, options(8, 2)), [2, 2], "the first server does not keep the second waiting");
    assert_eq!(crowd(1, 2, options(2, 8)), [2]);
}

#[test]
fn files_with_several_addresses_are_fetched_side_by_side() {
    let (first, second) = (text("x"), text("x"));
    let urls = vec![format!("{}/x", first.url), format!("{}/x", second.url)];
    let one = Wanted { name: "x".into(), urls, sha256: Some(Digest::of(b"x")), ..Wanted::default() };
    let wanted = vec![one.clone(), Wanted { sha256: Some(Digest::of(b"y")), ..one }];
    let (done, waiting) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (_directory, cache) = temporary();
        let results = network(&[]).fetch_each(&cache, &wanted);
        done.send(results.iter().map(Result::is_ok).collect::<Vec<_>>())
    });
    // Whoever asks for the order of addresses while holding what that needs would wait for ever.
    assert_eq!(waiting.recv_timeout(Duration::from_secs(20)), Ok(vec![true, false]));
}
