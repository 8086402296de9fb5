//! The network door: downloads into the cache, and small answers in memory.
//!
//! Servers are not trusted. A download ends under its final name only if its digests are the expected ones (or, for a first
//! use, if it arrived complete); lengths, ranges and encodings that contradict the request are refused; a cut download is
//! resumed and everything that lies on disk is hashed again. Memory does not depend on the size of what is downloaded.
//!
//! A file may have several addresses: its URLs in order, each replaced by the mirrors that fit it. The next one is asked
//! when one is not reached, has not got the file, or sends something else; who that was is said.

mod address;
mod authorization;
mod client;
mod download;
mod hosts;
mod options;
mod pace;
mod patience;
mod request;
mod trouble;
mod wanted;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bundle::Digest;
use reqwest::blocking::Client;

pub use self::address::{host, shown};
pub use self::authorization::{Authorization, Form, Login};
use self::download::Download;
use self::hosts::{Hosts, Slot};
pub use self::options::Options;
use self::patience::Patience;
pub use self::request::{Answer, Request};
pub use self::trouble::Unreachable;
use self::trouble::{Attempt, Trouble};
pub use self::wanted::{ARTIFACT_LIMIT, Fetched, Wanted};
use crate::cache::{Cache, Partial, Stored};
use crate::failure::Failure;
use crate::output::{Output, Progress, Tally};
use crate::parallel;
use crate::sha512::Sha512;

/// Hears of each file that is in the cache, from the thread that brought it; whether to go on is its answer.
pub type Arrived<'a> = dyn Fn(&Fetched) -> ControlFlow<()> + Sync + 'a;

/// The network door.
#[derive(Debug)]
pub struct Network {
    options: Options,
    client: Mutex<Option<Client>>,
    hosts: Hosts,
    output: Output,
}

impl Network {
    /// Opens the door; nothing is sent before the first download.
    pub fn new(options: Options, output: &Output) -> Self {
        let hosts = Hosts::new(options.per_host);
        Self { options, client: Mutex::default(), hosts, output: output.clone() }
    }

    /// Whether only the cache may be used.
    pub fn is_offline(&self) -> bool {
        self.options.offline
    }

    /// Downloads all, several at once; all are tried, the first error in order is returned.
    pub fn fetch_all(&self, cache: &Cache, wanted: &[Wanted]) -> anyhow::Result<Vec<Fetched>> {
        self.fetch_all_then(cache, wanted, &|_| ControlFlow::Continue(()))
    }

    /// The same; `arrived` hears of each file as soon as it is there, and may end it all: no further download is begun.
    pub fn fetch_all_then(
        &self,
        cache: &Cache,
        wanted: &[Wanted],
        arrived: &Arrived<'_>,
    ) -> anyhow::Result<Vec<Fetched>> {
        let mut fetched = Vec::with_capacity(wanted.len());
        let mut failed = None;
        for result in self.fetch_each_then(cache, wanted, arrived) {
            match result {
                Ok(file) => fetched.push(file),
                Err(error) if failed.is_none() => failed = Some(error),
                Err(error) => self.output.warning(&format!("{error:#}")),
            }
        }
        failed.map_or(Ok(fetched), Err)
    }

    /// Downloads all, several at once but not too many from one server; one result each, in order.
    pub fn fetch_each(&self, cache: &Cache, wanted: &[Wanted]) -> Vec<anyhow::Result<Fetched>> {
        self.fetch_each_then(cache, wanted, &|_| ControlFlow::Continue(()))
    }

    fn fetch_each_then(&self, cache: &Cache, wanted: &[Wanted], arrived: &Arrived<'_>) -> Vec<anyhow::Result<Fetched>> {
        let pending = Mutex::new(wanted.iter().enumerate().collect());
        let server = |(_, item): &(usize, &Wanted)| self.addresses(item).first().and_then(|url| address::server(url));
        let next = || {
            let ((at, item), slot) = self.hosts.next(&pending, server)?;
            Some((at, (item, slot)))
        };
        let total = crate::output::total(wanted.iter().filter_map(|item| item.size));
        let tally = self.output.tally("fetching", wanted.len(), total);
        let fetch = |(item, slot)| {
            let result = self.fetch_with(cache, item, slot, Some(&tally));
            if let Ok(file) = &result
                && arrived(file).is_break()
            {
                pending.lock().unwrap_or_else(PoisonError::into_inner).clear();
            }
            result
        };
        parallel::drain(self.options.downloads, wanted.len(), next, fetch)
    }

    /// The file from the cache, or downloaded into it.
    pub fn fetch(&self, cache: &Cache, wanted: &Wanted) -> anyhow::Result<Fetched> {
        self.fetch_with(cache, wanted, self.hosts.enter(None), None)
    }

    fn fetch_with(
        &self,
        cache: &Cache,
        wanted: &Wanted,
        slot: Slot<'_>,
        tally: Option<&Arc<Tally>>,
    ) -> anyhow::Result<Fetched> {
        let known = |found: Fetched| {
            if let Some(tally) = tally {
                tally.finished(found.size);
            }
            found
        };
        if let Some(found) = self.find(cache, wanted)? {
            return Ok(known(found));
        }
        if self.options.offline {
            let error = Failure::new(format!("`{}` is not in the cache", wanted.name));
            return Err(anyhow::Error::new(error.hint("run without `--offline` once")).context(Unreachable));
        }
        let mut slot = Some(slot);
        let mut partial = if let Some(partial) = cache.try_partial(&wanted.key())? {
            partial
        } else {
            // Who holds a slot never waits for a file: two builders could wait for each other.
            slot = None;
            self.output.event("waiting", &format!("for another download of {}", wanted.name));
            cache.partial(&wanted.key())?
        };
        // Another builder may have finished it while we waited for the lock.
        if let Some(found) = self.find(cache, wanted)? {
            partial.discard()?;
            return Ok(known(found));
        }
        if let Some(path) = wanted.sha256.map(|sha256| cache.path(&sha256)).filter(|path| path.exists()) {
            self.output.warning(&format!("{}; fetching it again", damaged(wanted, &path)));
        }
        let progress = self.output.progress(&wanted.name, wanted.size.unwrap_or(0)).within(tally);
        let (sha256, size) = self.fetch_anywhere(wanted, &mut partial, &progress, slot)?;
        partial.set_note(None)?;
        let path = cache.finish(&partial, &sha256)?;
        self.output.event("fetched", &format!("{} ({})", wanted.name, progress.summary()));
        Ok(Fetched { path, size, sha256 })
    }

    /// Where a file may be, in the order of asking: servers that were lost come last.
    fn addresses(&self, wanted: &Wanted) -> Vec<String> {
        let mut known = BTreeSet::new();
        let all = wanted.urls.iter().flat_map(|url| address::mirrored(url, &self.options.mirrors));
        let mut all: Vec<String> = all.filter(|url| known.insert(url.clone())).collect();
        all.sort_by_key(|url| address::server(url).is_some_and(|server| self.hosts.is_lost(&server)));
        all
    }

    /// Asks one address after the other. The error is that of the first that answered wrongly, else of the last.
    fn fetch_anywhere(
        &self,
        wanted: &Wanted,
        partial: &mut Partial,
        progress: &Progress,
        mut slot: Option<Slot<'_>>,
    ) -> anyhow::Result<(Digest, u64)> {
        let addresses = self.addresses(wanted);
        let mut failure: Option<anyhow::Error> = None;
        for (at, url) in addresses.iter().enumerate() {
            let server = address::server(url);
            // Given back before another is waited for.
            let mine = slot.take().filter(|slot| slot.server == server);
            let _slot = mine.unwrap_or_else(|| self.hosts.enter(server.clone()));
            let error = match self.fetch_from(&mut Download { url, wanted, partial, progress }) {
                Ok(done) => {
                    if let Some(server) = &server {
                        self.hosts.find(server);
                    }
                    return Ok(done);
                }
                Err(Trouble::Local(error)) => {
                    failure = Some(error);
                    break;
                }
                Err(Trouble::Passing(error, _)) => {
                    if let Some(server) = &server {
                        self.hosts.lose(server);
                    }
                    error.context(Unreachable)
                }
                Err(Trouble::Lasting(error)) => error,
            };
            let counts = failure.as_ref().is_none_or(anyhow::Error::is::<Unreachable>);
            if at + 1 < addresses.len() {
                self.output.warning(&format!("`{}`: {error:#}; trying the next address", wanted.name));
            } else if !counts {
                // It does not become the error, and may be the one that matters: content that nobody vouches for.
                self.output.warning(&format!("`{}`: {error:#}", wanted.name));
            }
            if counts {
                failure = Some(error);
            }
        }
        let error = failure.unwrap_or_else(|| Failure::new("no address is known").into());
        let tried =
            if addresses.len() > 1 { format!(" from any of {} addresses", addresses.len()) } else { String::new() };
        Err(error.context(format!("cannot fetch `{}`{tried}", wanted.name)))
    }

    /// Asks one address, again and again as long as that helps.
    fn fetch_from(&self, download: &mut Download<'_>) -> Attempt<(Digest, u64)> {
        let lost = address::server(download.url).is_some_and(|server| self.hosts.is_lost(&server));
        let mut patience = Patience::new(self.options.pause, if lost { 0 } else { self.options.retries });
        let mut furthest = 0;
        loop {
            let began = Instant::now();
            let (error, wish) = match download.attempt(self) {
                Ok(done) => return Ok(done),
                Err(Trouble::Passing(error, wish)) => (error, wish),
                Err(lasting) => return Err(lasting),
            };
            let reached = download.partial.file.metadata()?.len();
            if reached > furthest {
                // A trickle could go on for ever.
                if pace::is_enough(reached - furthest, began.elapsed()) {
                    patience.renew();
                }
                furthest = reached;
            }
            let Some(pause) = patience.next(wish) else { return Err(Trouble::Passing(error, wish)) };
            self.output.warning(&format!("`{}`: {error:#}; trying again", download.wanted.name));
            std::thread::sleep(pause);
        }
    }

    /// The file in the cache, if it is there. A damaged one is fetched again, or refused when that is not possible.
    fn find(&self, cache: &Cache, wanted: &Wanted) -> anyhow::Result<Option<Fetched>> {
        let Some(sha256) = wanted.sha256 else { return Ok(None) };
        let (path, size) = match cache.look(&sha256)? {
            Stored::Whole(path, size) => (path, size),
            // Replaced when the right one is there: another builder may be about to do that.
            Stored::Damaged(path) if self.options.offline || cache.is_read_only() => {
                let hint = "delete the file, and run without `--offline` on a cache that can be written";
                return Err(Failure::new(damaged(wanted, &path)).hint(hint).into());
            }
            Stored::Missing | Stored::Damaged(_) => return Ok(None),
        };
        if let Some(expected) = wanted.sha512 {
            let found = Sha512::of_file(&path)?;
            if found != expected {
                let text = format!("`{}` is sha512:{found} in the cache, expected sha512:{expected}", wanted.name);
                return Err(Failure::new(text)
                    .hint("its sha256 and its sha512 are not of the same file: one is wrong")
                    .into());
            }
        }
        match wanted.size {
            Some(expected) if expected != size => {
                Err(Failure::new(format!("`{}` has {size} bytes, the lock says {expected}", wanted.name)).into())
            }
            _ => Ok(Some(Fetched { path, size, sha256 })),
        }
    }
}

fn damaged(wanted: &Wanted, path: &Path) -> String {
    format!("`{}` is damaged in the cache: `{}`", wanted.name, path.display())
}
