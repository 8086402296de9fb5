//! Before-images: how a target was before Sealift first changed it, and how to put it back.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::host::{Command, FileKind, Host, marks, module_loaded, swap};
use crate::step::Target;

/// Largest file that is kept as a before-image, bytes: configuration is small.
const LIMIT: u64 = 1 << 20;

/// How a target was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "was", rename_all = "kebab-case")]
pub enum BeforeImage {
    /// There was none (no file, no such sysctl).
    Absent,
    /// A regular file.
    File {
        /// Content, base64.
        bytes: String,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// A symbolic link.
    Link {
        /// Where it pointed.
        target: PathBuf,
    },
    /// A directory; what is in it is not recorded.
    Directory {
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// A sysctl.
    Sysctl {
        /// Its value.
        value: String,
    },
    /// A systemd unit.
    Unit {
        /// `enabled`, `disabled`, `masked` …, as `systemctl is-enabled` says; empty without a unit file.
        enabled: String,
        /// Whether it ran.
        active: bool,
    },
    /// There was one: a file that others wrote, a loaded module, a rule.
    Present,
    /// Swap was in use.
    Swap {
        /// Its priority, swapon(8).
        priority: i32,
    },
    /// A file of the kernel.
    Kernel {
        /// Its text, without white space around it.
        text: String,
    },
}

impl BeforeImage {
    /// Looks at a target. Changes nothing.
    pub(crate) fn capture(host: &Host, target: &Target) -> Result<Self> {
        match target {
            Target::File(path) => file(host, path),
            Target::Sysctl(name) => Ok(host.sysctl(name)?.map_or(Self::Absent, |value| Self::Sysctl { value })),
            Target::Unit(name) => {
                let said = |verb: &str| -> Result<String> {
                    Ok(host.try_run(&Command::new("systemctl").arg(verb).arg(name))?.text().trim().to_owned())
                };
                Ok(Self::Unit { enabled: said("is-enabled")?, active: said("is-active")? == "active" })
            }
            Target::Marks(path) => Ok(Self::present(host.entry(&host.resolve(path)?)?.is_some())),
            Target::Module(name) => Ok(Self::present(module_loaded(host, name)?)),
            Target::Swap(path) => {
                let swap = swap::active(host)?.into_iter().find(|swap| swap.path == *path);
                Ok(swap.map_or(Self::Absent, |swap| Self::Swap { priority: swap.priority }))
            }
            Target::Kernel(path) => {
                Ok(host.read_text(path)?.map_or(Self::Absent, |text| Self::Kernel { text: text.trim().to_owned() }))
            }
            Target::Rule(rule) => Ok(Self::present(rule.is_there(host)?)),
        }
    }

    fn present(is: bool) -> Self {
        if is { Self::Present } else { Self::Absent }
    }

    /// There was nothing.
    pub fn is_absent(&self) -> bool {
        *self == Self::Absent
    }

    /// Whether a target is not as it was; what cannot be read counts as different.
    pub fn differs(&self, host: &Host, target: &Target) -> bool {
        if let Target::Marks(path) = target
            && host.read(path).is_ok_and(|text| text.is_some_and(|text| marks::without(&text) != text))
        {
            return true;
        }
        Self::capture(host, target).map_or(true, |now| now != *self)
    }

    /// Puts a target back to how it was; nothing when it is so already. `Some` says what could not be put back and why.
    pub fn restore(&self, host: &Host, target: &Target) -> Result<Option<String>> {
        match (target, self) {
            (Target::File(path), image) => return restore_file(host, path, image),
            (Target::Sysctl(name), Self::Sysctl { value }) => {
                // A setting may have gone with its interface or module.
                if host.sysctl(name)?.is_some_and(|now| now != *value) {
                    host.set_sysctl(name, value)?;
                }
            }
            (Target::Unit(name), Self::Unit { enabled, active }) => restore_unit(host, name, enabled, *active)?,
            (Target::Marks(path), image) => restore_marks(host, path, image.is_absent())?,
            (Target::Module(name), Self::Absent) => return unload(host, name),
            (Target::Swap(path), Self::Swap { priority }) => return swap::on(host, path, *priority),
            (Target::Kernel(path), Self::Kernel { text }) => {
                if host.read_text(path)?.is_some_and(|now| now.trim() != text) {
                    host.write_kernel(path, text.as_bytes())?;
                }
            }
            (Target::Rule(rule), Self::Absent) => return rule.remove(host),
            (_, Self::Absent | Self::Present) => {}
            (target, image) => bail!("the before-image of `{target}` is of another kind: {image:?}"),
        }
        Ok(None)
    }
}

fn file(host: &Host, path: &Path) -> Result<BeforeImage> {
    let Some(entry) = host.entry(path)? else { return Ok(BeforeImage::Absent) };
    let (mode, uid, gid) = (entry.mode, entry.uid, entry.gid);
    Ok(match entry.kind {
        FileKind::Regular if entry.size > LIMIT => {
            bail!("`{}` has {} bytes: too large for a before-image", path.display(), entry.size)
        }
        FileKind::Regular => {
            let bytes = BASE64.encode(host.read(path)?.unwrap_or_default());
            BeforeImage::File { bytes, mode, uid, gid }
        }
        FileKind::Symlink => match host.link_target(path)? {
            Some(target) => BeforeImage::Link { target },
            None => BeforeImage::Absent,
        },
        FileKind::Directory => BeforeImage::Directory { mode, uid, gid },
        FileKind::Other => bail!("`{}` is neither file, directory nor link", path.display()),
    })
}

fn restore_file(host: &Host, path: &Path, image: &BeforeImage) -> Result<Option<String>> {
    if file(host, path).is_ok_and(|now| now == *image) {
        return Ok(None);
    }
    match image {
        BeforeImage::Absent => {
            let directory = host.entry(path)?.is_some_and(|entry| entry.kind == FileKind::Directory);
            if directory && !host.list(path)?.is_empty() {
                // Data may have grown in it (etcd's, for example): that is for a person to delete.
                return Ok(Some(format!("`{}` is left in place: the directory is not empty", path.display())));
            }
            host.remove(path)?;
        }
        BeforeImage::File { bytes, mode, uid, gid } => {
            host.write_owned(path, &BASE64.decode(bytes)?, *mode, (*uid, *gid))?;
        }
        BeforeImage::Link { target } => host.symlink(path, target)?,
        BeforeImage::Directory { mode, uid, gid } => {
            host.create_dir(path, *mode)?;
            if let Some(entry) = host.entry(path)? {
                if entry.mode != *mode {
                    host.set_mode(path, *mode)?;
                }
                if (entry.uid, entry.gid) != (*uid, *gid) {
                    host.set_owner(path, *uid, *gid)?;
                }
            }
        }
        other => bail!("the before-image of `{}` is of another kind: {other:?}", path.display()),
    }
    Ok(None)
}

/// Takes our part out of a file of others; the file too, when there was none and nothing else is in it.
fn restore_marks(host: &Host, path: &Path, was_absent: bool) -> Result<()> {
    let Some(text) = host.read(path)? else { return Ok(()) };
    let plain = marks::without(&text);
    if plain.is_empty() && was_absent {
        return host.remove(&host.resolve(path)?);
    }
    if plain == text { Ok(()) } else { host.edit(path, &plain) }
}

/// Unloads a module. One that is in use stays, and so do those that it needs.
fn unload(host: &Host, name: &str) -> Result<Option<String>> {
    if !module_loaded(host, name)? {
        return Ok(None);
    }
    let unloaded = host.try_run(&Command::new("modprobe").args(["--remove", "--", name]));
    Ok(match unloaded {
        Ok(unloaded) if unloaded.success() => None,
        _ => Some(format!("kernel module {name} stays loaded until the next boot: it is in use")),
    })
}

fn restore_unit(host: &Host, name: &str, enabled: &str, active: bool) -> Result<()> {
    let systemctl = |verb: &str| host.run(&Command::new("systemctl").arg(verb).arg(name));
    let now = host.try_run(&Command::new("systemctl").arg("is-enabled").arg(name))?.text().trim().to_owned();
    let runs = host.try_run(&Command::new("systemctl").arg("is-active").arg(name))?.text().trim() == "active";
    if runs && !active {
        systemctl("stop")?;
    }
    match (enabled, now.as_str()) {
        (was, now) if was == now => {}
        ("enabled", _) => drop(systemctl("enable")?),
        (_, "enabled") => drop(systemctl("disable")?),
        _ => {}
    }
    if active && !runs {
        systemctl("start")?;
    }
    Ok(())
}
