//! Programs of the host, and the limits that its services get.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::host::{Command, Host};

/// Tools that Sealift or the programs it installs call, and how each is asked for its version.
const TOOLS: &[(&str, &str)] = &[
    ("systemctl", "--version"),
    ("nft", "--version"),
    ("iptables", "--version"),
    ("ip6tables", "--version"),
    ("conntrack", "--version"),
    ("ip", "-V"),
    ("mount", "--version"),
    ("umount", "--version"),
    ("modprobe", "--version"),
    ("sysctl", "--version"),
    ("ethtool", "--version"),
    ("socat", "-V"),
    ("ebtables", "--version"),
    ("ipset", "--version"),
    ("blkid", "--version"),
    ("apparmor_parser", "--version"),
    ("dpkg", "--version"),
    ("rpm", "--version"),
];

/// Directories that programs are looked for in.
const PATH: &[&str] = &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What services get from process 1, which need not be what this process has.
pub(super) struct ServiceLimits {
    /// Whether it may raise limits and lower OOM scores (`CAP_SYS_RESOURCE`, capabilities(7)).
    pub(super) resource: bool,
    /// Hard limit of open files.
    pub(super) nofile: u64,
}

/// Capabilities without which programs cannot be installed and nodes not be set up, by number (capabilities(7)).
const CAPABILITIES: &[(u32, &str)] = &[
    (0, "CAP_CHOWN"),
    (1, "CAP_DAC_OVERRIDE"),
    (3, "CAP_FOWNER"),
    (5, "CAP_KILL"),
    (12, "CAP_NET_ADMIN"),
    (21, "CAP_SYS_ADMIN"),
];

/// Those of the needed capabilities that this process does not have (`/proc/self/status`).
pub(super) fn missing_capabilities(status: &str) -> Vec<String> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(effective) = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()) else { return Vec::new() };
    let missing = CAPABILITIES.iter().filter(|(number, _)| effective >> number & 1 == 0);
    missing.map(|(_, name)| (*name).to_owned()).collect()
}

impl ServiceLimits {
    pub(super) fn of(host: &Host) -> Result<Self> {
        const CAP_SYS_RESOURCE: u32 = 24;
        let status = host.read_text(Path::new("/proc/1/status"))?.unwrap_or_default();
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
        let limits = host.read_text(Path::new("/proc/1/limits"))?.unwrap_or_default();
        let nofile = limits.lines().find_map(|line| line.strip_prefix("Max open files")).and_then(|line| {
            let hard = line.split_whitespace().nth(1)?;
            if hard == "unlimited" { Some(u64::MAX) } else { hard.parse().ok() }
        });
        Ok(Self { resource: effective >> CAP_SYS_RESOURCE & 1 == 1, nofile: nofile.unwrap_or(1024) })
    }
}

/// Where a program is, on the PATH of root.
pub fn which(host: &Host, program: &str) -> Result<Option<PathBuf>> {
    for directory in PATH {
        let path = Path::new(directory).join(program);
        if host.exists(&path)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

pub(super) fn tools(host: &Host) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for (tool, flag) in TOOLS {
        if which(host, tool)?.is_none() {
            continue;
        }
        let command = Command::new(tool).arg(flag).timeout(Duration::from_secs(10));
        let said = host.try_run(&command).map(|finished| finished.text()).unwrap_or_default();
        found.insert((*tool).to_owned(), parse_version(&said));
    }
    Ok(found)
}

/// The first thing that looks like a version: `nftables v1.0.6 (…)` → `1.0.6`, `systemd 252 (252.39)` → `252`.
fn parse_version(text: &str) -> String {
    let words = text.lines().next().unwrap_or_default().split([' ', ',', '-']);
    let mut candidates = words.map(|word| word.trim_start_matches(['v', '(']).trim_end_matches(')'));
    candidates.find(|word| word.starts_with(|c: char| c.is_ascii_digit())).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_tools() {
        for (said, version) in [
            ("nftables v1.0.6 (Lester Gooch #5)", "1.0.6"),
            ("iptables v1.8.9 (nf_tables)", "1.8.9"),
            ("systemd 252 (252.39-1~deb12u2)\n+PAM", "252"),
            ("ip utility, iproute2-6.1.0, libbpf 1.1.2", "6.1.0"),
            ("mount from util-linux 2.38.1 (libmount", "2.38.1"),
            ("conntrack v1.4.7 (conntrack-tools)", "1.4.7"),
            ("", ""),
        ] {
            assert_eq!(parse_version(said), version, "{said}");
        }
    }

    #[test]
    fn capabilities_that_are_not_there_are_named() {
        assert!(missing_capabilities("CapEff:\t000001ffffffffff\n").is_empty());
        let docker = missing_capabilities("CapEff:\t00000000a80425fb\n");
        assert_eq!(docker, ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
    }
}
