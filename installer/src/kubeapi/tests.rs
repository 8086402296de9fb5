use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use super::*;
use crate::host::Host;
use crate::pki::{Authority, AuthorityName, Leaf, Pair, Secret, Usage};

const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn authority() -> Authority {
    Authority::create(AuthorityName::Cluster, "test", Timestamp::now()).unwrap()
}

pub(crate) fn leaf(usage: Usage, address: &str) -> Leaf {
    Leaf {
        authority: AuthorityName::Cluster,
        common_name: "test".to_owned(),
        organization: None,
        usage,
        names: ["localhost".to_owned()].into(),
        addresses: [address.parse().unwrap()].into(),
        lifetime: HOUR,
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A request and the client certificate it came with.
pub(crate) type Seen = (String, Option<Vec<u8>>);

/// Answers connections one after the other with the given texts; an empty one accepts and says nothing until the client
/// goes. Gives the requests and the client certificates that it saw.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    thread: JoinHandle<()>,
}

impl Server {
    pub(crate) fn start(authority: &Authority, pair: &Pair, answers: Vec<String>) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), authority, pair, answers)
    }

    pub(crate) fn start_at(address: SocketAddr, authority: &Authority, pair: &Pair, answers: Vec<String>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pair().certificate.as_bytes()).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .allow_unauthenticated()
            .build()
            .unwrap();
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(pair.key.expose().as_bytes()).unwrap(),
            )
            .unwrap();
        let config = Arc::new(config);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        let thread = std::thread::spawn(move || {
            for answer in answers {
                let (socket, _) = listener.accept().unwrap();
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = StreamOwned::new(connection, socket);
                let mut request = vec![0; 64 << 10];
                let Ok(length) = stream.read(&mut request) else { continue };
                let peer = stream.conn.peer_certificates().map(|chain| chain[0].to_vec());
                record.lock().unwrap().push((String::from_utf8_lossy(&request[..length]).into_owned(), peer));
                if answer.is_empty() {
                    let _ = stream.read(&mut request);
                    continue;
                }
                let _ = stream.write_all(answer.as_bytes());
                if !answer.ends_with("CUT") {
                    stream.conn.send_close_notify();
                }
                let _ = stream.flush();
            }
        });
        Self { address, seen, thread }
    }

    pub(crate) fn stop(self) -> Vec<Seen> {
        self.thread.join().unwrap();
        Arc::into_inner(self.seen).unwrap().into_inner().unwrap()
    }
}

pub(crate) fn answer(code: &str, body: &str) -> String {
    format!("HTTP/1.1 {code}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn serve(answers: Vec<String>) -> (Authority, Server) {
    let authority = authority();
    let pair = authority.issue(&leaf(Usage::Server, "127.0.0.1"), Timestamp::now()).unwrap();
    let server = Server::start(&authority, &pair, answers);
    (authority, server)
}

fn client(authority: &Authority, server: &Server) -> Client<'static> {
    Client::new(server.address, &authority.pair().certificate, Credentials::Anonymous).unwrap()
}

#[test]
fn objects_are_read_written_and_listed_page_by_page() {
    let (authority, server) = serve(vec![
        answer("200 OK", r#"{"kind":"Node"}"#),
        answer("201 Created", r#"{"kind":"Node"}"#),
        answer("200 OK", r#"{"metadata":{"continue":"a+b"},"items":[1,2]}"#),
        answer("200 OK", r#"{"metadata":{},"items":[3]}"#),
        answer("404 Not Found", r#"{"kind":"Status","reason":"NotFound","message":"nodes \"x\" not found"}"#),
        answer("404 Not Found", "{}"),
    ]);
    let client = client(&authority, &server);
    assert_eq!(client.get("/api/v1/nodes/m1").unwrap(), json!({"kind": "Node"}));
    client.post("/api/v1/nodes", &json!({"kind": "Node"})).unwrap();
    assert_eq!(client.list("/api/v1/nodes").unwrap(), [json!(1), json!(2), json!(3)]);
    assert_eq!(client.find("/api/v1/nodes/x").unwrap(), None);
    assert!(!client.delete("/api/v1/nodes/x").unwrap());
    let requests = server.stop();
    assert!(requests[1].0.starts_with("POST /api/v1/nodes HTTP/1.1\r\n"));
    assert!(requests[1].0.ends_with("Content-Length: 15\r\n\r\n{\"kind\":\"Node\"}"));
    assert!(requests[3].0.starts_with("GET /api/v1/nodes?limit=250&continue=a%2Bb HTTP/1.1\r\n"));
}

#[test]
fn a_refusal_carries_the_apiservers_words() {
    let body = r#"{"kind":"Status","reason":"Forbidden","message":"nodes is forbidden"}"#;
    let (authority, server) = serve(vec![answer("403 Forbidden", body), answer("500 Oops", "not\njson")]);
    let client = client(&authority, &server);
    let error = client.get("/api/v1/nodes").unwrap_err();
    assert_eq!(error.to_string(), "GET /api/v1/nodes: 403 Forbidden: nodes is forbidden");
    assert!(!error.passing());
    let error = client.get("/api/v1/nodes").unwrap_err();
    assert!(error.to_string().contains("not json"), "{error}");
    assert!(error.passing());
    server.stop();
}

#[test]
fn only_the_pinned_authority_the_right_address_and_a_valid_certificate_are_accepted() {
    let (pinned, other, now) = (authority(), authority(), Timestamp::now());
    let stranger = Authority::create(AuthorityName::Cluster, "another", now).unwrap();
    let good = leaf(Usage::Server, "127.0.0.1");
    let cases = [
        (pinned.issue(&good, now).unwrap(), "", None),
        (other.issue(&good, now).unwrap(), "BadSignature", Some(Distrust::Authority)),
        (stranger.issue(&good, now).unwrap(), "UnknownIssuer", Some(Distrust::Authority)),
        (pinned.issue(&leaf(Usage::Server, "10.9.0.1"), now).unwrap(), "not valid for", Some(Distrust::Subject)),
        (pinned.issue(&good, now - 3 * HOUR).unwrap(), "expired", Some(Distrust::Time)),
        (pinned.issue(&good, now + 48 * HOUR).unwrap(), "not valid yet", Some(Distrust::Time)),
        (
            pinned.issue(&leaf(Usage::Client, "127.0.0.1"), now).unwrap(),
            "server authentication",
            Some(Distrust::Subject),
        ),
    ];
    for (pair, words, distrust) in cases {
        let server = Server::start(&pinned, &pair, vec![answer("200 OK", "{}")]);
        let result = client(&pinned, &server).get("/version");
        match result {
            Ok(_) => assert_eq!(words, "", "accepted"),
            Err(error) => {
                assert!(!words.is_empty() && error.to_string().contains(words), "{error}: {words}");
                assert!(matches!(error, Error::Distrusted(_, why, _) if Some(why) == distrust), "{error:?}");
            }
        }
        assert_eq!(server.stop().len(), usize::from(words.is_empty()), "something was sent to a stranger");
        let server = Server::start(&pinned, &pair, vec![String::new()]);
        assert_eq!(client(&pinned, &server).handshake().is_ok(), words.is_empty());
        server.stop();
    }
    let pair = pinned.issue(&leaf(Usage::Server, "10.9.0.1"), now).unwrap();
    let server = Server::start(&pinned, &pair, vec![answer("200 OK", "{}")]);
    client(&pinned, &server).expecting("10.9.0.1".parse().unwrap()).get("/version").unwrap();
    server.stop();
}

#[test]
fn slow_endless_and_cut_answers_end_in_time() {
    let drip = "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nx".to_owned();
    let cut = "HTTP/1.1 200 OK\r\n\r\n{\"kind\":\"Node\"}CUT".to_owned();
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(3000));
    let (authority, server) = serve(vec![String::new(), drip, cut, endless]);
    let limits = Limits { connect: HOUR, total: Duration::from_millis(700), body: 2000 };
    let client = client(&authority, &server).with_limits(limits);
    let start = Instant::now();
    for words in ["too long", "cut short", "close_notify", "too large"] {
        let error = client.get("/version").unwrap_err();
        assert!(matches!(error, Error::Connect(..)) && error.to_string().contains(words), "{error}: {words}");
    }
    assert!(start.elapsed() < Duration::from_secs(20));
    server.stop();
}

#[test]
fn a_rotated_certificate_is_shown_from_the_next_request_on() {
    let (authority, server) = serve(vec![answer("200 OK", "{}"), answer("200 OK", "{}"), answer("200 OK", "{}")]);
    let directory = tempfile::tempdir().unwrap();
    let host = Host::under(directory.path());
    let path = PathBuf::from("/client.pem");
    let rotate = || {
        let pair = authority.issue(&leaf(Usage::Client, "127.0.0.1"), Timestamp::now()).unwrap();
        host.write(&path, (pair.certificate.clone() + pair.key.expose()).as_bytes(), 0o600).unwrap();
        CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap().to_vec()
    };
    let credentials = Credentials::Files { host: &host, certificate: path.clone(), key: path.clone() };
    let client = Client::new(server.address, &authority.pair().certificate, credentials).unwrap();
    assert!(client.get("/version").unwrap_err().to_string().contains("does not exist"));
    let first = rotate();
    client.get("/version").unwrap();
    client.get("/version").unwrap();
    let second = rotate();
    client.get("/version").unwrap();
    let shown: Vec<_> = server.stop().into_iter().map(|(_, certificate)| certificate.unwrap()).collect();
    assert_eq!(shown, [first.clone(), first, second]);
}

#[test]
fn a_token_is_shown_and_a_refusal_still_tells_the_servers_time() {
    let refused = "HTTP/1.1 401 Unauthorized\r\nDate: Sat, 21 Nov 2026 11:29:12 GMT\r\nContent-Length: 2\r\n\r\n{}";
    let (authority, server) = serve(vec![refused.to_owned(), answer("200 OK", "{}")]);
    let token = Credentials::Token(Secret::new("abcdef.0123456789abcdef".to_owned()));
    let client = Client::new(server.address, &authority.pair().certificate, token).unwrap();
    let found = client.ask("/api").unwrap();
    assert_eq!((found.code, found.time), (401, Some("2026-11-21T11:29:12Z".parse().unwrap())));
    assert_eq!(client.ask("/api").unwrap().time, None);
    assert!(!format!("{client:?}").contains("0123456789"));
    for (request, certificate) in server.stop() {
        assert!(request.contains("\r\nAuthorization: Bearer abcdef.0123456789abcdef\r\n"), "{request}");
        assert_eq!(certificate, None);
    }
}
