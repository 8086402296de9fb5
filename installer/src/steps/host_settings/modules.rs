//! Kernel modules: what the components of this role ask for, against what this kernel has, and how it is loaded now and at
//! the next boot (`/etc/modules-load.d/sealift.conf`).
//!
//! A container has no modules of its own: what the shared kernel lacks is reported there, never loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::host::{Command, Host};

/// Loads modules at boot (systemd-modules-load, `modules-load.d(5)`).
pub(super) const MODULES_FILE: &str = "/etc/modules-load.d/sealift.conf";

/// How a module is present on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// In `/proc/modules`.
    Loaded,
    /// Part of the kernel image, or its feature works without a module.
    BuiltIn,
    /// Not loaded, but the kernel's module directory has it.
    Loadable,
    /// This kernel does not have it.
    Absent,
}

/// The modules wanted here and how each is present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Modules(BTreeMap<String, Presence>);

impl Modules {
    /// Looks every wanted module up; `release` is `uname -r`. What a `container` could load would be the machine's.
    pub(super) fn survey(host: &Host, release: &str, container: bool, wanted: &BTreeSet<String>) -> Result<Self> {
        let directory = Path::new("/lib/modules").join(release);
        let loaded = names_in_proc_modules(&host.read_text(Path::new("/proc/modules"))?.unwrap_or_default());
        let builtin = names_of_files(&host.read_text(&directory.join("modules.builtin"))?.unwrap_or_default());
        let loadable = names_of_files(&host.read_text(&directory.join("modules.dep"))?.unwrap_or_default());
        let mut found = BTreeMap::new();
        for name in wanted {
            let presence = if loaded.contains(name) {
                Presence::Loaded
            } else if builtin.contains(name) || feature_works(host, name)? {
                Presence::BuiltIn
            } else if loadable.contains(name) && !container {
                Presence::Loadable
            } else {
                Presence::Absent
            };
            found.insert(name.clone(), presence);
        }
        Ok(Self(found))
    }

    /// Names with this presence, sorted.
    pub(super) fn with(&self, presence: Presence) -> Vec<&str> {
        self.0.iter().filter(|(_, found)| **found == presence).map(|(name, _)| name.as_str()).collect()
    }

    /// What `modules-load.d` shall hold: everything that is a module on this kernel; `None` when that is nothing.
    pub(super) fn file(&self) -> Option<String> {
        let names: Vec<&str> = self
            .0
            .iter()
            .filter(|(_, presence)| matches!(presence, Presence::Loaded | Presence::Loadable))
            .map(|(name, _)| name.as_str())
            .collect();
        if names.is_empty() {
            return None;
        }
        Some(format!("# Written by Sealift: kernel modules of its components.\n{}\n", names.join("\n")))
    }

    /// Loads what is loadable and not loaded.
    pub(super) fn load(&self, host: &Host) -> Result<()> {
        for name in self.with(Presence::Loadable) {
            host.run(&Command::new("modprobe").arg("--").arg(name))
                .with_context(|| format!("loading kernel module `{name}`"))?;
        }
        Ok(())
    }
}

/// Whether what a module provides is there without it being listed (a kernel without module directory, a container).
fn feature_works(host: &Host, module: &str) -> Result<bool> {
    let file: PathBuf = match module {
        "overlay" => {
            let filesystems = host.read_text(Path::new("/proc/filesystems"))?.unwrap_or_default();
            return Ok(filesystems.lines().any(|line| line.trim_start_matches("nodev").trim() == "overlay"));
        }
        "br_netfilter" => "/proc/sys/net/bridge/bridge-nf-call-iptables".into(),
        "nf_conntrack" => "/proc/sys/net/netfilter/nf_conntrack_max".into(),
        "ip_vs" => "/proc/net/ip_vs".into(),
        "ip_tables" => "/proc/net/ip_tables_names".into(),
        other => Path::new("/sys/module").join(other),
    };
    Ok(host.entry(&file)?.is_some())
}

/// First word of each line of `/proc/modules`.
fn names_in_proc_modules(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| line.split_whitespace().next()).map(canonical).collect()
}

/// Module names of `modules.builtin` (`kernel/net/x.ko`) and `modules.dep` (`kernel/net/x.ko.xz: …`).
fn names_of_files(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.split(':').next()?.rsplit('/').next()?.split(".ko").next())
        .filter(|name| !name.is_empty())
        .map(canonical)
        .collect()
}

/// The kernel treats `-` and `_` alike; `_` is what it prints.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_lists_are_read() {
        let dep =
            "kernel/net/netfilter/ipvs/ip_vs_rr.ko.xz: kernel/net/netfilter/ipvs/ip_vs.ko.xz\nkernel/x/vhost-net.ko:\n";
        assert_eq!(names_of_files(dep).into_iter().collect::<Vec<_>>(), ["ip_vs_rr", "vhost_net"]);
        let proc = "overlay 167936 5 - Live 0x0\nbr_netfilter 36864 0 - Live 0x0\n";
        assert!(names_in_proc_modules(proc).contains("br_netfilter"));
        assert!(names_of_files("").is_empty());
    }

    #[test]
    fn only_real_modules_are_loaded_at_boot() {
        let modules = Modules(BTreeMap::from([
            ("br_netfilter".to_owned(), Presence::Loadable),
            ("ip_vs".to_owned(), Presence::Absent),
            ("nf_conntrack".to_owned(), Presence::Loaded),
            ("overlay".to_owned(), Presence::BuiltIn),
        ]));
        let file = modules.file().unwrap();
        assert_eq!(file.lines().skip(1).collect::<Vec<_>>(), ["br_netfilter", "nf_conntrack"]);
        assert_eq!(Modules::default().file(), None);
    }
}
