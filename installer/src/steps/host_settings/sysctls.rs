//! Kernel settings: one file, `/etc/sysctl.d/99-sealift.conf`, with only the keys this kernel has, and only the keys that
//! belong to this host: in a container `kernel.*`, `vm.*` and `fs.*` are the machine's, so they are reported, not set.

use anyhow::Result;

use crate::host::Host;

/// The one file (`sysctl.d(5)`).
pub(super) const SYSCTL_FILE: &str = "/etc/sysctl.d/99-sealift.conf";

/// What a key must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Exactly(&'static str),
    AtLeast(u64),
}

/// One key and why it matters; the reasons are the comments of the file.
#[derive(Clone, Copy, Debug)]
struct Setting {
    key: &'static str,
    want: Want,
    why: &'static str,
}

const fn exactly(key: &'static str, value: &'static str, why: &'static str) -> Setting {
    Setting { key, want: Want::Exactly(value), why }
}

const fn at_least(key: &'static str, value: u64, why: &'static str) -> Setting {
    Setting { key, want: Want::AtLeast(value), why }
}

/// Kubelet's own list (`protectKernelDefaults`, pkg/kubelet/cm/container_manager_linux.go) plus what routing pods takes.
const SETTINGS: &[Setting] = &[
    exactly("net.ipv4.ip_forward", "1", "pods are routed through this host"),
    exactly("net.bridge.bridge-nf-call-iptables", "1", "services work between pods of one host"),
    exactly("net.bridge.bridge-nf-call-ip6tables", "1", "services work between pods of one host"),
    at_least("net.core.somaxconn", 4096, "bursts of connections to the apiserver and its proxy"),
    exactly("vm.overcommit_memory", "1", "kubelet's kernel default"),
    exactly("vm.panic_on_oom", "0", "kubelet's kernel default"),
    at_least("vm.max_map_count", 262_144, "databases in pods"),
    exactly("kernel.panic", "10", "kubelet's kernel default: reboot after a kernel panic"),
    exactly("kernel.panic_on_oops", "1", "kubelet's kernel default"),
    at_least("kernel.keys.root_maxkeys", 1_000_000, "kubelet's kernel default"),
    at_least("kernel.keys.root_maxbytes", 25_000_000, "kubelet's kernel default"),
    at_least("fs.inotify.max_user_instances", 8192, "every container watches files"),
    at_least("fs.inotify.max_user_watches", 524_288, "every container watches files"),
];

/// What this host's kernel says about the wanted settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sysctls {
    /// The file as it should be.
    pub(super) file: String,
    /// Keys to change now: key, current value, wanted value.
    pub(super) wrong: Vec<(&'static str, String, String)>,
    /// Keys that this host may not set (they belong to the machine a container runs on) and that differ: reported only.
    pub(super) shared: Vec<(&'static str, String, String)>,
    /// Keys this kernel does not have.
    pub(super) missing: Vec<&'static str>,
}

impl Sysctls {
    /// Reads every key; `container` says that the kernel is shared with other hosts. Keys of modules that are still `coming`
    /// count as there.
    pub(super) fn survey(host: &Host, container: bool, coming: &[&str]) -> Result<Self> {
        let mut found = Self { file: "# Written by Sealift.\n".to_owned(), ..Self::default() };
        for setting in SETTINGS {
            let Some(current) = host.sysctl(setting.key)? else {
                match setting.want {
                    Want::Exactly(value)
                        if setting.key.starts_with("net.bridge.") && coming.contains(&"br_netfilter") =>
                    {
                        found.add(setting, value);
                    }
                    _ => found.missing.push(setting.key),
                }
                continue;
            };
            let (wanted, good) = match setting.want {
                Want::Exactly(value) => (value.to_owned(), current == value),
                Want::AtLeast(value) => {
                    (value.to_string(), current.parse::<u64>().is_ok_and(|current| current >= value))
                }
            };
            let foreign = container && !setting.key.starts_with("net.");
            if foreign || !host.sysctl_writable(setting.key) {
                if !good {
                    found.shared.push((setting.key, current, wanted));
                }
                continue;
            }
            // A value that is already higher was set by someone else for a reason: it is not lowered at the next boot.
            if !(good && current != wanted) {
                found.add(setting, &wanted);
            }
            if !good {
                found.wrong.push((setting.key, current, wanted));
            }
        }
        Ok(found)
    }

    /// Adds a key to the file.
    fn add(&mut self, setting: &Setting, wanted: &str) {
        for part in ["# ", setting.why, "\n", setting.key, " = ", wanted, "\n"] {
            self.file.push_str(part);
        }
    }

    /// Sets now what is wrong.
    pub(super) fn apply(&self, host: &Host) -> Result<()> {
        self.wrong.iter().try_for_each(|(key, _, wanted)| host.set_sysctl(key, wanted))
    }

    /// Keys this module may change, for the before-image.
    pub(super) fn keys() -> impl Iterator<Item = &'static str> {
        SETTINGS.iter().map(|setting| setting.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_module_that_will_be_loaded_are_planned() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        let file = |coming: &[&str]| Sysctls::survey(&host, false, coming).unwrap().file;
        assert!(file(&["br_netfilter"]).contains("net.bridge.bridge-nf-call-iptables = 1\n"));
        assert!(!file(&[]).contains("net.bridge"));
    }
}
