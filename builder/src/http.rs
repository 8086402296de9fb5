//! The network door: downloads into the cache, and nothing else.
//!
//! Servers are not trusted. A download ends under its final name only if its digest is the expected one (or, for a first
//! use, if it arrived complete); lengths, ranges and encodings that contradict the request are refused; a cut download is
//! resumed and everything that lies on disk is hashed again.

use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::Context as _;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use bundle::Digest;
use bundle::digest::Hashing;
use reqwest::StatusCode;
use reqwest::blocking::{Client, Response};
use reqwest::header::{self, HeaderMap};

use crate::cache::{Cache, Partial};
use crate::cli::NetworkArgs;
use crate::failure::Failure;
use crate::output::{Output, Progress, bytes};
use crate::parallel;

/// Largest artifact whose size is not known beforehand.
pub const ARTIFACT_LIMIT: u64 = 8 << 30;

/// How downloads are done.
#[derive(Clone, Debug)]
pub struct Options {
    /// URL prefixes and what they are replaced with.
    pub mirrors: Vec<(String, String)>,
    /// More certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// Use the cache alone.
    pub offline: bool,
    /// Downloads at the same time.
    pub downloads: usize,
    /// Nothing arrives for so long: given up.
    pub stall: Duration,
    /// Attempts after the first that make no progress.
    pub retries: usize,
    /// First pause before another attempt; doubles up to 50 times that.
    pub pause: Duration,
}

impl From<&NetworkArgs> for Options {
    fn from(args: &NetworkArgs) -> Self {
        Self {
            mirrors: args.mirrors.clone(),
            ca_file: args.ca_file.clone(),
            offline: args.offline,
            downloads: usize::from(args.downloads),
            stall: Duration::from_secs(args.stall),
            retries: args.retries,
            pause: Duration::from_millis(300),
        }
    }
}

/// What is to be downloaded.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Name for people.
    pub name: String,
    /// Where it may be, in order of preference, before mirrors.
    pub urls: Vec<String>,
    /// Expected bytes.
    pub size: Option<u64>,
    /// Most bytes that are taken when none are expected exactly.
    pub limit: u64,
    /// Expected digest; without one whatever arrives complete is taken.
    pub sha256: Option<Digest>,
}

impl Wanted {
    /// Most bytes that are taken.
    fn cap(&self) -> u64 {
        self.size.unwrap_or(self.limit)
    }
}

/// A file in the cache whose digest is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Where it lies.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// Digest.
    pub sha256: Digest,
}

/// The network door.
#[derive(Debug)]
pub struct Network {
    options: Options,
    client: Mutex<Option<Client>>,
    output: Output,
}

/// Marks errors of places that could not be reached, as opposed to places that answered wrongly.
#[derive(Debug)]
pub struct Unreachable;

impl std::fmt::Display for Unreachable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no attempt succeeded")
    }
}

/// Why one attempt failed.
#[derive(Debug)]
enum Trouble {
    /// Worth another attempt.
    Passing(anyhow::Error),
    /// The same will happen again.
    Lasting(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self::Lasting(error.into())
    }
}

type Attempt<T> = Result<T, Trouble>;

fn lasting(message: impl Into<String>) -> Trouble {
    Trouble::Lasting(Failure::new(message).into())
}

fn passing(message: impl Into<String>) -> Trouble {
    Trouble::Passing(Failure::new(message).into())
}

impl Network {
    /// Opens the door; nothing is sent before the first download.
    pub fn new(options: Options, output: &Output) -> Self {
        Self { options, client: Mutex::default(), output: output.clone() }
    }

    /// Whether only the cache may be used.
    pub fn is_offline(&self) -> bool {
        self.options.offline
    }

    /// Downloads all, several at once; all are tried, the first error in order is returned.
    pub fn fetch_all(&self, cache: &Cache, wanted: &[Wanted]) -> anyhow::Result<Vec<Fetched>> {
        let mut fetched = Vec::with_capacity(wanted.len());
        let mut failed = None;
        for result in self.fetch_each(cache, wanted) {
            match result {
                Ok(file) => fetched.push(file),
                Err(error) if failed.is_none() => failed = Some(error),
                Err(error) => self.output.warning(&format!("{error:#}")),
            }
        }
        failed.map_or(Ok(fetched), Err)
    }

    /// Downloads all, several at once; one result each, in order.
    pub fn fetch_each(&self, cache: &Cache, wanted: &[Wanted]) -> Vec<anyhow::Result<Fetched>> {
        parallel::map(self.options.downloads, wanted, |item| self.fetch(cache, item))
    }

    /// The file from the cache, or downloaded into it.
    pub fn fetch(&self, cache: &Cache, wanted: &Wanted) -> anyhow::Result<Fetched> {
        if let Some(sha256) = wanted.sha256
            && let Some((path, size)) = cache.find(&sha256)?
        {
            return check_size(wanted, size).map(|()| Fetched { path, size, sha256 });
        }
        if self.options.offline {
            let error = Failure::new(format!("`{}` is not in the cache", wanted.name));
            return Err(anyhow::Error::new(error.hint("run without `--offline` once")).context(Unreachable));
        }
        let key = match &wanted.sha256 {
            Some(digest) => digest.hex(),
            None => Digest::of(wanted.urls.join("\n").as_bytes()).hex(),
        };
        let mut partial = cache.partial(&key)?;
        // Another builder may have finished it while we waited for the lock.
        if let Some(sha256) = wanted.sha256
            && let Some((path, size)) = cache.find(&sha256)?
        {
            partial.discard()?;
            return check_size(wanted, size).map(|()| Fetched { path, size, sha256 });
        }
        let progress = self.output.progress(&wanted.name, wanted.size.unwrap_or(0));
        let urls: Vec<String> = wanted.urls.iter().flat_map(|url| self.mirrored(url)).collect();
        let mut failure: Option<anyhow::Error> = None;
        for url in urls {
            if let Some(error) = failure.take() {
                self.output.warning(&format!("{error:#}; trying the next address"));
            }
            match self.fetch_from(&url, wanted, &mut partial, &progress) {
                Ok((sha256, size)) => {
                    partial.set_note(None)?;
                    let path = cache.finish(&partial, &sha256)?;
                    let time = progress.done();
                    self.output.event(
                        "fetched",
                        &format!("{} ({}, {})", wanted.name, bytes(size), crate::output::rate(size, time)),
                    );
                    return Ok(Fetched { path, size, sha256 });
                }
                Err(error) => failure = Some(error),
            }
        }
        let error = failure.unwrap_or_else(|| Failure::new("no address is known").into());
        Err(error.context(format!("cannot fetch `{}`", wanted.name)))
    }

    /// `url` with the mirrors that apply; itself only if none does.
    fn mirrored(&self, url: &str) -> Vec<String> {
        let apply = |(from, to): &(String, String)| url.strip_prefix(from.as_str()).map(|rest| format!("{to}{rest}"));
        let mirrored: Vec<String> = self.options.mirrors.iter().filter_map(apply).collect();
        if mirrored.is_empty() { vec![url.to_owned()] } else { mirrored }
    }

    fn fetch_from(
        &self,
        url: &str,
        wanted: &Wanted,
        partial: &mut Partial,
        progress: &Progress,
    ) -> anyhow::Result<(Digest, u64)> {
        let schedule = || {
            let pause = self.options.pause;
            ExponentialBuilder::default()
                .with_min_delay(pause)
                .with_max_delay(pause * 50)
                .with_max_times(self.options.retries)
                .with_jitter()
                .build()
        };
        let mut pauses = schedule();
        let mut furthest = 0;
        loop {
            let result = match url.strip_prefix("file://") {
                Some(path) => copy_file(Path::new(path), wanted, partial, progress),
                None => self
                    .client()
                    .map_err(Trouble::Lasting)
                    .and_then(|client| download(&client, url, wanted, partial, progress)),
            };
            let error = match result {
                Ok(done) => return Ok(done),
                Err(Trouble::Lasting(error)) => {
                    // Nothing of what a liar sent is kept.
                    partial.clear()?;
                    return Err(error);
                }
                Err(Trouble::Passing(error)) => error,
            };
            let reached = partial.file.metadata()?.len();
            if reached > furthest {
                furthest = reached;
                pauses = schedule();
            }
            let Some(pause) = pauses.next() else { return Err(error.context(Unreachable)) };
            self.output.warning(&format!("`{}`: {error:#}; trying again", wanted.name));
            std::thread::sleep(pause);
        }
    }

    /// The HTTP client, made when it is first needed: `--offline` and `file:` need no TLS.
    fn client(&self) -> anyhow::Result<Client> {
        let mut slot = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*slot {
            return Ok(client.clone());
        }
        // An error means that one is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .user_agent(concat!("sealift-builder/", env!("CARGO_PKG_VERSION")))
            .timeout(self.options.stall)
            .connect_timeout(self.options.stall)
            .referer(false)
            .redirect(reqwest::redirect::Policy::custom(|attempt| {
                let was_https = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
                if attempt.previous().len() > 10 {
                    attempt.error("more than 10 redirects")
                } else if was_https && attempt.url().scheme() != "https" {
                    attempt.error("a redirect leads from https to plain http")
                } else {
                    attempt.follow()
                }
            }));
        if let Some(path) = &self.options.ca_file {
            let certificates = reqwest::Certificate::from_pem_bundle(&fs_err::read(path)?)
                .map_err(|_| Failure::usage(format!("`{}` holds no PEM certificates", path.display())))?;
            builder = builder.tls_certs_merge(certificates);
        }
        let client = builder.build().with_context(|| {
            Failure::new("cannot prepare TLS").hint("install ca-certificates, or give `--ca-file FILE`")
        })?;
        *slot = Some(client.clone());
        Ok(client)
    }
}

fn check_size(wanted: &Wanted, size: u64) -> anyhow::Result<()> {
    match wanted.size {
        Some(expected) if expected != size => {
            Err(Failure::new(format!("`{}` has {size} bytes, the lock says {expected}", wanted.name)).into())
        }
        _ => Ok(()),
    }
}

fn copy_file(path: &Path, wanted: &Wanted, partial: &mut Partial, progress: &Progress) -> Attempt<(Digest, u64)> {
    let file = fs_err::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(lasting(format!("`{}` is not a file", path.display())));
    }
    partial.clear()?;
    receive(file, 0, wanted.size, wanted, partial, progress).map_err(|trouble| match trouble {
        Trouble::Passing(error) | Trouble::Lasting(error) => Trouble::Lasting(error),
    })
}

/// One request; what has arrived before is resumed if that is safe.
fn download(
    client: &Client,
    url: &str,
    wanted: &Wanted,
    partial: &mut Partial,
    progress: &Progress,
) -> Attempt<(Digest, u64)> {
    let mut offset = partial.file.metadata()?.len();
    let note = partial.note();
    let place = place(url);
    let validator = note.as_deref().and_then(|note| note.strip_prefix(&place)?.strip_prefix('\n'));
    let cap = wanted.cap();
    // Without a digest only the server's validator proves that both parts belong together.
    if offset > 0 && (offset >= cap || (wanted.sha256.is_none() && validator.is_none())) {
        partial.clear()?;
        offset = 0;
    }
    let mut request = client.get(url).header(header::ACCEPT_ENCODING, "identity");
    if offset > 0 {
        request = request.header(header::RANGE, format!("bytes={offset}-"));
        if let Some(validator) = validator {
            request = request.header(header::IF_RANGE, validator);
        }
    }
    let response = request.send().map_err(|error| {
        let redirect = error.is_redirect() || error.is_builder();
        let error = anyhow::Error::new(error.without_url()).context(format!("asking for `{}` failed", shown(url)));
        if redirect { Trouble::Lasting(error) } else { Trouble::Passing(error) }
    })?;
    let (offset, total) = accept(&response, url, offset, wanted, cap, partial)?;
    receive(response, offset, wanted.size.or(total), wanted, partial, progress)
}

/// Checks the answer's head; returns where its body begins, and how large it says the whole is.
fn accept(
    response: &Response,
    url: &str,
    offset: u64,
    wanted: &Wanted,
    cap: u64,
    partial: &mut Partial,
) -> Attempt<(u64, Option<u64>)> {
    let status = response.status();
    let headers = response.headers();
    if headers.get(header::CONTENT_ENCODING).is_some_and(|value| value != "identity") {
        return Err(lasting(format!(
            "`{}` answered with an encoded body: its bytes would not be the artifact's",
            shown(url)
        )));
    }
    match status {
        StatusCode::OK => {
            partial.clear()?;
            if let Some(length) = content_length(headers)
                && (length > cap || wanted.size.is_some_and(|size| size != length))
            {
                return Err(lasting(format!("`{}` offers {length} bytes, expected {}", shown(url), expected(wanted))));
            }
            partial.set_note(validator(headers).map(|validator| format!("{}\n{validator}", place(url))).as_deref())?;
            Ok((0, content_length(headers)))
        }
        StatusCode::PARTIAL_CONTENT if offset > 0 => {
            let range = headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
            let fitting = range.and_then(content_range).and_then(|(first, last, total)| {
                // To the end of the whole, whose size is known to us or else said by the server.
                let size = wanted.size.or(total)?;
                let whole = last.checked_add(1) == Some(size) && total.is_none_or(|total| total == size);
                let length =
                    content_length(headers).is_none_or(|length| last.checked_sub(first).map(|n| n + 1) == Some(length));
                (first == offset && last < cap && whole && length).then_some(size)
            });
            if let Some(size) = fitting {
                return Ok((offset, Some(size)));
            }
            partial.clear()?;
            Err(passing(format!(
                "`{}` answered with the wrong range ({}) for bytes from {offset}",
                shown(url),
                range.unwrap_or("none")
            )))
        }
        StatusCode::PARTIAL_CONTENT => {
            Err(lasting(format!("`{}` answered with a part, the whole was asked for", shown(url))))
        }
        StatusCode::RANGE_NOT_SATISFIABLE if offset > 0 => {
            partial.clear()?;
            Err(passing(format!("`{}` cannot continue at byte {offset}", shown(url))))
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Err(passing(format!("`{}` answered {status}", shown(url))))
        }
        status if status.is_server_error() => Err(passing(format!("`{}` answered {status}", shown(url)))),
        status => Err(lasting(format!("`{}` answered {status}", shown(url)))),
    }
}

/// Takes the body from `offset` on; at the end the whole file must be right and, if that is known, `total` bytes long.
fn receive(
    mut body: impl Read,
    offset: u64,
    total: Option<u64>,
    wanted: &Wanted,
    partial: &mut Partial,
    progress: &Progress,
) -> Attempt<(Digest, u64)> {
    let mut hash = Hashing::new(std::io::sink());
    partial.file.rewind()?;
    std::io::copy(&mut (&mut partial.file).take(offset), &mut hash)?;
    partial.file.set_len(offset)?;
    partial.file.seek(SeekFrom::Start(offset))?;
    let cap = wanted.cap();
    let mut buffer = vec![0; 128 << 10];
    loop {
        progress.set(hash.count());
        let read = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let text = format!("the download was cut after {} of {} bytes", hash.count(), expected(wanted));
                return Err(Trouble::Passing(anyhow::Error::new(error).context(text)));
            }
        };
        if hash.count() + read as u64 > cap {
            return Err(lasting(format!("more arrives than the expected {} bytes", expected(wanted))));
        }
        partial.file.write_all(&buffer[..read])?;
        hash.write_all(&buffer[..read])?;
    }
    let (_, digest, size) = hash.finish();
    if let Some(expected) = total
        && size < expected
    {
        return Err(passing(format!("the download ended after {size} of {expected} bytes")));
    }
    if let Some(expected) = total
        && size > expected
    {
        return Err(lasting(format!("{size} bytes arrived, {expected} were announced")));
    }
    match wanted.sha256 {
        Some(expected) if expected != digest => {
            partial.clear()?;
            let text = format!("wrong content: expected {expected}, got {digest} ({size} bytes)");
            // What was resumed may have been spoilt by its first part: the whole deserves another attempt.
            Err(if offset > 0 { passing(text) } else { lasting(text) })
        }
        _ => Ok((digest, size)),
    }
}

fn expected(wanted: &Wanted) -> String {
    wanted.size.map_or_else(|| format!("at most {}", wanted.limit), |size| size.to_string())
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What stands for a URL on disk: enough to know it again, and nothing of a password in it.
fn place(url: &str) -> String {
    Digest::of(url.as_bytes()).hex()
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

/// A URL without user and password, for messages.
pub fn shown(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}
