//! The pin: the boot menu's default held at one kernel, whatever packages come.
//!
//! Installing a kernel makes it the default, at once and before anybody has seen it run. So the kernel that runs is pinned
//! before the first package is touched, by the id of its entry; an accepted kernel takes its place, and the pin goes when
//! the distribution would boot that kernel by itself.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};

use super::state::{Pin, State};
use crate::host::Host;
use crate::host::boot::{Default, Entry, Grub, setting};
use crate::report::Explain as _;
use crate::step::Change;
use crate::steps::file::WantedFile;

/// Settings of `grub-mkconfig`, read after all others.
pub(super) const SETTINGS: &str = "/etc/default/grub.d/99-sealift.cfg";
/// Makes a kernel that stops in its tracks reboot, which boots the saved default. In the menu for a trial only: they are a
/// policy for production machines that Sealift has not been asked for. Without `hung_task_panic`: two minutes of a slow disk
/// are no fault of a kernel, and one that really hangs is ended by the trial's timer or the countdown.
pub(super) const PANIC: &str = "panic=30 softlockup_panic=1";
/// What they set: names and values of sysctls.
const SET: [(&str, &str); 2] = [("kernel.panic", "30"), ("kernel.softlockup_panic", "1")];
/// Whether new kernels become the default on Enterprise Linux (kernel-install's 20-grub.install reads it).
const SYSCONFIG: &str = "/etc/sysconfig/kernel";
/// Ours in it.
const KEPT: &str = "UPDATEDEFAULT=no # Sealift: until the kernel on trial is accepted";

/// What the settings are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// A trial: with the panic arguments.
    Trial,
    /// Holding the default after it.
    Hold,
}

fn settings(purpose: Purpose) -> WantedFile {
    let arguments = match purpose {
        Purpose::Trial => format!("GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX {PANIC}\"\n"),
        Purpose::Hold => String::new(),
    };
    let text = format!(
        "# Written by Sealift: a kernel that has proven itself stays the default of the boot menu until another one has.\n\
         GRUB_DEFAULT=saved\n\
         GRUB_SAVEDEFAULT=false\n\
         {arguments}"
    );
    WantedFile::public(SETTINGS, text)
}

/// The menu entry of a kernel.
pub(super) fn entry(host: &Host, grub: &Grub, release: &str) -> Result<Entry> {
    let menu = grub.menu(host)?;
    menu.of(release).cloned().with_context(|| {
        format!("the boot menu `{}` has no entry with an id for Linux {release}", grub.config().display())
    })
}

/// The running kernel's entry: the way back.
pub(super) fn running(host: &Host, grub: &Grub, release: &str) -> Result<Entry> {
    entry(host, grub, release).hint(
        "without it nothing could be gone back to: `update-grub` makes one if the kernel's package is installed; a host whose \
         kernel comes from outside (direct boot) needs `[kernel] policy = \"keep\"`",
    )
}

/// Whether the menu boots this entry by default, for as long as nobody changes that, and is ready for a trial.
pub(super) fn holds(host: &Host, grub: &Grub, entry: &Entry) -> Result<bool> {
    let menu = grub.menu(host)?;
    let files =
        if grub.entries { sysconfig(host)?.is_none() } else { settings(Purpose::Trial).change(host)?.is_none() };
    Ok(files
        && menu.default == Default::Saved
        && menu.once
        && menu.entry(&entry.id).is_some_and(|found| found.release == entry.release)
        && grub.environment(host)?.saved() == Some(entry.id.as_str()))
}

/// What pinning changes, for people.
pub(super) fn changes(grub: &Grub, entry: &Entry) -> Vec<Change> {
    let file = if grub.entries { SYSCONFIG } else { SETTINGS };
    vec![
        Change::new(format!("write {file}: new kernels do not become the default; `{PANIC}`")),
        Change::new(format!("keep Linux {} the default of the boot menu (entry {})", entry.release, entry.id)),
    ]
}

/// Pins an entry. At every moment the menu boots either what it booted before or this entry.
pub(super) fn pin(host: &Host, grub: &Grub, entry: &Entry, state: &mut State) -> Result<()> {
    let saved_before = match &state.pin {
        Some(pin) => pin.saved_before.clone(),
        None => grub.environment(host)?.saved().map(str::to_owned),
    };
    let pin = Pin { release: entry.release.clone(), entry: entry.id.clone(), saved_before };
    if state.pin.as_ref() != Some(&pin) {
        state.pin = Some(pin);
        state.write(host)?;
    }
    if !grub.entries && state.watched.is_none() {
        state.watched = Some(panics(host)?);
        state.write(host)?;
    }
    // A run that died may have written the settings and not made the menu.
    let watched = grub.entries || grub.menu(host)?.entry(&entry.id).is_some_and(|found| found.options.contains(PANIC));
    if watched && holds(host, grub, entry)? {
        return Ok(());
    }
    grub.set_default(host, &entry.id)?;
    if grub.entries {
        if let Some(text) = sysconfig(host)? {
            host.write(Path::new(SYSCONFIG), text.as_bytes(), 0o644)?;
        }
    } else if settings(Purpose::Trial).write(host)? || !watched || grub.menu(host)?.default != Default::Saved {
        grub.regenerate(host)?;
    }
    require(host, grub, entry)
}

/// What this kernel does now about what the panic arguments are for.
fn panics(host: &Host) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for (name, _) in SET {
        found.extend(host.sysctl(name)?.map(|value| (name.to_owned(), value)));
    }
    Ok(found)
}

/// A trial is over and the pin stays: takes the panic arguments out of the boot menu, and what they set of the running kernel.
pub(super) fn relax(host: &Host, grub: &Grub, state: &mut State) -> Result<()> {
    if !grub.entries {
        settings(Purpose::Hold).write(host)?;
        grub.regenerate(host)?;
    }
    forget_panics(host, state)?;
    state.write(host)
}

/// Puts back what the arguments have set; what somebody else has set since stays.
fn forget_panics(host: &Host, state: &mut State) -> Result<()> {
    for (name, before) in state.watched.iter().flatten() {
        let ours = SET.iter().find(|(set, _)| set == name).map(|(_, value)| *value);
        if host.sysctl(name)?.as_deref() == ours && Some(before.as_str()) != ours && host.sysctl_writable(name) {
            host.set_sysctl(name, before)?;
        }
    }
    state.watched = None;
    Ok(())
}

/// Reads back that the pin holds.
pub(super) fn require(host: &Host, grub: &Grub, entry: &Entry) -> Result<()> {
    if holds(host, grub, entry)? {
        return Ok(());
    }
    let menu = grub.menu(host)?;
    let saved = grub.environment(host)?.saved().map(str::to_owned).unwrap_or_default();
    Err(anyhow!(
        "the boot menu `{}` does not boot Linux {} by default as it should: its default is {:?}, the saved entry `{saved}`, \
         the entry is {}",
        grub.config().display(),
        entry.release,
        menu.default,
        menu.entry(&entry.id).map_or("missing".to_owned(), |found| format!("for Linux {}", found.release)),
    ))
    .hint("something else writes the boot menu's settings (`/etc/default/grub`, `/etc/default/grub.d`); no kernel was installed")
}

/// What the distribution boots by itself, without our settings.
enum Own {
    /// This release.
    Release(String),
    /// What is saved: the host's own policy, to which an accepted kernel is told.
    Saved,
    /// Something an operator chose.
    Chosen,
}

fn own_default(host: &Host, grub: &Grub) -> Result<Own> {
    let wanted = setting(host, "GRUB_DEFAULT", &[SETTINGS])?;
    Ok(match wanted.as_deref() {
        _ if grub.entries => Own::Saved,
        None | Some("" | "0") => {
            let menu = grub.menu(host)?;
            Own::Release(menu.entries.first().map(|entry| entry.release.clone()).unwrap_or_default())
        }
        Some("saved") => Own::Saved,
        Some(_) => Own::Chosen,
    })
}

/// Whether the pin can go without a kernel becoming the default that is not one of these.
pub(super) fn can_go(host: &Host, grub: &Grub, good: &[&str]) -> Result<bool> {
    Ok(match own_default(host, grub)? {
        Own::Release(found) => good.contains(&found.as_str()),
        Own::Saved => true,
        Own::Chosen => false,
    })
}

/// Gives the boot menu back to the distribution, which boots one of these kernels by itself.
pub(super) fn unpin(host: &Host, grub: &Grub, state: &mut State, good: &[&str]) -> Result<()> {
    let Some(pin) = state.pin.clone() else { return Ok(()) };
    let own = own_default(host, grub)?;
    if let Own::Release(found) = &own
        && !good.contains(&found.as_str())
    {
        bail!("the boot menu would boot Linux {found} without the pin, not Linux {}", good.join(" or "));
    }
    if grub.entries {
        if let Some(text) = host.read_text(Path::new(SYSCONFIG))? {
            let kept: Vec<&str> = text.lines().filter(|line| *line != KEPT).collect();
            host.write(Path::new(SYSCONFIG), (kept.join("\n") + "\n").as_bytes(), 0o644)?;
        }
    } else {
        host.remove(Path::new(SETTINGS))?;
        grub.regenerate(host)?;
    }
    if let Own::Release(release) = own {
        let menu = grub.menu(host)?;
        let first = menu.entries.first().map(|entry| entry.release.as_str());
        if menu.default == Default::Saved || first != Some(release.as_str()) {
            bail!("`{}` was made anew and does not boot Linux {release} by default", grub.config().display());
        }
        match &pin.saved_before {
            Some(id) => grub.set_default(host, id)?,
            None => grub.unset(host, "saved_entry")?,
        }
    }
    forget_panics(host, state)?;
    state.pin = None;
    state.write(host)
}

/// The text that `/etc/sysconfig/kernel` should have; `None` when it has it.
fn sysconfig(host: &Host) -> Result<Option<String>> {
    let text = host.read_text(Path::new(SYSCONFIG))?.unwrap_or_default();
    // The last assignment counts, so the operator's own line can stay as it is.
    if text.lines().last() == Some(KEPT) {
        return Ok(None);
    }
    let mut lines: Vec<&str> = text.lines().filter(|line| *line != KEPT).collect();
    lines.push(KEPT);
    Ok(Some(lines.join("\n") + "\n"))
}
