//! Packages of the distribution from the bundle's closure: what is missing is installed, through the host's own dpkg or rpm,
//! without a network.
//!
//! Never a downgrade, and an upgrade only where something that is installed needs it. What stands in the way is said before
//! anything is changed. Services are neither started nor stopped; those whose work Sealift does are masked. `reset` leaves
//! packages installed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, anyhow};
use bundle::component::{Kind, Package};
use bundle::{Component, debian_version, rpm_version};

use crate::context::Context;
use crate::host::packages::{self, Archive, Database, Family, Installed, Later, Left, Lock, Mode, policy};
use crate::host::{Command, Host};
use crate::report::{Exit, Explain as _};
use crate::share::Share;
use crate::step::{Change, Check, Step, Target};
use crate::steps::kernel;
use crate::store::archive;

mod work;

pub use work::{Problem, Work};

/// How long another program that changes packages is waited for at most, whatever `--wait` says.
const PATIENCE: Duration = Duration::from_secs(600);

/// What a host that runs no pods needs of the closure; the rest is for kube-proxy, the kubelet and their like.
const WITHOUT_PODS: &[&str] = &[CLOCK];
/// The bundle's time service.
const CLOCK: &str = "chrony";

/// Units whose work Sealift's own do, by the package that brings them.
const REPLACED: &[(&str, &str)] = &[
    ("containerd", "containerd.service"),
    ("containerd.io", "containerd.service"),
    ("etcd", "etcd.service"),
    ("etcd-server", "etcd.service"),
    ("kubelet", "kubelet.service"),
    ("nginx", "nginx.service"),
    ("nginx-common", "nginx.service"),
];

/// Tools that the plan depends on, and the packages that bring them.
const TOOLS: &[(&str, &[&str])] = &[
    ("conntrack", &["conntrack", "conntrack-tools"]),
    ("ip", &["iproute2", "iproute"]),
    ("ipset", &["ipset"]),
    ("iptables", &["iptables", "iptables-nft"]),
    ("modprobe", &["kmod"]),
    ("mount", &["mount"]),
    ("nft", &["nftables"]),
];

/// The step.
#[derive(Clone, Copy, Debug)]
pub struct OsPackages;

/// The bundle's packages for a host, in the bundle's order.
pub fn of_bundle<'a>(share: Share<'_>, components: &'a [Component]) -> Vec<&'a Package> {
    let components = components.iter().filter(|component| component.kind == Kind::Packages && share.has(component));
    components.flat_map(|component| &component.packages).collect()
}

/// Whether a package of the host keeps the time: beside it the bundle's own is neither needed nor, on Debian, possible (it
/// conflicts with all that provide `time-daemon`, such as systemd-timesyncd).
fn keeps_time(name: &str, entry: &Installed) -> bool {
    let provides = entry.provides.iter().any(|text| text.split([' ', '(']).next() == Some("time-daemon"));
    name != CLOCK
        && entry.state.is_whole()
        && (provides || ["ntp", "ntpsec", "openntpd", "systemd-timesyncd"].contains(&name))
}

/// What is to be done about them on a host with this database.
fn work<'a>(share: Share<'_>, database: &Database, components: &'a [Component]) -> Work<'a> {
    let timed = database.all().any(|(name, entry)| keeps_time(name, entry));
    // What an rpm package needs is not in the bundle: where the clock's is to come, all that was resolved with it comes.
    let whole = database.family == Family::Rpm && !timed && database.find(CLOCK).is_none();
    let all = share.roles.run_pods() || whole;
    let wanted =
        |package: &Package| (all || WITHOUT_PODS.contains(&package.name.as_str())) && !(timed && package.name == CLOCK);
    Work::of(database, &of_bundle(share, components), &wanted)
}

/// The work on the host of a context; `None` when the bundle has no packages for it and nothing is left of a run that died, or
/// it has no package database.
pub fn work_on<'a>(context: &Context<'a>) -> Result<Option<(Database, Work<'a>)>> {
    if of_bundle(context.share(), context.components).is_empty() && packages::left(context.host)?.is_nothing() {
        return Ok(None);
    }
    let Some(database) = Database::read(context.host)? else { return Ok(None) };
    let work = work(context.share(), &database, context.components);
    Ok(Some((database, work)))
}

/// What stands in the way of packages that another step installs or renews beside those of this one, which they may need.
pub fn problems_of(context: &Context<'_>, others: &[&Package]) -> Result<Vec<Problem>> {
    let Some(database) = Database::read(context.host)? else { return Ok(Vec::new()) };
    let mut all = of_bundle(context.share(), context.components);
    all.retain(|package| others.iter().all(|other| other.name != package.name));
    Ok(work::problems_of(&database, others, &all))
}

/// Adds the tools that packages of the bundle will bring to those of the host, so that what is planned before they are
/// installed is what is found afterwards.
pub fn foresee(
    host: &Host,
    share: Share<'_>,
    components: &[Component],
    tools: &mut BTreeMap<String, String>,
) -> Result<()> {
    if of_bundle(share, components).is_empty() {
        return Ok(());
    }
    let Some(database) = Database::read(host)? else { return Ok(()) };
    for package in work(share, &database, components).packages() {
        for (tool, _) in TOOLS.iter().filter(|(_, packages)| packages.contains(&package.name.as_str())) {
            let version = match database.family {
                Family::Dpkg => debian_version::upstream(&package.version).to_owned(),
                Family::Rpm => rpm_version::Evr::parse(&package.version).version.into(),
            };
            tools.insert((*tool).to_owned(), version);
        }
    }
    Ok(())
}

/// Refuses what stands in the way, all of it at once.
fn require(work: &Work<'_>) -> Result<()> {
    let Some(first) = work.problems.first() else { return Ok(()) };
    let lines: Vec<String> =
        work.problems.iter().map(|problem| format!("`{}`: {}", problem.package, problem.text)).collect();
    Err(anyhow!("packages of the bundle do not fit this host: {}", lines.join("; ")))
        .exit(Exit::Preflight)
        .hint(first.hint.clone())
}

/// Packages that only the bundle's kernel brings, when its own step will install them and so finish what dpkg was
/// interrupted with.
fn of_kernel<'a>(context: &Context<'a>) -> Result<Later<'a>> {
    if !kernel::installs(context)? {
        return Ok(Later::new());
    }
    let share = context.share();
    let kernels = context.components.iter().filter(|component| component.kind == Kind::Kernel && share.has(component));
    let mut names: Later<'a> =
        kernels.flat_map(|component| &component.packages).map(|package| package.name.as_str()).collect();
    for package in of_bundle(share, context.components) {
        names.remove(package.name.as_str());
    }
    Ok(names)
}

/// Units to mask: those of packages that come now, where no file of that name is in the way (Sealift's own is as good).
fn masks(context: &Context<'_>, work: &Work<'_>) -> Result<Vec<PathBuf>> {
    let mut masks = Vec::new();
    for (package, unit) in REPLACED {
        let path = Path::new("/etc/systemd/system").join(unit);
        let comes = work.install.iter().chain(&work.again).any(|coming| coming.name == *package);
        if comes && !context.host.exists(&path)? && !masks.contains(&path) {
            masks.push(path);
        }
    }
    Ok(masks)
}

/// What an interrupted dpkg left of packages that neither this step nor the kernel's installs.
fn left<'d>(database: &'d Database, work: &Work<'_>, later: &Later<'_>) -> Vec<(&'d str, &'d Installed)> {
    let ours = |name: &str| later.contains(name) || work.packages().any(|package| package.name == name);
    database.unfinished().filter(|(name, _)| !ours(name)).collect()
}

fn changes(context: &Context<'_>, database: &Database, work: &Work<'_>) -> Result<Vec<Change>> {
    let later = of_kernel(context)?;
    let left = left(database, work, &later).into_iter();
    let mut changes: Vec<Change> = left
        .filter(|(_, entry)| entry.can_be_configured())
        .map(|(name, entry)| Change::new(format!("configure {name} {} ({})", entry.version, entry.state.as_str())))
        .collect();
    let Left { begun, services, policy } = packages::left(context.host)?;
    if policy {
        changes.push(Change::new(format!("put {} back as it was", policy::POLICY)));
    }
    if database.family == Family::Rpm {
        changes
            .extend(begun.iter().map(|package| Change::new(format!("install {package} again (rpm was interrupted)"))));
    }
    // What is left of the kernel's packages alone is for the kernel's step.
    let is_later = |begun: &String| begun.split(' ').next().is_some_and(|name| later.contains(name));
    if services && (begun.is_empty() || !begun.iter().all(is_later)) {
        changes.push(Change::new("disable services that new packages brought"));
    }
    for path in masks(context, work)? {
        let unit = path.file_name().unwrap_or_default().display();
        changes.push(Change::new(format!("mask {unit} of the distribution")));
    }
    let line = |verb: &str, package: &Package, rest: &str| {
        Change::new(format!("{verb} {} {}{rest}", package.name, package.version))
    };
    changes.extend(work.again.iter().map(|package| line("install", package, " again (half installed)")));
    changes.extend(work.install.iter().map(|package| line("install", package, "")));
    let upgrade = |(package, old): &(&Package, String)| {
        Change::new(format!("upgrade {} {old} → {}", package.name, package.version))
    };
    changes.extend(work.upgrade.iter().map(upgrade));
    Ok(changes)
}

/// Programs of components that no package has brought.
fn missing_programs(context: &Context<'_>) -> Result<Vec<String>> {
    let share = context.share();
    let mut missing = Vec::new();
    for component in context.components.iter().filter(|component| share.has(component)) {
        for path in component.host_programs.get(share.distribution).into_iter().flat_map(|programs| programs.values()) {
            if !context.host.exists(Path::new(path))? {
                missing.push(format!("`{path}` of `{}`", component.name));
            }
        }
    }
    Ok(missing)
}

impl Step for OsPackages {
    fn name(&self) -> &'static str {
        "os-packages"
    }

    fn title(&self) -> &'static str {
        "Install packages of the distribution (they stay after a reset)"
    }

    fn touches(&self, context: &Context<'_>) -> Result<Vec<Target>> {
        let Some((_, work)) = work_on(context)? else { return Ok(Vec::new()) };
        Ok(masks(context, &work)?.into_iter().map(Target::File).collect())
    }

    fn check(&self, context: &Context<'_>) -> Result<Check> {
        let Some((database, work)) = work_on(context)? else {
            return Ok(Check::Kept(format!("the bundle has none that {} could take", context.facts.os.pretty)));
        };
        require(&work)?;
        let changes = changes(context, &database, &work)?;
        if !changes.is_empty() {
            return Ok(Check::Needed(changes));
        }
        let missing = missing_programs(context)?;
        if !missing.is_empty() {
            return Err(anyhow!("{} not there, although all packages are installed", missing.join(", ")))
                .hint("a file of an installed package was removed: reinstall that package");
        }
        Ok(Check::Kept(format!("{} packages are there, as new as the bundle's or new enough", work.kept)))
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        let host = context.host;
        let Some((database, _)) = work_on(context)? else { return Ok(()) };
        let say = |text: String| context.note(text);
        let lock = Lock::take(host, database.family, context.patience.min(PATIENCE), &say)?;
        // Whoever had the lock until now may have changed what it depends on.
        let Some((database, work)) = work_on(context)? else { return Ok(()) };
        require(&work)?;
        let later = of_kernel(context)?;
        for (name, _) in left(&database, &work, &later).into_iter().filter(|(_, entry)| !entry.can_be_configured()) {
            context.warn(format!("package {name} is half installed and not in the bundle: left as it is"));
        }
        for path in masks(context, &work)? {
            host.symlink(&path, Path::new("/dev/null"))?;
        }
        let archives: Vec<Archive> = work.packages().map(archive).collect();
        packages::install_with(host, &lock, &archives, Mode::Upgrade, &later, &say)?;
        if !archives.is_empty() {
            context.note(format!("{} packages installed, {} kept", archives.len(), work.kept));
            if context.facts.systemd {
                host.run(&Command::new("systemctl").arg("daemon-reload"))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
