//! What this host is to etcd, and so what it has to do.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Result, anyhow};

use super::FOUNDED;
use super::environment;
use crate::cluster::etcd::{Door, Member, Members, PEER_PORT, listening, named, peer_url, reach};
use crate::context::Context;
use crate::report::Explain as _;
use crate::steps::file::WantedFile;

/// What this host is to etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Situation {
    /// Its data is here: etcd knows whom it belongs to.
    Member,
    /// A founder at the beginning: with this file.
    Found(WantedFile),
    /// Listed by the others and never started: with this file.
    Join(WantedFile),
    /// To be added as a learner.
    Add,
    /// A learner of this id that lost its data before it had a vote: nothing is lost with it.
    AddAgain(String),
    /// Others have to act first.
    Waiting(String),
}

/// Finds out; asks other members only while this host has no data. An error refuses.
pub(super) fn of(context: &Context<'_>) -> Result<Situation> {
    if has_data(context)? {
        return Ok(Situation::Member);
    }
    let url = peer_url(context.node.address);
    match others(context) {
        Some((_, members)) => match members.at(&url) {
            None => Ok(room(context, &members)),
            Some(own) if !own.started() => Ok(Situation::Join(environment::joining(context, &members)?)),
            Some(own) if own.learner => Ok(Situation::AddAgain(own.hex())),
            Some(own) => Err(lost(context, own)),
        },
        None => alone(context),
    }
}

/// Whether etcd has written anything here that it would go on from. It writes its log first.
pub(super) fn has_data(context: &Context<'_>) -> Result<bool> {
    let etcd = &context.config.etcd;
    let member = etcd.data_dir.join("member");
    let log = etcd.wal_dir.clone().unwrap_or_else(|| member.join("wal"));
    let is_log = |name: &String| Path::new(name).extension().is_some_and(|extension| extension == "wal");
    let logged = context.host.list(&log)?.iter().any(is_log);
    let stored = context.host.exists(&member)?;
    if logged == stored || !context.host.exists(FOUNDED.as_ref())? {
        return Ok(logged);
    }
    let missing = if logged { member } else { log };
    Err(anyhow!("etcd has worked on this host, but `{}` is gone", missing.display())).hint(format!(
        "mount or restore it; to begin again as a new member, remove what is left in `{}`",
        etcd.data_dir.display()
    ))
}

/// No other member that has a leader answers.
fn alone(context: &Context<'_>) -> Result<Situation> {
    if context.host.exists(FOUNDED.as_ref())? {
        let data = context.config.etcd.data_dir.join("member");
        let error = anyhow!("etcd has worked on this host, but its data `{}` is gone", data.display());
        return Err(error).hint(match names(&peers(context)).as_slice() {
            [] => format!(
                "mount or restore the data directory; to begin with an empty cluster and lose the old one, remove `{FOUNDED}`"
            ),
            others => format!(
                "mount or restore the data directory; or start {}, run `installer node replace {}` there and this again",
                named(others),
                context.node.name
            ),
        });
    }
    let founding = environment::founding(context.host)?;
    let Some(own) = founding.founders.iter().find(|founder| founder.name == context.node.name) else {
        return Ok(absent(context));
    };
    // The file says who founded the cluster once; when that was one host and there are others now, this is that host, made
    // anew. Only the host itself knows that it has not begun yet.
    if founding.founders.len() == 1 && !founding.made_here && !peers(context).is_empty() {
        return Ok(absent(context));
    }
    if own.address != context.node.address {
        let error = anyhow!(
            "the cluster's secrets were made for `{}` at {}, the config says {}",
            own.name,
            own.address,
            context.node.address
        );
        return Err(error).hint("make the secrets again with this config: `installer secrets create`");
    }
    Ok(Situation::Found(environment::founders(context.host, &founding)?))
}

fn absent(context: &Context<'_>) -> Situation {
    Situation::Waiting(format!("no etcd member that has a leader answers ({})", named(&names(&peers(context)))))
}

/// A member more: etcd takes one learner at a time, and none while a voter is away.
fn room(context: &Context<'_>, members: &Members) -> Situation {
    if let Some(learner) = members.learners().next() {
        let name = describe(context, learner);
        return Situation::Waiting(format!("{name} is joining etcd, which takes one new member at a time"));
    }
    let voters: Vec<(String, IpAddr)> =
        members.voters().filter_map(|voter| Some((describe(context, voter), voter.address()?))).collect();
    let away = away(context, &voters);
    if away.is_empty() {
        return Situation::Add;
    }
    Situation::Waiting(format!("etcd takes no new member while {} is away", named(&away)))
}

fn describe(context: &Context<'_>, member: &Member) -> String {
    let configured = context.config.etcd_members();
    let node = configured.iter().find(|node| member.at_address(node.address));
    node.map_or_else(|| member.describe(), |node| node.name.clone())
}

/// The names of those on whose hosts no etcd runs.
pub(super) fn away(context: &Context<'_>, members: &[(String, IpAddr)]) -> Vec<String> {
    let addresses: Vec<IpAddr> = members.iter().map(|(_, address)| *address).collect();
    let running = listening(context.host, &addresses, PEER_PORT);
    members.iter().zip(running).filter(|(_, running)| !running).map(|((name, _), _)| name.clone()).collect()
}

/// A voter without its data must not come back under the same identity: what it had agreed to is forgotten.
fn lost(context: &Context<'_>, own: &Member) -> anyhow::Error {
    let name = &context.node.name;
    let data = context.config.etcd.data_dir.display();
    anyhow!("this host's etcd member {} has worked before, but its data below `{data}` is gone", own.hex()).hint(format!(
        "mount or restore the data; or run `installer node replace {name}` on another master and this again: it then joins as \
         a new member"
    ))
}

/// Refuses a member that the others do not know any more: etcd itself only says so in its log, and ends.
pub(super) fn require_listed(context: &Context<'_>) -> Result<()> {
    let Some((_, members)) = others(context) else { return Ok(()) };
    let url = peer_url(context.node.address);
    if members.find(&context.node.name, None).is_some() || members.at(&url).is_some() {
        return Ok(());
    }
    Err(anyhow!("this host's member `{}` was taken out of etcd, and its data is still here", context.node.name))
        .hint("run `installer reset` here, then install it again with a new join file: it joins as a new member")
}

/// The other members of the config: name and address.
pub(super) fn peers(context: &Context<'_>) -> Vec<(String, IpAddr)> {
    let members = context.config.etcd_members().into_iter().filter(|member| member.name != context.node.name);
    members.map(|member| (member.name.clone(), member.address)).collect()
}

fn names(members: &[(String, IpAddr)]) -> Vec<String> {
    members.iter().map(|(name, _)| name.clone()).collect()
}

/// Another member that has a leader, with what it lists.
pub(super) fn others<'a>(context: &Context<'a>) -> Option<(Door<'a>, Members)> {
    let addresses: Vec<IpAddr> = peers(context).iter().map(|(_, address)| *address).collect();
    reach(context.host, &addresses)
}
