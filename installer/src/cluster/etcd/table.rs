//! The members as a table, for `installer status`.

use std::net::IpAddr;

use serde::Serialize;

use super::answers::Health;
use super::change::{anyone, configured};
use super::door::{Door, PEER_PORT, listening, peer_url};
use super::members::Members;
use crate::host::Host;
use crate::pki::files;

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Node name; empty for one that has never started and is not in the config.
    pub name: String,
    /// Its id, hexadecimal; empty when etcd could not be asked.
    pub id: String,
    /// Where other members reach it.
    pub peer_url: String,
    /// Whether it has no vote yet.
    pub learner: bool,
    /// Whether it takes proposals; a learner takes none and is healthy when it follows the leader.
    pub healthy: bool,
    /// Whether it leads.
    pub leader: bool,
    /// Why it is not healthy.
    pub error: String,
}

/// All members, as any of them lists them; those of the config when none answers. Empty where this host has no certificate
/// for etcd.
pub fn table(host: &Host) -> Vec<Row> {
    let certificates = ["etcd/admin", "apiserver-etcd-client"];
    if !certificates.iter().any(|stem| host.exists(&files::certificate_path(stem)).unwrap_or(false)) {
        return Vec::new();
    }
    let configured = configured(host).unwrap_or_default();
    match anyone(host) {
        Ok((door, members)) => listed(host, &door, &members, &configured),
        Err(_) => silent(host, &configured),
    }
}

fn listed(host: &Host, door: &Door<'_>, members: &Members, configured: &[(String, IpAddr)]) -> Vec<Row> {
    let leader = door.status().ok().and_then(|status| status.leader);
    let voters: Vec<String> = members.voters().filter_map(|member| member.client_urls.first().cloned()).collect();
    let health = door.health_of(&voters).unwrap_or_default();
    let named = |url: &str| configured.iter().find(|(_, address)| peer_url(*address) == url).map(|(name, _)| name);
    let rows = members.0.iter().map(|member| {
        let peer_url = member.peer_urls.join(",");
        let error = match member.client_urls.first() {
            None => "it has never started".to_owned(),
            Some(url) if member.learner => follows(host, url),
            Some(url) => unhealthy(&health, url),
        };
        let name =
            if member.name.is_empty() { named(&peer_url).cloned().unwrap_or_default() } else { member.name.clone() };
        Row {
            name,
            id: member.hex(),
            peer_url,
            learner: member.learner,
            healthy: error.is_empty(),
            leader: leader == Some(member.id),
            error,
        }
    });
    rows.collect()
}

/// A learner serves nothing but its status.
fn follows(host: &Host, url: &str) -> String {
    match Door::at(host, url.to_owned()).and_then(|door| door.status()) {
        Ok(status) if status.leader.is_some() => String::new(),
        Ok(_) => "it has no leader".to_owned(),
        Err(error) => format!("{error:#}"),
    }
}

fn unhealthy(health: &[Health], url: &str) -> String {
    match health.iter().find(|found| found.endpoint == url) {
        Some(found) if found.health => String::new(),
        Some(found) => found.error.clone(),
        None => "it did not answer".to_owned(),
    }
}

fn silent(host: &Host, configured: &[(String, IpAddr)]) -> Vec<Row> {
    let addresses: Vec<IpAddr> = configured.iter().map(|(_, address)| *address).collect();
    let running = listening(host, &addresses, PEER_PORT);
    let rows = configured.iter().zip(running).map(|((name, address), running)| Row {
        name: name.clone(),
        id: String::new(),
        peer_url: peer_url(*address),
        learner: false,
        healthy: false,
        leader: false,
        error: if running { "runs, but has no leader" } else { "does not answer" }.to_owned(),
    });
    rows.collect()
}
