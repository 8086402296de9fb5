//! Asking every master whether it is ready, all at once, each with a short deadline.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::backends::Probe;
use super::credentials;
use crate::host::Host;
use crate::kubeapi::{Client, Credentials, Error, Limits};

const LIMITS: Limits = Limits { connect: Duration::from_secs(1), total: Duration::from_millis(1500), body: 64 << 10 };

/// Probes the masters at the same time: one that does not answer must not delay the news about the others.
pub(super) fn all(masters: &[SocketAddr], authority: &str, host: &Host) -> BTreeMap<SocketAddr, Probe> {
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            masters.iter().map(|address| (*address, scope.spawn(move || one(*address, authority, host)))).collect();
        threads.into_iter().map(|(address, thread)| (address, thread.join().unwrap_or(Probe::Unknown))).collect()
    })
}

/// As the node; without a certificate that can be used (none yet, a damaged one) as nobody, which still shows who lives.
fn one(address: SocketAddr, authority: &str, host: &Host) -> Probe {
    let ask = |credentials| {
        Client::new(address, authority, credentials).and_then(|client| client.with_limits(LIMITS).healthy("/readyz"))
    };
    judge(&match ask(credentials(host)) {
        Err(Error::Credentials(_)) => ask(Credentials::Anonymous),
        answer => answer,
    })
}

/// 401 and 403 come from a living apiserver that does not know us (our certificate has expired, say): no reason to send
/// nobody there, and the only way to hear that it is back.
pub(super) fn judge(answer: &Result<(), Error>) -> Probe {
    match answer {
        Ok(()) => Probe::Ready,
        Err(Error::Credentials(_)) => Probe::Unknown,
        Err(error) if matches!(error.code(), Some(401 | 403)) => Probe::Ready,
        Err(_) => Probe::Failed,
    }
}
