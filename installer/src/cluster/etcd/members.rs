//! The list of members, and how many of them have to work.

use std::net::{IpAddr, SocketAddr};

/// One member as the cluster's list has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id; commands want it in hexadecimal, see [`Member::hex`].
    pub id: u64,
    /// Its name; empty until it has started once.
    pub name: String,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has started once.
    pub client_urls: Vec<String>,
    /// It receives everything and has no vote yet.
    pub learner: bool,
}

impl Member {
    /// The id as commands want it.
    pub fn hex(&self) -> String {
        format!("{:x}", self.id)
    }

    /// Whether it has ever started: only then the list knows its client URLs.
    pub fn started(&self) -> bool {
        !self.client_urls.is_empty()
    }

    /// For people: its name, or where it is expected.
    pub fn describe(&self) -> String {
        if self.name.is_empty() { self.peer_urls.join(",") } else { self.name.clone() }
    }

    /// Whether other members reach it at this address.
    pub fn at_address(&self, address: IpAddr) -> bool {
        self.peer_urls.iter().any(|url| host_of(url) == Some(address))
    }

    /// The address in its first peer URL.
    pub fn address(&self) -> Option<IpAddr> {
        self.peer_urls.iter().find_map(|url| host_of(url))
    }
}

/// The numeric address in `https://ADDRESS:PORT`.
pub(super) fn host_of(url: &str) -> Option<IpAddr> {
    let authority = url.split_once("://")?.1;
    authority.parse::<SocketAddr>().ok().map(|address| address.ip())
}

/// All members of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Members(pub Vec<Member>);

impl Members {
    /// The member that is at this peer URL.
    pub fn at(&self, peer_url: &str) -> Option<&Member> {
        self.0.iter().find(|member| member.peer_urls.iter().any(|url| url == peer_url))
    }

    /// The member of this name. One that has never started has none: it is known by its peer URL.
    pub fn find(&self, name: &str, peer_url: Option<&str>) -> Option<&Member> {
        let named = self.0.iter().find(|member| member.name == name);
        let unnamed = || peer_url.and_then(|url| self.at(url)).filter(|member| member.name.is_empty());
        named.or_else(unnamed)
    }

    /// Those that vote.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.0.iter().filter(|member| !member.learner)
    }

    /// Those that do not vote yet.
    pub fn learners(&self) -> impl Iterator<Item = &Member> {
        self.0.iter().filter(|member| member.learner)
    }
}

/// How many of `voters` members have to work.
pub fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// Names for a sentence: `m1`, `m1 and m2`, `m1, m2 and m3`.
pub fn named<S: AsRef<str>>(names: &[S]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    match names.split_last() {
        None => "nobody".to_owned(),
        Some((last, [])) => (*last).to_owned(),
        Some((last, first)) => format!("{} and {last}", first.join(", ")),
    }
}
