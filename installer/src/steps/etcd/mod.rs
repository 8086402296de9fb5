//! etcd on this host: stacked on a master, or dedicated.
//!
//! What is to be done follows from three things: whether this host has data, whether it is one of the founders, and what a
//! member that has a leader says of the membership ([`situation`]). A host that has data never does anything but start; a
//! founder bootstraps together with the others; everybody else becomes a learner first and gets its vote when it has caught
//! up. The marker says that the member has worked once: from then on an empty data directory is a loss, not a beginning.

mod environment;
mod readiness;
mod situation;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow};

use self::situation::Situation;
use super::file::{WantedFile, writing};
use super::service::{Readiness, Service, UnitText, nothing_before};
use super::unit::stamp_path;
use crate::cluster::etcd::{Door, Members, Outcome, peer_url};
use crate::context::Context;
use crate::pki::files;
use crate::report::{Exit, Explain as _};
use crate::step::{Change, Check, Step, Target};

/// Says that this host's member has worked once.
const FOUNDED: &str = "/etc/sealift/etcd-founded";
const UNIT: &str = "etcd.service";
/// How long a change of the membership may be refused for reasons that pass: a member counts as connected after five
/// seconds, and a learner of some gigabytes needs its time.
const SETTLE: Duration = Duration::from_secs(20);
const AGAIN: Duration = Duration::from_millis(500);

/// The step.
#[derive(Clone, Copy, Debug)]
pub struct Etcd;

impl Step for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn title(&self) -> &'static str {
        service().title
    }

    fn touches(&self, context: &Context<'_>) -> Result<Vec<Target>> {
        let mut touches = service().touches(context)?;
        touches.push(Target::File(environment::PATH.into()));
        touches.push(founded().target());
        Ok(touches)
    }

    fn check(&self, context: &Context<'_>) -> Result<Check> {
        if !context.config.runs_etcd(context.node) {
            return Ok(Check::Skipped("the cluster has dedicated etcd members".to_owned()));
        }
        // Asking other members takes programs and certificates; a plan on a bare host has neither.
        if !can_ask(context)? {
            let mut changes = vec![Change::new(format!("write {}", environment::PATH))];
            changes.extend(service().changes(context)?);
            return Ok(Check::Needed(changes));
        }
        let wanted = match situation::of(context)? {
            Situation::Member => return check_member(context),
            Situation::Waiting(reason) => return Ok(Check::Waiting(reason)),
            Situation::Found(wanted) | Situation::Join(wanted) => {
                // Started a moment ago with just this: its log is not there yet.
                if wanted.change(context.host)?.is_none() && service().changes(context)?.is_empty() {
                    return Ok(Check::Waiting("etcd has started and not written its log yet".to_owned()));
                }
                vec![writing(&wanted.path, &wanted.bytes)]
            }
            Situation::Add => vec![
                Change::new(format!("add member {} to etcd as a learner", context.node.name)),
                Change::new(format!("write {}", environment::PATH)),
            ],
            Situation::AddAgain(id) => vec![
                Change::new(format!("take the learner {id} without data out of etcd and add it again")),
                Change::new(format!("write {}", environment::PATH)),
            ],
        };
        let mut changes = wanted;
        changes.extend(service().changes(context)?);
        changes.extend(founded().change(context.host)?);
        Ok(Check::Needed(changes))
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        match situation::of(context)? {
            Situation::Member => announce(context)?,
            Situation::Waiting(reason) => return Err(anyhow!(reason)).exit(Exit::Waiting),
            Situation::Found(wanted) | Situation::Join(wanted) => begin(context, &wanted)?,
            Situation::Add => begin(context, &add(context)?)?,
            Situation::AddAgain(id) => {
                change(context, "let go of a learner without data", |door| door.remove(&id))?;
                begin(context, &add(context)?)?;
            }
        }
        service().start(context)?;
        await_log(context)?;
        announce(context)?;
        promote(context)?;
        if service().readiness(context) == Readiness::Ready {
            founded().write(context.host)?;
        }
        Ok(())
    }

    fn undo(&self, context: &Context<'_>) -> Result<()> {
        service().undo(context)
    }
}

/// What is left to do for a member that has its data.
fn check_member(context: &Context<'_>) -> Result<Check> {
    let mut changes = service().changes(context)?;
    if let Some((_, _, url)) = moved(context)? {
        changes.push(Change::new(format!("tell etcd's members that this one is at {url}")));
    }
    match readiness::own_status(context) {
        Some(status) if status.learner => {
            changes.push(Change::new(format!("give member {} its vote", context.node.name)));
        }
        Some(_) => {}
        None => situation::require_listed(context)?,
    }
    if !changes.is_empty() {
        changes.extend(founded().change(context.host)?);
        return Ok(Check::Needed(changes));
    }
    Ok(match service().check(context)? {
        Check::Done => founded().change(context.host)?.map_or(Check::Done, |marker| Check::Needed(vec![marker])),
        other => other,
    })
}

pub(super) fn service() -> Service {
    Service {
        name: "etcd",
        title: "Start etcd",
        unit: UNIT,
        text: UnitText::Component("etcd"),
        deadline: Duration::from_secs(180),
        probe: readiness::probe,
        before_start: private_directories,
        hint: "`journalctl -u etcd` says more; other members must reach this host on port 2380",
    }
}

fn founded() -> WantedFile {
    WantedFile::public(
        FOUNDED,
        "Sealift: etcd has worked on this host. While this file is here, it is never founded anew.\n",
    )
}

fn can_ask(context: &Context<'_>) -> Result<bool> {
    let certificate = context.host.exists(&files::certificate_path("etcd/admin"))?;
    Ok(certificate && context.host.exists(&context.program("etcd", "bin/etcdctl"))?)
}

/// Names the members for the first start. A unit that was started with others is started again.
fn begin(context: &Context<'_>, wanted: &WantedFile) -> Result<()> {
    if wanted.write(context.host)? {
        context.host.remove(&stamp_path(UNIT))?;
    }
    Ok(())
}

/// Waits until etcd has written what it goes on from: a unit that waits for others counts as started before that.
fn await_log(context: &Context<'_>) -> Result<()> {
    let written = context.host.wait_for("etcd to write its log", SETTLE, AGAIN, || {
        Ok(if situation::has_data(context)? { Ok(()) } else { Err("`journalctl -u etcd` says why".to_owned()) })
    });
    written.exit(Exit::Waiting)
}

/// Adds this host as a learner; gives the members to start with.
fn add(context: &Context<'_>) -> Result<WantedFile> {
    let (name, url) = (&context.node.name, peer_url(context.node.address));
    change(context, "take this host as a learner", |door| door.add_learner(name, &url))?;
    let members = situation::others(context).map(|(_, members)| members).unwrap_or_default();
    if members.at(&url).is_none() {
        return Err(anyhow!("etcd does not list this host at `{url}` yet")).exit(Exit::Waiting);
    }
    environment::joining(context, &members)
}

/// A change through another member; what it refuses for a reason that passes is waited for.
fn change(context: &Context<'_>, what: &str, make: impl Fn(&Door<'_>) -> Result<Outcome>) -> Result<()> {
    let what = format!("etcd to {what}");
    let mut refused = false;
    let waited = context.host.wait_for(&what, SETTLE, AGAIN, || {
        refused = false;
        let Some((door, _)) = situation::others(context) else {
            refused = true;
            return Ok(Err("no other member answers".to_owned()));
        };
        Ok(match make(&door)? {
            Outcome::Done => Ok(()),
            Outcome::NotNow(reason) => {
                refused = true;
                Err(reason)
            }
        })
    });
    if refused { waited.exit(Exit::Waiting) } else { waited }
}

/// This member, when the list has it at another address than the config: a door to tell it, its id, the wanted URL.
fn moved<'a>(context: &Context<'a>) -> Result<Option<(Door<'a>, String, String)>> {
    let url = peer_url(context.node.address);
    let Some((door, members)) = anyone(context)? else { return Ok(None) };
    let own = members.0.iter().find(|member| member.name == context.node.name);
    Ok(own.filter(|own| !own.peer_urls.contains(&url)).map(|own| (door, own.hex(), url)))
}

/// This host's member when it follows a leader, else another one that answers.
fn anyone<'a>(context: &Context<'a>) -> Result<Option<(Door<'a>, Members)>> {
    let works = readiness::own_status(context).is_some_and(|status| !status.learner && status.leader.is_some());
    if works {
        let own = Door::own(context.host)?;
        if let Ok(members) = own.members() {
            return Ok(Some((own, members)));
        }
    }
    Ok(situation::others(context))
}

/// Tells the members this host's address where it has changed: before the start through another member; the only member
/// learns it after its start.
fn announce(context: &Context<'_>) -> Result<()> {
    let Some((door, id, url)) = moved(context)? else { return Ok(()) };
    match door.update_peer_url(&id, &url)? {
        Outcome::Done => Ok(()),
        Outcome::NotNow(reason) => {
            Err(anyhow!("etcd does not take this member's new address yet: {reason}")).exit(Exit::Waiting)
        }
    }
}

/// Gives this member its vote, when it is a learner that has caught up.
fn promote(context: &Context<'_>) -> Result<()> {
    let Some(status) = readiness::own_status(context).filter(|status| status.learner) else { return Ok(()) };
    change(context, "give this member its vote", |door| door.promote(&format!("{:x}", status.id)))?;
    context.host.wait_for("etcd to work with this member's vote", SETTLE, AGAIN, || {
        Ok(match service().readiness(context) {
            Readiness::Ready => Ok(()),
            Readiness::NotYet(reason) | Readiness::Waiting(reason) => Err(reason),
        })
    })
}

/// etcd wants its directories to be its own (0700), and warns for ever otherwise.
fn private_directories(context: &Context<'_>) -> Result<()> {
    let etcd = &context.config.etcd;
    let directories: Vec<&PathBuf> = std::iter::once(&etcd.data_dir).chain(&etcd.wal_dir).collect();
    for directory in directories {
        context.host.create_dir(directory, 0o700)?;
        if context.host.entry(directory)?.is_some_and(|entry| entry.mode & 0o777 != 0o700) {
            context.host.set_mode(directory, 0o700)?;
        }
    }
    nothing_before(context)
}
