//! Swap off, now and at boot: the kubelet does not start with it (`failSwapOn`).
//!
//! What turns it on at boot: lines of `/etc/fstab`, swap units of systemd (those that a generator makes from the partition
//! table or for zram as well), and a few services that make swap by themselves. In a container it is the machine's:
//! preflight refuses.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::part::{Edited, Found, Part, lossy};
use crate::config::host::Swap as Policy;
use crate::context::Context;
use crate::host::marks::Marks;
use crate::host::swap::{self, Swap};
use crate::host::{Command, Host};
use crate::step::Target;
use crate::steps::file::size;
use crate::steps::unit::{UnitState, systemctl, unit_path};

const FSTAB: &str = "/etc/fstab";
/// Where a masked unit leads (systemctl(1), `mask`).
const NOWHERE: &str = "/dev/null";
/// Services that make swap: zram of Debian and Ubuntu, a swap file of Raspberry Pi OS, swap files as needed.
const SERVICES: [&str; 4] = ["zramswap.service", "zram-config.service", "dphys-swapfile.service", "swapspace.service"];

/// The part.
pub(super) struct SwapOff;

/// Everything that makes or is swap here.
#[derive(Debug, Default)]
struct Sources {
    active: Vec<Swap>,
    services: Vec<&'static str>,
    units: BTreeSet<String>,
}

impl Part for SwapOff {
    fn touches(&self, context: &Context<'_>) -> Result<Vec<Target>> {
        let Some(sources) = Sources::of(context)? else { return Ok(Vec::new()) };
        // Undone the other way round: the services come first, they may turn on their own.
        let active = sources.active.into_iter().map(|swap| Target::Swap(swap.path));
        let services = sources.services.into_iter().map(|name| Target::Unit(name.to_owned()));
        let masks = sources.units.iter().map(|name| Target::File(unit_path(name)));
        Ok(active.chain(services).chain([fstab(context.host)?.target()]).chain(masks).collect())
    }

    fn look(&self, context: &Context<'_>) -> Result<Found> {
        let mut found = Found::default();
        let Some(sources) = Sources::of(context)? else { return Ok(found) };
        found.changes.extend(fstab(context.host)?.change(context.host)?);
        for unit in &sources.units {
            found.change(format!("mask {unit}, which turns swap on at boot"));
        }
        for service in &sources.services {
            found.change(format!("stop and disable {service}, which makes swap"));
        }
        for Swap { path, used, .. } in &sources.active {
            found.change(format!("turn swap off on {} ({} in it)", path.display(), size(*used)));
        }
        Ok(found)
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        let host = context.host;
        let Some(sources) = Sources::of(context)? else { return Ok(()) };
        let mut reload = fstab(host)?.write(host)?;
        for unit in &sources.units {
            host.symlink(&unit_path(unit), Path::new(NOWHERE))?;
            reload = true;
        }
        if reload {
            systemctl(host, &["daemon-reload"])?;
        }
        for service in &sources.services {
            systemctl(host, &["disable", "--now", service])?;
        }
        swap::active(host)?.iter().try_for_each(|swap| swap::off(host, &swap.path))
    }
}

impl Sources {
    /// `None` where swap is not this host's to turn off, or shall stay.
    fn of(context: &Context<'_>) -> Result<Option<Self>> {
        if context.config.host.swap == Policy::Keep || context.facts.container.is_some() {
            return Ok(None);
        }
        let host = context.host;
        let mut services = Vec::new();
        for service in SERVICES {
            let state = UnitState::read(host, service)?;
            if state.is_active() || state.is_coming() || state.is_enabled() {
                services.push(service);
            }
        }
        let active = swap::active(host)?;
        let mut units: BTreeSet<String> = units(host)?.into_iter().collect();
        for swap in &active {
            units.extend(partition_unit(host, &swap.path)?);
        }
        Ok(Some(Self { active, services, units }))
    }
}

fn fstab(host: &Host) -> Result<Edited<'static>> {
    let text = lossy(host, Path::new(FSTAB))?;
    let lines = text.lines().filter(|line| is_swap(line)).count();
    let what = format!("comment out {lines} {} of swap", if lines == 1 { "line" } else { "lines" });
    Ok(Edited { path: PathBuf::from(FSTAB), marks: Marks { block: &[], out: is_swap }, what })
}

/// A line of fstab(5) whose third field, the type, is `swap`.
fn is_swap(line: &str) -> bool {
    !line.trim_start().starts_with('#') && line.split_whitespace().nth(2) == Some("swap")
}

/// Swap units with a file of their own that is not made from `/etc/fstab`.
fn units(host: &Host) -> Result<Vec<String>> {
    let properties = "--property=Id,LoadState,FragmentPath,SourcePath";
    Ok(parse(&host.try_run(&Command::new("systemctl").args(["show", properties, "*.swap"]))?.text()))
}

/// The unit that systemd would make for a partition in use as soon as no line of `/etc/fstab` names swap any more
/// (`systemd-gpt-auto-generator(8)` looks for swap partitions only then), unless it is masked already.
fn partition_unit(host: &Host, path: &Path) -> Result<Option<String>> {
    let name = path.strip_prefix("/dev").ok().and_then(Path::to_str).unwrap_or_default();
    let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !plain || !host.exists(&Path::new("/sys/class/block").join(name).join("partition"))? {
        return Ok(None);
    }
    let unit = format!("dev-{name}.swap");
    let masked = host.link_target(&unit_path(&unit))?.is_some_and(|target| target == Path::new(NOWHERE));
    Ok((!masked).then_some(unit))
}

/// Blocks of `KEY=VALUE` lines, one for each unit.
fn parse(shown: &str) -> Vec<String> {
    let units = shown.split("\n\n").filter_map(|block| {
        let value =
            |key: &str| block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default();
        let own = value("LoadState") == "loaded" && !value("FragmentPath").is_empty() && value("SourcePath") != FSTAB;
        own.then(|| value("Id").to_owned()).filter(|name| !name.is_empty() && !name.contains('/'))
    });
    units.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_swap_are_swap() {
        for (line, swap) in [
            ("UUID=5c3 none swap sw 0 0", true),
            ("/srv/swapfile\tswap\tswap\tdefaults", true),
            ("# /dev/sda2 none swap sw 0 0", false),
            ("/dev/swap /srv ext4 defaults 0 2", false),
            ("", false),
        ] {
            assert_eq!(is_swap(line), swap, "{line}");
        }
    }

    #[test]
    fn units_that_nothing_else_here_takes_care_of_are_masked() {
        let shown = "Id=dev-sda2.swap\nLoadState=loaded\nFragmentPath=/run/systemd/generator/dev-sda2.swap\nSourcePath=/etc/fstab\n\n\
            Id=dev-zram0.swap\nLoadState=loaded\nFragmentPath=/run/systemd/generator/dev-zram0.swap\nSourcePath=/usr/lib/systemd/zram-generator.conf\n\n\
            Id=dev-nvme0n1p3.swap\nLoadState=loaded\nFragmentPath=/run/systemd/generator.late/dev-nvme0n1p3.swap\nSourcePath=\n\n\
            Id=srv-x.swap\nLoadState=masked\nFragmentPath=/etc/systemd/system/srv-x.swap\nSourcePath=\n\n\
            Id=dev-disk-by\\x2did-a.swap\nLoadState=loaded\nFragmentPath=\nSourcePath=\n";
        assert_eq!(parse(shown), ["dev-zram0.swap", "dev-nvme0n1p3.swap"]);
        assert_eq!(parse(""), Vec::<String>::new());
    }
}
