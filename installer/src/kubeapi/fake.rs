//! An API server for tests: objects by path, resourceVersions, conflicts, several clients at once, faults on request.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::{Client, Credentials};
use crate::cluster::ensure::merge;
use crate::pki::{Authority, AuthorityName, Leaf, Usage};

/// What can be listed.
const COLLECTIONS: [&str; 4] = ["/nodes", "/secrets", "/configmaps", "/certificatesigningrequests"];

/// Decides before the server does: an answer (code, body) instead of the real one, for `METHOD path`.
type Fault = Box<dyn FnMut(&str) -> Option<(u16, Value)> + Send>;

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    requests: Vec<String>,
    fault: Option<Fault>,
}

/// A running server; it stops when dropped.
pub(crate) struct Server {
    authority: Authority,
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stopped: Arc<AtomicBool>,
}

impl Server {
    /// Starts it on a free port of loopback.
    pub(crate) fn start() -> Self {
        Self::certified(Timestamp::now())
    }

    /// Starts it with a certificate that is made then, and valid for an hour.
    pub(crate) fn certified(then: Timestamp) -> Self {
        let authority = Authority::create(AuthorityName::Cluster, "test", Timestamp::now()).unwrap();
        let leaf = Leaf {
            authority: AuthorityName::Cluster,
            common_name: "kube-apiserver".to_owned(),
            organization: None,
            usage: Usage::Server,
            names: ["localhost".to_owned()].into(),
            addresses: ["127.0.0.1".parse().unwrap()].into(),
            lifetime: Duration::from_secs(3600),
        };
        let pair = authority.issue(&leaf, then).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(pair.key.expose().as_bytes()).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (state, stopped) = (Arc::<Mutex<State>>::default(), Arc::<AtomicBool>::default());
        let (config, shared, stop) = (Arc::new(config), Arc::clone(&state), Arc::clone(&stopped));
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (config, state) = (Arc::clone(&config), Arc::clone(&shared));
                std::thread::spawn(move || answer(config, socket, &state));
            }
        });
        Self { authority, address, state, stopped }
    }

    /// A client that trusts it.
    pub(crate) fn client(&self) -> Client<'static> {
        Client::new(self.address, &self.authority(), Credentials::Anonymous).unwrap()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate that it is known by.
    pub(crate) fn authority(&self) -> String {
        self.authority.pair().certificate.clone()
    }

    /// Puts an object there, as if somebody else had.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.state.lock().unwrap().store(path, object);
    }

    /// The object there.
    pub(crate) fn object(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    /// `METHOD path` of every request that was to change something.
    pub(crate) fn changes(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.requests.iter().filter(|request| !request.starts_with("GET ")).cloned().collect()
    }

    /// Lets some requests be answered otherwise.
    pub(crate) fn fault(&self, fault: impl FnMut(&str) -> Option<(u16, Value)> + Send + 'static) {
        self.state.lock().unwrap().fault = Some(Box::new(fault));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn serve(&mut self, method: &str, target: &str, body: &Value) -> (u16, Value) {
        let path = target.split('?').next().unwrap_or_default();
        let request = format!("{method} {path}");
        self.requests.push(request.clone());
        if let Some(answer) = self.fault.as_mut().and_then(|fault| fault(&request)) {
            return answer;
        }
        let status = |reason: &str| json!({ "kind": "Status", "reason": reason, "message": reason });
        let named = |name: &Value| format!("{path}/{}", name.as_str().unwrap_or_default());
        match (method, self.objects.get(path)) {
            ("GET", Some(object)) => (200, object.clone()),
            ("GET", None) if path.ends_with("/readyz") => (200, json!("ok")),
            ("GET", None) if COLLECTIONS.iter().any(|name| path.ends_with(name)) => {
                let inside = format!("{path}/");
                let items: Vec<&Value> =
                    self.objects.iter().filter(|(key, _)| key.starts_with(&inside)).map(|(_, value)| value).collect();
                (200, json!({ "metadata": {}, "items": items }))
            }
            ("POST", _) if self.objects.contains_key(&named(&body["metadata"]["name"])) => {
                (409, status("AlreadyExists"))
            }
            ("POST", _) => (201, self.store(&named(&body["metadata"]["name"]), body.clone())),
            ("PUT", Some(object)) => {
                let asked = body.pointer("/metadata/resourceVersion");
                if asked.is_some() && asked != object.pointer("/metadata/resourceVersion") {
                    return (409, status("Conflict"));
                }
                (200, self.store(path, body.clone()))
            }
            ("PATCH", Some(object)) => {
                let mut merged = object.clone();
                merge(&mut merged, body);
                (200, self.store(path, merged))
            }
            ("DELETE", Some(_)) => {
                self.objects.remove(path);
                (200, status("Success"))
            }
            _ => (404, status("NotFound")),
        }
    }
}

fn answer(config: Arc<ServerConfig>, socket: TcpStream, state: &Mutex<State>) {
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
    let (mut bytes, mut part) = (Vec::new(), [0; 16 << 10]);
    let (head, length) = loop {
        let Ok(count @ 1..) = stream.read(&mut part) else { return };
        bytes.extend_from_slice(&part[..count]);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.trim().parse().ok());
        break (head, (end + 4, length.unwrap_or(0)));
    };
    let (start, length): (usize, usize) = length;
    while bytes.len() < start + length {
        let Ok(count @ 1..) = stream.read(&mut part) else { return };
        bytes.extend_from_slice(&part[..count]);
    }
    let body = serde_json::from_slice(&bytes[start..]).unwrap_or_default();
    let mut line = head.lines().next().unwrap_or_default().split(' ');
    let (method, target) = (line.next().unwrap_or_default(), line.next().unwrap_or_default());
    let (code, body) = state.lock().unwrap().serve(method, target, &body);
    let body = body.to_string();
    let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::now()).unwrap();
    let _ = write!(stream, "HTTP/1.1 {code} -\r\nDate: {date}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.conn.send_close_notify();
    let _ = stream.flush();
}
