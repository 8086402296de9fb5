//! The boot loader: which kernels its menu has, which one it boots by default, and which one it boots once.
//!
//! Read by parsing what the boot loader itself reads (`grub.cfg`, `grubenv`, boot loader entries); changed only by the
//! distribution's own commands (`grub-set-default`, `grub-reboot`, `update-grub`, `grubby`). Kernels are named by the *id* of
//! their entry, never by number or title: both change when a kernel is installed.

mod bls;
mod environment;
mod find;
mod fit;
mod initramfs;
mod menu;
mod root;
#[cfg(test)]
pub(crate) mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

pub use environment::Environment;
pub use initramfs::{Initramfs, root_drivers};
pub use menu::{Default, Entry, Menu, System};

use super::{Command, Host};
use crate::facts::which;
use crate::report::Explain as _;

/// `update-grub` probes every disk for other systems.
const PATIENCE: Duration = Duration::from_secs(600);
/// Where the settings of `grub-mkconfig` are.
const SETTINGS: &str = "/etc/default/grub";
/// Further ones, which Debian and its descendants read after it, by name.
const FURTHER_SETTINGS: &str = "/etc/default/grub.d";
/// Boot loader entries of Enterprise Linux and Fedora (the Boot Loader Specification).
const ENTRIES: &str = "/boot/loader/entries";

/// GRUB as this host has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grub {
    /// Its directory: `/boot/grub`, `/boot/grub2`, one on the EFI partition.
    pub directory: PathBuf,
    /// Beginning of the names of its commands: `grub` or `grub2`.
    prefix: &'static str,
    /// Whether its menu is made of [`ENTRIES`].
    pub entries: bool,
}

impl Grub {
    /// Looks for it; `None` when another boot loader, or none, boots this host.
    pub fn find(host: &Host) -> Result<Option<Self>> {
        let Some((directory, prefix)) = find::directory(host)? else { return Ok(None) };
        let entries = setting(host, "GRUB_ENABLE_BLSCFG", &[])?.as_deref() == Some("true");
        let entries = entries && !host.list(Path::new(ENTRIES))?.is_empty();
        Ok(Some(Self { directory, prefix, entries }))
    }

    /// Its configuration: on UEFI hosts, too, what the small file on the EFI partition leads to.
    pub fn config(&self) -> PathBuf {
        self.directory.join("grub.cfg")
    }

    /// Its environment block, which remembers the default and the entry to boot once.
    pub fn environment_path(&self) -> PathBuf {
        self.directory.join("grubenv")
    }

    /// Reads the menu.
    pub fn menu(&self, host: &Host) -> Result<Menu> {
        let path = self.config();
        let text = host.read_text(&path)?.with_context(|| format!("`{}` is missing", path.display()))?;
        // What a person adds: `41_custom` reads it last.
        let custom = host.read_text(&self.directory.join("custom.cfg"))?.unwrap_or_default();
        let mut menu = Menu::parse(&(text + "\n" + &custom));
        if self.entries {
            menu.entries = bls::entries(host)?;
        }
        let root = root::Root::of(host)?;
        for entry in &mut menu.entries {
            entry.system = root.system(host, entry)?;
        }
        Ok(menu)
    }

    /// Reads the environment block; an absent one is empty.
    pub fn environment(&self, host: &Host) -> Result<Environment> {
        let path = self.environment_path();
        let Some(bytes) = host.read(&path)? else { return Ok(Environment::default()) };
        Environment::parse(&bytes).with_context(|| format!("reading `{}`", path.display()))
    }

    /// Why GRUB cannot write its environment block while it boots, and so cannot boot an entry just once (`00_header` and
    /// `grub-reboot` of GRUB 2.06 and 2.12 have the same lists).
    pub fn obstacle(&self, host: &Host) -> Result<Option<String>> {
        let probe = |target: &str| -> Result<String> {
            let command = Command::new(format!("{}-probe", self.prefix));
            let command = command.arg(format!("--target={target}")).arg(&self.directory);
            Ok(host.run(&command).context("asking what GRUB is on")?.text().trim().to_owned())
        };
        let (abstraction, fs) = (probe("abstraction")?, probe("fs")?);
        let mut abstractions = abstraction.split_whitespace();
        if let Some(found) = abstractions.find(|found| matches!(*found, "lvm" | "diskfilter")) {
            return Ok(Some(format!("GRUB cannot write to {} ({found})", self.directory.display())));
        }
        if ["btrfs", "cpiofs", "newc", "odc", "romfs", "squash4", "tarfs", "zfs"].contains(&fs.as_str()) {
            return Ok(Some(format!("GRUB cannot write to {} ({fs})", self.directory.display())));
        }
        Ok(None)
    }

    /// Makes an entry the default of every boot, as long as the menu's default is the saved one.
    pub fn set_default(&self, host: &Host, id: &str) -> Result<()> {
        self.tool(host, "set-default", id)?;
        self.require(host, "saved_entry", Some(id))
    }

    /// Makes the next boot, and only that one, boot an entry.
    pub fn boot_once(&self, host: &Host, id: &str) -> Result<()> {
        self.tool(host, "reboot", id)?;
        self.require(host, "next_entry", Some(id))
    }

    /// Takes a variable out of the environment block.
    pub fn unset(&self, host: &Host, name: &str) -> Result<()> {
        let command = Command::new(format!("{}-editenv", self.prefix));
        host.run(&command.arg(self.environment_path()).args(["unset", name]))?;
        self.require(host, name, None)
    }

    fn tool(&self, host: &Host, tool: &str, id: &str) -> Result<()> {
        host.run(&Command::new(format!("{}-{tool}", self.prefix)).arg(id))?;
        host.run(&Command::new("sync"))?;
        Ok(())
    }

    /// What a command said it did is read back from where GRUB will read it.
    fn require(&self, host: &Host, name: &str, wanted: Option<&str>) -> Result<()> {
        let environment = self.environment(host)?;
        let found = environment.get(name).filter(|value| !value.is_empty());
        if found == wanted {
            return Ok(());
        }
        let shown = |value: Option<&str>| value.map_or("nothing".to_owned(), |value| format!("`{value}`"));
        bail!(
            "`{}` says {} for {name} and should say {}",
            self.environment_path().display(),
            shown(found),
            shown(wanted)
        )
    }

    /// Makes the menu anew from the kernels in `/boot` and the settings.
    pub fn regenerate(&self, host: &Host) -> Result<()> {
        let command = if which(host, "update-grub")?.is_some() {
            Command::new("update-grub")
        } else {
            Command::new(format!("{}-mkconfig", self.prefix)).arg("-o").arg(self.config())
        };
        host.run(&command.timeout(PATIENCE)).context("making the boot menu").hint(
            "the boot menu of before is still in place; repair what the command says and run the installer again",
        )?;
        host.run(&Command::new("sync"))?;
        Ok(())
    }
}

/// A setting of `grub-mkconfig`: the last assignment in the files it reads, without those `except`. Assignments that a shell
/// would have to work out come as they are written.
pub fn setting(host: &Host, name: &str, except: &[&str]) -> Result<Option<String>> {
    let mut found = None;
    for path in std::iter::once(PathBuf::from(SETTINGS)).chain(further_settings(host)?) {
        if !except.iter().any(|except| path == Path::new(except)) {
            found = setting_in(host, &path, name)?.or(found);
        }
    }
    Ok(found)
}

/// The further files of settings, in the order in which they are read.
fn further_settings(host: &Host) -> Result<Vec<PathBuf>> {
    let files = host.list(Path::new(FURTHER_SETTINGS))?.into_iter().map(|file| Path::new(FURTHER_SETTINGS).join(file));
    Ok(files.filter(|file| file.extension().is_some_and(|extension| extension == "cfg")).collect())
}

/// The last assignment in one file.
fn setting_in(host: &Host, path: &Path, name: &str) -> Result<Option<String>> {
    let text = host.read_lossy(path)?.unwrap_or_default();
    let lines = text.lines().map(|line| line.trim().trim_start_matches("export "));
    let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    Ok(values.next_back().map(|value| value.trim().trim_matches(['"', '\'']).to_owned()))
}
