//! The API servers, each by its own address, and this host's way to them; what their clocks say.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Result;
use jiff::Timestamp;

use super::Question;
use super::dial::for_all;
use super::table::{State, Table};
use crate::kubeapi::Client;
use crate::steps::api::{APISERVER_PORT, PROXY_PORT};

/// The local proxy over all API servers.
pub(super) const PROXY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PROXY_PORT);
/// Seconds of difference between two clocks that a person should know of: etcd warns from one second on, and `Date` is
/// rounded to whole seconds.
const SKEW_WARNING: f64 = 2.0;
/// Seconds from which certificates and tokens that were just made are not valid yet somewhere.
const SKEW_FAILED: f64 = 60.0;

/// Asks every API server and the proxy whether they are ready, and compares clocks.
pub(super) fn servers(question: &Question<'_>, table: &mut Table) {
    let mut targets: Vec<(String, SocketAddr)> = question
        .config
        .masters()
        .map(|master| (format!("API server {} ({})", master.name, master.address), master.address))
        .map(|(subject, address)| (subject, SocketAddr::new(address, APISERVER_PORT)))
        .collect();
    if question.node.is_some() {
        targets.push((format!("API through {PROXY}"), PROXY));
    }
    let results = for_all(&targets, |(_, address)| ready(question, *address));
    for ((subject, _), result) in targets.iter().zip(results) {
        match result {
            Ok(skew) => clock(table, subject, "ready", skew),
            Err(error) => table.failed(subject, format!("{error:#}")),
        }
    }
}

/// The difference of its clock to ours, seconds, if it told the time.
fn ready(question: &Question<'_>, address: SocketAddr) -> Result<Option<f64>> {
    let client = Client::new(address, question.authority()?, question.as_node()?)?.with_limits(question.limits());
    let before = question.host.now();
    let answer = client.ask("/readyz")?;
    let after = question.host.now();
    anyhow::ensure!(answer.code == 200, "not ready: {} {}", answer.code, first_trouble(&answer.body));
    Ok(answer.time.map(|theirs| skew(before, after, theirs)))
}

/// The checks that failed, of an apiserver's answer to `/readyz`: lines such as `[-]etcd failed: reason withheld`.
fn first_trouble(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let bad: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("[-]")).take(5).collect();
    bad.join("; ")
}

/// How far a clock is ahead of ours, seconds. It told whole seconds, so half of one is added; it spoke some time between
/// our question and its answer.
pub(super) fn skew(before: Timestamp, after: Timestamp, theirs: Timestamp) -> f64 {
    let seconds = |time: Timestamp| time.as_duration().as_secs_f64();
    seconds(theirs) + 0.5 - f64::midpoint(seconds(before), seconds(after))
}

/// A row for something that works, if its clock does too.
pub(super) fn clock(table: &mut Table, subject: &str, detail: &str, skew: Option<f64>) {
    let Some(skew) = skew else { return table.good(subject, detail) };
    let detail = format!("{detail}, clock {skew:+.1} s");
    match judge(skew) {
        State::Failed => table.failed(subject, format!("{detail}: set the clocks of both hosts")),
        State::Warning => table.warning(subject, format!("{detail}: synchronise the clocks")),
        State::Good | State::Unchecked => table.good(subject, detail),
    }
}

fn judge(skew: f64) -> State {
    match skew.abs() {
        far if far > SKEW_FAILED => State::Failed,
        near if near > SKEW_WARNING => State::Warning,
        _ => State::Good,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_compared_within_what_a_date_header_can_say() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let ours = (at("2026-11-21T12:00:00.2Z"), at("2026-11-21T12:00:00.4Z"));
        for (theirs, state) in [
            ("2026-11-21T12:00:00Z", State::Good),
            ("2026-11-21T11:59:59Z", State::Good),
            ("2026-11-21T12:00:07Z", State::Warning),
            ("2026-11-21T11:59:50Z", State::Warning),
            ("2026-11-21T12:02:00Z", State::Failed),
            ("2026-11-21T11:50:00Z", State::Failed),
        ] {
            assert_eq!(judge(skew(ours.0, ours.1, at(theirs))), state, "{theirs}");
        }
    }

    #[test]
    fn what_is_not_ready_is_named() {
        // As kube-apiserver 1.20.2 answers without etcd.
        let body =
            b"[+]ping ok\n[+]log ok\n[-]etcd failed: reason withheld\n[+]poststarthook/rbac ok\nreadyz check failed\n";
        assert_eq!(first_trouble(body), "etcd failed: reason withheld");
    }
}
