//! What `etcdctl` prints, as values. Ids are decimal in JSON (unsigned, 64 bits) and hexadecimal in commands.

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::members::{Member, Members};

/// How a change of the membership ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is so now, or was before.
    Done,
    /// Not now, for this reason; later it may be possible.
    NotNow(String),
}

/// What a member says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its id.
    pub id: u64,
    /// The leader it follows; `None` while there is none.
    pub leader: Option<u64>,
    /// Whether it is a learner.
    pub learner: bool,
    /// Its version, `3.4.23`.
    pub version: String,
}

/// Whether the member behind a client URL takes proposals.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Health {
    /// The client URL.
    pub endpoint: String,
    /// Whether it answered in time.
    pub health: bool,
    /// Why not.
    #[serde(default)]
    pub error: String,
}

#[derive(Deserialize)]
struct List {
    members: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "ID")]
    id: u64,
    #[serde(default)]
    name: String,
    #[serde(default, rename = "peerURLs")]
    peer_urls: Vec<String>,
    #[serde(default, rename = "clientURLs")]
    client_urls: Vec<String>,
    #[serde(default, rename = "isLearner")]
    learner: bool,
}

/// Reads `member list --write-out=json`.
pub(super) fn members(text: &str) -> Result<Members> {
    let list: List = serde_json::from_str(text.trim()).context("reading the answer of `etcdctl member list`")?;
    let member = |listed: Listed| {
        let Listed { id, name, peer_urls, client_urls, learner } = listed;
        Member { id, name, peer_urls, client_urls, learner }
    };
    let mut members: Vec<Member> = list.members.into_iter().map(member).collect();
    members.sort_by(|one, other| (&one.name, &one.peer_urls).cmp(&(&other.name, &other.peer_urls)));
    Ok(Members(members))
}

#[derive(Deserialize)]
struct Reported {
    #[serde(rename = "Status")]
    status: ReportedStatus,
}

#[derive(Deserialize)]
struct ReportedStatus {
    header: Header,
    #[serde(default)]
    version: String,
    #[serde(default)]
    leader: u64,
    #[serde(default, rename = "isLearner")]
    learner: bool,
}

#[derive(Deserialize)]
struct Header {
    member_id: u64,
}

/// Reads `endpoint status --write-out=json` of one endpoint; one that did not answer is missing in it.
pub(super) fn status(text: &str) -> Result<Status> {
    let reported: Vec<Reported> =
        serde_json::from_str(text.trim()).context("reading the answer of `etcdctl endpoint status`")?;
    let ReportedStatus { header, version, leader, learner } =
        reported.into_iter().next().context("the member did not answer")?.status;
    Ok(Status { id: header.member_id, leader: (leader != 0).then_some(leader), learner, version })
}

/// Reads `endpoint health --write-out=json`.
pub(super) fn health(text: &str) -> Result<Vec<Health>> {
    serde_json::from_str(text.trim()).context("reading the answer of `etcdctl endpoint health`")
}

/// What `etcdctl` complains about: the last line without its `Error:`, or the `error` field of a logged line.
pub(super) fn complaint(tail: &str) -> String {
    let last = tail.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("etcdctl gave no reason");
    if let Some(error) = last.strip_prefix("Error: ").filter(|error| *error != "unhealthy cluster") {
        return error.to_owned();
    }
    let logged = tail.lines().rev().find_map(|line| {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        value.get("error")?.as_str().map(str::to_owned)
    });
    logged.unwrap_or_else(|| last.to_owned())
}

/// Complaints that go away by themselves, or when other members come back (etcd's `rpctypes`, and the client's own).
pub(super) fn passes(complaint: &str) -> bool {
    [
        "too many learner members",
        "not enough started members",
        "unhealthy cluster",
        "in sync with leader",
        "no leader",
        "leader changed",
        "request timed out",
        "context deadline exceeded",
        "connection refused",
        "transport is closing",
    ]
    .iter()
    .any(|passing| complaint.contains(passing))
}
