//! When a server is asked again: pauses that double, with jitter. What a server itself wishes is kept by [`super::hosts`].

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{self, HeaderMap};

/// A server that wants a longer pause is not waited for.
pub(super) const LONGEST_WISH: Duration = Duration::from_secs(120);

/// The pauses between attempts that make no progress.
#[derive(Debug)]
pub(super) struct Patience {
    schedule: ExponentialBuilder,
    pauses: ExponentialBackoff,
}

impl Patience {
    /// `retries` pauses, the first at least `pause` long, the longest 50 times that.
    pub(super) fn new(pause: Duration, retries: usize) -> Self {
        let schedule = ExponentialBuilder::default()
            .with_min_delay(pause)
            .with_max_delay(pause * 50)
            .with_max_times(retries)
            .with_jitter();
        Self { schedule, pauses: schedule.build() }
    }

    /// There was progress: count anew.
    pub(super) fn renew(&mut self) {
        self.pauses = self.schedule.build();
    }

    /// The next pause; `None`: enough, or the server wishes a longer one than anybody waits for.
    pub(super) fn next(&mut self, wish: Option<Duration>) -> Option<Duration> {
        let wish = wish.unwrap_or_default();
        self.pauses.next().filter(|_| wish <= LONGEST_WISH)
    }
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds, or a date, which is read by the server's own clock.
pub(super) fn wish(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let after = text(header::RETRY_AFTER)?.trim();
    if let Ok(seconds) = after.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text| DateTimeParser::new().parse_timestamp(text).ok();
    let (then, now) = (date(after)?, date(text(header::DATE)?)?);
    Some(then.duration_since(now).try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish_of(after: &'static str, date: &'static str) -> Option<Duration> {
        let pairs = [(header::RETRY_AFTER, after.parse().unwrap()), (header::DATE, date.parse().unwrap())];
        wish(&pairs.into_iter().collect())
    }

    #[test]
    fn a_wish_is_seconds_or_a_date() {
        let now = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(wish_of("7", now), Some(Duration::from_secs(7)));
        assert_eq!(wish_of("Sun, 06 Nov 1994 08:50:07 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(wish_of("Sun, 06 Nov 1994 08:40:07 GMT", now), Some(Duration::ZERO));
        for nonsense in ["", "-1", "soon"] {
            assert_eq!(wish_of(nonsense, now), None, "{nonsense}");
        }
        assert_eq!(wish(&HeaderMap::new()), None);
    }

    #[test]
    fn pauses_grow_and_end() {
        let pause = Duration::from_millis(100);
        let mut patience = Patience::new(pause, 3);
        let pauses: Vec<_> = std::iter::from_fn(|| patience.next(None)).collect();
        assert_eq!(pauses.len(), 3);
        // Doubled each time, and with jitter of up to one minimum more.
        for (pause, least) in pauses.iter().zip([100, 200, 400]) {
            assert!((least..=2 * least).contains(&pause.as_millis()), "{pauses:?}");
        }
        patience.renew();
        assert!(patience.next(Some(LONGEST_WISH)).is_some());
        assert_eq!(patience.next(Some(LONGEST_WISH * 2)), None);
    }
}
