//! etcd on this host: stacked on a master, or dedicated. Asked through the bundled `etcdctl` with a client certificate.

use std::time::Duration;

use anyhow::{Result, anyhow};

use super::file::WantedFile;
use super::service::{Readiness, Service, UnitText, nothing_before};
use crate::context::Context;
use crate::host::Command;
use crate::report::Explain as _;
use crate::step::{Check, Step, Target};

/// Says that this host's member has worked once: from then on an empty data directory is a loss, not a beginning.
const FOUNDED: &str = "/etc/sealift/etcd-founded";

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
        touches.push(founded().target());
        Ok(touches)
    }

    fn check(&self, context: &Context<'_>) -> Result<Check> {
        if !context.config.runs_etcd(context.node) {
            return Ok(Check::Skipped("the cluster has dedicated etcd members".to_owned()));
        }
        require_member(context)?;
        let check = service().check(context)?;
        // The marker follows health, so it is the last change.
        let Some(marker) = founded().change(context.host)? else { return Ok(check) };
        Ok(match check {
            Check::Done => Check::Needed(vec![marker]),
            Check::Needed(mut changes) => {
                changes.push(marker);
                Check::Needed(changes)
            }
            other => other,
        })
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        require_member(context)?;
        service().apply(context)?;
        founded().write(context.host).map(drop)
    }

    fn undo(&self, context: &Context<'_>) -> Result<()> {
        service().undo(context)
    }
}

fn founded() -> WantedFile {
    WantedFile::public(
        FOUNDED,
        "Sealift: etcd has worked on this host. While this file is here, it is never founded anew.\n",
    )
}

/// Refuses to found an empty cluster where there was one.
fn require_member(context: &Context<'_>) -> Result<()> {
    let member = context.config.etcd.data_dir.join("member");
    if !context.host.exists(FOUNDED.as_ref())? || context.host.exists(&member)? {
        return Ok(());
    }
    Err(anyhow!("etcd has worked on this host, but its data `{}` is gone", member.display())).hint(format!(
        "mount or restore the data directory; to begin with an empty cluster and lose the old one, remove `{FOUNDED}`"
    ))
}

pub(super) fn service() -> Service {
    Service {
        name: "etcd",
        title: "Start etcd",
        unit: "etcd.service",
        text: UnitText::Component("etcd"),
        deadline: Duration::from_secs(180),
        probe: healthy,
        before_start: private_data_directory,
        hint: "`journalctl -u etcd` says more; other members must reach this host on port 2380",
    }
}

/// `etcdctl` with the certificates of this host, for this host's member.
pub fn etcdctl(context: &Context<'_>) -> Command {
    Command::new(context.program("etcd", "bin/etcdctl"))
        .env("ETCDCTL_API", "3")
        .arg("--endpoints=https://127.0.0.1:2379")
        .arg("--cacert=/etc/sealift/pki/etcd/ca.crt")
        .arg("--cert=/etc/sealift/pki/etcd/admin.crt")
        .arg("--key=/etc/sealift/pki/etcd/admin.key")
        .arg("--dial-timeout=3s")
        .arg("--command-timeout=5s")
        .timeout(Duration::from_secs(15))
}

/// A member is healthy when it can commit a proposal, so this needs the quorum too.
pub fn healthy(context: &Context<'_>) -> Result<Readiness> {
    let finished = context.host.try_run(&etcdctl(context).args(["endpoint", "health"]))?;
    Ok(if finished.success() { Readiness::Ready } else { Readiness::NotYet(last_error(&finished.tail())) })
}

/// etcdctl logs JSON lines; the reason is the last line, in it the `error` field.
fn last_error(tail: &str) -> String {
    let reason = tail.lines().rev().find_map(|line| {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        value.get("error")?.as_str().map(str::to_owned)
    });
    reason.unwrap_or_else(|| tail.lines().last().unwrap_or("etcdctl gave no reason").to_owned())
}

/// etcd wants its data directory to be its own (0700), and warns for ever otherwise.
fn private_data_directory(context: &Context<'_>) -> Result<()> {
    let etcd = &context.config.etcd;
    for directory in std::iter::once(&etcd.data_dir).chain(&etcd.wal_dir) {
        context.host.create_dir(directory, 0o700)?;
    }
    nothing_before(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_taken_out_of_the_log_line() {
        let tail = "{\"level\":\"warn\",\"msg\":\"retrying\",\"error\":\"rpc error: connection refused\"}\n\
                    https://127.0.0.1:2379 is unhealthy: failed to commit proposal\nError: unhealthy cluster";
        assert_eq!(last_error(tail), "rpc error: connection refused");
        assert_eq!(last_error("Error: unhealthy cluster"), "Error: unhealthy cluster");
    }
}
