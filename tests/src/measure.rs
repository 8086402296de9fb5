//! Time and memory of programs, and how figures are written.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::process::Process;

/// What a program took.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// Wall time.
    pub time: Duration,
    /// Peak resident memory of the largest process, KiB.
    pub peak_kib: u64,
}

/// Runs a program under GNU time, `wrap` giving the process in whose arguments it ends.
pub fn taken(report: &Path, wrap: impl FnOnce(&[String]) -> Process) -> Result<Taken> {
    let time =
        ["/usr/bin/time", "--quiet", "--format=%M", "--output", &report.display().to_string()].map(str::to_owned);
    let start = Instant::now();
    wrap(&time).run()?;
    let elapsed = start.elapsed();
    let text = fs_err::read_to_string(report)?;
    let peak_kib = text.trim().parse().with_context(|| format!("reading `{}`, which is not KiB", text.trim()))?;
    Ok(Taken { time: elapsed, peak_kib })
}

/// The quickest of three runs.
pub fn best(mut run: impl FnMut() -> Result<Taken>) -> Result<Taken> {
    let mut best = run()?;
    for _ in 0..2 {
        let next = run()?;
        best = Taken { time: best.time.min(next.time), peak_kib: best.peak_kib.max(next.peak_kib) };
    }
    Ok(best)
}

/// `12.3 MB/s` (10^6 bytes).
#[allow(clippy::cast_precision_loss, reason = "figures for a person")]
pub fn rate(bytes: u64, time: Duration) -> String {
    format!("{:.0} MB/s", bytes as f64 / 1e6 / time.as_secs_f64())
}

/// `1.23 s`.
pub fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// `12.3 MB` (10^6 bytes).
#[allow(clippy::cast_precision_loss, reason = "figures for a person")]
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// `12.3 MiB` out of KiB.
#[allow(clippy::cast_precision_loss, reason = "figures for a person")]
pub fn mebibytes(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}

/// How many times as long the first took: `1.25 x`.
pub fn ratio(first: Duration, second: Duration) -> String {
    format!("{:.2} x", first.as_secs_f64() / second.as_secs_f64())
}
