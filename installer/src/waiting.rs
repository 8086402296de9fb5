//! What a run on this host waits for, since when, or why it failed in the background: for `status`, across runs and reboots.
//!
//! Best effort: an installation does not end because this cannot be written.

use std::path::Path;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::host::Host;

/// Where it is.
pub const PATH: &str = "/var/lib/sealift/waiting.json";

/// What the pending run of this host is at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The step.
    pub step: String,
    /// What another host has to do first; or the error, when it failed.
    pub reason: String,
    /// Since when this step waits.
    pub since: Timestamp,
    /// Whether the last attempt ended with an error instead of waiting.
    #[serde(default)]
    pub failed: bool,
}

impl Waiting {
    /// What is on record.
    pub fn read(host: &Host) -> Result<Option<Self>> {
        let Some(text) = host.read_text(Path::new(PATH))? else { return Ok(None) };
        serde_json::from_str(&text).with_context(|| format!("reading `{PATH}`")).map(Some)
    }
}

/// Puts on record that a step waits. The time stays while it is the same step.
pub fn record(host: &Host, step: &str, reason: &str) {
    write(host, step, reason, false);
}

/// Puts on record that the run in the background failed; the step it last waited in is kept.
pub fn failed(host: &Host, error: &str) {
    let step = Waiting::read(host).ok().flatten().map(|found| found.step).unwrap_or_default();
    write(host, &step, error, true);
}

fn write(host: &Host, step: &str, reason: &str, failed: bool) {
    let found = Waiting::read(host).ok().flatten();
    let since = found.as_ref().filter(|found| found.step == step).map_or(host.now(), |found| found.since);
    let waiting = Waiting { step: step.to_owned(), reason: reason.to_owned(), since, failed };
    if found.as_ref() == Some(&waiting) {
        return;
    }
    if let Ok(text) = serde_json::to_string_pretty(&waiting) {
        let _ = host
            .create_dir(Path::new("/var/lib/sealift"), 0o755)
            .and_then(|()| host.write(Path::new(PATH), (text + "\n").as_bytes(), 0o600));
    }
}

/// This step waits no longer.
pub fn over(host: &Host, step: &str) {
    if Waiting::read(host).is_ok_and(|found| found.is_some_and(|found| found.step == step)) {
        clear(host);
    }
}

/// Nothing waits any more.
pub fn clear(host: &Host) {
    if host.exists(Path::new(PATH)).unwrap_or(false) {
        let _ = host.remove(Path::new(PATH));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_time_is_that_of_the_first_look() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::under(directory.path());
        let start = host.now();
        record(&host, "join", "no answer");
        host.pause(Duration::from_secs(60));
        record(&host, "join", "no tokens yet");
        let found = Waiting::read(&host).unwrap().unwrap();
        assert_eq!((found.since, found.reason.as_str(), found.failed), (start, "no tokens yet", false));
        failed(&host, "the token was revoked");
        let found = Waiting::read(&host).unwrap().unwrap();
        assert_eq!((found.since, found.step.as_str(), found.failed), (start, "join", true));
        over(&host, "etcd");
        assert!(Waiting::read(&host).unwrap().is_some());
        record(&host, "kubelet", "an API server");
        assert_eq!(Waiting::read(&host).unwrap().unwrap().since, host.now());
        over(&host, "kubelet");
        assert_eq!(Waiting::read(&host).unwrap(), None);
    }
}
