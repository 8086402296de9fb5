//! What the machine enforces and runs beside us: security modules, Secure Boot, drivers of its own, clock, upgrades, proxies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::host::{Command, Host, mount_point};

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

/// A loaded module that is not part of the kernel's own tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ForeignModule {
    /// Its name.
    pub name: String,
    /// Its letters in `/sys/module/NAME/taint`: `O` out of tree, `P` proprietary, `E` unsigned, `F` forced.
    pub taint: String,
    /// What works only with it: `root disk`, or an interface.
    pub drives: Vec<String>,
}

/// How the clock is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Clock {
    /// Active time services.
    pub services: Vec<String>,
    /// The kernel's word that the clock is synchronised (`timedatectl`); `None` when it cannot be asked.
    pub synchronised: Option<bool>,
}

/// Time services, by the names of their units on Debian, Ubuntu and EL.
const TIME_SERVICES: &[&str] = &[
    "chrony.service",
    "chronyd.service",
    "systemd-timesyncd.service",
    "ntp.service",
    "ntpd.service",
    "ntpsec.service",
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

/// Modules that are not of the kernel's own tree, and what depends on them. A container has none of its own.
pub(super) fn foreign_modules(host: &Host) -> Result<Vec<ForeignModule>> {
    let mut users: Vec<(String, String)> = Vec::new();
    for interface in host.list(Path::new("/sys/class/net"))? {
        let device = Path::new("/sys/class/net").join(&interface).join("device");
        users.extend(driver(host, &device)?.map(|name| (name, interface)));
    }
    for device in root_devices(host)? {
        users.extend(driver(host, &device)?.map(|name| (name, "root disk".to_owned())));
    }
    let mut found = Vec::new();
    for name in host.list(Path::new("/sys/module"))? {
        let path = Path::new("/sys/module").join(&name).join("taint");
        let taint = host.read_text(&path).ok().flatten().unwrap_or_default().trim().to_owned();
        if taint.chars().any(|letter| "OPEF".contains(letter)) {
            let drives = users.iter().filter(|(module, _)| *module == name).map(|(_, what)| what.clone()).collect();
            found.push(ForeignModule { name, taint, drives });
        }
    }
    Ok(found)
}

/// The module behind a device of `/sys`: the link `driver/module`.
fn driver(host: &Host, device: &Path) -> Result<Option<String>> {
    let link = host.link_target(&device.join("driver/module"))?;
    Ok(link.and_then(|target| Some(target.file_name()?.to_str()?.to_owned())))
}

/// Devices of the disks below `/`, through partitions, LVM and RAID (`slaves`).
fn root_devices(host: &Host) -> Result<Vec<PathBuf>> {
    let table = host.read_text(Path::new("/proc/self/mountinfo"))?.unwrap_or_default();
    let root = table.lines().rfind(|line| mount_point(line).as_deref() == Some(Path::new("/")));
    let Some(number) = root.and_then(|line| line.split(' ').nth(2)) else { return Ok(Vec::new()) };
    let (mut left, mut found) = (vec![PathBuf::from("/sys/dev/block").join(number)], Vec::new());
    while let Some(block) = left.pop() {
        for slave in host.list(&block.join("slaves"))? {
            left.push(block.join("slaves").join(slave));
        }
        // A partition is inside the directory of its disk.
        for disk in [block.clone(), block.join("..")] {
            // Controllers are further up: the disk of a SCSI host has the driver `sd`, its host adapter the one that counts.
            found.extend(["device", "device/..", "device/../..", "device/../../.."].map(|up| disk.join(up)));
        }
        if found.len() > 256 {
            break;
        }
    }
    Ok(found)
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
    fn a_foreign_driver_of_the_network_or_the_root_disk_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        let put = |path: &str, text: &str| host.write(Path::new(path), text.as_bytes(), 0o644).unwrap();
        let link = |path: &str, target: &str| host.symlink(Path::new(path), Path::new(target)).unwrap();
        put("/proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
        for (module, taint) in [("fastnic", "OE"), ("raidcard", "PO"), ("e1000", ""), ("vbox", "O")] {
            put(&format!("/sys/module/{module}/taint"), &format!("{taint}\n"));
        }
        link("/sys/class/net/eth0/device/driver/module", "../../../../module/fastnic");
        link("/sys/class/net/eth1/device/driver/module", "../../../../module/e1000");
        put("/sys/devices/host0/target0/0:0:0:0/block/sda/sda1/partition", "1\n");
        link("/sys/dev/block/8:1", "../../devices/host0/target0/0:0:0:0/block/sda/sda1");
        link("/sys/devices/host0/target0/0:0:0:0/block/sda/device", "../..");
        link("/sys/devices/host0/driver/module", "../../../module/raidcard");
        let found = foreign_modules(&host).unwrap();
        let lines: Vec<String> = found
            .iter()
            .map(|module| format!("{} {} {}", module.name, module.taint, module.drives.join(",")))
            .collect();
        assert_eq!(lines, ["fastnic OE eth0", "raidcard PO root disk", "vbox O "]);
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
