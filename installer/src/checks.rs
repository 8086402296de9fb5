//! The names of preflight's checks: stable, because operators write them after `--ignore` and scripts read them in `--json`.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! names {
    ($($variant:ident $text:literal,)*) => {
        /// One check of preflight; `docs/preflight.md` says what each looks at.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "the names are the documentation; `docs/preflight.md` has a row for each")]
        pub enum CheckName { $($variant,)* }

        impl CheckName {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As it is written on the command line.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

names! {
    Address "address",
    ApiNames "api-names",
    AppArmor "apparmor",
    Architecture "architecture",
    BootMenu "boot-menu",
    BootMount "boot-mount",
    BundleComponents "bundle-components",
    Capabilities "capabilities",
    Cgroup "cgroup",
    Clock "clock",
    ClockSkew "clock-skew",
    Container "container",
    DefaultRoutes "default-routes",
    Disk "disk",
    Distribution "distribution",
    Entropy "entropy",
    EtcdDisk "etcd-disk",
    Firewall "firewall",
    Founding "founding",
    HostName "host-name",
    Identity "identity",
    ImmutableFiles "immutable-files",
    Inodes "inodes",
    Interface "interface",
    JoinFile "join-file",
    Kernel "kernel",
    KubeProxyMode "kube-proxy-mode",
    Leftovers "leftovers",
    Memory "memory",
    Modules "modules",
    MountOptions "mount-options",
    Mtu "mtu",
    NameResolution "name-resolution",
    OomScore "oom-score",
    OpenFiles "open-files",
    OtherRuntimes "other-runtimes",
    OutOfTreeModules "out-of-tree-modules",
    OverlappingNetworks "overlapping-networks",
    PackageManager "package-manager",
    Packages "packages",
    Ports "ports",
    Processors "processors",
    Programs "programs",
    ProxyVariables "proxy-variables",
    Routes "routes",
    Secrets "secrets",
    SecureBoot "secure-boot",
    SeLinux "selinux",
    Shutdown "shutdown",
    SourceAddress "source-address",
    Swap "swap",
    Sysctls "sysctls",
    Systemd "systemd",
    TimeSync "time-sync",
    Tools "tools",
    UnattendedUpgrades "unattended-upgrades",
    Units "units",
    WildcardDns "wildcard-dns",
}

impl CheckName {
    /// Why a check cannot be ignored; `None` when it can.
    pub fn never_ignored(self) -> Option<&'static str> {
        Some(match self {
            Self::Address => "certificates, etcd and the node are bound to the configured address",
            Self::Architecture => "programs of another architecture do not run",
            Self::BootMenu => "without a way back a kernel that does not come up strands this host",
            Self::BundleComponents => "what the bundle does not have cannot be installed",
            Self::Founding | Self::JoinFile | Self::Secrets => "it keeps two clusters from being made of one",
            Self::Identity => "it is in certificates, in etcd and in every running pod",
            Self::Systemd => "everything is started by it",
            _ => return None,
        })
    }

    /// From the command line.
    ///
    /// # Errors
    /// Unknown names (with the list of those that can be ignored) and names that cannot be ignored (with the reason).
    pub fn to_ignore(text: &str) -> Result<Self, String> {
        let Some(name) = Self::named(text) else {
            let can = Self::ALL.iter().filter(|name| name.never_ignored().is_none());
            let list: Vec<&str> = can.map(|name| name.as_str()).collect();
            return Err(format!("no check has that name; these can be ignored: {}", list.join(", ")));
        };
        match name.never_ignored() {
            Some(reason) => Err(format!("this check cannot be ignored: {reason}")),
            None => Ok(name),
        }
    }

    fn named(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|name| name.as_str() == text)
    }

    /// From a record; names that this version does not know are left out.
    pub fn of_record(names: &BTreeSet<String>) -> BTreeSet<Self> {
        names.iter().filter_map(|name| Self::named(name)).collect()
    }

    /// For a record.
    pub fn to_record(names: &BTreeSet<Self>) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }
}

impl fmt::Display for CheckName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for CheckName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kebab_case_sorted_and_once() {
        let names: Vec<&str> = CheckName::ALL.iter().map(|name| name.as_str()).collect();
        assert!(names.iter().all(|name| name.chars().all(|c| c == '-' || c.is_ascii_lowercase())), "{names:?}");
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }

    #[test]
    fn what_cannot_be_ignored_says_why_and_a_wrong_name_lists_the_right_ones() {
        assert_eq!(CheckName::to_ignore("swap"), Ok(CheckName::Swap));
        let refused = CheckName::to_ignore("architecture").unwrap_err();
        assert_eq!(refused, "this check cannot be ignored: programs of another architecture do not run");
        let unknown = CheckName::to_ignore("swop").unwrap_err();
        assert!(unknown.contains(" swap,") && !unknown.contains("architecture"), "{unknown}");
    }

    #[test]
    fn a_record_of_another_version_is_read_as_far_as_it_is_known() {
        let record = BTreeSet::from(["swap".to_owned(), "moon-phase".to_owned()]);
        assert_eq!(CheckName::of_record(&record), BTreeSet::from([CheckName::Swap]));
        assert_eq!(CheckName::to_record(&BTreeSet::from([CheckName::Swap])), BTreeSet::from(["swap".to_owned()]));
    }
}
