//! A small client of the Kubernetes API: blocking, HTTP/1.1 over TLS, one connection a request.
//!
//! It trusts one pinned authority and dials numeric addresses only: there is no DNS, no proxy, no redirect, no system
//! trust store. Connect, read and total times are limited, and so is everything a server can send. The client's
//! certificate is read again before each request, because the kubelet's rotates under the same name.

mod credentials;
mod error;
#[cfg(test)]
pub(crate) mod fake;
mod http;
#[cfg(test)]
pub(crate) mod tests;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;

pub use credentials::Credentials;
use credentials::Tls;
pub use error::{Distrust, Error};
use http::{Request, Response};

/// Content type of plain JSON.
const JSON: &str = "application/json";
/// Content type of a JSON merge patch (RFC 7386): objects are merged, everything else (lists too) is replaced.
const MERGE_PATCH: &str = "application/merge-patch+json";
/// Objects per page of a list.
const PAGE: u32 = 250;

/// Limits of one request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time to open the TCP connection.
    pub connect: Duration,
    /// Time for the whole request, connection included.
    pub total: Duration,
    /// Bytes of a response's body.
    pub body: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(3), total: Duration::from_secs(30), body: 32 << 20 }
    }
}

/// What a server answered, whatever the status code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status code.
    pub code: u16,
    /// The server's clock (header `Date`), if it told a readable one.
    pub time: Option<Timestamp>,
    /// The body.
    pub body: Vec<u8>,
}

/// A client of one apiserver.
#[derive(Debug)]
pub struct Client<'a> {
    address: SocketAddr,
    name: ServerName<'static>,
    tls: Tls<'a>,
    limits: Limits,
}

impl<'a> Client<'a> {
    /// A client that dials `address` and accepts only a server certificate for that address signed by `authority` (PEM).
    pub fn new(address: SocketAddr, authority: &str, credentials: Credentials<'a>) -> Result<Self, Error> {
        let name = ServerName::IpAddress(address.ip().into());
        Ok(Self { address, name, tls: Tls::new(authority, credentials)?, limits: Limits::default() })
    }

    /// Expects the server certificate to be for this address instead of the one dialled (a proxy's, say).
    #[must_use]
    pub fn expecting(mut self, address: IpAddr) -> Self {
        self.name = ServerName::IpAddress(address.into());
        self
    }

    /// With other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The address it dials.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Reads an object. `path` is an absolute path of the API, such as `/api/v1/nodes/m1`.
    pub fn get(&self, path: &str) -> Result<Value, Error> {
        self.json("GET", path, None)
    }

    /// Reads an object that may not exist.
    pub fn find(&self, path: &str) -> Result<Option<Value>, Error> {
        match self.get(path) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.code() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads all objects of a collection, page by page.
    pub fn list(&self, path: &str) -> Result<Vec<Value>, Error> {
        let (mut items, mut next) = (Vec::new(), String::new());
        loop {
            let mut page = self.get(&format!("{path}?limit={PAGE}{next}"))?;
            match page.get_mut("items").map(Value::take) {
                Some(Value::Array(mut found)) => items.append(&mut found),
                Some(Value::Null) => {}
                _ => return Err(Error::Content(format!("{path}: the list has no items"))),
            }
            match page.pointer("/metadata/continue").and_then(Value::as_str) {
                Some(token) if !token.is_empty() => next = format!("&continue={}", http::query_value(token)),
                _ => return Ok(items),
            }
            if items.len() > 100_000 {
                return Err(Error::Content(format!("{path}: the list does not end")));
            }
        }
    }

    /// Reads all objects of a collection and hands over each page as it comes; `path` may have a query. Nothing of earlier
    /// pages is kept.
    pub fn pages(&self, path: &str, mut each: impl FnMut(Vec<Value>)) -> Result<(), Error> {
        let (joint, mut next) = (if path.contains('?') { '&' } else { '?' }, String::new());
        // No cluster has more pages; a server that never ends is one that lies.
        for _ in 0..10_000 {
            let mut page = self.get(&format!("{path}{joint}limit={PAGE}{next}"))?;
            match page.get_mut("items").map(Value::take) {
                Some(Value::Array(found)) => each(found),
                Some(Value::Null) => {}
                _ => return Err(Error::Content(format!("{path}: the list has no items"))),
            }
            match page.pointer("/metadata/continue").and_then(Value::as_str) {
                Some(token) if !token.is_empty() => next = format!("&continue={}", http::query_value(token)),
                _ => return Ok(()),
            }
        }
        Err(Error::Content(format!("{path}: the list does not end")))
    }

    /// Creates an object in a collection.
    pub fn post(&self, path: &str, object: &Value) -> Result<Value, Error> {
        self.json("POST", path, Some((JSON, object)))
    }

    /// Replaces an object; with `metadata.resourceVersion` in it, only if nobody changed it since.
    pub fn put(&self, path: &str, object: &Value) -> Result<Value, Error> {
        self.json("PUT", path, Some((JSON, object)))
    }

    /// Merges a patch into an object (RFC 7386).
    pub fn patch(&self, path: &str, changes: &Value) -> Result<Value, Error> {
        self.json("PATCH", path, Some((MERGE_PATCH, changes)))
    }

    /// Deletes an object. Says whether there was one.
    pub fn delete(&self, path: &str) -> Result<bool, Error> {
        match self.json("DELETE", path, None) {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some(404) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks a health endpoint (`/readyz`, `/healthz`): fine if it answers 200.
    pub fn healthy(&self, path: &str) -> Result<(), Error> {
        self.exchange(&self.get_request(path)).map(drop)
    }

    /// Reads whatever the server answers: a refusal is an answer too.
    pub fn ask(&self, path: &str) -> Result<Answer, Error> {
        let response = self.send(&self.get_request(path))?;
        // RFC 9110 §5.6.7: an HTTP date is in the form of RFC 822 and its successors.
        let time = jiff::fmt::rfc2822::parse(&response.date).ok().map(|zoned| zoned.timestamp());
        Ok(Answer { code: response.code, time, body: response.body })
    }

    /// Only opens a connection, and closes it when the server has shown a certificate that is accepted.
    pub fn handshake(&self) -> Result<(), Error> {
        let mut stream = self.connect()?;
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(|error| Error::of_stream(self.address, &error))?;
        }
        stream.conn.send_close_notify();
        let _ = stream.flush();
        Ok(())
    }

    fn json(&self, method: &str, path: &str, content: Option<(&str, &Value)>) -> Result<Value, Error> {
        let content = content.map(|(kind, value)| (kind, value.to_string().into_bytes()));
        let body = self.exchange(&Request { method, path, content, bearer: self.tls.bearer() })?;
        serde_json::from_slice(&body).map_err(|error| Error::Content(format!("{method} {path}: {error}")))
    }

    fn get_request<'r>(&'r self, path: &'r str) -> Request<'r> {
        Request { method: "GET", path, content: None, bearer: self.tls.bearer() }
    }

    fn exchange(&self, request: &Request<'_>) -> Result<Vec<u8>, Error> {
        let response = self.send(request)?;
        if (200..300).contains(&response.code) {
            return Ok(response.body);
        }
        Err(Error::of_response(request.method, request.path, response.code, &response.body))
    }

    fn send(&self, request: &Request<'_>) -> Result<Response, Error> {
        let bytes = request.bytes(&self.address)?;
        let mut stream = self.connect()?;
        let failed = |error: std::io::Error| Error::of_stream(self.address, &error);
        stream.write_all(&bytes).and_then(|()| stream.flush()).map_err(failed)?;
        let response = Response::read(&mut stream, self.limits.body).map_err(failed)?;
        stream.conn.send_close_notify();
        let _ = stream.flush();
        Ok(response)
    }

    /// A connection; the handshake comes with the first bytes.
    fn connect(&self) -> Result<StreamOwned<ClientConnection, Timed>, Error> {
        let deadline = Instant::now() + self.limits.total;
        let failed = |error: &dyn std::fmt::Display| Error::Connect(self.address, error.to_string());
        let config = self.tls.config()?;
        let connection =
            ClientConnection::new(Arc::clone(&config), self.name.clone()).map_err(|error| failed(&error))?;
        let socket = TcpStream::connect_timeout(&self.address, self.limits.connect).map_err(|error| failed(&error))?;
        let timed = Timed { socket, deadline };
        // The socket sends small requests whole; waiting for more would only delay them.
        let _ = timed.socket.set_nodelay(true);
        Ok(StreamOwned::new(connection, timed))
    }
}

/// A socket whose every read and write ends at one point in time, however slowly bytes trickle.
struct Timed {
    socket: TcpStream,
    deadline: Instant,
}

impl Timed {
    fn remaining(&self) -> std::io::Result<Option<Duration>> {
        match self.deadline.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => Ok(Some(left)),
            _ => Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "the server took too long")),
        }
    }
}

fn late(error: std::io::Error) -> std::io::Error {
    // A socket's own timeout is reported as "resource temporarily unavailable".
    if error.kind() == std::io::ErrorKind::WouldBlock {
        return std::io::Error::new(std::io::ErrorKind::TimedOut, "the server took too long");
    }
    error
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.socket.set_read_timeout(self.remaining()?)?;
        self.socket.read(buffer).map_err(late)
    }
}

impl Write for Timed {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.socket.set_write_timeout(self.remaining()?)?;
        self.socket.write(buffer).map_err(late)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.socket.flush()
    }
}
