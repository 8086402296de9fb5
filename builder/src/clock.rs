//! The clock, for one question: whether a signed index has expired. No byte that the builder writes depends on it.

use jiff::Timestamp;

/// Now, as a Release writes dates: `Sat, 07 Jun 2025 09:43:01 UTC`.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn release_date() -> anyhow::Result<String> {
    let now = Timestamp::try_from(std::time::SystemTime::now())?;
    Ok(now.strftime("%a, %d %b %Y %H:%M:%S UTC").to_string())
}
