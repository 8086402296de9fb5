//! The host's own name, only where the config says `hostname = "set"`. A node keeps its name in the cluster whatever its
//! host is called: kubelet and kube-proxy are told it.

use std::path::Path;

use anyhow::Result;

use super::part::{Found, Part};
use crate::config::host::HostName as Policy;
use crate::context::Context;
use crate::step::Target;

/// The name at boot (hostname(5)).
const FILE: &str = "/etc/hostname";
/// The name now.
const KEY: &str = "kernel.hostname";

/// The part.
pub(super) struct HostName;

impl Part for HostName {
    fn touches(&self, context: &Context<'_>) -> Result<Vec<Target>> {
        let targets = [Target::File(FILE.into()), Target::Sysctl(KEY.to_owned())];
        Ok(targets.into_iter().filter(|_| is_set(context)).collect())
    }

    fn look(&self, context: &Context<'_>) -> Result<Found> {
        let mut found = Found::default();
        if !is_set(context) {
            return Ok(found);
        }
        let name = &context.node.name;
        if at_boot(context)?.as_deref() != Some(name) {
            found.change(format!("write {FILE}: {name}"));
        }
        let now = context.host.sysctl(KEY)?.unwrap_or_default();
        if now != *name {
            if context.host.sysctl_writable(KEY) {
                found.change(format!("set the host's name to {name} (is {now})"));
            } else {
                found.limit(format!("the host's name is {now} until the next boot: it cannot be set here"));
            }
        }
        Ok(found)
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        let (host, name) = (context.host, &context.node.name);
        if !is_set(context) {
            return Ok(());
        }
        if at_boot(context)?.as_deref() != Some(name) {
            host.write(Path::new(FILE), format!("{name}\n").as_bytes(), 0o644)?;
        }
        if host.sysctl(KEY)?.as_deref() != Some(name) && host.sysctl_writable(KEY) {
            host.set_sysctl(KEY, name)?;
        }
        Ok(())
    }
}

fn is_set(context: &Context<'_>) -> bool {
    context.config.host.hostname == Policy::Set
}

/// The first line that is no comment.
fn at_boot(context: &Context<'_>) -> Result<Option<String>> {
    let text = context.host.read_text(Path::new(FILE))?.unwrap_or_default();
    Ok(text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned))
}
