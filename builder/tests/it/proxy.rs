//! Proxies of the environment and certificate authorities of one's own, with the whole program.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use assert_cmd::Command;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::server::{Server, honest, respond};
use crate::workshop::{Workshop, plain, stderr};

const SECRET: &str = "s3cret";

/// `fetch` of the one artifact that comes from a server, read from `mirror`.
fn fetch(workshop: &Workshop, mirror: &str) -> Command {
    let mut fetch = plain();
    fetch.current_dir(workshop.path("")).args(["fetch", "release/demo.toml", "--retries", "0", "--cache"]);
    fetch.arg(workshop.path("fresh")).arg("--mirror").arg(format!("https://upstream.invalid/v1.0/={mirror}/"));
    fetch
}

fn workshop() -> (Workshop, Vec<u8>) {
    let workshop = Workshop::new(2000);
    workshop.lock().success();
    let archive = fs_err::read(workshop.path("release/server.tar.gz")).unwrap();
    (workshop, archive)
}

#[test]
fn plain_requests_go_through_the_proxy_of_the_environment_and_its_password_is_not_printed() {
    let (workshop, archive) = workshop();
    let content = archive.clone();
    let proxy = Server::start(move |_, request, stream| honest(request, stream, &content));
    let with_password = proxy.url.replace("//", &format!("//user:{SECRET}@"));
    let assert = fetch(&workshop, "http://mirror.invalid").env("HTTP_PROXY", &with_password).assert().success();
    assert_eq!(proxy.requests()[0].line(), "GET http://mirror.invalid/server.tar.gz HTTP/1.1");
    assert_eq!(proxy.requests()[0].header("proxy-authorization"), Some("Basic dXNlcjpzM2NyZXQ="));
    assert!(!stderr(&assert).contains(SECRET));

    // Not for hosts that NO_PROXY names.
    fs_err::remove_dir_all(workshop.path("fresh")).unwrap();
    let direct = Server::start(move |_, request, stream| honest(request, stream, &archive));
    let mut near = fetch(&workshop, &direct.url);
    near.env("HTTP_PROXY", &with_password).env("NO_PROXY", "localhost,127.0.0.1").assert().success();
    assert_eq!((proxy.requests().len(), direct.requests().len()), (1, 1));
    assert_eq!(direct.requests()[0].header("proxy-authorization"), None);

    // A proxy that refuses, and one that is not there.
    fs_err::remove_dir_all(workshop.path("fresh")).unwrap();
    let strict = Server::start(|_, _, stream| respond(stream, "407 Proxy Authentication Required", &[], b""));
    for url in [strict.url.as_str(), "http://127.0.0.1:1"] {
        let with_password = url.replace("//", &format!("//user:{SECRET}@"));
        for (variable, scheme) in [("HTTP_PROXY", "http"), ("HTTPS_PROXY", "https")] {
            let mut fetch = fetch(&workshop, &format!("{scheme}://mirror.invalid"));
            let error = stderr(&fetch.env(variable, &with_password).assert().code(1));
            assert!(error.contains("cannot fetch") && !error.contains(SECRET), "{error}");
            assert!(!error.contains("dXNlcjpzM2NyZXQ"), "{error}");
        }
    }
}

/// A TLS server whose certificate a new authority signed; answers every request with this head and `content`. Ends after `connections`.
struct Tls {
    port: u16,
    authority: String,
    thread: JoinHandle<()>,
}

fn tls(head: &str, content: Vec<u8>, connections: usize) -> Tls {
    let head = head.to_owned();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        for stream in listener.incoming().take(connections) {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut tls = BufReader::new(StreamOwned::new(connection, stream.unwrap()));
            // A client that does not trust us hangs up here.
            let asked: Vec<String> =
                tls.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            if !asked.is_empty() {
                let head = format!("HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", content.len());
                let tls = tls.get_mut();
                let _ = tls.write_all(head.as_bytes()).and_then(|()| tls.write_all(&content));
                tls.conn.send_close_notify();
                let _ = tls.flush();
            }
        }
    });
    Tls { port, authority: authority.pem(), thread }
}

#[test]
fn tls_goes_through_the_proxy_and_trusts_the_authority_that_is_given() {
    let (workshop, archive) = workshop();
    let tls = tls("200 OK", archive, 3);
    workshop.write("ca.pem", tls.authority.as_bytes());
    let mirror = format!("https://localhost:{}", tls.port);
    let port = tls.port;
    let proxy = Server::start_parallel(move |_, request, stream| {
        assert_eq!(request.line(), format!("CONNECT localhost:{port} HTTP/1.1"));
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let mut upstream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut from, mut to) = (stream.try_clone().unwrap(), upstream.try_clone().unwrap());
        let forth = std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
        let _ = std::io::copy(&mut upstream, stream);
        let _ = stream.shutdown(std::net::Shutdown::Both);
        forth.join().unwrap();
    });
    let with_password = proxy.url.replace("//", &format!("//user:{SECRET}@"));
    let refused = fetch(&workshop, &mirror).env("HTTPS_PROXY", &with_password).assert().code(1);
    assert!(stderr(&refused).contains("certificate") && !stderr(&refused).contains(SECRET), "{}", stderr(&refused));
    let mut trusted = fetch(&workshop, &mirror);
    trusted.args(["--ca-file", "ca.pem"]).env("HTTPS_PROXY", &with_password).assert().success();
    let requests = proxy.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].header("proxy-authorization"), Some("Basic dXNlcjpzM2NyZXQ="));
    // Without the proxy; and what is no certificate.
    fs_err::remove_dir_all(workshop.path("fresh")).unwrap();
    fetch(&workshop, &mirror).args(["--ca-file", "ca.pem"]).assert().success();
    tls.thread.join().unwrap();
    fs_err::remove_dir_all(workshop.path("fresh")).unwrap();
    let wrong = fetch(&workshop, &mirror).args(["--ca-file", "installer.bin"]).assert().code(2);
    assert!(stderr(&wrong).contains("holds no PEM certificates"), "{}", stderr(&wrong));
}

#[test]
fn a_redirect_from_tls_to_plain_http_is_refused() {
    let (workshop, archive) = workshop();
    let plain = Server::start(move |_, request, stream| honest(request, stream, &archive));
    let tls = tls(&format!("302 Found\r\nLocation: {}/server.tar.gz", plain.url), Vec::new(), 1);
    workshop.write("ca.pem", tls.authority.as_bytes());
    let refused = fetch(&workshop, &format!("https://localhost:{}", tls.port)).args(["--ca-file", "ca.pem"]).assert();
    let error = stderr(&refused.code(1));
    assert!(error.contains("a redirect leads from https to plain http"), "{error}");
    assert_eq!(plain.requests().len(), 0);
    tls.thread.join().unwrap();
}
