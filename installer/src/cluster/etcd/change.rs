//! Changes of the membership that commands ask for. Every one is a no-op when it is so already, so it can be repeated.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use super::answers::Outcome;
use super::door::{Door, peer_url, reach};
use super::members::{Member, Members, quorum};
use crate::agent::RECORD;
use crate::cluster::Record;
use crate::config::ClusterConfig;
use crate::context::ETC;
use crate::host::Host;
use crate::pki::{Inspection, files};
use crate::report::Explain as _;

/// How long a change may be refused for reasons that pass: members count as connected after five seconds.
const SETTLE: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_secs(1);

/// Takes a node's member out of etcd. Refused when etcd would lose its majority or its only spare member, unless `force`;
/// the last member is never taken out.
pub fn remove_member(host: &Host, name: &str, force: bool) -> Result<()> {
    let (door, members) = anyone(host)?;
    let Some(leaving) = find(host, &members, name)? else { return Ok(()) };
    let healthy = healthy_ids(&door, &members)?;
    if let Some(problem) = loss(&members, &healthy, leaving) {
        let last = members.voters().count() == 1;
        if last || !force {
            let hint = if last { "the last member holds all data" } else { "add a member first, or say `--force`" };
            return Err(anyhow!("taking `{name}` out of etcd {problem}")).hint(hint);
        }
    }
    settle(host, &format!("etcd to let go of member `{name}`"), || door.remove(&leaving.hex()))
}

/// Takes a dead node's member out of etcd, so that a new host of that name can join. Refused while the member works.
pub fn replace_member(host: &Host, name: &str) -> Result<()> {
    let (door, members) = anyone(host)?;
    let Some(dead) = find(host, &members, name)? else { return Ok(()) };
    if healthy_ids(&door, &members)?.contains(&dead.id) {
        return Err(anyhow!("etcd member `{name}` works: there is nothing to replace"))
            .hint("switch its host off first, or take it out in order with `installer node remove`");
    }
    settle(host, &format!("etcd to let go of member `{name}`"), || door.remove(&dead.hex()))
}

/// Tells etcd where a node's member is reached from now on. A node without a member is left alone.
pub fn update_address(host: &Host, name: &str, new: IpAddr) -> Result<()> {
    let (door, members) = anyone(host)?;
    let Some(moved) = find(host, &members, name)? else { return Ok(()) };
    let url = peer_url(new);
    match members.at(&url) {
        Some(there) if there.id == moved.id => Ok(()),
        Some(there) => bail!("etcd member `{}` is already at `{url}`", there.describe()),
        None => settle(host, &format!("etcd to know the new address of `{name}`"), || {
            door.update_peer_url(&moved.hex(), &url)
        }),
    }
}

/// How a host left etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The others go on without it.
    Out,
    /// It was no member, or not any more.
    NoMember,
    /// It is the only member: its data ends with it.
    Last,
}

/// Takes this host's member out of etcd through another member. An error when others are configured and none answers.
/// A member of this host's name at an address that is not among its `addresses` is another host, which took its place.
pub fn leave(host: &Host, addresses: &[IpAddr]) -> Result<Left> {
    let Some(name) = own_name(host)? else { return Ok(Left::NoMember) };
    let configured = configured(host)?;
    let others: Vec<IpAddr> =
        configured.iter().filter(|(other, _)| *other != name).map(|(_, address)| *address).collect();
    let Some((door, members)) = reach(host, &others) else {
        let alone = Door::own(host)?.members().is_ok_and(|members| members.0.len() == 1);
        if others.is_empty() || alone {
            return Ok(Left::Last);
        }
        return Err(anyhow!("`{name}` cannot leave etcd: no other member answers"))
            .hint("bring another member up, or say `--force` and run `installer node replace` on a master later");
    };
    let Some(own) = find(host, &members, &name)? else { return Ok(Left::NoMember) };
    if own.address().is_none_or(|address| !addresses.contains(&address)) {
        return Ok(Left::NoMember);
    }
    settle(host, "etcd to let go of this host's member", || door.remove(&own.hex()))?;
    Ok(Left::Out)
}

/// The name of the member on this host: its server certificate is made out to it.
fn own_name(host: &Host) -> Result<Option<String>> {
    let Some(text) = host.read_text(&files::certificate_path("etcd/server"))? else { return Ok(None) };
    Ok(Some(Inspection::of_pem(&text)?.common_name))
}

/// The members of the config, as this host last heard of it: name and address.
pub(super) fn configured(host: &Host) -> Result<Vec<(String, IpAddr)>> {
    let seed = Path::new(ETC).join("cluster.toml");
    let text = match Record::cached(host, Path::new(RECORD))? {
        Some(record) => Some(record.text().to_owned()),
        None => host.read_text(&seed)?,
    };
    let Some(text) = text else { return Ok(Vec::new()) };
    let config = ClusterConfig::parse(&text, &seed)?;
    Ok(config.etcd_members().iter().map(|node| (node.name.clone(), node.address)).collect())
}

/// A member that answers: this host's own, else any other.
pub(super) fn anyone(host: &Host) -> Result<(Door<'_>, Members)> {
    let mut addresses: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into()];
    addresses.extend(configured(host)?.iter().map(|(_, address)| *address));
    reach(host, &addresses).context("no etcd member that has a leader answers").hint(
        "start enough members for a majority; `installer status` shows them, `journalctl -u etcd` on their hosts why not",
    )
}

/// A member by its node's name; one that never started is found by the address in the config.
fn find<'a>(host: &Host, members: &'a Members, name: &str) -> Result<Option<&'a Member>> {
    let configured = configured(host)?;
    let url = configured.iter().find(|(node, _)| node == name).map(|(_, address)| peer_url(*address));
    Ok(members.find(name, url.as_deref()))
}

/// The members that take proposals.
fn healthy_ids(door: &Door<'_>, members: &Members) -> Result<BTreeSet<u64>> {
    let urls: Vec<String> = members.voters().filter_map(|member| member.client_urls.first().cloned()).collect();
    let healthy: BTreeSet<String> =
        door.health_of(&urls)?.into_iter().filter(|found| found.health).map(|found| found.endpoint).collect();
    let works = |member: &&Member| member.client_urls.iter().any(|url| healthy.contains(url));
    Ok(members.voters().filter(works).map(|member| member.id).collect())
}

/// What is lost when this member leaves; `None` when nothing is.
pub(super) fn loss(members: &Members, healthy: &BTreeSet<u64>, leaving: &Member) -> Option<String> {
    if leaving.learner {
        return None;
    }
    let voters = members.voters().count();
    let works = healthy.contains(&leaving.id);
    let left = healthy.len() - usize::from(works);
    let Some(needed) = (voters > 1).then(|| quorum(voters - 1)) else {
        return Some("would end it: it is the only member".to_owned());
    };
    if left < needed {
        return Some(format!("would stop it: {left} of {} members would work, {needed} must", voters - 1));
    }
    let spare_now = healthy.len().saturating_sub(quorum(voters));
    if works && left == needed && spare_now > 0 {
        return Some(format!("would leave no member to spare: all of the other {left} would have to work"));
    }
    None
}

fn settle(host: &Host, what: &str, mut change: impl FnMut() -> Result<Outcome>) -> Result<()> {
    host.wait_for(what, SETTLE, AGAIN, || {
        Ok(match change()? {
            Outcome::Done => Ok(()),
            Outcome::NotNow(reason) => Err(reason),
        })
    })
}
