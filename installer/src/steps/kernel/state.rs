//! What this host remembers of kernels, across runs and reboots: the one on trial, the one accepted, those that failed, and
//! the pin in the boot menu.
//!
//! One file, written whole and synced before the act that it announces. Runs come and go in the journal; this stays, so that
//! a kernel that has failed is not tried again by the next run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::health::Snapshot;
use crate::host::Host;

/// Where it is.
pub const PATH: &str = "/var/lib/sealift/kernel.json";

/// Everything that is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct State {
    /// The kernel on trial.
    pub trial: Option<Trial>,
    /// The last one that was tried and accepted.
    pub accepted: Option<Accepted>,
    /// What was changed in the boot menu's default, as long as it is.
    pub pin: Option<Pin>,
    /// Kernels that were tried and failed, oldest first.
    pub failed: Vec<Failed>,
    /// Releases whose initramfs counts down, or may: to be made anew without it once the trial is over.
    pub countdowns: BTreeSet<String>,
    /// What the panic arguments set, as it was before they came into the boot menu; as long as they may be in there.
    pub watched: Option<BTreeMap<String, String>>,
    /// This host's node, while it is closed for new pods for a trial; it was open before.
    pub closed: Option<String>,
}

/// A kernel: what `uname -r` prints, and which build of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Release (`uname -r`).
    pub release: String,
    /// Package that brings it.
    pub package: String,
    /// Its version.
    pub version: String,
}

/// A kernel on trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trial {
    /// Which.
    pub kernel: Identity,
    /// Its entry of the boot menu, where there is one.
    pub entry: Option<String>,
    /// The kernel that ran before: the way back.
    pub before: String,
    /// `uname -v` of that one.
    pub before_build: String,
    /// How it is started, and what leads back.
    pub fallback: Fallback,
    /// Identity of the boot in which it was armed.
    pub boot_id: String,
    /// How far arming came.
    pub stage: Stage,
    /// Since when.
    pub since: Timestamp,
    /// Why it was not accepted, once that is known.
    pub verdict: Option<String>,
    /// The host before the reboot.
    pub snapshot: Snapshot,
    /// Reboots after which the boot loader still had the entry that it was to boot.
    #[serde(default)]
    pub ignored: u32,
}

/// How far arming came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stage {
    /// On record, but perhaps not yet in the boot loader.
    Arming,
    /// Read back from the boot loader.
    Armed,
}

/// What leads back to the kernel before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Fallback {
    /// GRUB boots the new kernel once; every other boot is the one before.
    Grub,
    /// The running kernel starts the new one (kexec); every other boot is the one before.
    Kexec,
    /// Nothing: the operator gave a reason.
    Nothing,
}

/// A kernel that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Accepted {
    /// Which.
    pub kernel: Identity,
    /// `uname -v`.
    pub build: String,
    /// When.
    pub time: Timestamp,
    /// What was not as before and did not count against it.
    #[serde(default)]
    pub differences: Vec<String>,
}

/// A kernel that was tried and failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failed {
    /// Which.
    pub kernel: Identity,
    /// Why, as far as it is known.
    pub reason: String,
    /// When that was found.
    pub time: Timestamp,
}

/// What holds the boot menu's default at one kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pin {
    /// Release that is booted by default.
    pub release: String,
    /// Its entry.
    pub entry: String,
    /// The saved default before Sealift set one.
    pub saved_before: Option<String>,
}

impl State {
    /// Reads it; nothing on a host where no kernel was ever touched.
    pub(super) fn read(host: &Host) -> Result<Self> {
        match host.read_text(Path::new(PATH))? {
            Some(text) => serde_json::from_str(&text).with_context(|| format!("reading `{PATH}`")),
            None => Ok(Self::default()),
        }
    }

    /// Writes it.
    pub(super) fn write(&self, host: &Host) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        host.write(Path::new(PATH), text.as_bytes(), 0o600).context("recording what becomes of the kernel")
    }

    /// Whether a kernel was tried here and failed.
    pub(super) fn failure(&self, kernel: &Identity) -> Option<&Failed> {
        self.failed.iter().rev().find(|failed| failed.kernel == *kernel)
    }
}
