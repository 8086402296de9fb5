//! What makes each check of preflight fire.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bundle::component::{Kind, Package, Relations, Role};
use jiff::Timestamp;

use super::preflight_upgrade::{bring_kernel, foreign};
use super::{Bed, disk};
use crate::checks::CheckName;
use crate::config::ProxyMode;
use crate::config::host::{Firewall, Swap};
use crate::facts::{Address, Chain, DefaultRoute, Interface, SeLinux};
use crate::host::{Filesystem, Reply};
use crate::steps::preflight::Verdict;

/// A reason for a check to fire: how the host is made so, how bad that is, and what it says.
pub(super) type Reason = (CheckName, fn(&mut Bed), Verdict, &'static str);

/// One for each check at least; those of a host that takes another kernel are in `preflight_upgrade`.
pub(super) const REASONS: &[Reason] = &[
    (CheckName::Architecture, |bed| bed.facts.architecture = None, Verdict::Refused, "amd64 or arm64"),
    (
        CheckName::Distribution,
        |bed| bed.facts.os.distribution = "gentoo-".to_owned(),
        Verdict::Refused,
        "(`gentoo-`); needed: debian-12",
    ),
    (
        CheckName::Capabilities,
        |bed| bed.facts.missing_capabilities = vec!["CAP_NET_ADMIN".to_owned()],
        Verdict::Refused,
        "none of CAP_NET_ADMIN",
    ),
    (CheckName::Systemd, |bed| bed.facts.systemd = false, Verdict::Refused, "systemd as process 1"),
    (CheckName::Cgroup, |bed| bed.facts.cgroup = crate::facts::Cgroup::Missing, Verdict::Refused, "version 1 or 2"),
    (
        CheckName::Systemd,
        |bed| drop(bed.facts.tools.insert("systemctl".to_owned(), "219".to_owned())),
        Verdict::Refused,
        "found version 219; needed: 239 or newer",
    ),
    (
        CheckName::Cgroup,
        |bed| {
            bed.facts.cgroup = crate::facts::Cgroup::V1;
            for component in &mut bed.components {
                if component.name.as_str() == "kubelet" {
                    component.version = "1.35.0".parse().unwrap();
                }
            }
        },
        Verdict::Refused,
        "version 2 for Kubernetes 1.35.0",
    ),
    (CheckName::Processors, |bed| bed.facts.cpus = 1, Verdict::Limit, "2 are better"),
    (CheckName::Memory, |bed| bed.facts.memory_mib = 900, Verdict::Refused, "found 900 MiB"),
    (
        CheckName::Disk,
        |bed| bed.host.fake().set_filesystem("/var/lib/etcd", Filesystem { device: "8:9".to_owned(), ..disk(100) }),
        Verdict::Refused,
        "found 100 MiB free; needed: 512 MiB: 512 MiB for `/var/lib/etcd`",
    ),
    (
        CheckName::Inodes,
        |bed| bed.host.fake().set_filesystem("/", Filesystem { inodes_free: 300, ..disk(20_000) }),
        Verdict::Refused,
        "found 300 left",
    ),
    (
        CheckName::EtcdDisk,
        |bed| {
            let mut taken = vec![Duration::from_millis(2); 98];
            taken.extend([Duration::from_millis(31); 2]);
            bed.host.fake().set_latencies(taken);
        },
        Verdict::Limit,
        "99 % of 100 small writes take less than 31.0 ms; etcd asks for 10.0 ms",
    ),
    (CheckName::Tools, |bed| drop(bed.facts.tools.remove("iptables")), Verdict::Refused, "tool `iptables`"),
    (
        CheckName::Programs,
        |bed| {
            let programs = [("usr/sbin/x".parse().unwrap(), "/usr/sbin/conntrack".to_owned())];
            bed.components[0].host_programs.insert("debian-12".to_owned(), programs.into());
        },
        Verdict::Refused,
        "packages-debian-12",
    ),
    (CheckName::Container, |bed| bed.facts.container = Some("lxc".to_owned()), Verdict::Limit, "lxc"),
    (CheckName::OomScore, |bed| bed.facts.oom_score_adj = false, Verdict::Limit, "out-of-memory"),
    (CheckName::OpenFiles, |bed| bed.facts.nofile = 20_000, Verdict::Limit, "20000"),
    (CheckName::SeLinux, |bed| bed.facts.security.selinux = SeLinux::Enforcing, Verdict::Refused, "found enforcing"),
    (CheckName::AppArmor, |bed| bed.facts.security.apparmor = true, Verdict::Limit, "without `apparmor_parser`"),
    (
        CheckName::Kernel,
        |bed| bed.facts.kernel = "3.10.0-1160.el7.x86_64".to_owned(),
        Verdict::Refused,
        "4.18 or newer",
    ),
    (
        CheckName::Modules,
        |bed| {
            bed.facts.modules.directory = false;
            bed.put("/lib/modules/6.1.0-41-amd64/modules.dep", "");
        },
        Verdict::Refused,
        "there are those of 6.1.0-41-amd64",
    ),
    (
        CheckName::Modules,
        |bed| {
            bed.facts.modules.compression = Some("gz".to_owned());
            bed.facts.modules.unreadable = true;
        },
        Verdict::Limit,
        "compressed (`.ko.gz`)",
    ),
    (
        CheckName::Modules,
        |bed| bed.components[0].modules = vec!["br-netfilter".to_owned()],
        Verdict::Limit,
        "no br-netfilter",
    ),
    (
        CheckName::Sysctls,
        |bed| bed.facts.writable_sysctls.clear(),
        Verdict::Refused,
        "net.ipv4.ip_forward cannot be set",
    ),
    (
        CheckName::OutOfTreeModules,
        |bed| bed.facts.foreign_modules = vec![foreign("nvidia", &[])],
        Verdict::Limit,
        "module `nvidia`: not of the kernel's own tree (taint OE)",
    ),
    (
        CheckName::OutOfTreeModules,
        |bed| bed.facts.foreign_modules = vec![foreign("ixgbe", &["eth0", "root disk"])],
        Verdict::Limit,
        "it drives eth0, root disk",
    ),
    (CheckName::OutOfTreeModules, |bed| bed.facts.dkms = vec!["zfs".to_owned()], Verdict::Limit, "DKMS: zfs"),
    (
        CheckName::Disk,
        |bed| {
            bring_packages(bed, 30 << 20, "");
            bed.host.fake().set_filesystem("/usr", Filesystem { device: "8:4".to_owned(), ..disk(100) });
        },
        Verdict::Refused,
        "120 MiB for `/usr`",
    ),
    (
        CheckName::Sysctls,
        |bed| bed.facts.missing_sysctls.push("kernel.keys.root_maxkeys".to_owned()),
        Verdict::Refused,
        "no kernel.keys.root_maxkeys; needed: them: the kubelet does not start",
    ),
    (
        CheckName::Sysctls,
        |bed| bed.put("/etc/sysctl.d/99-zz-hardening.conf", "# CIS\nnet.ipv4.ip_forward = 0\n"),
        Verdict::Refused,
        "line 2 of `/etc/sysctl.d/99-zz-hardening.conf` sets it to 0 at boot",
    ),
    (CheckName::Entropy, |bed| bed.facts.entropy = Some(12), Verdict::Limit, "12 bits"),
    (
        CheckName::ImmutableFiles,
        |bed| bed.facts.immutable = vec![PathBuf::from("/etc/hosts")],
        Verdict::Refused,
        "`chattr -i -a /etc/hosts`",
    ),
    (CheckName::Shutdown, |bed| bed.facts.shutdown = true, Verdict::Refused, "one is scheduled"),
    (CheckName::Shutdown, |bed| bed.facts.nologin = true, Verdict::Limit, "nologin"),
    (
        CheckName::MountOptions,
        |bed| bed.host.fake().set_filesystem("/opt", Filesystem { noexec: true, ..disk(20_000) }),
        Verdict::Refused,
        "mount options of `/opt/sealift`: found noexec",
    ),
    (
        CheckName::MountOptions,
        |bed| bed.host.fake().set_filesystem("/etc", Filesystem { read_only: true, ..disk(20_000) }),
        Verdict::Refused,
        "mount options of `/etc`: found read-only",
    ),
    (
        CheckName::MountOptions,
        |bed| {
            bed.config.etcd.wal_dir = Some("/fast/wal".into());
            bed.host.fake().set_filesystem("/fast/wal", Filesystem { read_only: true, ..disk(20_000) });
        },
        Verdict::Refused,
        "mount options of `/fast/wal`: found read-only",
    ),
    (
        CheckName::MountOptions,
        |bed| bed.host.fake().set_filesystem("/var/lib/containerd", Filesystem { nosuid: true, ..disk(20_000) }),
        Verdict::Limit,
        "nosuid",
    ),
    (CheckName::Address, |bed| bed.facts.addresses.clear(), Verdict::Refused, "found none"),
    (
        CheckName::OverlappingNetworks,
        |bed| bed.facts.addresses.push(address("eth1", "10.244.0.9")),
        Verdict::Refused,
        "choose another `pod_cidr`",
    ),
    (
        CheckName::Ports,
        |bed| bed.facts.listening.extend([(6443, "0.0.0.0".parse().unwrap())]),
        Verdict::Refused,
        "port 6443: found in use by an unknown process",
    ),
    (
        CheckName::DefaultRoutes,
        |bed| bed.facts.default_routes.push(DefaultRoute { interface: "wlan0".to_owned(), gateway: None, metric: 0 }),
        Verdict::Limit,
        "2 of the same metric: eth0, wlan0",
    ),
    (
        CheckName::Mtu,
        |bed| {
            bed.facts.interfaces.push(Interface { name: "cni0".to_owned(), mtu: 9000, up: true });
            bed.put("/etc/sealift/pki/ca.crt", "x");
        },
        Verdict::Limit,
        "9000 on cni0, 1500 on eth0",
    ),
    (CheckName::HostName, |bed| bed.facts.host_name = "My_Host".to_owned(), Verdict::Limit, "RFC 1123"),
    (CheckName::NameResolution, |bed| bed.put("/etc/hosts", "127.0.1.1 m1\n"), Verdict::Limit, "resolves to 127.0.1.1"),
    (
        CheckName::WildcardDns,
        |bed| {
            bed.facts.resolver.nameservers.push("192.0.2.53".parse().unwrap());
            bed.facts.resolver.search.push("office.example".to_owned());
            bed.host.fake().on("getent ahosts sealift-asks", Reply::ok("203.0.113.7     STREAM x\n"));
            bed.host.fake().on("getent ahosts m1", Reply::fail(2, ""));
        },
        Verdict::Limit,
        "answers 203.0.113.7 for `sealift-asks-for-a-name-that-nobody-has.office.example.`",
    ),
    (
        CheckName::Firewall,
        |bed| {
            bed.config.host.firewall = Firewall::Keep;
            bed.facts.chains.push(chain("input", "drop"));
        },
        Verdict::Limit,
        "do: let in 2379/tcp, 2380/tcp, 6443/tcp",
    ),
    (
        CheckName::Firewall,
        |bed| {
            bed.config.host.firewall = Firewall::Keep;
            bed.facts.chains.push(chain("forward", "drop"));
        },
        Verdict::Limit,
        "packets of pods",
    ),
    (
        CheckName::Swap,
        |bed| {
            bed.facts.swap.push("/dev/sda2".to_owned());
            bed.config.host.swap = Swap::Keep;
        },
        Verdict::Refused,
        "in use: /dev/sda2",
    ),
    (
        CheckName::ApiNames,
        |bed| bed.config.api_names.extend(["api.example.org".to_owned()]),
        Verdict::Limit,
        "cannot resolve api.example.org",
    ),
    (
        CheckName::Interface,
        |bed| bed.node.interface = Some("eth7".to_owned()),
        Verdict::Refused,
        "found 192.0.2.1 on eth0; needed: it on eth7",
    ),
    (CheckName::Leftovers, |bed| bed.put("/var/lib/k0s/x", ""), Verdict::Refused, "state of k0s"),
    (
        CheckName::Leftovers,
        |bed| bed.facts.interfaces.push(Interface { name: "flannel.1".to_owned(), mtu: 1450, up: true }),
        Verdict::Refused,
        "interfaces of another cluster: found flannel.1",
    ),
    (
        CheckName::Units,
        |bed| bed.put("/usr/lib/systemd/system/etcd.service", "[Service]\nExecStart=/usr/bin/etcd\n"),
        Verdict::Refused,
        "which is not Sealift's",
    ),
    (
        CheckName::BundleComponents,
        |bed| bed.components.retain(|component| component.name.as_str() != "nginx"),
        Verdict::Refused,
        "component `nginx`",
    ),
    (
        CheckName::Identity,
        |bed| bed.put("/etc/sealift/cluster.toml", &super::CONFIG.replace("\"test\"", "\"other\"")),
        Verdict::Refused,
        "needed: `other`, as this cluster was installed",
    ),
    (
        CheckName::KubeProxyMode,
        |bed| bed.config.network.kube_proxy = ProxyMode::Ipvs,
        Verdict::Refused,
        "`ipvs` wanted",
    ),
    (
        CheckName::SecureBoot,
        |bed| {
            bed.facts.security.secure_boot = Some(true);
            bring_kernel(bed, "linux-image-6.12.9-amd64-unsigned", 1);
        },
        Verdict::Limit,
        "that kernel would not start here",
    ),
    (
        CheckName::Clock,
        |bed| bed.host.fake().set_now("2023-01-01T00:00:00Z".parse::<Timestamp>().unwrap()),
        Verdict::Refused,
        "found 2023-01-01 00:00 UTC; needed: the present day: the bundle was made on 2026-11-01",
    ),
    (CheckName::TimeSync, |bed| bed.facts.clock.services.clear(), Verdict::Limit, "no time service runs"),
    (
        CheckName::TimeSync,
        |bed| bed.facts.clock.synchronised = Some(false),
        Verdict::Limit,
        "the clock is not synchronised",
    ),
    (
        CheckName::UnattendedUpgrades,
        |bed| bed.facts.services.upgrades.push("apt-daily-upgrade.timer".to_owned()),
        Verdict::Limit,
        "`systemctl disable --now apt-daily-upgrade.timer`",
    ),
    (
        CheckName::ProxyVariables,
        |bed| {
            bed.facts.proxy_variables.insert("HTTPS_PROXY".to_owned(), "http://proxy:3128".to_owned());
            bed.facts.proxy_variables.insert("NO_PROXY".to_owned(), "localhost,10.96.0.0/12".to_owned());
        },
        Verdict::Refused,
        "found HTTPS_PROXY; needed: NO_PROXY with 192.0.2.1:",
    ),
    (
        CheckName::OtherRuntimes,
        |bed| bed.facts.services.engines.push("docker.service".to_owned()),
        Verdict::Limit,
        "docker.service is active",
    ),
    (
        CheckName::PackageManager,
        |bed| {
            bed.facts.package_managers.push("`dpkg` (process 7) holds /var/lib/dpkg/lock".to_owned());
            let mut packages =
                bundle::fake::component("packages-debian-12", "1", Kind::Packages, &[Role::Master]).unwrap();
            packages.distribution = Some("debian-12".to_owned());
            bed.components.push(packages);
        },
        Verdict::Limit,
        "holds /var/lib/dpkg/lock; the step os-packages waits",
    ),
    (
        CheckName::PackageManager,
        |bed| bed.facts.package_managers.push("`apt` (process 7) is running".to_owned()),
        Verdict::Limit,
        "this run installs no packages",
    ),
    (
        CheckName::Packages,
        |bed| {
            bring_packages(bed, 2, "libc6 (>= 2.34)");
            let status = b"Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.31-1\n";
            bed.host.write(Path::new("/var/lib/dpkg/status"), status, 0o644).unwrap();
        },
        Verdict::Refused,
        "it needs libc6 (>= 2.34); the host has libc6 2.31-1",
    ),
];

/// The bundle brings a package of this many bytes, and the host has a package database.
fn bring_packages(bed: &mut Bed, size: u64, depends: &str) {
    let mut packages = bundle::fake::component("packages-debian-12", "1", Kind::Packages, &[Role::Master]).unwrap();
    packages.distribution = Some("debian-12".to_owned());
    packages.packages.push(Package {
        name: "jq".to_owned(),
        version: "1.6-1".to_owned(),
        file: "jq_1.6-1_amd64.deb".to_owned(),
        sha256: bundle::Digest::of(b"jq"),
        size,
        architecture: "amd64".to_owned(),
        relations: Relations { depends: depends.to_owned(), ..Relations::default() },
    });
    bed.components.push(packages);
    let status = b"Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9\n";
    bed.host.write(Path::new("/var/lib/dpkg/status"), status, 0o644).unwrap();
}

fn address(interface: &str, address: &str) -> Address {
    Address { interface: interface.to_owned(), address: address.parse().unwrap(), prefix: 24 }
}

fn chain(hook: &str, policy: &str) -> Chain {
    Chain {
        family: "inet".to_owned(),
        table: "filter".to_owned(),
        name: hook.to_owned(),
        hook: hook.to_owned(),
        policy: policy.to_owned(),
    }
}
