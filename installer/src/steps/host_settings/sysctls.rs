//! Kernel settings: one file, `/etc/sysctl.d/99-sealift.conf`, with only the keys this kernel has, and only the keys that
//! belong to this host: in a container `kernel.*`, `vm.*` and `fs.*` are the machine's, so they are reported, not set.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use crate::config::Plugin;
use crate::host::Host;

/// The one file (`sysctl.d(5)`).
pub(super) const SYSCTL_FILE: &str = "/etc/sysctl.d/99-sealift.conf";

/// What kube-proxy sets by itself (cmd/kube-proxy, pkg/proxy): not ours to choose, but `reset` puts it back.
const OF_KUBE_PROXY: [&str; 12] = [
    "net.ipv4.conf.all.route_localnet",
    "net.ipv4.conf.all.arp_ignore",
    "net.ipv4.conf.all.arp_announce",
    "net.ipv4.vs.conntrack",
    "net.ipv4.vs.conn_reuse_mode",
    "net.ipv4.vs.expire_nodest_conn",
    "net.ipv4.vs.expire_quiescent_template",
    "net.netfilter.nf_conntrack_max",
    // By `/sys/module/nf_conntrack/parameters/hashsize`.
    "net.netfilter.nf_conntrack_buckets",
    "net.netfilter.nf_conntrack_tcp_be_liberal",
    "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
    "net.netfilter.nf_conntrack_tcp_timeout_established",
];

const OWN_NAME: &str = "99-sealift.conf";

/// What a key must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Exactly(&'static str),
    AtLeast(u64),
}

/// One key and why it matters; the reasons are the comments of the file.
#[derive(Clone, Debug)]
struct Setting {
    key: Cow<'static, str>,
    want: Want,
    why: &'static str,
}

const fn exactly(key: &'static str, value: &'static str, why: &'static str) -> Setting {
    Setting { key: Cow::Borrowed(key), want: Want::Exactly(value), why }
}

const fn at_least(key: &'static str, value: u64, why: &'static str) -> Setting {
    Setting { key: Cow::Borrowed(key), want: Want::AtLeast(value), why }
}

/// Kubelet's own list (`protectKernelDefaults`, pkg/kubelet/cm/container_manager_linux.go) plus what routing pods takes.
const SETTINGS: &[Setting] = &[
    exactly(FORWARD, "1", "pods are routed through this host"),
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
    pub(super) wrong: Vec<(String, String, String)>,
    /// Keys that this host may not set (they belong to the machine a container runs on) and that differ: reported only.
    pub(super) shared: Vec<(String, String, String)>,
    /// Keys this kernel does not have.
    pub(super) missing: Vec<String>,
}

impl Sysctls {
    /// Reads every key; `container` says that the kernel is shared with other hosts. Keys of modules that are still `coming`
    /// count as there.
    pub(super) fn survey(host: &Host, container: bool, network: &Network<'_>, coming: &[&str]) -> Result<Self> {
        let mut found = Self { file: "# Written by Sealift.\n".to_owned(), ..Self::default() };
        for setting in SETTINGS.iter().chain(&network.settings(host)?) {
            let Some(current) = host.sysctl(&setting.key)? else {
                match setting.want {
                    Want::Exactly(value)
                        if setting.key.starts_with("net.bridge.") && coming.contains(&"br_netfilter") =>
                    {
                        found.add(setting, value);
                    }
                    _ => found.missing.push(setting.key.to_string()),
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
            if foreign || !host.sysctl_writable(&setting.key) {
                if !good {
                    found.shared.push((setting.key.to_string(), current, wanted));
                }
                continue;
            }
            // A value that is already higher was set by someone else for a reason: it is not lowered at the next boot.
            if !(good && current != wanted) {
                found.add(setting, &wanted);
            }
            if !good {
                found.wrong.push((setting.key.to_string(), current, wanted));
            }
        }
        Ok(found)
    }

    /// Keys of the file that a file read later sets to something else at boot: sysctl.d(5), by name whatever the directory;
    /// `99-sysctl.conf` is `/etc/sysctl.conf` on many hosts.
    pub(super) fn overridden(&self, host: &Host) -> Result<Vec<String>> {
        let own = assignments(&self.file);
        let mut found = Vec::new();
        for directory in ["/etc/sysctl.d", "/run/sysctl.d", "/usr/lib/sysctl.d"] {
            for name in host.list(Path::new(directory))? {
                let path = Path::new(directory).join(&name);
                if *name <= *OWN_NAME || path.extension().is_none_or(|extension| extension != "conf") {
                    continue;
                }
                let text = host.read(&host.resolve(&path)?)?.unwrap_or_default();
                for (key, value) in assignments(&String::from_utf8_lossy(&text)) {
                    if let Some(wanted) = own.get(&key).filter(|wanted| **wanted != value) {
                        found.push(format!("`{}` sets {key} to {value} at boot (wanted {wanted})", path.display()));
                    }
                }
            }
        }
        Ok(found)
    }

    /// Adds a key to the file.
    fn add(&mut self, setting: &Setting, wanted: &str) {
        for part in ["# ", setting.why, "\n", &setting.key, " = ", wanted, "\n"] {
            self.file.push_str(part);
        }
    }

    /// Sets now what is wrong.
    pub(super) fn apply(&self, host: &Host) -> Result<()> {
        self.wrong.iter().try_for_each(|(key, _, wanted)| host.set_sysctl(key, wanted))
    }

    /// Keys that this module or kube-proxy may change, for the before-image.
    pub(super) fn keys(host: &Host, network: &Network<'_>) -> Result<Vec<String>> {
        let fixed = SETTINGS.iter().map(|setting| setting.key.to_string());
        let interfaces = network.interfaces.iter().map(|interface| reverse_path(interface));
        let others = OF_KUBE_PROXY.map(str::to_owned);
        // Undone the other way round: after the key that changes them.
        let keys = following(host)?.into_iter().chain(fixed).chain([reverse_path("all")]).chain(interfaces);
        Ok(keys.chain(others).collect())
    }
}

const FORWARD: &str = "net.ipv4.ip_forward";

/// Keys that the kernel changes with [`FORWARD`], in both directions (`inet_forward_change`, net/ipv4/devinet.c): a router
/// does not accept redirects, and forwards on every interface. Empty where it forwards already: then nothing changes it, and
/// an interface that has come since must not be taken for one that always did.
fn following(host: &Host) -> Result<Vec<String>> {
    if host.sysctl(FORWARD)?.is_none_or(|value| value != "0") {
        return Ok(Vec::new());
    }
    let interfaces = host.list(Path::new("/proc/sys/net/ipv4/conf"))?;
    // That of `all` is the same as FORWARD itself.
    let forwarding = interfaces.iter().filter(|name| *name != "all").map(|name| of_interface(name, "forwarding"));
    Ok([of_interface("all", "accept_redirects")].into_iter().chain(forwarding).collect())
}

/// `key = value` lines of sysctl.d(5), the last of a key; `/` separates like `.`.
fn assignments(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    let pairs = lines.filter_map(|line| line.trim_start_matches('-').split_once('='));
    pairs.map(|(key, value)| (key.trim().replace('/', "."), value.trim().to_owned())).collect()
}

/// What the settings of the network depend on.
#[derive(Clone, Debug)]
pub(super) struct Network<'a> {
    /// The host's own interfaces, without those of pods.
    pub(super) interfaces: Vec<&'a str>,
    /// Who connects the pods.
    pub(super) plugin: Plugin,
}

/// The key of an interface's reverse path filter. `all` and an interface's own count together, the higher one holds; 1 is
/// strict, 2 loose (ip-sysctl.rst of the kernel).
fn reverse_path(interface: &str) -> String {
    of_interface(interface, "rp_filter")
}

/// Names with dots are written with `/`, as sysctl.d(5) has it.
fn of_interface(interface: &str, key: &str) -> String {
    if interface.contains('.') {
        format!("net/ipv4/conf/{interface}/{key}")
    } else {
        format!("net.ipv4.conf.{interface}.{key}")
    }
}

impl Network<'_> {
    /// Strict reverse path filtering drops what comes in over another interface than the answer would leave by: on hosts with
    /// several interfaces that is service traffic of clients and of other nodes. Where it is off it stays off.
    fn settings(&self, host: &Host) -> Result<Vec<Setting>> {
        let why = "answers may leave by another interface";
        let setting = |interface: &str, value| Setting {
            key: Cow::Owned(reverse_path(interface)),
            want: Want::Exactly(value),
            why,
        };
        let value = |interface: &str| host.sysctl(&reverse_path(interface));
        // Calico filters pods itself, and its agent refuses to start where `all` is loose.
        if self.plugin == Plugin::Calico {
            let mut settings = vec![setting("all", "0")];
            for interface in &self.interfaces {
                if value(interface)?.is_some_and(|value| value != "0") {
                    settings.push(setting(interface, "2"));
                }
            }
            return Ok(settings);
        }
        let all = value("all")?;
        let mut strict = all.as_deref() == Some("1");
        for interface in self.interfaces.iter().chain(&["default"]) {
            strict |= value(interface)?.as_deref() == Some("1");
        }
        // Once loose it stays written, or the next run would take the line away again.
        Ok(if strict || all.as_deref() == Some("2") { vec![setting("all", "2")] } else { Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::sysctl_path;

    const PLAIN: Network<'_> = Network { interfaces: Vec::new(), plugin: Plugin::Bridge };

    #[test]
    fn keys_of_a_module_that_will_be_loaded_are_planned() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        let file = |coming: &[&str]| Sysctls::survey(&host, false, &PLAIN, coming).unwrap().file;
        assert!(file(&["br_netfilter"]).contains("net.bridge.bridge-nf-call-iptables = 1\n"));
        assert!(!file(&[]).contains("net.bridge"));
    }

    /// A host with the reverse path filter of these interfaces set.
    fn filtering(directory: &Path, values: &[(&str, &str)]) -> Host {
        let host = Host::under(directory);
        for (interface, value) in values {
            let path = sysctl_path(&reverse_path(interface));
            host.create_dir(path.parent().unwrap(), 0o755).unwrap();
            host.write(&path, format!("{value}\n").as_bytes(), 0o644).unwrap();
        }
        host
    }

    fn wrong(host: &Host, plugin: Plugin) -> Vec<String> {
        let network = Network { interfaces: vec!["eth0", "eth1.7"], plugin };
        let found = Sysctls::survey(host, false, &network, &[]).unwrap();
        let filters = found.wrong.into_iter().filter(|(key, ..)| key.contains("rp_filter"));
        filters.map(|(key, _, wanted)| format!("{key} = {wanted}")).collect()
    }

    #[test]
    fn strict_reverse_path_filtering_is_loosened_and_stays_so() {
        for (all, default, one, changes) in [
            ("0", "0", "0", &[][..]),
            ("2", "1", "1", &[]),
            ("1", "1", "0", &["net.ipv4.conf.all.rp_filter = 2"]),
            ("1", "0", "0", &["net.ipv4.conf.all.rp_filter = 2"]),
            ("0", "0", "1", &["net.ipv4.conf.all.rp_filter = 2"]),
            ("0", "1", "0", &["net.ipv4.conf.all.rp_filter = 2"]),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let host = filtering(dir.path(), &[("all", all), ("default", default), ("eth0", "0"), ("eth1.7", one)]);
            assert_eq!(wrong(&host, Plugin::Bridge), changes, "{all} {default} {one}");
            let network = Network { interfaces: vec!["eth0", "eth1.7"], plugin: Plugin::Bridge };
            let first = Sysctls::survey(&host, false, &network, &[]).unwrap();
            first.apply(&host).unwrap();
            let second = Sysctls::survey(&host, false, &network, &[]).unwrap();
            assert_eq!(second.file, first.file, "the file changes again and again");
        }
    }

    #[test]
    fn what_the_kernel_changes_with_forwarding_is_recorded_before_it_does() {
        let dir = tempfile::tempdir().unwrap();
        let host = filtering(dir.path(), &[("all", "0"), ("default", "0"), ("eth0", "0"), ("eth1.7", "0")]);
        let forward = Path::new("/proc/sys/net/ipv4/ip_forward");
        host.write(forward, b"0\n", 0o644).unwrap();
        let keys = Sysctls::keys(&host, &PLAIN).unwrap();
        let place = |key: &str| keys.iter().position(|found| found == key);
        for key in [
            "net.ipv4.conf.all.accept_redirects",
            "net.ipv4.conf.default.forwarding",
            "net.ipv4.conf.eth0.forwarding",
            "net/ipv4/conf/eth1.7/forwarding",
        ] {
            assert!(place(key).unwrap() < place(FORWARD).unwrap(), "{key}: undone before the kernel changes it again");
        }
        assert_eq!(place("net.ipv4.conf.all.forwarding"), None, "the same key as {FORWARD}");
        // A later run: an interface that came with forwarding on never had it off.
        host.write(forward, b"1\n", 0o644).unwrap();
        assert!(Sysctls::keys(&host, &PLAIN).unwrap().iter().all(|key| !key.ends_with("forwarding")));
    }

    #[test]
    fn a_file_that_is_read_later_and_says_otherwise_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let host = filtering(dir.path(), &[("all", "1")]);
        let found = Sysctls::survey(&host, false, &PLAIN, &[]).unwrap();
        for (path, text) in [
            ("/etc/sysctl.conf", "# x\nnet.ipv4.conf.all.rp_filter=1\nnet.ipv4.tcp_syncookies = 1\n"),
            ("/etc/sysctl.d/10-early.conf", "net.ipv4.conf.all.rp_filter = 1\n"),
            ("/usr/lib/sysctl.d/99-zz.conf", "-net/ipv4/conf/all/rp_filter = 2\n"),
        ] {
            host.write(Path::new(path), text.as_bytes(), 0o644).unwrap();
        }
        assert_eq!(found.overridden(&host).unwrap(), Vec::<String>::new());
        host.symlink(Path::new("/etc/sysctl.d/99-sysctl.conf"), Path::new("../sysctl.conf")).unwrap();
        let said = "`/etc/sysctl.d/99-sysctl.conf` sets net.ipv4.conf.all.rp_filter to 1 at boot (wanted 2)";
        assert_eq!(found.overridden(&host).unwrap(), [said]);
    }

    #[test]
    fn calico_wants_all_off_and_interfaces_loose_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let host = filtering(dir.path(), &[("all", "2"), ("eth0", "0"), ("eth1.7", "1")]);
        assert_eq!(
            wrong(&host, Plugin::Calico),
            ["net.ipv4.conf.all.rp_filter = 0", "net/ipv4/conf/eth1.7/rp_filter = 2"]
        );
    }
}
