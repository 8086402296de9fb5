//! The other masters, by the certificates they show: two clusters may have been founded from one config, each with an
//! authority of its own, and both believe themselves alone.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::api::APISERVER_PORT;
use crate::config::ClusterConfig;
use crate::host::Host;
use crate::kubeapi::{Client, Credentials, Distrust, Error, Limits};
use crate::pki::files::certificate_path;

/// Only a handshake; who does not answer is no stranger.
const LIMITS: Limits = Limits { connect: Duration::from_secs(1), total: Duration::from_secs(3), body: 0 };

/// A master of the config that another authority has signed for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stranger {
    /// Node name.
    pub name: String,
    /// Where it answers.
    pub address: SocketAddr,
}

/// The masters of a config that answer with a certificate of another authority than this host's.
pub fn strangers(host: &Host, config: &ClusterConfig) -> Result<Vec<Stranger>> {
    let masters: Vec<Stranger> = config
        .masters()
        .map(|master| Stranger { name: master.name.clone(), address: SocketAddr::new(master.address, APISERVER_PORT) })
        .collect();
    among(host, &masters)
}

fn among(host: &Host, masters: &[Stranger]) -> Result<Vec<Stranger>> {
    let Some(authority) = host.read_text(&certificate_path("ca"))? else { return Ok(Vec::new()) };
    let is_strange = |address: SocketAddr| {
        let client = Client::new(address, &authority, Credentials::Anonymous);
        let shaken = client.and_then(|client| client.with_limits(LIMITS).handshake());
        matches!(shaken, Err(Error::Distrusted(_, Distrust::Authority, _)))
    };
    Ok(std::thread::scope(|scope| {
        let is_strange = &is_strange;
        let asked: Vec<_> =
            masters.iter().map(|master| (master, scope.spawn(move || is_strange(master.address)))).collect();
        let strange =
            asked.into_iter().filter_map(|(master, thread)| thread.join().is_ok_and(|it| it).then_some(master));
        strange.cloned().collect()
    }))
}

/// For people: `m2 (192.0.2.2)`.
pub fn named(strangers: &[Stranger]) -> String {
    let names: Vec<String> =
        strangers.iter().map(|stranger| format!("{} ({})", stranger.name, stranger.address.ip())).collect();
    names.join(", ")
}

/// What a person can do about it.
pub const HINT: &str = "two clusters were founded from one config; on the host whose cluster is to be given up run \
    `installer reset`, then install it with a join file that a master of the other one makes (`installer join-file`)";

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::kubeapi::tests::{Server, authority, leaf};
    use crate::pki::Usage;

    #[test]
    fn only_who_shows_another_authority_is_a_stranger() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::under(directory.path());
        let (ours, theirs) = (authority(), authority());
        let pair = |authority: &crate::pki::Authority| {
            authority.issue(&leaf(Usage::Server, "127.0.0.1"), Timestamp::now()).unwrap()
        };
        let friend = Server::start(&ours, &pair(&ours), vec![String::new()]);
        let stranger = Server::start(&theirs, &pair(&theirs), vec![String::new()]);
        let master = |name: &str, address: SocketAddr| Stranger { name: name.to_owned(), address };
        let masters = [
            master("m1", friend.address),
            master("m2", stranger.address),
            master("m3", "127.0.0.9:1".parse().unwrap()),
        ];
        assert_eq!(among(&host, &masters).unwrap(), []);
        host.write(&certificate_path("ca"), ours.pair().certificate.as_bytes(), 0o644).unwrap();
        let found = among(&host, &masters).unwrap();
        assert_eq!(found, [masters[1].clone()]);
        assert_eq!(named(&found), "m2 (127.0.0.1)");
        friend.stop();
        stranger.stop();
    }
}
