//! Whether a server still sends: one that only trickles would hold a download up for ever, as every byte ends a wait.

use std::io::{Error, ErrorKind, Read, Result};
use std::time::{Duration, Instant};

/// Fewer bytes in a second, on average over one window, are as good as none.
const SLOWEST: u64 = 1 << 10;

/// A body that must go on arriving: else reading fails with [`ErrorKind::TimedOut`].
#[derive(Debug)]
pub(super) struct Paced<R> {
    body: R,
    pace: Pace,
}

impl<R> Paced<R> {
    /// Looks at the pace every `window`.
    pub(super) fn new(body: R, window: Duration) -> Self {
        Self { body, pace: Pace { window, began: Instant::now(), bytes: 0 } }
    }
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = self.body.read(buffer)?;
        // The end is the end, however late.
        if read > 0 && !self.pace.keeps_up(read as u64, Instant::now()) {
            return Err(Error::new(ErrorKind::TimedOut, "less than 1 KiB/s arrives"));
        }
        Ok(read)
    }
}

#[derive(Debug)]
struct Pace {
    window: Duration,
    began: Instant,
    bytes: u64,
}

impl Pace {
    /// Counts `bytes` that arrived `now`; whether that is still fast enough.
    fn keeps_up(&mut self, bytes: u64, now: Instant) -> bool {
        self.bytes += bytes;
        let passed = now.saturating_duration_since(self.began);
        if passed < self.window {
            return true;
        }
        let enough = is_enough(self.bytes, passed);
        (self.began, self.bytes) = (now, 0);
        enough
    }
}

/// Whether so many bytes in that time are progress.
pub(super) fn is_enough(bytes: u64, passed: Duration) -> bool {
    u128::from(bytes) * 1000 >= u128::from(SLOWEST) * passed.as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_is_noticed_after_one_window_and_a_slow_line_is_not() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let at = |seconds: u32| start + second * seconds;
        let pace = || Pace { window: second * 10, began: start, bytes: 0 };
        let mut trickle = pace();
        assert!((1..10).all(|now| trickle.keeps_up(1, at(now))), "within the window nothing is said");
        assert!(!trickle.keeps_up(1, at(10)));
        let mut slow = pace();
        assert!((1..100).all(|now| slow.keeps_up(1024, at(now))));
        // What was fast before does not excuse a trickle now.
        let mut late = pace();
        assert!(late.keeps_up(100 << 20, at(10)));
        assert!(late.keeps_up(1023, at(19)) && !late.keeps_up(1, at(20)));
    }
}
