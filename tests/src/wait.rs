//! Waiting on a condition with a deadline.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks every 100 ms until `probe` answers `Ok`; after `limit` the last reason becomes the error.
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(reason) if start.elapsed() > limit => bail!("waited {limit:?} for {what}: {reason:#}"),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
