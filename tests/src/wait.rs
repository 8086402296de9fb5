//! Waiting on a condition with a deadline.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks every 100 ms until `probe` answers `Ok`; after `limit` the last reason becomes the error.
pub fn until<T>(what: &str, limit: Duration, probe: impl FnMut() -> Result<T>) -> Result<T> {
    every(Duration::from_millis(100), what, limit, probe)
}

/// Asks every two seconds: for a machine that is slow, and slower for each question.
pub fn patiently<T>(what: &str, limit: Duration, probe: impl FnMut() -> Result<T>) -> Result<T> {
    every(Duration::from_secs(2), what, limit, probe)
}

fn every<T>(pause: Duration, what: &str, limit: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(reason) if start.elapsed() > limit => bail!("waited {limit:?} for {what}: {reason:#}"),
            Err(_) => std::thread::sleep(pause),
        }
    }
}
