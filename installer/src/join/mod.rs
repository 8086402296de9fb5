//! Join files: what a host needs to become a node, and no more.
//!
//! A join file is JSON sealed by age ([`seal`]), so `age -d` opens it too. It says for which node of which cluster it is,
//! until when, and holds the files that this node cannot make itself, by their paths on the host; which these are depends
//! on its roles ([`contents`]; KUBERNETES.md, "Join files"). Everything else is made on the host. Whoever opens one trusts
//! age for its integrity; of a plain one (workers only) only the authority certificate counts, and that by its pin.

pub mod contents;
pub mod open;
pub mod passphrase;
pub mod payload;
pub mod seal;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use jiff::Timestamp;

use crate::cluster::founding::Founding;
use crate::pki::Secret;
use crate::report::{Exit, Explain as _};

pub use open::open;
pub use seal::Sealing;

/// An opened join file.
#[derive(Clone, Debug)]
pub struct Join {
    /// The cluster.
    pub founding: Founding,
    /// The node of the config that may use it.
    pub node: String,
    /// From then on it is refused.
    pub expires: Timestamp,
    /// Generation of the config in it.
    pub generation: u64,
    /// Text of the cluster's `cluster.toml` when it was made.
    pub config: String,
    /// Path on the host → content.
    pub files: BTreeMap<String, Secret>,
    /// What a person should know about the file: that others can read it, say.
    pub warnings: Vec<String>,
}

/// A path of the command line as an absolute one: the working directory is the shell's, everything else is the host's.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("`{}` is not a path", path.display())).exit(Exit::Usage)
}
