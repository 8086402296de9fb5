//! What the machine enforces and runs beside us: security modules, Secure Boot, clock, upgrades, proxies.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::host::{Command, Host};

/// How SELinux works here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SeLinux {
    /// Not part of this kernel, or switched off.
    #[default]
    Off,
    /// It only logs.
    Permissive,
    /// It denies.
    Enforcing,
}

/// What watches over programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Security {
    /// SELinux.
    pub selinux: SeLinux,
    /// AppArmor is on.
    pub apparmor: bool,
    /// The firmware starts signed kernels only; `None` without UEFI.
    pub secure_boot: Option<bool>,
}

/// How the clock is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Clock {
    /// Active time services.
    pub services: Vec<String>,
    /// The kernel's word that the clock is synchronised (`timedatectl`); `None` when it cannot be asked.
    pub synchronised: Option<bool>,
}

/// Units that keep the time: chrony (Debian, EL), systemd, ntpd by its names, openntpd, ntpd-rs.
pub const TIME_SERVICES: &[&str] = &[
    "chrony.service",
    "chronyd.service",
    "systemd-timesyncd.service",
    "ntp.service",
    "ntpd.service",
    "ntpsec.service",
    "openntpd.service",
    "ntpd-rs.service",
];

/// Timers that upgrade packages without being asked.
const UPGRADE_TIMERS: &[&str] =
    &["apt-daily-upgrade.timer", "dnf-automatic.timer", "dnf-automatic-install.timer", "dnf5-automatic.timer"];

/// Firewalls that are services.
const FIREWALLS: &[&str] = &["firewalld.service", "ufw.service", "nftables.service"];

/// Container engines of others.
const ENGINES: &[&str] = &["docker.service", "podman.socket", "crio.service", "snap.microk8s.daemon-kubelite.service"];

/// How long a question to systemd may take.
const PATIENCE: Duration = Duration::from_secs(5);

impl Security {
    pub(super) fn of(host: &Host) -> Result<Self> {
        let text = |path: &str| host.read_text(Path::new(path));
        let selinux = match text("/sys/fs/selinux/enforce")?.as_deref().map(str::trim) {
            Some("1") => SeLinux::Enforcing,
            Some(_) => SeLinux::Permissive,
            None => SeLinux::Off,
        };
        let apparmor = text("/sys/module/apparmor/parameters/enabled")?.is_some_and(|value| value.starts_with('Y'));
        // Four bytes of attributes come before the value (UEFI specification, EFI_GLOBAL_VARIABLE).
        let variable = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
        let secure_boot = if host.exists(Path::new("/sys/firmware/efi"))? {
            Some(host.read(Path::new(variable)).ok().flatten().is_some_and(|bytes| bytes.get(4) == Some(&1)))
        } else {
            None
        };
        Ok(Self { selinux, apparmor, secure_boot })
    }
}

/// The active ones of these units; one question for all.
fn active(host: &Host, units: &[&str]) -> Vec<String> {
    let command = Command::new("systemctl").arg("is-active").args(units).timeout(PATIENCE);
    let said = host.try_run(&command).map(|finished| finished.text()).unwrap_or_default();
    parse_active(&said, units)
}

/// `systemctl is-active A B` answers with one line for each.
fn parse_active(said: &str, units: &[&str]) -> Vec<String> {
    let states: Vec<&str> = said.lines().map(str::trim).collect();
    if states.len() != units.len() {
        return Vec::new();
    }
    units.iter().zip(states).filter(|(_, state)| *state == "active").map(|(unit, _)| (*unit).to_owned()).collect()
}

/// Units of others that concern us.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Services {
    /// Time services.
    pub time: Vec<String>,
    /// Timers that upgrade packages by themselves.
    pub upgrades: Vec<String>,
    /// Firewalls.
    pub firewalls: Vec<String>,
    /// Container engines.
    pub engines: Vec<String>,
}

impl Services {
    pub(super) fn of(host: &Host) -> Result<Self> {
        let units = [TIME_SERVICES, UPGRADE_TIMERS, FIREWALLS, ENGINES].concat();
        let active = active(host, &units);
        let among = |group: &[&str]| -> Vec<String> {
            active.iter().filter(|unit| group.contains(&unit.as_str())).cloned().collect()
        };
        // Debian enables the timer for everybody; it upgrades only where the program is.
        let apt = host.exists(Path::new("/usr/bin/unattended-upgrade"))?;
        let mut upgrades = among(UPGRADE_TIMERS);
        upgrades.retain(|timer| !timer.starts_with("apt-") || apt);
        Ok(Self { time: among(TIME_SERVICES), upgrades, firewalls: among(FIREWALLS), engines: among(ENGINES) })
    }
}

impl Clock {
    pub(super) fn of(host: &Host, services: &Services, container: bool) -> Self {
        // A container has the machine's clock; asking starts a service of systemd, so it is not asked for nothing.
        let ask = !container && !services.time.is_empty();
        let command = Command::new("timedatectl").args(["show", "--property=NTPSynchronized", "--value"]);
        let said = if ask { host.try_run(&command.timeout(PATIENCE)).ok() } else { None };
        let synchronised = said.filter(crate::host::Finished::success).map(|finished| finished.text().trim() == "yes");
        Self { services: services.time.clone(), synchronised }
    }
}

/// Proxy variables that systemd gives to every service, without user names and passwords.
pub(super) fn proxy_variables(host: &Host) -> BTreeMap<String, String> {
    let command = Command::new("systemctl").arg("show-environment").timeout(PATIENCE);
    host.try_run(&command).map(|finished| parse_proxies(&finished.text())).unwrap_or_default()
}

fn parse_proxies(environment: &str) -> BTreeMap<String, String> {
    let lines = environment.lines().filter_map(|line| line.split_once('='));
    let proxies = lines.filter(|(name, value)| name.to_ascii_lowercase().ends_with("_proxy") && !value.is_empty());
    proxies.map(|(name, value)| (name.to_owned(), without_user(value))).collect()
}

/// `http://user:password@proxy:3128` → `http://proxy:3128`.
fn without_user(value: &str) -> String {
    let (scheme, rest) = value.split_once("://").map_or(("", value), |(scheme, rest)| (scheme, rest));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") }
}

/// Names of sources that DKMS builds modules of.
pub(super) fn dkms(host: &Host) -> Result<Vec<String>> {
    let mut names = host.list(Path::new("/var/lib/dkms"))?;
    names.retain(|name| !name.ends_with("mok.key") && !name.ends_with("mok.pub") && !name.contains('.'));
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxys_password_is_not_a_fact() {
        let said =
            "LANG=C\nHTTPS_PROXY=http://me:s3cret@proxy.example:3128\nno_proxy=localhost,10.0.0.0/8\nHTTP_PROXY=\n";
        let found = parse_proxies(said);
        assert_eq!(found["HTTPS_PROXY"], "http://proxy.example:3128");
        assert_eq!(found.keys().collect::<Vec<_>>(), ["HTTPS_PROXY", "no_proxy"]);
    }

    #[test]
    fn only_a_whole_answer_says_what_is_active() {
        let units = ["a.service", "b.timer"];
        assert_eq!(parse_active("inactive\nactive\n", &units), ["b.timer"]);
        assert!(parse_active("Failed to connect to bus\n", &units).is_empty());
    }

    #[test]
    fn security_modules_and_secure_boot() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        assert_eq!(Security::of(&host).unwrap(), Security::default());
        let put = |path: &str, bytes: &[u8]| host.write(Path::new(path), bytes, 0o644).unwrap();
        put("/sys/fs/selinux/enforce", b"1");
        put("/sys/module/apparmor/parameters/enabled", b"Y\n");
        let variable = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
        put(variable, &[6, 0, 0, 0, 1]);
        let expected = Security { selinux: SeLinux::Enforcing, apparmor: true, secure_boot: Some(true) };
        assert_eq!(Security::of(&host).unwrap(), expected);
        put(variable, &[6, 0, 0, 0, 0]);
        put("/sys/fs/selinux/enforce", b"0");
        let expected = Security { selinux: SeLinux::Permissive, apparmor: true, secure_boot: Some(false) };
        assert_eq!(Security::of(&host).unwrap(), expected);
    }
}
