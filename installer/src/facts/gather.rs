//! Asking the host. Parsers take text, so that they are tested with what real hosts say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Address, Cgroup, Facts, Modules, Os};
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
    ("dpkg", "--version"),
    ("rpm", "--version"),
];

/// Directories that programs are looked for in.
const PATH: &[&str] = &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

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

/// A symbol of the kernel image that tells that a module is built in, where no module directory says so.
const BUILTIN_SYMBOLS: &[(&str, &str)] = &[
    ("bridge", "br_dev_setup"),
    ("br_netfilter", "br_nf_pre_routing"),
    ("veth", "veth_newlink"),
    ("vxlan", "vxlan_setup"),
    ("overlay", "ovl_init_fs_context"),
    ("nf_conntrack", "nf_conntrack_in"),
    ("nf_nat", "nf_nat_inet_fn"),
    ("nf_tables", "nft_do_chain"),
    ("ip_tables", "ipt_do_table"),
    ("ip_set", "ip_set_add"),
    ("ip_vs", "ip_vs_conn_in_get"),
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
        Ok(Self {
            architecture: machine(host)?.parse().ok(),
            os: parse_os(&os_release(host)?),
            systemd: host.exists(Path::new("/run/systemd/system"))?,
            cgroup: cgroup(&text("/proc/self/mounts")?),
            cpus: parse_cpus(&text("/proc/self/status")?, &text("/proc/cpuinfo")?),
            memory_mib: parse_memory(&text("/proc/meminfo")?),
            disk_free_mib: free_mib(host, "/opt/sealift").min(free_mib(host, "/var/lib")),
            addresses: addresses(host)?,
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
            tools,
            resolv_conf: resolv.0,
            nameserver: resolv.1,
            listening: listening(&text("/proc/net/tcp")?, &text("/proc/net/tcp6")?),
            swap: text("/proc/swaps")?
                .lines()
                .skip(1)
                .filter_map(|line| Some(line.split_whitespace().next()?.to_owned()))
                .collect(),
            kernel,
            container,
        })
    }
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

fn free_mib(host: &Host, path: &str) -> u64 {
    host.free_bytes(Path::new(path)).unwrap_or(0) >> 20
}

fn addresses(host: &Host) -> Result<Vec<Address>> {
    let text = host.run(&Command::new("ip").args(["-j", "addr"])).context("asking for the host's addresses")?.text();
    parse_addresses(&text).context("reading the output of `ip -j addr`")
}

fn parse_addresses(json: &str) -> Result<Vec<Address>> {
    #[derive(serde::Deserialize)]
    struct Interface {
        ifname: Option<String>,
        #[serde(default)]
        addr_info: Vec<Info>,
    }
    #[derive(serde::Deserialize)]
    struct Info {
        local: Option<IpAddr>,
        prefixlen: Option<u8>,
    }
    let interfaces: Vec<Interface> = serde_json::from_str(json)?;
    let mut addresses = Vec::new();
    for interface in interfaces {
        let Some(name) = interface.ifname else { continue };
        for info in interface.addr_info {
            if let (Some(address), Some(prefix)) = (info.local, info.prefixlen)
                && !address.is_loopback()
            {
                addresses.push(Address { interface: name.clone(), address, prefix });
            }
        }
    }
    addresses.sort();
    Ok(addresses)
}

fn modules(host: &Host, kernel: &str, container: bool) -> Result<Modules> {
    let text = |path: &Path| -> Result<String> { Ok(host.read_text(path)?.unwrap_or_default()) };
    let directory = Path::new("/lib/modules").join(kernel);
    let loaded = text(Path::new("/proc/modules"))?;
    let builtin = text(&directory.join("modules.builtin"))?;
    let files = text(&directory.join("modules.dep"))?;
    let symbols = text(Path::new("/proc/kallsyms"))?;
    // A container could load modules only with rights over the whole machine; those are the machine's to load.
    let can_load = !container && !files.is_empty() && which(host, "modprobe")?.is_some();
    let mut present: BTreeSet<String> =
        loaded.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect();
    present.extend(builtin.lines().filter_map(module_name));
    present.extend(parse_symbols(&symbols));
    let loadable = if can_load {
        files
            .lines()
            .filter_map(|line| module_name(line.split(':').next()?))
            .filter(|name| !present.contains(name))
            .collect()
    } else {
        BTreeSet::new()
    };
    Ok(Modules { present, loadable, can_load })
}

/// `kernel/net/netfilter/ipvs/ip_vs.ko.xz` → `ip_vs`.
fn module_name(path: &str) -> Option<String> {
    let name = path.trim().rsplit('/').next()?.split(".ko").next()?;
    (!name.is_empty()).then(|| name.replace('-', "_"))
}

/// Features whose symbols the kernel has; those of loaded modules end in ` [module]` and count as well.
fn parse_symbols(kallsyms: &str) -> BTreeSet<String> {
    let wanted: BTreeMap<&str, &str> = BUILTIN_SYMBOLS.iter().map(|(module, symbol)| (*symbol, *module)).collect();
    let symbols = kallsyms.lines().filter_map(|line| line.split_whitespace().nth(2));
    symbols.filter_map(|symbol| Some((*wanted.get(symbol)?).to_owned())).collect()
}

/// What services get from process 1, which need not be what this process has.
struct ServiceLimits {
    /// Whether it may raise limits and lower OOM scores (`CAP_SYS_RESOURCE`, capabilities(7)).
    resource: bool,
    /// Hard limit of open files.
    nofile: u64,
}

impl ServiceLimits {
    fn of(host: &Host) -> Result<Self> {
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

fn tools(host: &Host) -> Result<BTreeMap<String, String>> {
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

/// The file for the kubelet's `resolvConf`, and whether it names a resolver at all. systemd-resolved's stub cannot serve
/// pods, so its real file is taken; a host without any resolver gets a file of our own.
fn resolv_conf(host: &Host) -> Result<(PathBuf, bool)> {
    let usable = |path: &str| -> Result<bool> {
        let text = host.read_text(Path::new(path))?.unwrap_or_default();
        let mut servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
        // Loopback resolvers are another network namespace's loopback inside a pod.
        Ok(servers.any(|server| server.trim().parse::<IpAddr>().is_ok_and(|server| !server.is_loopback())))
    };
    for path in ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"] {
        if usable(path)? {
            return Ok((PathBuf::from(path), true));
        }
    }
    Ok((PathBuf::from(super::OWN_RESOLV_CONF), false))
}

/// Listening sockets of `/proc/net/tcp` and `tcp6` (proc(5): state `0A`).
fn listening(tcp: &str, tcp6: &str) -> BTreeSet<(u16, IpAddr)> {
    let lines = tcp.lines().chain(tcp6.lines());
    lines
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, _, state) = (fields.next()?, fields.next()?, fields.next()?);
            if state != "0A" {
                return None;
            }
            let (address, port) = local.split_once(':')?;
            Some((u16::from_str_radix(port, 16).ok()?, parse_proc_address(address)?))
        })
        .collect()
}

/// Addresses are 32-bit words in the byte order of the machine; both architectures are little-endian.
fn parse_proc_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.swap_bytes());
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let bits = words.iter().fold(0u128, |bits, word| bits << 32 | u128::from(*word));
            Some(Ipv6Addr::from(bits).to_canonical())
        }
        _ => None,
    }
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
    fn listening_ports_and_their_addresses() {
        let tcp = "  sl  local_address rem_address   st\n   0: 0100007F:20FB 00000000:0000 0A 0\n   1: 0100007F:E5DC 0100007F:86AF 06 0\n";
        let tcp6 = "  sl\n   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0\n";
        let expected = [(8443, "127.0.0.1".parse().unwrap()), (8080, "::".parse().unwrap())];
        assert_eq!(listening(tcp, tcp6), BTreeSet::from(expected));
    }

    #[test]
    fn processors_are_those_we_may_use() {
        let cpuinfo = "processor\t: 0\nprocessor\t: 1\nprocessor\t: 2\nprocessor\t: 3\n";
        assert_eq!(parse_cpus("Cpus_allowed_list:\t0-1,3\n", cpuinfo), 3);
        assert_eq!(parse_cpus("Cpus_allowed_list:\t0-127\n", cpuinfo), 4);
        assert_eq!(parse_cpus("", cpuinfo), 4);
    }

    #[test]
    fn built_in_features_are_found_by_symbol() {
        let symbols = "0000 t br_dev_setup\n0000 T nft_do_chain\t[nf_tables]\n0000 t ip_vs_something\n";
        assert_eq!(parse_symbols(symbols), BTreeSet::from(["bridge".to_owned(), "nf_tables".to_owned()]));
        assert_eq!(module_name("kernel/net/netfilter/ipvs/ip-vs.ko.xz: a b").as_deref(), Some("ip_vs"));
    }

    #[test]
    fn resolvers_that_pods_can_use() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        assert_eq!(resolv_conf(&host).unwrap(), (PathBuf::from(super::super::OWN_RESOLV_CONF), false));
        host.write(Path::new("/etc/resolv.conf"), b"nameserver 127.0.0.53\n", 0o644).unwrap();
        assert!(!resolv_conf(&host).unwrap().1, "the stub of systemd-resolved cannot serve pods");
        host.write(Path::new("/run/systemd/resolve/resolv.conf"), b"nameserver 192.0.2.53\n", 0o644).unwrap();
        assert_eq!(resolv_conf(&host).unwrap(), (PathBuf::from("/run/systemd/resolve/resolv.conf"), true));
        host.write(Path::new("/etc/resolv.conf"), b"# x\nnameserver 192.0.2.1\n", 0o644).unwrap();
        assert_eq!(resolv_conf(&host).unwrap().0, PathBuf::from("/etc/resolv.conf"));
    }

    #[test]
    fn a_distribution_is_named_as_bundles_name_it() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n";
        assert_eq!(parse_os(debian).distribution, "debian-12");
        assert_eq!(parse_os("ID=ubuntu\nVERSION_ID=\"24.04\"\n").distribution, "ubuntu-24.04");
        let rebuild = "ID=\"rocky\"\nVERSION_ID=\"9.4\"\nPLATFORM_ID=\"platform:el9\"\n";
        assert_eq!(parse_os(rebuild).distribution, "el9");
    }
}
