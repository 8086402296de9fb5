//! A web server that does what the test says, however wrong; loopback only.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A running server; stops when dropped.
pub(crate) struct Server {
    /// `http://127.0.0.1:PORT`.
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What a client asked for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    head: Vec<String>,
    body: Vec<u8>,
}

impl Request {
    /// What was asked for: path and query.
    pub(crate) fn target(&self) -> &str {
        self.head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default()
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let pairs = self.head.iter().filter_map(|line| line.split_once(": "));
        pairs.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    /// The request line: `GET /path HTTP/1.1`.
    pub(crate) fn line(&self) -> &str {
        self.head.first().map_or("", String::as_str)
    }

    /// What was posted.
    pub(crate) fn body(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// First byte of `Range: bytes=N-`.
    pub(crate) fn offset(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

impl Server {
    /// Starts; `answer` gets the number of the request (from 0), the request and the connection, which is closed after.
    pub(crate) fn start(answer: impl Fn(usize, &Request, &mut TcpStream) + Send + 'static) -> Self {
        Self::listen(move |mut stream, seen| {
            let (number, request) = receive(&stream, seen);
            answer(number, &request, &mut stream);
        })
    }

    /// The same, answering every connection in a thread of its own.
    pub(crate) fn start_parallel(answer: impl Fn(usize, &Request, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let answer = Arc::new(answer);
        Self::listen(move |mut stream, seen| {
            let (answer, seen) = (answer.clone(), seen.clone());
            std::thread::spawn(move || {
                let (number, request) = receive(&stream, &seen);
                answer(number, &request, &mut stream);
            });
        })
    }

    fn listen(serve: impl Fn(TcpStream, &Arc<Mutex<Vec<Request>>>) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, stopped) = (requests.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                serve(stream, &seen);
            }
        });
        Self { url, requests, stop, thread: Some(thread) }
    }

    /// What was asked so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accept loop.
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Reads the head of a request and remembers it.
fn receive(stream: &TcpStream, seen: &Mutex<Vec<Request>>) -> (usize, Request) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let head = reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let mut request = Request { head, body: Vec::new() };
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let _ = reader.take(length).read_to_end(&mut request.body);
    let mut seen = seen.lock().unwrap();
    seen.push(request.clone());
    (seen.len() - 1, request)
}

/// Writes a response head and a body; errors (the client left) are its own business.
pub(crate) fn respond(stream: &mut TcpStream, status: &str, headers: &[String], body: &[u8]) {
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    for line in headers {
        head.push_str(line);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).and_then(|()| stream.flush());
}

/// The honest answer: 200, or 206 from the offset that was asked for.
pub(crate) fn honest(request: &Request, stream: &mut TcpStream, content: &[u8]) {
    let etag = "ETag: \"one\"".to_owned();
    match request.offset() {
        Some(from) => {
            let range = format!("Content-Range: bytes {from}-{}/{}", content.len() - 1, content.len());
            respond(
                stream,
                "206 Partial Content",
                &[range, etag, format!("Content-Length: {}", content.len() - from)],
                &content[from..],
            );
        }
        None => respond(stream, "200 OK", &[etag, format!("Content-Length: {}", content.len())], content),
    }
}
