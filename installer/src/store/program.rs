//! The installer's own copy on the host: what the agent, the approver and `resume` run.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use bundle::Digest;
use bundle::digest::Hashing;

use crate::context::{Context, HOME};
use crate::host::Host;
use crate::step::{Change, Check, Step};

/// This very program, even when its file was replaced or deleted.
const SELF: &str = "/proc/self/exe";

/// The step that keeps a copy of the installer under `/opt/sealift/installer/DIGEST12/` and points
/// `/opt/sealift/bin/installer` at it.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Digest of the running program.
    pub digest: Digest,
}

/// Digest of the running program.
pub fn running_program(host: &Host) -> Result<Digest> {
    let file = host.open(Path::new(SELF))?.with_context(|| format!("`{SELF}` cannot be read: is /proc mounted?"))?;
    let mut hashing = Hashing::new(file);
    std::io::copy(&mut hashing, &mut std::io::sink()).context("hashing the installer")?;
    Ok(hashing.finish().1)
}

/// Where the copy of an installer is kept.
pub fn program_path(digest: &Digest) -> PathBuf {
    Path::new(HOME).join("installer").join(digest.short()).join("installer")
}

impl Program {
    fn copy(&self) -> PathBuf {
        program_path(&self.digest)
    }

    fn target(&self) -> PathBuf {
        Path::new("../installer").join(self.digest.short()).join("installer")
    }
}

fn link() -> PathBuf {
    Path::new(HOME).join("bin/installer")
}

impl Step for Program {
    fn name(&self) -> &'static str {
        "installer"
    }

    fn title(&self) -> &'static str {
        "Keep a copy of the installer on the host"
    }

    fn check(&self, context: &Context<'_>) -> Result<Check> {
        let host = context.host;
        let mut changes = Vec::new();
        let size = host.open(Path::new(SELF))?.map(|file| file.metadata()).transpose()?.map(|metadata| metadata.len());
        let found = host.entry(&self.copy())?;
        // Written whole under a name that holds its digest, where only root writes.
        if found.is_none_or(|found| found.mode != 0o755 || Some(found.size) != size) {
            changes.push(Change::new(format!("write {}", self.copy().display())));
        }
        if host.link_target(&link())? != Some(self.target()) {
            changes.push(Change::new(format!("link {} -> {}", link().display(), self.target().display())));
        }
        Ok(if changes.is_empty() { Check::Done } else { Check::Needed(changes) })
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        let host = context.host;
        let mut program = host.open(Path::new(SELF))?.with_context(|| format!("`{SELF}` cannot be read"))?;
        host.write_from(&self.copy(), &mut program, 0o755)?;
        host.symlink(&link(), &self.target())
    }
}
