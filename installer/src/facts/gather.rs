//! Asking the host. Parsers take text, so that they are tested with what real hosts say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::foreign::foreign_modules;
use super::machine::{Clock, Security, Services, dkms, proxy_variables};
use super::modules::modules;
use super::network::{chains, default_routes, interfaces, listening, resolv_conf, resolver};
use super::packages::{busy, immutable};
use super::tools::{ServiceLimits, missing_capabilities, tools, which};
use super::{Address, Cgroup, Facts, Os};
use crate::host::{Command, Filesystem, Host};

/// Sysctls that a node may want to set.
const SYSCTLS: &[&str] = &[
    "net.ipv4.ip_forward",
    "net.bridge.bridge-nf-call-iptables",
    "net.netfilter.nf_conntrack_max",
    "net.ipv4.conf.all.rp_filter",
    "kernel.panic",
    "kernel.panic_on_oops",
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "fs.inotify.max_user_instances",
    "fs.inotify.max_user_watches",
    "fs.nr_open",
];

/// Sysctls that the kubelet reads when it starts (pkg/kubelet/cm/container_manager_linux.go, `setupKernelTunables`).
const KUBELETS: &[&str] = &[
    "kernel.keys.root_maxbytes",
    "kernel.keys.root_maxkeys",
    "kernel.panic",
    "kernel.panic_on_oops",
    "vm.overcommit_memory",
    "vm.panic_on_oom",
];

/// Places that programs and data go to.
const PLACES: &[&str] = &[
    "/",
    "/boot",
    "/etc",
    "/opt/sealift",
    "/run",
    "/tmp",
    "/usr",
    "/usr/lib/modules",
    "/usr/local/bin",
    "/var/cache",
    "/var/lib",
    "/var/lib/containerd",
    "/var/lib/dpkg",
    "/var/lib/etcd",
    "/var/lib/kubelet",
    "/var/lib/rpm",
    "/var/lib/sealift",
    "/var/log",
    "/var/tmp",
];

/// Open files that Kubernetes's programs like to have.
const NOFILE: u64 = 1 << 20;

impl Facts {
    /// Looks at the host. Changes nothing on it.
    pub fn gather(host: &Host) -> Result<Self> {
        let text = |path: &str| -> Result<String> { Ok(host.read_text(Path::new(path))?.unwrap_or_default()) };
        let kernel = text("/proc/sys/kernel/osrelease")?.trim().to_owned();
        let container = container(host)?;
        let service_limits = ServiceLimits::of(host)?;
        let resolv = resolv_conf(host)?;
        let tools = tools(host)?;
        let (interfaces, addresses) = interfaces(host)?;
        let services = Services::of(host)?;
        let inside = container.is_some();
        Ok(Self {
            architecture: machine(host)?.parse().ok(),
            os: parse_os(&os_release(host)?),
            systemd: host.exists(Path::new("/run/systemd/system"))?,
            cgroup: cgroup(&text("/proc/self/mounts")?),
            cpus: parse_cpus(&text("/proc/self/status")?, &text("/proc/cpuinfo")?),
            memory_mib: parse_memory(&text("/proc/meminfo")?),
            filesystems: filesystems(host),
            addresses,
            interfaces,
            default_routes: default_routes(host),
            modules: modules(host, &kernel, container.is_some())?,
            oom_score_adj: service_limits.resource && host.try_oom_score_adj(),
            nofile: if service_limits.resource {
                host.try_nofile(NOFILE)
            } else {
                service_limits.nofile.min(host.try_nofile(NOFILE))
            },
            shared_sysctls: container.is_some(),
            writable_sysctls: SYSCTLS
                .iter()
                .filter(|name| host.sysctl_writable(name))
                .map(|name| (*name).to_owned())
                .collect(),
            missing_sysctls: missing_sysctls(host)?,
            tools,
            resolv_conf: resolv.0,
            nameserver: resolv.1,
            listening: listening(&text("/proc/net/tcp")?, &text("/proc/net/tcp6")?),
            swap: text("/proc/swaps")?
                .lines()
                .skip(1)
                .filter_map(|line| Some(line.split_whitespace().next()?.to_owned()))
                .collect(),
            host_name: text("/proc/sys/kernel/hostname")?.trim().to_owned(),
            missing_capabilities: missing_capabilities(&text("/proc/self/status")?),
            security: Security::of(host)?,
            foreign_modules: if inside { Vec::new() } else { foreign_modules(host)? },
            dkms: if inside { Vec::new() } else { dkms(host)? },
            clock: Clock::of(host, &services, inside),
            services,
            proxy_variables: proxy_variables(host),
            chains: chains(host),
            resolver: resolver(host)?,
            entropy: text("/proc/sys/kernel/random/entropy_avail")?.trim().parse().ok(),
            package_managers: busy(host)?,
            immutable: immutable(host),
            shutdown: host.exists(Path::new("/run/systemd/shutdown/scheduled"))?,
            nologin: host.exists(Path::new("/run/nologin"))? || host.exists(Path::new("/etc/nologin"))?,
            kernel,
            container,
        })
    }
}

impl Facts {
    /// The addresses of all interfaces but loopback, as they are now.
    pub fn addresses_now(host: &Host) -> Result<Vec<Address>> {
        Ok(interfaces(host)?.1)
    }
}

/// Those of the kubelet's list that this kernel does not have; none where /proc/sys does not show them at all.
fn missing_sysctls(host: &Host) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for name in KUBELETS {
        if host.sysctl(name)?.is_none() {
            missing.push((*name).to_owned());
        }
    }
    Ok(if missing.len() == KUBELETS.len() { Vec::new() } else { missing })
}

fn machine(host: &Host) -> Result<String> {
    // `uname` asks the kernel; the file is newer than many kernels.
    if host.is_real() {
        return Ok(rustix::system::uname().machine().to_string_lossy().into_owned());
    }
    Ok(host.read_text(Path::new("/proc/sys/kernel/arch"))?.unwrap_or_default().trim().to_owned())
}

fn os_release(host: &Host) -> Result<String> {
    for path in ["/etc/os-release", "/usr/lib/os-release"] {
        if let Some(text) = host.read_text(Path::new(path))? {
            return Ok(text);
        }
    }
    Ok(String::new())
}

/// os-release(5): `KEY=VALUE` with optional quotes.
fn parse_os(text: &str) -> Os {
    let value = |key: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        found.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
    };
    let (id, version) = (value("ID"), value("VERSION_ID"));
    // `PLATFORM_ID="platform:el9"` is the same for all rebuilds.
    let distribution = match value("PLATFORM_ID").strip_prefix("platform:") {
        Some(platform) => platform.to_owned(),
        None => format!("{id}-{version}"),
    };
    Os { pretty: value("PRETTY_NAME"), id, version, distribution }
}

/// `/run/systemd/container` is written by container managers and by systemd in a container; `systemd-detect-virt` knows
/// the others.
fn container(host: &Host) -> Result<Option<String>> {
    if let Some(text) = host.read_text(Path::new("/run/systemd/container"))? {
        let name = text.trim();
        return Ok(Some(if name.is_empty() { "other".to_owned() } else { name.to_owned() }));
    }
    if which(host, "systemd-detect-virt")?.is_none() {
        return Ok(None);
    }
    // Exit code 1 and `none` when there is none.
    let finished = host.try_run(&Command::new("systemd-detect-virt").arg("--container"))?;
    let name = finished.text().trim().to_owned();
    Ok((finished.success() && name != "none" && !name.is_empty()).then_some(name))
}

/// Version 2 only when it is mounted at `/sys/fs/cgroup` itself; in hybrid mode the controllers are still in version 1.
fn cgroup(mounts: &str) -> Cgroup {
    let mut found = Cgroup::Missing;
    for line in mounts.lines() {
        let mut fields = line.split_whitespace().skip(1);
        let (Some(place), Some(kind)) = (fields.next(), fields.next()) else { continue };
        match kind {
            "cgroup2" if place == "/sys/fs/cgroup" => return Cgroup::V2,
            "cgroup" if place.starts_with("/sys/fs/cgroup/") => found = Cgroup::V1,
            _ => {}
        }
    }
    found
}

/// Processors this process may run on, else those of the machine.
fn parse_cpus(status: &str, cpuinfo: &str) -> u32 {
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let mut usable = 0;
    for range in allowed.unwrap_or_default().trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            usable += last.saturating_sub(first) + 1;
        }
    }
    let all = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let all = u32::try_from(all).unwrap_or(u32::MAX).max(1);
    // The list may name processors that the machine could have, but has not.
    if usable == 0 { all } else { usable.min(all) }
}

fn parse_memory(meminfo: &str) -> u64 {
    let total =
        meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
    total.map_or(0, |kib: u64| kib / 1024)
}

/// The filesystems of the places that programs and data go to. One that cannot be asked is left out.
fn filesystems(host: &Host) -> BTreeMap<PathBuf, Filesystem> {
    let places = PLACES.iter().map(PathBuf::from);
    places.filter_map(|place| Some((place.clone(), host.filesystem(&place).ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_groups() {
        let v2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        assert_eq!(cgroup(v2), Cgroup::V2);
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs ro 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
            cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n";
        assert_eq!(cgroup(hybrid), Cgroup::V1);
        assert_eq!(cgroup("proc /proc proc rw 0 0\n"), Cgroup::Missing);
    }

    #[test]
    fn processors_are_those_we_may_use() {
        let cpuinfo = "processor\t: 0\nprocessor\t: 1\nprocessor\t: 2\nprocessor\t: 3\n";
        assert_eq!(parse_cpus("Cpus_allowed_list:\t0-1,3\n", cpuinfo), 3);
        assert_eq!(parse_cpus("Cpus_allowed_list:\t0-127\n", cpuinfo), 4);
        assert_eq!(parse_cpus("", cpuinfo), 4);
    }

    #[test]
    fn a_distribution_is_named_as_bundles_name_it() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n";
        assert_eq!(parse_os(debian).distribution, "debian-12");
        assert_eq!(parse_os("ID=ubuntu\nVERSION_ID=\"24.04\"\n").distribution, "ubuntu-24.04");
        let rebuild = "ID=\"rocky\"\nVERSION_ID=\"9.4\"\nPLATFORM_ID=\"platform:el9\"\n";
        assert_eq!(parse_os(rebuild).distribution, "el9");
    }

    /// What the files of the known ones say that matters here, in their table's order.
    #[test]
    fn every_known_distribution_is_recognised() {
        let files = [
            "ID=debian\nVERSION_ID=\"12\"\n",
            "VERSION_ID=\"13\"\nDEBIAN_VERSION_FULL=13.1\nID=debian\n",
            "VERSION_ID=\"22.04\"\nID=ubuntu\nID_LIKE=debian\nUBUNTU_CODENAME=jammy\n",
            "VERSION_ID=\"24.04\"\nID=ubuntu\nID_LIKE=debian\nUBUNTU_CODENAME=noble\n",
            "ID=\"almalinux\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"8.10\"\nPLATFORM_ID=\"platform:el8\"\n",
            "ID=\"rhel\"\nID_LIKE=\"fedora\"\nVERSION_ID=\"9.4\"\nPLATFORM_ID=\"platform:el9\"\n",
            "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"10.0\"\nPLATFORM_ID=\"platform:el10\"\n",
        ];
        let found: Vec<String> = files.into_iter().map(|text| parse_os(text).distribution).collect();
        assert_eq!(found, crate::distro::KNOWN.iter().map(|known| known.name).collect::<Vec<_>>());
    }
}
