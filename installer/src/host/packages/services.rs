//! Services that new packages bring: their scripts may enable them for the next boot, and nobody has asked for that. They are
//! disabled again; whatever wants one enables it. Which packages are new is kept in a file until it is done, so that death in
//! between changes nothing.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Archive, Database, Family};
use crate::host::{Command, Host};

/// Names of packages that were not there before.
const NEW: &str = "/var/lib/sealift/new-packages.json";

/// Whether an installation that died left services to look at.
pub fn is_left(host: &Host) -> Result<bool> {
    host.exists(Path::new(NEW))
}

fn remembered(host: &Host) -> Result<BTreeSet<String>> {
    let Some(bytes) = host.read(Path::new(NEW))? else { return Ok(BTreeSet::new()) };
    serde_json::from_slice(&bytes).with_context(|| format!("reading `{NEW}`"))
}

/// Notes which of these are not on the host.
pub(super) fn remember(host: &Host, archives: &[Archive]) -> Result<()> {
    let Some(database) = Database::read(host)? else { return Ok(()) };
    let before = remembered(host)?;
    let new = archives.iter().map(|archive| &archive.name).filter(|name| database.find(name).is_none());
    let all: BTreeSet<String> = before.iter().chain(new).cloned().collect();
    if all == before {
        return Ok(());
    }
    host.write(Path::new(NEW), &serde_json::to_vec(&all)?, 0o600)
}

/// Disables the services of the packages that were noted and are there.
pub(super) fn disable(host: &Host, family: Family, say: &dyn Fn(String)) -> Result<()> {
    let mut units = BTreeSet::new();
    for name in remembered(host)? {
        units.extend(files(host, family, &name)?.iter().filter_map(|path| unit(path)));
    }
    for unit in units {
        let enabled = host.try_run(&Command::new("systemctl").arg("is-enabled").arg(&unit))?;
        if enabled.text().trim() != "enabled" {
            continue;
        }
        let disabled = host.try_run(&Command::new("systemctl").arg("disable").arg(&unit))?;
        // An init script that names no runlevels cannot be: that must not keep the host from becoming a node.
        say(if disabled.success() {
            format!("{unit} came with a package and stays disabled")
        } else {
            format!("{unit} came with a package and could not be disabled: {}", disabled.tail())
        });
    }
    Ok(())
}

/// Forgets them: all is done.
pub(super) fn forget(host: &Host) -> Result<()> {
    host.remove(Path::new(NEW))
}

/// The files of an installed package.
fn files(host: &Host, family: Family, name: &str) -> Result<Vec<String>> {
    let text = match family {
        // `NAME:ARCHITECTURE.list` is for libraries that can be there for several architectures: those have no services.
        Family::Dpkg => host.read_text(Path::new(&format!("/var/lib/dpkg/info/{name}.list")))?.unwrap_or_default(),
        Family::Rpm => host.try_run(&Command::new("rpm").args(["--query", "--list", name]))?.text(),
    };
    Ok(text.lines().map(str::to_owned).collect())
}

/// The unit that a file of a package stands for.
fn unit(path: &str) -> Option<String> {
    if let Some(name) = path.strip_prefix("/etc/init.d/") {
        return (!name.is_empty()).then(|| format!("{name}.service"));
    }
    let name =
        ["/lib/systemd/system/", "/usr/lib/systemd/system/"].iter().find_map(|place| path.strip_prefix(place))?;
    let starts = [".service", ".socket", ".timer", ".path"].iter().any(|end| name.ends_with(end));
    // Templates have no state of their own.
    (starts && !name.contains(['/', '@'])).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_known_by_their_place() {
        assert_eq!(unit("/lib/systemd/system/chrony.service").as_deref(), Some("chrony.service"));
        assert_eq!(unit("/usr/lib/systemd/system/x.timer").as_deref(), Some("x.timer"));
        assert_eq!(unit("/etc/init.d/ipvsadm").as_deref(), Some("ipvsadm.service"));
        for other in
            ["/lib/systemd/system/a@.service", "/lib/systemd/system/a.service.d/x.conf", "/etc/init.d/", "/usr/bin/jq"]
        {
            assert_eq!(unit(other), None, "{other}");
        }
    }
}
