//! What this host itself can tell: its certificates, etcd where it has a client certificate, its copy of the record.

use super::Question;
use super::table::Table;
use crate::cluster::{Record, etcd};
use crate::kubeapi::Client;
use crate::pki::status;

/// Every certificate of this host; those that have ended or end soon by name.
pub(super) fn certificates(question: &Question<'_>, table: &mut Table) {
    const SUBJECT: &str = "certificates of this host";
    let found = match status::certificates(question.host) {
        Ok(found) if found.is_empty() => return table.failed(SUBJECT, "none"),
        Ok(found) => found,
        Err(error) => return table.failed(SUBJECT, format!("{error:#}")),
    };
    let now = question.host.now();
    let mut first = None;
    for expiry in &found {
        let subject = format!("certificate {}", expiry.path.display());
        match expiry.not_after {
            None => table.failed(subject, &expiry.subject),
            Some(end) if end <= now => table.failed(subject, format!("ended on {end}")),
            Some(end) => {
                // The list begins with the one that ends first.
                first.get_or_insert((end, expiry));
                if expiry.due(now) {
                    table.warning(subject, format!("ends on {end}: run `installer refresh`"));
                }
            }
        }
    }
    if let Some((end, expiry)) = first {
        table.good(SUBJECT, format!("{}, the first ends on {end}: {}", found.len(), expiry.path.display()));
    }
}

/// Every member of etcd, on hosts that may ask.
pub(super) fn etcd(question: &Question<'_>, table: &mut Table) {
    let rows = etcd::table(question.host);
    if rows.is_empty() {
        return table.unchecked("etcd", "this host has no client certificate for it");
    }
    for row in rows {
        let subject = format!("etcd member {}", if row.name.is_empty() { &row.peer_url } else { &row.name });
        if row.healthy {
            table.good(subject, if row.learner { "learner" } else { "healthy" });
        } else {
            table.failed(subject, row.error);
        }
    }
}

/// The cluster's record, and whether the agent's copy follows it.
pub(super) fn record(client: &Client<'_>, cached: Option<&Record>, table: &mut Table) -> Option<Record> {
    const SUBJECT: &str = "record of the cluster";
    match Record::read(client) {
        Ok(Some(record)) => {
            let generation = record.generation;
            match cached.map(|cached| cached.generation) {
                Some(copy) if copy == generation => table.good(SUBJECT, format!("generation {generation}")),
                Some(copy) => table.warning(
                    SUBJECT,
                    format!("generation {generation}, but {copy} on this host: its agent follows within 10 s"),
                ),
                None => table.warning(SUBJECT, format!("generation {generation}, but this host has no copy of it yet")),
            }
            Some(record)
        }
        Ok(None) => {
            table.failed(SUBJECT, "the cluster has none");
            None
        }
        Err(error) => {
            table.failed(SUBJECT, format!("{error:#}"));
            None
        }
    }
}
