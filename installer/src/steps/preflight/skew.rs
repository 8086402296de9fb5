//! How far this host's clock is from the cluster's that it is part of, or will be: what an API server says in its `Date`.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;

use super::finding::Finding;
use crate::checks::CheckName;
use crate::context::Context;
use crate::host::Host;
use crate::kubeapi::{Client, Credentials, Distrust, Error, Limits};
use crate::pki::AuthorityName;
use crate::pki::files::certificate_path;
use crate::steps::api::APISERVER_PORT;

/// How long a master gets to accept a connection, and to answer.
const PATIENCE: Duration = Duration::from_secs(1);
const LIMITS: Limits = Limits { connect: PATIENCE, total: Duration::from_secs(3), body: 64 << 10 };
/// Seconds of which a person should know: etcd warns from one on, and `Date` is rounded to whole seconds.
const NOTABLE: f64 = 2.0;
/// Seconds from which leases and tokens that were just made are not valid for others.
const TOO_FAR: f64 = 60.0;

/// What another master says of the time.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Said {
    /// Seconds that its clock is ahead of ours.
    Ahead(f64),
    /// Its certificate is not valid at our time, so one of the two clocks is wrong, or it was never renewed.
    OutOfTime,
}

/// Compares with the first other master that tells the time; nothing where none answers, or there is no cluster yet.
pub(super) fn look(context: &Context<'_>) -> Option<Finding> {
    let authority = authority(context)?;
    let others = context.config.masters().filter(|master| master.name != context.node.name);
    let addresses: Vec<SocketAddr> = others.map(|master| SocketAddr::new(master.address, APISERVER_PORT)).collect();
    let answering = context.host.listening(&addresses, PATIENCE);
    let answering = addresses.into_iter().zip(answering).filter(|(_, answers)| *answers).map(|(address, _)| address);
    let said: Vec<_> =
        answering.take(3).filter_map(|address| Some((address, ask(context.host, address, &authority)?))).collect();
    let tells = said.iter().find(|(_, said)| matches!(said, Said::Ahead(_)));
    let (address, said) = tells.or(said.first())?;
    Some(judge(*address, *said, context.join.is_some()))
}

/// The certificate that API servers are known by: this host's, or the one in its join file.
fn authority(context: &Context<'_>) -> Option<String> {
    let path = certificate_path(AuthorityName::Cluster.stem());
    let given = context.join.and_then(|join| join.files.get(&path.display().to_string()));
    match given {
        Some(text) => Some(text.expose().to_owned()),
        None => context.host.read_text(&path).ok().flatten(),
    }
}

/// `None` when it does not answer, or as somebody else.
fn ask(host: &Host, address: SocketAddr, authority: &str) -> Option<Said> {
    let client = Client::new(address, authority, Credentials::Anonymous).ok()?.with_limits(LIMITS);
    let before = host.now();
    let answer = match client.ask("/readyz") {
        Err(Error::Distrusted(_, Distrust::Time, _)) => return Some(Said::OutOfTime),
        answer => answer.ok()?,
    };
    let seconds = |time: Timestamp| time.as_duration().as_secs_f64();
    // It told whole seconds, so half of one is added; it spoke some time between question and answer.
    let ahead = seconds(answer.time?) + 0.5 - f64::midpoint(seconds(before), seconds(host.now()));
    Some(Said::Ahead(ahead))
}

fn judge(address: SocketAddr, said: Said, joins: bool) -> Finding {
    let (name, subject) = (CheckName::ClockSkew, "clock of the cluster");
    let ip = address.ip();
    let Said::Ahead(ahead) = said else {
        let found = format!("the certificate of {ip} is not valid at this host's time");
        let advice = "compare `date` on both hosts and set the clock that is wrong; where both are right, run the \
                      installer again on that master: it renews its certificates";
        // A host that has joined can go on without that master.
        return if joins {
            Finding::refused(name, subject, found, "one that is: nothing it says is believed before", advice)
        } else {
            Finding::limit(name, subject, found, "this host does not believe what that master says", advice)
        };
    };
    let found =
        format!("{ip} is {:.1} s {}", ahead.abs(), if ahead < 0.0 { "behind this host" } else { "ahead of this host" });
    let advice = "let a time service run on both hosts, with the same servers";
    if ahead.abs() > TOO_FAR {
        let needed = format!("less than {TOO_FAR:.0} s: certificates, tokens and leases depend on it");
        return Finding::refused(name, subject, found, needed, advice);
    }
    if ahead.abs() > NOTABLE {
        return Finding::limit(name, subject, found, "etcd and leases want clocks that are the same", advice);
    }
    Finding::good(name, subject, format!("that of {ip}, within {NOTABLE:.0} s"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubeapi::fake::Server;
    use crate::steps::preflight::Verdict;
    use crate::steps::tests::Bed;

    #[test]
    fn clocks_that_differ_are_told() {
        let address: SocketAddr = "192.0.2.10:6443".parse().unwrap();
        for (ahead, verdict, found) in [
            (0.4, Verdict::Good, "that of 192.0.2.10, within 2 s"),
            (-1.9, Verdict::Good, "that of 192.0.2.10, within 2 s"),
            (7.0, Verdict::Limit, "192.0.2.10 is 7.0 s ahead of this host"),
            (-59.0, Verdict::Limit, "192.0.2.10 is 59.0 s behind this host"),
            (-3600.0, Verdict::Refused, "192.0.2.10 is 3600.0 s behind this host"),
        ] {
            let finding = judge(address, Said::Ahead(ahead), true);
            assert_eq!((finding.verdict, finding.found.as_str()), (verdict, found));
        }
    }

    #[test]
    fn a_certificate_out_of_its_time_is_a_clock_that_is_wrong() {
        let address: SocketAddr = "192.0.2.10:6443".parse().unwrap();
        for (joins, verdict) in [(true, Verdict::Refused), (false, Verdict::Limit)] {
            let finding = judge(address, Said::OutOfTime, joins);
            assert_eq!(finding.verdict, verdict);
            assert_eq!(finding.found, "the certificate of 192.0.2.10 is not valid at this host's time");
        }
    }

    #[test]
    fn a_real_answer_is_told_from_a_certificate_that_is_not_valid() {
        let bed = Bed::new();
        for (hours, valid) in [(0, true), (-3, false), (48, false)] {
            let issued = Timestamp::now() + jiff::SignedDuration::from_hours(hours);
            let server = Server::certified(issued);
            let said = ask(&bed.host, server.address(), &server.authority());
            match said {
                Some(Said::Ahead(_)) => assert!(valid, "{hours}"),
                said => assert!(!valid && said == Some(Said::OutOfTime), "{hours}: {said:?}"),
            }
        }
    }

    #[test]
    fn a_host_without_a_cluster_asks_nobody() {
        assert_eq!(look(&Bed::new().context()), None);
    }
}
