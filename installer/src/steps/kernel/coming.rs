//! What preflight asks about a kernel that this run will install. Nothing is decided or changed here.

use anyhow::Result;
use bundle::component::Package;

use super::goal::{self, Goal};
use super::state::State;
use super::{arm, packages, pin, refused};
use crate::context::Context;
use crate::host::boot::Grub;

/// A kernel that this run will install and try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coming<'a> {
    /// Its release (`uname -r`).
    pub release: String,
    /// Packages that are not on the host yet.
    pub packages: Vec<&'a Package>,
}

/// The kernel that comes; `None` when none does, when one is here and on trial already, and when what the config wants cannot
/// be had ([`unmet`]).
pub fn coming<'a>(context: &Context<'a>) -> Result<Option<Coming<'a>>> {
    if context.facts.container.is_some() {
        return Ok(None);
    }
    let state = State::read(context.host)?;
    if state.trial.is_some() {
        return Ok(None);
    }
    let Ok(Goal::Install(kernel)) = Goal::of(context) else { return Ok(None) };
    if !matches!(refused(context, &state, &kernel), Ok(None)) {
        return Ok(None);
    }
    let Some(component) = goal::component(context) else { return Ok(None) };
    Ok(Some(Coming { release: kernel.release, packages: packages::missing(context.host, component)? }))
}

/// Why this host cannot get the kernel that the config wants; `None` when it can, and while a trial goes on.
pub fn unmet(context: &Context<'_>) -> Result<Option<anyhow::Error>> {
    if context.facts.container.is_some() || State::read(context.host)?.trial.is_some() {
        return Ok(None);
    }
    Ok(Goal::of(context).err())
}

/// Whether this run's kernel step installs what is missing of the kernel's packages.
pub fn installs(context: &Context<'_>) -> Result<bool> {
    let on_trial = context.facts.container.is_none() && State::read(context.host)?.trial.is_some();
    Ok(on_trial || coming(context)?.is_some())
}

/// Why the boot menu cannot be held at the running kernel while another one is tried once; `None` when it can, or when the
/// config goes without.
pub fn no_way_back(context: &Context<'_>) -> Result<Option<String>> {
    let grub = Grub::find(context.host)?;
    if let Err(error) = arm::fallback(context, grub.as_ref()) {
        return Ok(Some(format!("{error:#}")));
    }
    let unfit = grub.map(|grub| grub.unfit(context.host, &context.facts.kernel, pin::SETTINGS)).transpose()?;
    Ok(unfit.flatten())
}
