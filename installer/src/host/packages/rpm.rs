//! rpm's database, asked of `rpm`, and what dnf and yum were told to leave alone.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Installed, MultiArch, State};
use crate::host::{Command, Host};

/// Where rpm's database is: since rpm 4.16 some distributions have it below `/usr`.
const DATABASES: [&str; 2] = ["/usr/lib/sysimage/rpm", "/var/lib/rpm"];
/// One line a package.
const FORMAT: &str = r"%{NAME}\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\t%{ARCH}\n";
/// What the plugin `versionlock` of dnf and yum holds, one pattern a line.
const LOCKS: [&str; 2] = ["/etc/dnf/plugins/versionlock.list", "/etc/yum/pluginconf.d/versionlock.list"];
/// Where `exclude` and `excludepkgs` are.
const SETTINGS: [&str; 2] = ["/etc/dnf/dnf.conf", "/etc/yum.conf"];

/// Packages by name; `None` when this host has no rpm.
pub(super) fn read(host: &Host) -> Result<Option<BTreeMap<String, Vec<Installed>>>> {
    let mut there = false;
    for path in DATABASES {
        there |= !host.list(Path::new(path))?.is_empty();
    }
    if !there {
        return Ok(None);
    }
    let command = Command::new("rpm").args(["--query", "--all", "--queryformat", FORMAT]);
    let text = host.run(&command).context("asking rpm for the installed packages")?.text();
    let held = held(host)?;
    let mut packages: BTreeMap<String, Vec<Installed>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let mut words = line.split('\t');
        let (Some(name), Some(version), Some(architecture)) = (words.next(), words.next(), words.next()) else {
            anyhow::bail!("expected name, version and architecture of a package from `rpm --query`, found `{line}`");
        };
        // Keys of repositories are kept as packages; they are none.
        if name == "gpg-pubkey" {
            continue;
        }
        packages.entry(name.to_owned()).or_default().push(Installed {
            version: version.strip_prefix("0:").unwrap_or(version).to_owned(),
            architecture: architecture.to_owned(),
            multi_arch: MultiArch::No,
            state: State::Installed,
            reinstall: false,
            held: held.iter().any(|pattern| matches(pattern, name)),
            provides: Vec::new(),
            relations: Vec::new(),
        });
    }
    Ok(Some(packages))
}

/// Patterns of names that must stay as they are.
fn held(host: &Host) -> Result<Vec<String>> {
    let mut held = Vec::new();
    for path in LOCKS {
        let text = host.read_text(Path::new(path))?.unwrap_or_default();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '!']));
        held.extend(lines.map(|line| locked_name(line).to_owned()));
    }
    for path in SETTINGS {
        let text = host.read_text(Path::new(path))?.unwrap_or_default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once('=') else { continue };
            if matches!(key.trim(), "exclude" | "excludepkgs") {
                let names = value.split([' ', ',']).filter(|name| !name.is_empty());
                held.extend(names.map(str::to_owned));
            }
        }
    }
    Ok(held)
}

/// The name in `NAME-EPOCH:VERSION-RELEASE.ARCHITECTURE` or yum's `EPOCH:NAME-VERSION-RELEASE.ARCHITECTURE`.
fn locked_name(line: &str) -> &str {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match line.split_once(':') {
        Some((epoch, rest)) if digits(epoch) => rest.rsplitn(3, '-').last().unwrap_or(rest),
        Some((before, _)) => before.rsplit_once('-').map_or(before, |(name, _)| name),
        None => line.rsplitn(3, '-').last().unwrap_or(line),
    }
}

/// Shell patterns with `*` and `?`.
fn matches(pattern: &str, name: &str) -> bool {
    match (pattern.as_bytes(), name.as_bytes()) {
        ([], rest) => rest.is_empty(),
        ([b'*', ..], rest) => (0..=rest.len()).any(|at| matches(&pattern[1..], &name[at..])),
        ([b'?', ..], [_, ..]) => matches(&pattern[1..], &name[1..]),
        ([one, ..], [other, ..]) => one == other && matches(&pattern[1..], &name[1..]),
        ([_, ..], []) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_locks() {
        assert_eq!(locked_name("kernel-core-0:5.14.0-503.el9.*"), "kernel-core");
        assert_eq!(locked_name("0:kernel-core-5.14.0-503.el9.*"), "kernel-core");
        assert_eq!(locked_name("curl-7.76.1-31.el9"), "curl");
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("kernel*", "kernel-core", true),
            ("kernel", "kernel-core", false),
            ("?url", "curl", true),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
