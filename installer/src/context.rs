//! What every step gets to see: the host, the wanted state, and a way to say what happens.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bundle::{Component, Digest, Image};

use crate::checks::CheckName;
use crate::config::{ClusterConfig, Node, Roles};
use crate::event::{Event, Events};
use crate::facts::Facts;
use crate::generation::Generation;
use crate::host::Host;
use crate::join::Join;
use crate::restart::Mode;
use crate::share::Share;

pub mod proxy_mode;
mod variables;

pub use variables::variables;

/// Where Sealift keeps programs: everything in it is root's alone.
pub const HOME: &str = "/opt/sealift";
/// The generation in use.
pub const CURRENT: &str = "/opt/sealift/current";
/// State of the installer and its long-running modes.
pub const STATE: &str = "/var/lib/sealift";
/// Configuration, certificates and secrets.
pub const ETC: &str = "/etc/sealift";
/// Stamps of started units.
pub const STARTED: &str = "/run/sealift/started";

/// Everything a step may use. Steps change the machine through `host` only.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The door to the machine.
    pub host: &'a Host,
    /// Where events go; see [`Context::note`].
    pub events: &'a dyn Events,
    /// The cluster.
    pub config: &'a ClusterConfig,
    /// This host in the cluster.
    pub node: &'a Node,
    /// The roles this run installs (a subset of the node's).
    pub roles: &'a Roles,
    /// What the host is and can do.
    pub facts: &'a Facts,
    /// All components of the bundle, needed by this host or not.
    pub components: &'a [Component],
    /// The same with everything the bundle says about them: references, manifests, blobs.
    pub images: &'a [Image],
    /// The rendered wanted state.
    pub desired: &'a Generation,
    /// Digest of the installer at work: its long-running modes are started from the copy of that name.
    pub installer: Digest,
    /// The opened join file, when this run was given one.
    pub join: Option<&'a Join>,
    /// Whether this run, or the pending one that it goes on with, was given a join file: then it founds no cluster.
    pub joined: bool,
    /// Whether the operator said `--init`: found a new cluster here.
    pub init: bool,
    /// Checks of preflight that the operator said to ignore.
    pub ignored: &'a BTreeSet<CheckName>,
    /// The day of the bundle, `YYYY-MM-DD`; none in a run without one.
    pub created: Option<&'a str>,
    /// How long the run waits for other hosts before it ends with exit code 6.
    pub patience: Duration,
    /// What the operator said about reboots.
    pub reboot: Mode,
    /// How many kernels had failed here when the operator said `--retry-kernel`: one is tried again until a further one has.
    pub retry_kernel: Option<usize>,
    /// Name of the step at work, for events.
    pub step: &'a str,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("node", &self.node).field("step", &self.step).finish_non_exhaustive()
    }
}

impl<'a> Context<'a> {
    /// What of the bundle concerns this host.
    pub fn share(&self) -> Share<'a> {
        Share { roles: self.roles, distribution: &self.facts.os.distribution }
    }

    /// A component of the bundle.
    pub fn component(&self, name: &str) -> Option<&Component> {
        self.components.iter().find(|component| component.name.as_str() == name)
    }

    /// An image of the bundle.
    pub fn image(&self, name: &str) -> Option<&Image> {
        self.images.iter().find(|image| image.component.name.as_str() == name)
    }

    /// Path of a component's program in the current generation.
    pub fn program(&self, component: &str, path: &str) -> PathBuf {
        Path::new(CURRENT).join(component).join(path)
    }

    /// Path of a component's rendered config file in the current generation.
    pub fn etc(&self, component: &str, name: &str) -> PathBuf {
        Path::new(CURRENT).join("etc").join(component).join(name)
    }

    /// Says a fact worth a line.
    pub fn note(&self, text: impl Into<String>) {
        self.events.emit(&Event::Note { step: self.step.to_owned(), text: text.into() });
    }

    /// An error with a hint: one action a person can take. Short for [`Explain::hint`](crate::report::Explain::hint).
    pub fn hinted(&self, error: anyhow::Error, hint: impl Into<String>) -> anyhow::Error {
        crate::report::Explain::hint(error, hint)
    }

    /// Says something a person should look at.
    pub fn warn(&self, text: impl Into<String>) {
        self.events.emit(&Event::Warning { step: self.step.to_owned(), text: text.into() });
    }

    /// Says how far a long step has come; `total` 0 when not known, `unit` is `bytes` or what is counted.
    pub fn progress(&self, done: u64, total: u64, unit: &str) {
        let (step, unit) = (self.step.to_owned(), unit.to_owned());
        self.events.emit(&Event::Progress { step, done, total, unit });
    }
}
