//! Whether this host's member works, and whom it waits for.

use std::net::IpAddr;

use anyhow::Result;

use super::situation::{away, peers};
use crate::cluster::etcd::{CLIENT_PORT, Door, Status, listening, named, quorum};
use crate::context::Context;
use crate::steps::service::Readiness;

/// What this host's member says of itself; `None` while it serves nobody.
pub(super) fn own_status(context: &Context<'_>) -> Option<Status> {
    let here: IpAddr = std::net::Ipv4Addr::LOCALHOST.into();
    if listening(context.host, &[here], CLIENT_PORT) != [true] {
        return None;
    }
    Door::own(context.host).ok()?.status().ok()
}

/// A member is ready when it can commit a proposal, so this needs the majority too. While that is away, others have to act.
pub(super) fn probe(context: &Context<'_>) -> Result<Readiness> {
    let status = own_status(context);
    if status.as_ref().is_some_and(|status| status.learner) {
        return Ok(Readiness::Waiting("this member is a learner that has no vote yet".to_owned()));
    }
    let reason = match status {
        Some(_) => match Door::own(context.host)?.healthy()? {
            Ok(()) => return Ok(Readiness::Ready),
            Err(reason) => reason,
        },
        None => "it does not serve clients yet".to_owned(),
    };
    let peers = peers(context);
    let away = away(context, &peers);
    let (members, there) = (peers.len() + 1, peers.len() + 1 - away.len());
    if there < quorum(members) {
        let needed = quorum(members);
        return Ok(Readiness::Waiting(format!(
            "etcd needs {needed} of its {members} members; no etcd runs on {}",
            named(&away)
        )));
    }
    Ok(Readiness::NotYet(reason))
}
