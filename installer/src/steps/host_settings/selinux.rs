//! SELinux in permissive mode, only where the config says `selinux = "permissive"`: now, and at boot. It is never switched
//! off altogether: files would lose their labels.

use std::path::Path;

use anyhow::Result;

use super::part::{Edited, Found, Part, without_us};
use crate::config::host::Selinux as Policy;
use crate::context::Context;
use crate::host::marks::Marks;
use crate::step::Target;

/// `1` while it enforces (what setenforce(8) writes).
const ENFORCE: &str = "/sys/fs/selinux/enforce";
/// The mode at boot, the first line `SELINUX=` counts (selinux(8)).
const CONFIG: &str = "/etc/selinux/config";

/// The part.
pub(super) struct Selinux;

impl Part for Selinux {
    fn touches(&self, context: &Context<'_>) -> Result<Vec<Target>> {
        let targets = [Target::Marks(CONFIG.into()), Target::Kernel(ENFORCE.into())];
        Ok(targets.into_iter().filter(|_| is_permissive(context) && context.facts.container.is_none()).collect())
    }

    fn look(&self, context: &Context<'_>) -> Result<Found> {
        let mut found = Found::default();
        if !is_permissive(context) {
            return Ok(found);
        }
        if context.facts.container.is_some() {
            if enforces(context)? {
                found.limit("SELinux enforces on the machine of this container: only there it can be set");
            }
            return Ok(found);
        }
        let block = block(context)?;
        found.changes.extend(config(&block).change(context.host)?);
        if enforces(context)? {
            found.change("set SELinux to permissive (is enforcing)");
        }
        Ok(found)
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        if !is_permissive(context) || context.facts.container.is_some() {
            return Ok(());
        }
        config(&block(context)?).write(context.host)?;
        if enforces(context)? { context.host.write_kernel(Path::new(ENFORCE), b"0") } else { Ok(()) }
    }
}

fn is_permissive(context: &Context<'_>) -> bool {
    context.config.host.selinux == Policy::Permissive
}

fn enforces(context: &Context<'_>) -> Result<bool> {
    Ok(context.host.read_text(Path::new(ENFORCE))?.is_some_and(|text| text.trim() == "1"))
}

/// Our line, where others have it enforce at boot.
fn block(context: &Context<'_>) -> Result<Vec<String>> {
    let enforcing = without_us(context.host, Path::new(CONFIG))?.lines().any(is_enforcing);
    Ok(enforcing.then(|| "SELINUX=permissive".to_owned()).into_iter().collect())
}

/// By its first letters, as libselinux reads it: `SELINUX=enforcing # for now` enforces.
fn is_enforcing(line: &str) -> bool {
    let mode = line.trim().strip_prefix("SELINUX=").map(str::trim_start).unwrap_or_default();
    mode.get(.."enforcing".len()).is_some_and(|mode| mode.eq_ignore_ascii_case("enforcing"))
}

fn config(block: &[String]) -> Edited<'_> {
    let what = "permissive at boot".to_owned();
    Edited { path: CONFIG.into(), marks: Marks { block, out: is_enforcing }, what }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libselinux_takes_for_enforcing_is_enforcing() {
        for (line, enforcing) in [
            ("SELINUX=enforcing", true),
            ("SELINUX= Enforcing # for now", true),
            ("SELINUX=permissive", false),
            ("# SELINUX=enforcing", false),
            ("SELINUXTYPE=enforcing", false),
            ("SELINUX=", false),
        ] {
            assert_eq!(is_enforcing(line), enforcing, "{line}");
        }
    }
}
