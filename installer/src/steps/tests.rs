//! A master that is a directory, with a systemd of a few lines: what the steps find, change and leave alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bundle::component::{Kind, Role};
use bundle::{Component, ComponentName, Digest, Image};
use serde_json::json;
use tempfile::TempDir;

use super::command_line::CommandLine;
use super::host_settings::HostSettings;
use super::pki::Pki;
use super::preflight::Preflight;
use super::{kernel, os_packages};
use crate::checks::CheckName;
use crate::cluster::founding::{self, Founding};
use crate::config::{ClusterConfig, Node, Roles};
use crate::context::Context;
use crate::event::Recorded;
use crate::facts::Facts;
use crate::generation::Generation;
use crate::host::{Filesystem, Host, Reply};
use crate::report::{Exit, exit_of};
use crate::step::{Check, Step, Target};

mod containers;
mod daemons;
mod founding_guard;
mod host_firewall;
mod host_settings;
mod preflight;
mod preflight_checks;
mod preflight_reasons;
mod preflight_upgrade;

const CONFIG: &str = r#"
[cluster]
name = "test"

[[node]]
name = "m1"
address = "192.0.2.1"
roles = ["master"]
"#;

const UNIT: &str = "[Service]\nExecStart=/opt/sealift/current/etcd/bin/etcd\n";

/// A host and everything a context borrows.
pub(super) struct Bed {
    pub(super) directory: TempDir,
    pub(super) host: Host,
    pub(super) events: Recorded,
    pub(super) config: ClusterConfig,
    pub(super) node: Node,
    pub(super) roles: Roles,
    pub(super) ignored: BTreeSet<CheckName>,
    pub(super) facts: Facts,
    pub(super) components: Vec<Component>,
    pub(super) images: Vec<Image>,
    pub(super) desired: Generation,
    pub(super) units: Arc<Mutex<BTreeMap<String, Unit>>>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Unit {
    enabled: bool,
    pub(super) active: &'static str,
}

impl Bed {
    pub(super) fn new() -> Self {
        Self::under(tempfile::tempdir().unwrap())
    }

    /// A host in this directory.
    pub(super) fn under(directory: TempDir) -> Self {
        let host = Host::under(directory.path());
        let config = ClusterConfig::parse(CONFIG, Path::new("cluster.toml")).unwrap();
        let node = config.nodes[0].clone();
        let mut facts = crate::facts::tests::debian();
        for tool in ["iptables", "nft", "mount", "ip", "modprobe"] {
            facts.tools.insert(tool.to_owned(), String::new());
        }
        let bed = Self {
            host,
            events: Recorded::default(),
            node,
            config,
            roles: Roles::new([Role::Master]),
            ignored: BTreeSet::new(),
            facts,
            components: components(),
            images: Vec::new(),
            desired: generation("etcd", "etcd.service", UNIT, "digest-1"),
            units: Arc::default(),
            directory,
        };
        bed.host.fake().set_filesystem("/", disk(20 << 10));
        bed.script_systemd("digest-1");
        // Every other node is on the network of this one.
        bed.host.fake().answer("ip -force -j -batch -", |command| {
            let questions = String::from_utf8_lossy(command.stdin().unwrap_or_default()).into_owned();
            let peers = questions.lines().filter_map(|line| line.strip_prefix("route get "));
            let ways = peers.map(|peer| json!([{"dst": peer, "dev": "eth0", "prefsrc": "192.0.2.1"}]).to_string());
            Reply::ok(ways.collect::<String>())
        });
        bed
    }

    /// `systemctl` with one state per unit; a restart leaves `stamp` behind, as the units' `ExecStartPre=` does.
    fn script_systemd(&self, stamp: &'static str) {
        let fake = self.host.fake();
        fake.on("systemctl", Reply::ok(""));
        let units = Arc::clone(&self.units);
        fake.answer("systemctl show", move |command| {
            let line = command.line();
            let name = line.rsplit(' ').next().unwrap_or_default();
            let unit = units.lock().unwrap().get(name).cloned().unwrap_or_default();
            let active = if unit.active.is_empty() { "inactive" } else { unit.active };
            let enabled = if unit.enabled { "enabled" } else { "" };
            Reply::ok(format!("ActiveState={active}\nSubState=x\nUnitFileState={enabled}\nNeedDaemonReload=no\n"))
        });
        let units = Arc::clone(&self.units);
        fake.answer("systemctl enable ", move |command| {
            let line = command.line();
            units.lock().unwrap().entry(line.rsplit(' ').next().unwrap().to_owned()).or_default().enabled = true;
            Reply::ok("")
        });
        let (units, root) = (Arc::clone(&self.units), self.directory.path().to_owned());
        fake.answer("systemctl --no-block restart ", move |command| {
            let line = command.line();
            let name = line.rsplit(' ').next().unwrap().to_owned();
            let directory = root.join("run/sealift/started");
            fs_err::create_dir_all(&directory).unwrap();
            fs_err::write(directory.join(&name), stamp).unwrap();
            units.lock().unwrap().entry(name).or_default().active = "active";
            Reply::ok("")
        });
    }

    pub(super) fn context(&self) -> Context<'_> {
        Context {
            host: &self.host,
            events: &self.events,
            config: &self.config,
            node: &self.node,
            roles: &self.roles,
            facts: &self.facts,
            components: &self.components,
            images: &self.images,
            desired: &self.desired,
            installer: Digest::of(b"installer"),
            join: None,
            joined: false,
            init: false,
            ignored: &self.ignored,
            created: None,
            reboot: crate::restart::Mode::Never,
            retry_kernel: None,
            patience: std::time::Duration::ZERO,
            step: "test",
        }
    }

    /// Makes this host another node with these roles; the master of the config is elsewhere then.
    pub(super) fn become_member(&mut self, roles: &[Role]) {
        self.roles = Roles::new(roles.iter().copied());
        self.node.roles = self.roles.clone();
        if self.roles.master() {
            self.config.nodes[0].roles = self.roles.clone();
            return;
        }
        self.node.name = "n2".to_owned();
        self.config.nodes[0].address = "192.0.2.10".parse().unwrap();
        self.config.nodes.push(self.node.clone());
        let founding = Founding::create([], false).unwrap();
        self.put(founding::PATH, founding.write().unwrap().expose());
    }

    pub(super) fn put(&self, path: &str, text: &str) {
        let real = self.host.real_path(Path::new(path));
        fs_err::create_dir_all(real.parent().unwrap()).unwrap();
        fs_err::write(real, text).unwrap();
    }

    /// What the step would do; empty when it is content.
    pub(super) fn changes(&self, step: &dyn Step) -> Vec<String> {
        match step.check(&self.context()).unwrap() {
            Check::Needed(changes) => changes.into_iter().map(|change| change.0).collect(),
            _ => Vec::new(),
        }
    }

    /// Applies a step and shows that it is content then, and that applying it again writes nothing.
    fn settles(&self, step: &dyn Step) {
        assert!(!self.changes(step).is_empty(), "nothing to do at first");
        step.apply(&self.context()).unwrap();
        assert_eq!(self.changes(step), Vec::<String>::new());
        self.host.fake().clear();
        step.apply(&self.context()).unwrap();
        let writes: Vec<String> =
            self.host.fake().operations().into_iter().filter(|operation| !is_question(operation)).collect();
        assert_eq!(writes, Vec::<String>::new(), "the second apply changed something");
    }
}

/// A disk with this much room.
pub(super) fn disk(free_mib: u64) -> Filesystem {
    Filesystem {
        mounted: PathBuf::from("/"),
        device: "8:1".to_owned(),
        kind: "ext4".to_owned(),
        source: "/dev/sda1".to_owned(),
        size: 100 << 30,
        free: free_mib << 20,
        inodes: 6_000_000,
        inodes_free: 5_000_000,
        ..Filesystem::default()
    }
}

/// What a bundle for all roles has, for every role.
fn components() -> Vec<Component> {
    let names = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "containerd", "runc"];
    let names = names.into_iter().chain(["cni", "pause", "nginx", "kubelet", "kube-proxy"]);
    let roles = [Role::Master, Role::Worker, Role::Etcd];
    names.map(|name| bundle::fake::component(name, "1", Kind::Program, &roles).unwrap()).collect()
}

/// Commands that only ask.
fn is_question(operation: &str) -> bool {
    ["run systemctl show", "run journalctl", "run /opt/sealift/current/nginx/bin/nginx -t"]
        .iter()
        .any(|question| operation.starts_with(question))
}

fn generation(component: &str, unit: &str, text: &str, digest: &str) -> Generation {
    let name: ComponentName = component.parse().unwrap();
    let mut generation = Generation::default();
    generation.links.insert(name.clone(), format!("{component}-1-0"));
    generation.files.insert(format!("units/{unit}"), text.as_bytes().to_vec());
    generation.files.insert(format!("etc/{component}/digest"), digest.as_bytes().to_vec());
    generation.units.insert(unit.to_owned(), name);
    generation
}

#[test]
fn certificates_are_made_once() {
    let bed = Bed::new();
    bed.settles(&Pki);
    let key = bed.host.entry(Path::new("/etc/sealift/pki/ca.key")).unwrap().unwrap();
    assert_eq!(key.mode, 0o600);
}

#[test]
fn kernel_settings_are_written_and_set_where_they_are_this_hosts() {
    let bed = Bed::new();
    bed.put("/proc/sys/net/ipv4/ip_forward", "0\n");
    bed.put("/proc/sys/kernel/panic", "0\n");
    bed.put("/proc/sys/fs/inotify/max_user_watches", "1048576\n");
    assert!(bed.changes(&HostSettings).contains(&"set net.ipv4.ip_forward to 1 (is 0)".to_owned()));
    bed.settles(&HostSettings);
    let file = bed.host.read_text(Path::new("/etc/sysctl.d/99-sealift.conf")).unwrap().unwrap();
    assert!(file.contains("net.ipv4.ip_forward = 1\n") && file.contains("kernel.panic = 10\n"), "{file}");
    assert!(!file.contains("max_user_watches"), "a higher value must not be lowered: {file}");
    assert!(!file.contains("bridge"), "a key this kernel does not have: {file}");
}

#[test]
fn a_container_sets_only_its_own_network_and_reports_the_rest() {
    let mut bed = Bed::new();
    bed.facts.container = Some("systemd-nspawn".to_owned());
    bed.put("/proc/sys/net/ipv4/ip_forward", "0\n");
    bed.put("/proc/sys/kernel/panic", "0\n");
    HostSettings.apply(&bed.context()).unwrap();
    assert_eq!(bed.host.sysctl("kernel.panic").unwrap().unwrap(), "0");
    let Check::Kept(reason) = HostSettings.check(&bed.context()).unwrap() else { panic!("not reported") };
    assert!(reason.contains("kernel.panic = 0 (wanted 10)"), "{reason}");
    assert!(!bed.host.read_text(Path::new("/etc/sysctl.d/99-sealift.conf")).unwrap().unwrap().contains("kernel.panic"));
}

#[test]
fn foreign_command_line_files_are_left_alone() {
    let mut bed = Bed::new();
    bed.desired = generation("kubectl", "none.service", "", "digest-1");
    bed.put("/usr/local/bin/kubectl", "#!/bin/sh\n");
    bed.put("/etc/crictl.yaml", "runtime-endpoint: unix:///run/crio.sock\n");
    bed.settles(&CommandLine);
    assert_eq!(bed.host.read_text(Path::new("/usr/local/bin/kubectl")).unwrap().unwrap(), "#!/bin/sh\n");
    let Check::Kept(reason) = CommandLine.check(&bed.context()).unwrap() else { panic!("not reported") };
    assert!(reason.contains("/usr/local/bin/kubectl") && reason.contains("/etc/crictl.yaml"), "{reason}");
    assert_eq!(
        bed.host.link_target(Path::new("/root/.kube/config")).unwrap(),
        Some(PathBuf::from("/etc/sealift/admin.conf"))
    );
}

#[test]
fn a_container_has_no_kernel_of_its_own_and_a_machine_keeps_its() {
    let mut bed = Bed::new();
    assert!(
        matches!(kernel::Kernel.check(&bed.context()).unwrap(), Check::Kept(reason) if reason.contains("6.1.0-40"))
    );
    bed.facts.container = Some("lxc".to_owned());
    let check = kernel::Kernel.check(&bed.context()).unwrap();
    assert!(matches!(check, Check::Skipped(reason) if reason.contains("shares the machine's kernel")));
    assert!(matches!(os_packages::OsPackages.check(&bed.context()).unwrap(), Check::Kept(_)));
}
