//! Transfers on their way: a bar each and one for all on a terminal, a line every few seconds in a pipe.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{Output, Style, bytes, rate};

/// Between two lines in a pipe.
const INTERVAL: Duration = Duration::from_secs(5);

/// One running transfer.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
    /// Bytes that were there from an earlier run.
    resumed: AtomicU64,
    at: AtomicU64,
    tally: Option<Arc<Tally>>,
}

/// Several transfers together.
#[derive(Debug)]
pub struct Tally {
    output: Output,
    verb: &'static str,
    count: usize,
    total: u64,
    done: AtomicUsize,
    bytes: AtomicU64,
    bar: ProgressBar,
    spoken: Mutex<(Instant, u64)>,
}

impl Output {
    /// A bar over `total` bytes (0 = unknown).
    pub fn progress(&self, name: &str, total: u64) -> Progress {
        // Of a URL the last part tells most.
        let bar = self.bar(name.rsplit('/').find(|part| !part.is_empty()).unwrap_or(name), total);
        let (resumed, at) = (AtomicU64::new(0), AtomicU64::new(0));
        Progress { bar, started: Instant::now(), resumed, at, tally: None }
    }

    /// A bar over `count` transfers of `total` bytes together; in a pipe a line every few seconds.
    pub fn tally(&self, verb: &'static str, count: usize, total: u64) -> Arc<Tally> {
        let bar = match count {
            0 | 1 => ProgressBar::hidden(),
            _ => self.bar(&format!("{verb} 0/{count}"), total),
        };
        let spoken = Mutex::new((Instant::now(), 0));
        let (done, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
        Arc::new(Tally { output: self.clone(), verb, count, total, done, bytes, bar, spoken })
    }

    fn bar(&self, name: &str, total: u64) -> ProgressBar {
        let template = if total > 0 {
            "{prefix:>24!} {bar:30} {bytes:>10}/{total_bytes:<10} {bytes_per_sec:>12} {eta:>4}"
        } else {
            "{prefix:>24!} {spinner} {bytes:>10} {bytes_per_sec:>12}"
        };
        let bar = self.bars.add(ProgressBar::new(total));
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(super::visible(name).into_owned());
        bar
    }
}

impl Progress {
    /// Counts in `tally`, too.
    #[must_use]
    pub fn within(mut self, tally: Option<&Arc<Tally>>) -> Self {
        self.tally = tally.cloned();
        self
    }

    /// Bytes done so far.
    pub fn set(&self, bytes: u64) {
        self.bar.set_position(bytes);
        let before = self.at.swap(bytes, Ordering::Relaxed);
        if let Some(tally) = &self.tally {
            tally.moved(before, bytes);
        }
    }

    /// So many bytes are there from before: they are no part of the rate.
    pub fn resume(&self, bytes: u64) {
        self.resumed.store(bytes, Ordering::Relaxed);
        self.bar.reset_elapsed();
        self.set(bytes);
    }

    /// More bytes are done.
    pub fn add(&self, bytes: u64) {
        self.set(self.at.load(Ordering::Relaxed) + bytes);
    }

    /// Removes the bar; returns the time since it appeared.
    pub fn done(self) -> Duration {
        self.started.elapsed()
    }

    /// Removes the bar; returns what was transferred and how fast: `6.1 MiB, 12.3 MB/s`.
    pub fn summary(self) -> String {
        let at = self.at.load(Ordering::Relaxed);
        let fresh = at.saturating_sub(self.resumed.load(Ordering::Relaxed));
        if let Some(tally) = &self.tally {
            tally.finished(0);
        }
        format!("{}, {}", bytes(at), rate(fresh, self.started.elapsed()))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Tally {
    /// One more is done; `bytes` of it were not counted yet.
    pub fn finished(&self, bytes: u64) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        self.bar.set_prefix(format!("{} {done}/{}", self.verb, self.count));
        self.moved(0, bytes);
    }

    /// One of them has moved.
    fn moved(&self, before: u64, after: u64) {
        // Wraps around and back where a download starts again.
        let step = after.wrapping_sub(before);
        let bytes = self.bytes.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
        self.bar.set_position(bytes);
        self.speak(bytes, INTERVAL);
    }

    fn speak(&self, now: u64, interval: Duration) {
        if self.output.style == Style::Bars || self.output.style == Style::Nothing {
            return;
        }
        let mut spoken = self.spoken.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, before) = *spoken;
        if last.elapsed() < interval {
            return;
        }
        *spoken = (Instant::now(), now);
        let text = self.line(now, rate(now.saturating_sub(before), last.elapsed()).as_str());
        if self.output.style == Style::Json {
            let done = self.done.load(Ordering::Relaxed);
            let event = json!({ "event": self.verb, "what": text, "done": done, "of": self.count, "bytes": now, "total": self.total });
            self.output.stdout(&event.to_string());
        } else {
            self.output.event(self.verb, &text);
        }
    }

    /// `3 of 12, 120 MiB of 1.2 GiB, 34.1 MB/s`.
    fn line(&self, now: u64, rate: &str) -> String {
        let of = if self.total > 0 { format!(" of {}", bytes(self.total)) } else { String::new() };
        format!("{} of {}, {}{of}, {rate}", self.done.load(Ordering::Relaxed), self.count, bytes(now))
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_counts_all_its_transfers_and_those_that_start_again() {
        let output = Output::silent();
        let tally = output.tally("fetching", 3, 4 << 20);
        tally.finished(1 << 20);
        let (one, two) = (output.progress("one", 1 << 20), output.progress("two", 0));
        let (one, two) = (one.within(Some(&tally)), two.within(Some(&tally)));
        one.resume(1 << 19);
        two.set(1 << 19);
        one.set(0);
        one.set(1 << 20);
        assert!(one.summary().starts_with("1.00 MiB, "));
        let now = tally.bytes.load(Ordering::Relaxed);
        assert_eq!(tally.line(now, "1 MB/s"), "2 of 3, 2.50 MiB of 4.00 MiB, 1 MB/s");
    }
}
