//! Services that new packages bring: their scripts may enable them for the next boot, and nobody has asked for that. They are
//! disabled again, also those that are masked: a mask may be taken away. Whatever wants one enables it. What was enabled before
//! stays enabled.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::record::Record;
use super::{Database, Family};
use crate::host::{Command, Host};

/// Where systemd is told by links what to start (systemd.unit(5), "Unit File Load Path").
const UNITS: &str = "/etc/systemd/system";
/// Where init scripts are started from, by links such as `S01nginx`; systemd follows them.
const RUNLEVELS: [&str; 4] = ["/etc/rc2.d", "/etc/rc3.d", "/etc/rc4.d", "/etc/rc5.d"];

/// Links by which units start: where they are, and which unit.
fn links(host: &Host) -> Result<Vec<(PathBuf, String)>> {
    let mut links = Vec::new();
    for name in host.list(Path::new(UNITS))? {
        let directory = Path::new(UNITS).join(&name);
        let starts = directory.extension().is_some_and(|end| end == "wants" || end == "requires");
        if starts {
            links.extend(host.list(&directory)?.into_iter().map(|unit| (directory.join(&unit), unit)));
        }
    }
    Ok(links)
}

/// Units that start by themselves.
pub(super) fn enabled(host: &Host) -> Result<BTreeSet<String>> {
    let mut units: BTreeSet<String> = links(host)?.into_iter().map(|(_, unit)| unit).collect();
    for directory in RUNLEVELS {
        let scripts = host.list(Path::new(directory))?;
        let started = scripts.iter().filter_map(|name| name.strip_prefix('S'));
        units.extend(started.map(|name| format!("{}.service", name.trim_start_matches(|c: char| c.is_ascii_digit()))));
    }
    Ok(units)
}

/// Disables the services of new packages that are there, and were not enabled before.
pub(super) fn disable(host: &Host, family: Family, record: &Record, say: &dyn Fn(String)) -> Result<()> {
    let mut units = BTreeSet::new();
    let database = Database::read(host)?;
    for name in &record.new {
        units.extend(files(host, family, database.as_ref(), name)?.iter().filter_map(|path| unit(path)));
    }
    for unit in units.difference(&record.enabled) {
        let state = host.try_run(&Command::new("systemctl").arg("is-enabled").arg(unit))?.text();
        match state.trim() {
            "enabled" => {
                let disabled = host.try_run(&Command::new("systemctl").arg("disable").arg(unit))?;
                // An init script that names no runlevels cannot be: that must not keep the host from becoming a node.
                say(if disabled.success() {
                    format!("{unit} came with a package and stays disabled")
                } else {
                    format!("{unit} came with a package and could not be disabled: {}", disabled.tail())
                });
            }
            // `systemctl disable` passes over masked units.
            "masked" | "masked-runtime" => {
                for (link, _) in links(host)?.iter().filter(|(_, linked)| linked == unit) {
                    host.remove(link)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The files of an installed package.
fn files(host: &Host, family: Family, database: Option<&Database>, name: &str) -> Result<Vec<String>> {
    let text = match family {
        Family::Rpm => host.try_run(&Command::new("rpm").args(["--query", "--list", name]))?.text(),
        Family::Dpkg => {
            // With the architecture in its name where several may be there at once.
            let entries = database.map_or(&[][..], |database| database.entries(name));
            let mut lists = vec![name.to_owned()];
            lists.extend(entries.iter().map(|entry| format!("{name}:{}", entry.architecture)));
            let mut text = String::new();
            for list in lists {
                text +=
                    &host.read_text(&Path::new("/var/lib/dpkg/info").join(format!("{list}.list")))?.unwrap_or_default();
            }
            text
        }
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

    #[test]
    fn what_starts_by_itself_is_known_by_links() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::under(directory.path());
        let target = Path::new("/lib/systemd/system/x");
        for link in [
            "/etc/systemd/system/multi-user.target.wants/mine.service",
            "/etc/systemd/system/x.service.requires/helper.socket",
            "/etc/rc3.d/S01old",
            "/etc/rc3.d/K01never",
        ] {
            host.symlink(Path::new(link), target).unwrap();
        }
        assert_eq!(enabled(&host).unwrap(), ["helper.socket", "mine.service", "old.service"].map(str::to_owned).into());
    }
}
