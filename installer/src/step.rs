//! A step: one idempotent unit of host change. Its *check* decides whether anything is to be done; the journal only
//! explains and orders.

use std::fmt;
use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::host::firewall::Rule;
use crate::restart::Restart;

/// One unit of host change. Applying twice changes nothing.
pub trait Step {
    /// Short name, unique in a plan: `kube-apiserver`.
    fn name(&self) -> &'static str;

    /// What it does, for people: `Start the Kubernetes API server`.
    fn title(&self) -> &'static str;

    /// What `apply` may change. The engine records how each was before the first apply, for undo.
    fn touches(&self, context: &Context<'_>) -> Result<Vec<Target>> {
        let _ = context;
        Ok(Vec::new())
    }

    /// Compares the host with what is wanted. Changes nothing; also what `plan` calls.
    fn check(&self, context: &Context<'_>) -> Result<Check>;

    /// Makes it so. The engine calls it only after a check that said [`Check::Needed`], and checks again afterwards.
    fn apply(&self, context: &Context<'_>) -> Result<()>;

    /// Undoes what the engine cannot put back from the before-images of [`Step::touches`]: runs before they are restored.
    fn undo(&self, context: &Context<'_>) -> Result<()> {
        let _ = context;
        Ok(())
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// As wanted.
    Done,
    /// Left as it is, for this reason (`kept: running kernel 6.1.0-40 is new enough`).
    Kept(String),
    /// Does not apply to this host, for this reason (`skipped: shares the machine's kernel`).
    Skipped(String),
    /// To be applied; each line says one change. Without lines: to be run, but it will not change the host.
    Needed(Vec<Change>),
    /// Another host has to act first; `installer resume` continues then.
    Waiting(String),
    /// Everything before a reboot is done; the run goes on after it.
    Reboot(Restart),
}

/// One line a person reads in `plan`: `write /etc/crictl.yaml (112 B)`, `start etcd.service`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Change(pub String);

impl Change {
    /// A change, said in one line, verb first.
    pub fn new(line: impl Into<String>) -> Self {
        Self(line.into())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Something a step changes and the engine can put back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// A file or link: bytes, mode, owner, or its absence.
    File(PathBuf),
    /// A sysctl of the running kernel.
    Sysctl(String),
    /// A systemd unit: enabled or not, active or not. Its file is a [`Target::File`] of its own.
    Unit(String),
    /// Our block and our comments in a text file of others ([`crate::host::marks`]).
    Marks(PathBuf),
    /// A kernel module: loaded or not.
    Module(String),
    /// A swap device or file: in use or not.
    Swap(PathBuf),
    /// A file by which the kernel is set, below `/sys`: its text.
    Kernel(PathBuf),
    /// A rule of the host's firewall: there or not.
    Rule(Rule),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) | Self::Kernel(path) => write!(f, "{}", path.display()),
            Self::Sysctl(name) => write!(f, "sysctl {name}"),
            Self::Unit(name) => write!(f, "unit {name}"),
            Self::Marks(path) => write!(f, "Sealift's lines in {}", path.display()),
            Self::Module(name) => write!(f, "kernel module {name}"),
            Self::Swap(path) => write!(f, "swap on {}", path.display()),
            Self::Rule(rule) => write!(f, "{rule}"),
        }
    }
}
