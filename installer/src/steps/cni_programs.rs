//! The CNI plugins of the bundle where other network plugins expect them: beside their own, in one directory.
//!
//! containerd before 2.1 looks for CNI programs in one directory only. flannel and calico put their own into `/opt/cni/bin`
//! and call `loopback`, `host-local` and `portmap` as well, which are the bundle's. So do those that a person installs
//! (`plugin = "none"`).

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::context::Context;
use crate::step::{Change, Target};

/// Where network plugins put their programs; containerd looks there unless the bundle's own bridge is the plugin.
pub const DIRECTORY: &str = "/opt/cni/bin";

/// The component that brings them.
const COMPONENT: &str = "cni";

/// A link to a program of the current generation, so that it follows upgrades.
struct Link {
    path: PathBuf,
    target: PathBuf,
}

/// The links that this step makes, or may have made.
pub(super) fn touches(context: &Context<'_>) -> Vec<Target> {
    links(context).into_iter().map(|link| Target::File(link.path)).collect()
}

/// One change a link that is missing.
pub(super) fn changes(context: &Context<'_>) -> Result<Vec<Change>> {
    let missing = missing(context)?;
    let line = |link: &Link| format!("link {} to {}", link.path.display(), link.target.display());
    Ok(missing.iter().map(|link| Change::new(line(link))).collect())
}

/// Makes the links that are missing.
pub(super) fn make(context: &Context<'_>) -> Result<()> {
    missing(context)?.iter().try_for_each(|link| context.host.symlink(&link.path, &link.target))
}

/// What is there under such a name stays: it is ours already, or the plugin's or somebody's own program.
fn missing(context: &Context<'_>) -> Result<Vec<Link>> {
    let mut missing = Vec::new();
    for link in links(context) {
        if context.host.entry(&link.path)?.is_none() {
            missing.push(link);
        }
    }
    Ok(missing)
}

fn links(context: &Context<'_>) -> Vec<Link> {
    if !context.config.network.plugin.has_own_programs() {
        return Vec::new();
    }
    let programs = context.component(COMPONENT).map(|component| component.programs.as_slice()).unwrap_or_default();
    let names = programs.iter().filter_map(|program| {
        let name = Path::new(program.as_str()).strip_prefix("bin").ok()?;
        Some(Link { path: Path::new(DIRECTORY).join(name), target: context.program(COMPONENT, program.as_str()) })
    });
    names.collect()
}
