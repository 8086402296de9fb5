//! HTTP/1.1 as far as an apiserver needs it: one request, one response, then the connection ends.
//!
//! The reader is strict: a response has exactly one framing (`Content-Length`, `chunked`, or the end of the TLS
//! connection), and lines, headers, chunks and body are all limited. RFC 9112 is the source.

use std::io::{Error, ErrorKind, Read, Result};
use std::net::SocketAddr;

use super::error;
use crate::pki::Secret;

const HEAD_LIMIT: usize = 64 << 10;
const INTERIM_LIMIT: usize = 4;

/// A request to be sent.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    /// Content type and body.
    pub(super) content: Option<(&'a str, Vec<u8>)>,
    /// A bearer token.
    pub(super) bearer: Option<&'a Secret>,
}

impl Request<'_> {
    /// The bytes on the wire. A path that could end the request line is refused.
    pub(super) fn bytes(&self, host: &SocketAddr) -> std::result::Result<Vec<u8>, error::Error> {
        if !self.path.starts_with('/') || !self.path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(error::Error::Path(self.path.chars().take(200).collect()));
        }
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: sealift\r\nAccept: application/json\r\nConnection: close\r\n",
            self.method, self.path
        );
        if let Some(token) = self.bearer {
            let token = token.expose();
            if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(error::Error::Credentials("the bearer token has characters that no token has".to_owned()));
            }
            head.push_str("Authorization: Bearer ");
            head.push_str(token);
            head.push_str("\r\n");
        }
        if let Some((kind, body)) = &self.content {
            use std::fmt::Write as _;
            // Writing to a String cannot fail.
            let _ = write!(head, "Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
        }
        let mut bytes = (head + "\r\n").into_bytes();
        if let Some((_, body)) = &self.content {
            bytes.extend_from_slice(body);
        }
        Ok(bytes)
    }
}

/// Percent-encodes a query value (everything but RFC 3986 "unreserved").
pub(super) fn query_value(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        use std::fmt::Write as _;
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

/// A response, read to its end.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) code: u16,
    /// The server's clock as it says (`Date`), unread.
    pub(super) date: String,
    pub(super) body: Vec<u8>,
}

impl Response {
    pub(super) fn read(stream: &mut impl Read, body_limit: usize) -> Result<Self> {
        let mut wire = Wire { stream, buffer: vec![0; 16 << 10], start: 0, end: 0 };
        for _ in 0..=INTERIM_LIMIT {
            let head = Head::read(&mut wire)?;
            // 1xx are announcements; 101 would change the protocol and was not asked for.
            if (100..200).contains(&head.code) && head.code != 101 {
                continue;
            }
            let body = match head.framing {
                _ if head.code == 204 || head.code == 304 => Vec::new(),
                Framing::Length(length) => wire.length(length, body_limit)?,
                Framing::Chunked => wire.chunked(body_limit)?,
                Framing::End => wire.rest(body_limit)?,
            };
            return Ok(Self { code: head.code, date: head.date, body });
        }
        Err(wrong("too many interim responses"))
    }
}

fn wrong(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("wrong HTTP response: {what}"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    End,
}

struct Head {
    code: u16,
    date: String,
    framing: Framing,
}

impl Head {
    fn read(wire: &mut Wire<'_, impl Read>) -> Result<Self> {
        let mut budget = HEAD_LIMIT;
        let line = wire.line(&mut budget)?;
        let rest = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 "));
        let code = rest.and_then(|rest| rest.get(..3)).filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()));
        let code = code.and_then(|code| code.parse().ok()).ok_or_else(|| wrong("no status line"))?;
        let (mut length, mut chunked, mut date) = (None, false, String::new());
        loop {
            let line = wire.line(&mut budget)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| wrong("a header without a colon"))?;
            if name.is_empty() || name.ends_with([' ', '\t']) || name.starts_with([' ', '\t']) {
                return Err(wrong("a header name with spaces"));
            }
            let value = value.trim_matches([' ', '\t']);
            if name.eq_ignore_ascii_case("content-length") {
                let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                let found = value.parse::<usize>().ok().filter(|_| digits);
                let found = found.ok_or_else(|| wrong("a content length that is no number"))?;
                if length.is_some_and(|length| length != found) {
                    return Err(wrong("two content lengths"));
                }
                length = Some(found);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                if chunked || !value.eq_ignore_ascii_case("chunked") {
                    return Err(wrong("an unknown transfer encoding"));
                }
                chunked = true;
            } else if name.eq_ignore_ascii_case("date") {
                value.clone_into(&mut date);
            } else if name.eq_ignore_ascii_case("content-encoding") && !value.eq_ignore_ascii_case("identity") {
                return Err(wrong("a content encoding that was not asked for"));
            }
        }
        let framing = match (length, chunked) {
            (Some(_), true) => return Err(wrong("both a content length and chunks")),
            (Some(length), false) => Framing::Length(length),
            (None, true) => Framing::Chunked,
            (None, false) => Framing::End,
        };
        Ok(Self { code, date, framing })
    }
}

/// Buffered reading with limits.
struct Wire<'a, R> {
    stream: &'a mut R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<R: Read> Wire<'_, R> {
    /// The bytes at hand, reading more if there are none; empty at the end of the stream.
    fn fill(&mut self) -> Result<&[u8]> {
        while self.start == self.end {
            match self.stream.read(&mut self.buffer) {
                Ok(0) => return Ok(&[]),
                Ok(read) => (self.start, self.end) = (0, read),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(&self.buffer[self.start..self.end])
    }

    /// A line without its CR LF, taken from a budget of bytes.
    fn line(&mut self, budget: &mut usize) -> Result<String> {
        let mut line = Vec::new();
        loop {
            let at_hand = self.fill()?;
            if at_hand.is_empty() {
                return Err(wrong("it ends in the middle of a line"));
            }
            let (taken, complete) = match at_hand.iter().position(|byte| *byte == b'\n') {
                Some(position) => (position + 1, true),
                None => (at_hand.len(), false),
            };
            *budget = budget.checked_sub(taken).ok_or_else(|| wrong("its head is too long"))?;
            line.extend_from_slice(&at_hand[..taken]);
            self.start += taken;
            if complete {
                line.pop();
                if line.pop() != Some(b'\r') || line.contains(&b'\r') || line.contains(&0) {
                    return Err(wrong("a line that does not end in CR LF"));
                }
                return String::from_utf8(line).map_err(|_| wrong("a line that is not UTF-8"));
            }
        }
    }

    fn take(&mut self, length: usize, body: &mut Vec<u8>) -> Result<()> {
        let mut left = length;
        while left > 0 {
            let at_hand = self.fill()?;
            if at_hand.is_empty() {
                return Err(wrong("its body is cut short"));
            }
            let taken = at_hand.len().min(left);
            body.extend_from_slice(&at_hand[..taken]);
            self.start += taken;
            left -= taken;
        }
        Ok(())
    }

    fn length(&mut self, length: usize, limit: usize) -> Result<Vec<u8>> {
        if length > limit {
            return Err(wrong("its body is too large"));
        }
        let mut body = Vec::with_capacity(length.min(64 << 10));
        self.take(length, &mut body)?;
        Ok(body)
    }

    fn chunked(&mut self, limit: usize) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line(&mut 1024)?;
            let digits = line.split(';').next().unwrap_or_default().trim_end();
            if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(wrong("a chunk without a size"));
            }
            let size = usize::from_str_radix(digits, 16).map_err(|_| wrong("a chunk without a size"))?;
            if size == 0 {
                let mut budget = HEAD_LIMIT;
                while !self.line(&mut budget)?.is_empty() {}
                return Ok(body);
            }
            if size > limit - body.len() {
                return Err(wrong("its body is too large"));
            }
            self.take(size, &mut body)?;
            if !self.line(&mut 2)?.is_empty() {
                return Err(wrong("a chunk that does not end"));
            }
        }
    }

    /// Until the peer closes. A connection that is cut instead (no TLS close_notify) is an error of the stream.
    fn rest(&mut self, limit: usize) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let at_hand = self.fill()?;
            let taken = at_hand.len();
            if taken == 0 {
                return Ok(body);
            }
            if taken > limit - body.len() {
                return Err(wrong("its body is too large"));
            }
            body.extend_from_slice(at_hand);
            self.start += taken;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Response> {
        Response::read(&mut text.as_bytes(), 1000)
    }

    #[test]
    fn responses_are_read_in_each_framing() {
        let texts = [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nTrailer: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\nhello",
            "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        ];
        for text in texts {
            let response = read(text).unwrap();
            assert_eq!((response.code, response.body.as_slice()), (200, &b"hello"[..]), "{text}");
        }
        assert_eq!(read("HTTP/1.1 204 No Content\r\n\r\n").unwrap().code, 204);
    }

    #[test]
    fn hostile_responses_are_refused() {
        let long_header = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(HEAD_LIMIT));
        let many_headers = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(HEAD_LIMIT / 6 + 1));
        let endless_hints = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(10);
        let large = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1001));
        let texts = [
            ("", "middle of a line"),
            ("SSH-2.0-OpenSSH\r\n\r\n", "no status line"),
            ("HTTP/1.1 2x0 OK\r\n\r\n", "no status line"),
            ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", "CR LF"),
            ("HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello", "spaces"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "cut short"),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "no number"),
            ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", "no number"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", "too large"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "two content lengths"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "both"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "transfer encoding"),
            ("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", "content encoding"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n", "chunk"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n", "too large"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", "chunk"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhel\r\n", ""),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n", "middle of a line"),
            (&long_header, "too long"),
            (&many_headers, "too long"),
            (&endless_hints, "interim"),
            (&large, "too large"),
        ];
        for (text, words) in texts {
            let error = read(text).map(|response| response.code).unwrap_err().to_string();
            assert!(error.contains(words), "{text:.60}: {error}");
        }
    }

    #[test]
    fn a_path_cannot_smuggle_a_second_request() {
        let host = "127.0.0.1:6443".parse().unwrap();
        for path in ["/a b", "/a\r\nX: y", "api", "", "/ä", "/a#b"] {
            assert!(Request { method: "GET", path, content: None, bearer: None }.bytes(&host).is_err(), "{path:?}");
        }
        let token = Secret::new("abc\r\nX: y".to_owned());
        assert!(Request { method: "GET", path: "/api", bearer: Some(&token), content: None }.bytes(&host).is_err());
        assert_eq!(query_value("a+b/c=é"), "a%2Bb%2Fc%3D%C3%A9");
    }
}
