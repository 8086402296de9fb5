//! `installer reset` on a directory: from every point of an installation, through every death, back to what was before.

use std::path::Path;

use installer::cli::Format;
use installer::cli::cluster::Reset;
use installer::commands;
use installer::config::Roles;
use installer::context::Context;
use installer::host::{Host, Reply};
use installer::journal::Journal;
use installer::output::Output;
use installer::plan::Steps;
use installer::report::{Exit, exit_of, render};
use installer::step::{Change, Check, Step, Target};

use crate::host::{Bed, File, Tree, unlocked};

const YES: Reset = Reset {
    drain: false,
    drain_timeout: std::time::Duration::from_secs(300),
    yes: true,
    force: false,
    format: Format { json: false },
};

/// A unit of the operator's that runs one of our programs.
const OPERATORS: &str = "/etc/systemd/system/morning-check.service";

/// A program that fills directories once its unit is started.
struct Program {
    name: &'static str,
    unit: &'static str,
    files: &'static [&'static str],
}

impl Step for Program {
    fn name(&self) -> &'static str {
        self.name
    }

    fn title(&self) -> &'static str {
        "Start a program"
    }

    fn touches(&self, _: &Context<'_>) -> anyhow::Result<Vec<Target>> {
        Ok(vec![Target::File(self.unit.into()), Target::Unit(self.name.to_owned())])
    }

    fn check(&self, context: &Context<'_>) -> anyhow::Result<Check> {
        for path in self.files.iter().chain([&self.unit]) {
            if !context.host.exists(Path::new(path))? {
                return Ok(Check::Needed(vec![Change::new(format!("write {path}"))]));
            }
        }
        Ok(Check::Done)
    }

    fn apply(&self, context: &Context<'_>) -> anyhow::Result<()> {
        context.host.write(Path::new(self.unit), b"ExecStart=/opt/sealift/current/x\n", 0o644)?;
        self.files.iter().try_for_each(|path| context.host.write(Path::new(path), b"data", 0o600))
    }
}

/// Steps that leave what a node leaves: changed files, new files, units, data.
fn node(_: &Roles) -> Steps {
    let steps: Vec<Box<dyn Step>> = vec![
        Box::new(File("settings", "/etc/example.conf", b"a = 1\n", 0o644)),
        Box::new(File("secret", "/etc/sealift/secrets/key", b"0123456789", 0o600)),
        Box::new(File("command-line", "/root/.kube/config", b"x", 0o600)),
        Box::new(Program {
            name: "containerd",
            unit: "/etc/systemd/system/containerd.service",
            files: &["/var/lib/containerd/io/a", "/run/containerd/sock", "/etc/cni/net.d/10-x.conflist"],
        }),
        Box::new(Program {
            name: "etcd",
            unit: "/etc/systemd/system/etcd.service",
            files: &["/var/lib/etcd/member/snap/db"],
        }),
        Box::new(Program {
            name: "kubelet",
            unit: "/etc/systemd/system/kubelet.service",
            files: &["/var/lib/kubelet/pods/x/y", "/usr/libexec/kubernetes/z/w", "/var/log/pods/p/0.log"],
        }),
    ];
    Steps { preflight: vec![], rest: steps }
}

/// A host with things on it that are not Sealift's.
fn bed() -> Bed {
    let bed = Bed::new();
    let host = &bed.host;
    for (path, text, mode) in [
        ("/etc/example.conf", "before\n", 0o600),
        ("/etc/systemd/system/ssh.service", "ExecStart=/usr/sbin/sshd\n", 0o644),
        (OPERATORS, "ExecStart=/opt/sealift/bin/installer check\n", 0o644),
        ("/etc/sealift/trusted-keys/ours.pub", "key", 0o644),
        ("/etc/sealift/trust.toml", "threshold = 1\n", 0o644),
        ("/var/log/pods/older/0.log", "someone's", 0o644),
    ] {
        host.write(Path::new(path), text.as_bytes(), mode).unwrap();
    }
    // A disk of its own: the directory stays.
    host.create_dir(Path::new("/var/lib/containerd"), 0o711).unwrap();
    for (command, answer) in [("systemctl", ""), ("ip -j link", "[]"), ("ip -4", ""), ("ip -6", "")] {
        host.fake().on(command, Reply::ok(answer));
    }
    host.fake()
        .on("ip -j addr", Reply::ok(r#"[{"ifname":"eth0","addr_info":[{"local":"192.0.2.1","prefixlen":24}]}]"#));
    host.fake().clear();
    bed
}

fn install(bed: &Bed) -> anyhow::Result<Exit> {
    unlocked(|| commands::install(&bed.host, &bed.arguments, &Output::silent(), &node))
}

fn reset(host: &Host) -> anyhow::Result<Exit> {
    unlocked(|| commands::reset(host, &YES, &Output::silent()))
}

fn assert_same(found: &Tree, wanted: &Tree, when: &str) {
    let paths: std::collections::BTreeSet<_> = found.keys().chain(wanted.keys()).collect();
    let differ: Vec<String> = paths
        .into_iter()
        .filter(|path| found.get(*path) != wanted.get(*path))
        .map(|path| format!("{}: {:?} for {:?}", path.display(), found.get(path), wanted.get(path)))
        .collect();
    assert_eq!(differ, Vec::<String>::new(), "{when}");
}

/// Without what grew in a directory that somebody else had begun.
fn without_foreign_growth(tree: &Tree) -> Tree {
    let mut tree = tree.clone();
    tree.retain(|path, _| !path.starts_with("var/log/pods/p"));
    tree
}
#[test]
fn reset_gives_the_host_back_and_a_second_one_finds_nothing() {
    let bed = bed();
    let before = bed.tree();
    install(&bed).unwrap();
    let error = commands::reset(&bed.host, &Reset { yes: false, ..YES }, &Output::silent()).unwrap_err();
    assert_eq!(exit_of(&error), Exit::Usage, "nobody agreed");
    assert_eq!(reset(&bed.host).unwrap(), Exit::Done);
    assert!(bed.host.exists(Path::new("/var/log/pods/older/0.log")).unwrap(), "it was there before");
    let named: Vec<String> = bed.host.fake().commands().into_iter().filter(|line| line.contains("morning")).collect();
    assert_eq!(named, Vec::<String>::new(), "the operator's unit");
    assert_same(&without_foreign_growth(&bed.tree()), &before, "after reset");
    bed.host.fake().clear();
    assert_eq!(reset(&bed.host).unwrap(), Exit::Done);
    assert_eq!(bed.host.fake().commands(), Vec::<String>::new());
    install(&bed).unwrap();
}

/// An installation that died anywhere is taken off whole.
#[test]
fn reset_of_an_installation_that_died_at_any_operation() {
    let whole = bed();
    let before = whole.tree();
    install(&whole).unwrap();
    let total = whole.host.fake().operations().len();
    assert!(total > 100, "{total}");
    for n in 0..total {
        let bed = bed();
        bed.host.fake().die_at(n);
        // The last lines of the log may be lost: the run ends well without them.
        let _ = install(&bed);
        bed.host.fake().revive();
        reset(&bed.host).unwrap_or_else(|error| panic!("operation {n}: {}", render(&error)));
        assert_same(&without_foreign_growth(&bed.tree()), &before, &format!("operation {n}"));
    }
}

/// A reset that dies, or meets an error once, at any operation is finished by the next one.
#[test]
fn reset_that_died_or_failed_at_any_operation_is_finished_by_the_next() {
    let whole = bed();
    let before = whole.tree();
    install(&whole).unwrap();
    whole.host.fake().clear();
    reset(&whole.host).unwrap();
    let total = whole.host.fake().operations().len();
    assert!(total > 40, "{total}");
    for dies in [true, false] {
        for n in 0..total {
            let bed = bed();
            install(&bed).unwrap();
            let fake = bed.host.fake();
            if dies {
                fake.die_at(n);
            } else {
                fake.fail_at(n);
            }
            let died = reset(&bed.host);
            fake.revive();
            if Journal::read(&bed.host).unwrap().was_reset("begun") {
                let error = install(&bed).unwrap_err();
                assert!(render(&error).contains("being reset"), "{}", render(&error));
            }
            reset(&bed.host).unwrap_or_else(|error| panic!("operation {n}: {died:?}, then {}", render(&error)));
            assert_same(&without_foreign_growth(&bed.tree()), &before, &format!("operation {n} (dies: {dies})"));
        }
    }
}

/// Why the boot menu's default is held would be known to nobody otherwise, and a later installation could not give it back.
#[test]
fn what_holds_the_boot_menu_keeps_its_record() {
    let (bed, state) = (bed(), Path::new("/var/lib/sealift"));
    assert_eq!(install(&bed).unwrap(), Exit::Done);
    let held = r#"{"pin":{"release":"6.1","entry":"old","saved_before":null}}"#;
    bed.host.write(&state.join("kernel.json"), held.as_bytes(), 0o600).unwrap();
    reset(&bed.host).unwrap();
    assert_eq!(bed.host.list(state).unwrap(), ["kernel.json"]);
    bed.host.write(&state.join("kernel.json"), b"{}", 0o600).unwrap();
    reset(&bed.host).unwrap();
    assert!(!bed.host.exists(state).unwrap());
}

#[test]
fn nothing_is_deleted_behind_a_mount_or_below_a_running_program() {
    let bed = bed();
    install(&bed).unwrap();
    let host = &bed.host;
    let data = Path::new("/var/lib/kubelet/pods/x/y");
    // A unit that neither stops nor dies.
    host.fake().on("systemctl show", Reply::ok("ActiveState=active\nSubState=running\n"));
    let error = reset(host).unwrap_err();
    assert!(render(&error).contains("does not end"), "{}", render(&error));
    assert!(host.exists(data).unwrap());
    host.fake().on("systemctl show", Reply::ok("ActiveState=inactive\n"));
    // A mount of the operator's in the middle of containerd's data, which is not Sealift's to take away.
    let table = "1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / /opt/sealift/store rw - nfs b rw\n";
    host.write(Path::new("/proc/self/mountinfo"), table.as_bytes(), 0o644).unwrap();
    let error = reset(host).unwrap_err();
    assert!(render(&error).contains("/opt/sealift/store` is still mounted"), "{}", render(&error));
    assert!(host.exists(Path::new("/opt/sealift/store")).unwrap());
    host.write(Path::new("/proc/self/mountinfo"), b"1 0 8:1 / / rw - ext4 a rw\n", 0o644).unwrap();
    reset(host).unwrap();
}

/// `/var` and `/opt` on another disk, by links: mountinfo says where that is.
#[test]
fn nothing_is_deleted_behind_a_mount_below_a_link() {
    let bed = bed();
    let host = &bed.host;
    host.create_dir(Path::new("/big"), 0o755).unwrap();
    for moved in ["var", "opt"] {
        let (from, to) = (Path::new("/").join(moved), Path::new("/big").join(moved));
        host.create_dir(&from, 0o755).unwrap();
        host.rename(&from, &to).unwrap();
        host.symlink(&from, to.strip_prefix("/").unwrap()).unwrap();
    }
    install(&bed).unwrap();
    for (mount, kept) in
        [("/big/var/lib/containerd/io", "/var/lib/etcd"), ("/big/opt/sealift/store", "/opt/sealift/store")]
    {
        // The first is a container's and is unmounted; the second is the operator's.
        let table = format!("1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / {mount} rw - nfs b rw\n");
        host.write(Path::new("/proc/self/mountinfo"), table.as_bytes(), 0o644).unwrap();
        let found = reset(host);
        if mount.contains("store") {
            let error = render(&found.unwrap_err());
            assert!(error.contains(&format!("{mount}` is still mounted")), "{error}");
            assert!(host.exists(Path::new(kept)).unwrap());
        } else {
            found.unwrap();
            assert!(host.fake().operations().iter().any(|line| line.contains("unmount") && line.contains(mount)));
            install(&bed).unwrap();
        }
    }
    host.write(Path::new("/proc/self/mountinfo"), b"1 0 8:1 / / rw - ext4 a rw\n", 0o644).unwrap();
    reset(host).unwrap();
    for gone in ["/big/opt/sealift", "/big/var/lib/sealift", "/big/var/lib/kubelet"] {
        assert!(!host.exists(Path::new(gone)).unwrap(), "{gone}");
    }
}

#[test]
fn a_damaged_journal_needs_force_and_costs_only_the_settings() {
    let bed = bed();
    install(&bed).unwrap();
    let path = Path::new(installer::journal::PATH);
    let mut bytes = bed.host.read(path).unwrap().unwrap();
    bytes[3] ^= 1;
    bed.host.write(path, &bytes, 0o600).unwrap();
    let error = reset(&bed.host).unwrap_err();
    assert!(render(&error).contains("--force"), "{}", render(&error));
    commands::reset(&bed.host, &Reset { force: true, ..YES }, &Output::silent()).unwrap();
    for gone in ["/opt/sealift", "/var/lib/sealift", "/etc/systemd/system/kubelet.service", "/var/lib/kubelet"] {
        assert!(!bed.host.exists(Path::new(gone)).unwrap(), "{gone}");
    }
    assert!(bed.host.exists(Path::new("/etc/systemd/system/ssh.service")).unwrap());
    assert!(bed.host.exists(Path::new("/etc/sealift/trusted-keys/ours.pub")).unwrap());
}
