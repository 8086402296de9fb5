//! The kernel's packages on this host: what is there, what is missing, and installing it beside what runs.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use bundle::component::{Component, Package};

use super::state::Identity;
use crate::context::Context;
use crate::host::Host;
use crate::host::boot::{Grub, Initramfs, root_drivers};
use crate::host::packages::{Archive, Database, Family, Mode, install};
use crate::report::Explain as _;
use crate::store::archive;

/// How long another program that changes packages is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// The installed version of a package.
pub(super) fn installed(host: &Host, name: &str) -> Result<Option<String>> {
    Ok(Database::read(host)?.and_then(|database| Some(database.find(name)?.version.clone())))
}

/// Whether a version is older than another, as the distribution orders them.
pub(super) fn is_older(host: &Host, version: &str, than: &str) -> Result<bool> {
    let family = Database::read(host)?.map_or(Family::Dpkg, |database| database.family);
    Ok(family.compare(version, than).is_lt())
}

/// Packages of the bundle's kernel that are not here whole, in this version or a newer one.
pub(super) fn missing<'a>(host: &Host, component: &'a Component) -> Result<Vec<&'a Package>> {
    let database = Database::read(host)?;
    let there = |package: &Package| database.as_ref().is_some_and(|found| found.has(&package.name, &package.version));
    Ok(component.packages.iter().filter(|package| !there(package)).collect())
}

/// Refuses packages that would take the running kernel's files away under it: another patch level of its name.
pub(super) fn require_beside(context: &Context<'_>, component: &Component) -> Result<()> {
    let running = &context.facts.kernel;
    let architecture = context.facts.architecture;
    let same = |package: &&Package| super::goal::release(package, architecture).as_deref() == Some(running.as_str());
    match missing(context.host, component)?.into_iter().find(same) {
        None => Ok(()),
        Some(package) => Err(anyhow!(
            "{} {} would overwrite the files of the running kernel, and nothing could be gone back to",
            package.name,
            package.version
        )),
    }
}

/// Installs what is missing, by the distribution's own tool, so that its hooks make initramfs and menu.
pub(super) fn install_missing(context: &Context<'_>, component: &Component) -> Result<()> {
    let host = context.host;
    require_beside(context, component)?;
    let database = Database::read(host)?.context("this host has neither dpkg nor rpm")?;
    let missing = missing(host, component)?;
    if missing.is_empty() {
        return Ok(());
    }
    let running = &context.facts.kernel;
    let archives: Vec<Archive> = missing.into_iter().map(archive).collect();
    install(host, database.family, &archives, Mode::Beside, PATIENCE, &|text| context.note(text)).hint(format!(
        "Linux {running} stays the default of the boot menu; run the installer again when it is repaired"
    ))
}

/// The kernel's files, checked before anything may boot it: what a half-finished hook leaves out strands a machine.
pub(super) fn require_bootable(context: &Context<'_>, grub: Option<&Grub>, kernel: &Identity) -> Result<()> {
    let host = context.host;
    let release = &kernel.release;
    let image = Path::new("/boot").join(format!("vmlinuz-{release}"));
    let size = host.entry(&image)?.map_or(0, |entry| entry.size);
    let error = |what: String| -> Result<()> {
        Err(anyhow!("Linux {release} cannot be booted: {what}")).hint(format!(
            "the host keeps booting Linux {}; `dpkg-reconfigure {}` or `update-initramfs -c -k {release}` makes what is \
             missing, then run the installer again",
            context.facts.kernel, kernel.package
        ))
    };
    if size == 0 {
        return error(format!("`{}` is missing or empty", image.display()));
    }
    let Some(initramfs) = Initramfs::path(host, release)? else { return error("it has no initramfs".to_owned()) };
    let files = Initramfs::read(host, &initramfs)?;
    if !files.has_init() {
        return error(format!("`{}` has no `init`", initramfs.display()));
    }
    let builtin = Path::new("/lib/modules").join(release).join("modules.builtin");
    let drivers = root_drivers(host)?;
    let lacks = files.lacks(&drivers, &host.read_text(&builtin)?.unwrap_or_default());
    if !lacks.is_empty() {
        return error(format!(
            "`{}` lacks the driver of the root file system: {}",
            initramfs.display(),
            lacks.join(", ")
        ));
    }
    if let Some(grub) = grub
        && grub.menu(host)?.of(release).is_none()
    {
        return error(format!("`{}` has no entry for it", grub.config().display()));
    }
    Ok(())
}
