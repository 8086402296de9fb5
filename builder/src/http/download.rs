//! One attempt to download one file: what may be resumed, what may arrive, and what it must be in the end.

use std::io::{Read, Seek as _, SeekFrom, Write};
use std::path::Path;

use bundle::Digest;
use bundle::digest::Hashing;
use reqwest::StatusCode;
use reqwest::blocking::Response;
use reqwest::header::{self, HeaderMap, HeaderValue};

use super::address::{place, server, shown};
use super::client::Question;
use super::pace::Paced;
use super::trouble::{Attempt, Trouble, lasting, passing};
use super::{Network, Wanted};
use crate::cache::Partial;
use crate::output::Progress;
use crate::sha512::{self, Sha512};

/// The most of a body that is held in memory at once.
const BUFFER: usize = 128 << 10;

/// One file on its way from one address.
#[derive(Debug)]
pub(super) struct Download<'a> {
    pub(super) url: &'a str,
    pub(super) wanted: &'a Wanted,
    pub(super) partial: &'a mut Partial,
    pub(super) progress: &'a Progress,
}

/// What lies in the partial file at the end.
struct Arrived {
    sha256: Digest,
    sha512: Option<Sha512>,
    size: u64,
}

impl Download<'_> {
    /// One attempt; what has arrived before is resumed if that is safe.
    pub(super) fn attempt(&mut self, network: &Network) -> Attempt<(Digest, u64)> {
        let (url, wanted) = (self.url, self.wanted);
        if let Some(path) = url.strip_prefix("file://") {
            return self.copy(Path::new(path));
        }
        let mut offset = self.partial.file.metadata()?.len();
        if wanted.size == Some(offset) && wanted.sha256.is_some() {
            // Killed after the last byte and before the new name.
            match self.receive(std::io::empty(), offset, wanted.size) {
                Ok(done) => return Ok(done),
                Err(Trouble::Local(error)) => return Err(Trouble::Local(error)),
                Err(_) => offset = 0,
            }
        }
        let note = self.partial.note();
        let place = place(url);
        let validator = note.as_deref().and_then(|note| note.strip_prefix(&place)?.strip_prefix('\n'));
        // Without a digest only the server's validator proves that both parts belong together.
        if offset > 0 && (offset >= wanted.cap() || (wanted.sha256.is_none() && validator.is_none())) {
            self.partial.clear()?;
            offset = 0;
        }
        let mut headers = HeaderMap::new();
        if let Some(accept) = &wanted.accept {
            headers.insert(header::ACCEPT, HeaderValue::from_str(accept)?);
        }
        if offset > 0 {
            headers.insert(header::RANGE, HeaderValue::from_str(&format!("bytes={offset}-"))?);
            if let Some(validator) = validator {
                headers.insert(header::IF_RANGE, HeaderValue::from_str(validator)?);
            }
        }
        let first = wanted.urls.first().and_then(|url| server(url));
        let authorization = wanted.authorization.as_ref().filter(|_| server(url) == first);
        let question = Question { url, headers, authorization, login: wanted.login.as_deref(), form: None };
        let response = network.ask(&question)?;
        let (offset, total) = self.accept(&response, offset)?;
        self.receive(Paced::new(response, network.options.stall), offset, wanted.size.or(total))
    }

    /// From a mirror that is a directory.
    fn copy(&mut self, path: &Path) -> Attempt<(Digest, u64)> {
        let file = fs_err::File::open(path).map_err(|error| Trouble::Lasting(error.into()))?;
        if !file.metadata()?.is_file() {
            return Err(lasting(format!("`{}` is not a file", path.display())));
        }
        self.partial.clear()?;
        self.receive(file, 0, self.wanted.size).map_err(|trouble| match trouble {
            Trouble::Passing(error, _) => Trouble::Lasting(error),
            other => other,
        })
    }

    /// Checks the answer's head; returns where its body begins, and how large it says the whole is.
    fn accept(&mut self, response: &Response, offset: u64) -> Attempt<(u64, Option<u64>)> {
        let (url, wanted, cap) = (shown(self.url), self.wanted, self.wanted.cap());
        let headers = response.headers();
        match response.status() {
            StatusCode::OK => {
                self.partial.clear()?;
                if let Some(length) = content_length(headers)
                    && (length > cap || wanted.size.is_some_and(|size| size != length))
                {
                    return Err(lasting(format!("`{url}` offers {length} bytes, expected {}", wanted.expected())));
                }
                let note = validator(headers).map(|validator| format!("{}\n{validator}", place(self.url)));
                self.partial.set_note(note.as_deref())?;
                Ok((0, content_length(headers)))
            }
            StatusCode::PARTIAL_CONTENT if offset > 0 => {
                let range = headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
                let fitting = range.and_then(content_range).and_then(|(first, last, total)| {
                    // To the end of the whole, whose size is known to us or else said by the server.
                    let size = wanted.size.or(total)?;
                    let whole = last.checked_add(1) == Some(size) && total.is_none_or(|total| total == size);
                    let length = content_length(headers)
                        .is_none_or(|length| last.checked_sub(first).map(|n| n + 1) == Some(length));
                    (first == offset && last < cap && whole && length).then_some(size)
                });
                if let Some(size) = fitting {
                    return Ok((offset, Some(size)));
                }
                self.partial.clear()?;
                let range = range.unwrap_or("none");
                Err(passing(format!("`{url}` answered with the wrong range ({range}) for bytes from {offset}")))
            }
            StatusCode::PARTIAL_CONTENT => {
                Err(lasting(format!("`{url}` answered with a part, the whole was asked for")))
            }
            StatusCode::RANGE_NOT_SATISFIABLE if offset > 0 => {
                self.partial.clear()?;
                Err(passing(format!("`{url}` cannot continue at byte {offset}")))
            }
            status => Err(lasting(format!("`{url}` answered {status}"))),
        }
    }

    /// Takes the body from `offset` on; at the end the whole file must be right and, if that is known, `total` bytes long.
    /// Nothing of what a liar sent is kept.
    fn receive(&mut self, body: impl Read, offset: u64, total: Option<u64>) -> Attempt<(Digest, u64)> {
        let result = match self.take(body, offset, total) {
            Ok(arrived) => match self.check(&arrived) {
                // What was resumed may have been spoilt by its first part: the whole deserves another attempt.
                Err(Trouble::Lasting(error)) if offset > 0 => {
                    self.partial.clear()?;
                    Err(Trouble::Passing(error, None))
                }
                result => result,
            },
            Err(trouble) => Err(trouble),
        };
        if let Err(Trouble::Lasting(_)) = result {
            self.partial.clear()?;
        }
        result
    }

    fn take(&mut self, mut body: impl Read, offset: u64, total: Option<u64>) -> Attempt<Arrived> {
        let (url, wanted, file) = (shown(self.url), self.wanted, &mut self.partial.file);
        let mut hash = Hashing::new(Second(wanted.sha512.map(|_| sha512::Hashing::default())));
        file.rewind()?;
        std::io::copy(&mut Read::take(&mut *file, offset), &mut hash)?;
        file.set_len(offset)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut buffer = vec![0; BUFFER];
        self.progress.resume(offset);
        loop {
            self.progress.set(hash.count());
            let read = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let text =
                        format!("`{url}`: the download was cut after {} of {} bytes", hash.count(), wanted.expected());
                    return Err(Trouble::Passing(anyhow::Error::new(error).context(text), None));
                }
            };
            if hash.count() + read as u64 > wanted.cap() {
                return Err(lasting(format!("`{url}`: more arrives than the expected {} bytes", wanted.expected())));
            }
            file.write_all(&buffer[..read])?;
            hash.write_all(&buffer[..read])?;
        }
        let (Second(second), sha256, size) = hash.finish();
        match total {
            Some(total) if size < total => {
                Err(passing(format!("`{url}`: the download ended after {size} of {total} bytes")))
            }
            Some(total) if size > total => {
                Err(lasting(format!("`{url}`: {size} bytes arrived, {total} were announced")))
            }
            _ => Ok(Arrived { sha256, sha512: second.map(sha512::Hashing::finish), size }),
        }
    }

    fn check(&self, arrived: &Arrived) -> Attempt<(Digest, u64)> {
        let wrong = |expected: &dyn std::fmt::Display, found: &dyn std::fmt::Display| {
            let (url, size) = (shown(self.url), arrived.size);
            lasting(format!("`{url}` sent wrong content: expected {expected}, got {found} ({size} bytes)"))
        };
        match (self.wanted.sha256, self.wanted.sha512, arrived.sha512) {
            (Some(expected), _, _) if expected != arrived.sha256 => Err(wrong(&expected, &arrived.sha256)),
            (_, Some(expected), Some(found)) if expected != found => {
                Err(wrong(&format_args!("sha512:{expected}"), &format_args!("sha512:{found}")))
            }
            _ => Ok((arrived.sha256, arrived.size)),
        }
    }
}

/// The second hash, if one is expected.
struct Second(Option<sha512::Hashing>);

impl Write for Second {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.as_mut().map_or(Ok(bytes.len()), |hash| hash.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A strong ETag, else Last-Modified (RFC 9110, 13.1.5).
fn validator(headers: &HeaderMap) -> Option<&str> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    text(header::ETAG).filter(|tag| tag.starts_with('"')).or_else(|| text(header::LAST_MODIFIED))
}

/// `bytes FIRST-LAST/TOTAL` (RFC 9110, 14.4).
fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((first.parse().ok()?, last.parse().ok()?, total))
}
