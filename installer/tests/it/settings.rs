//! The settings of a host, from before a run to after `reset`, with the real step: through every death on the way.

use std::path::Path;
use std::sync::{Arc, Mutex};

use installer::cli::Format;
use installer::cli::cluster::Reset;
use installer::commands;
use installer::config::Roles;
use installer::host::{Host, Reply};
use installer::output::Output;
use installer::plan::Steps;
use installer::report::{Exit, render};
use installer::steps::host_settings::HostSettings;

use crate::host::{Bed, Tree, unlocked};

const YES: Reset = Reset {
    drain: false,
    drain_timeout: std::time::Duration::from_secs(300),
    yes: true,
    force: false,
    format: Format { json: false },
};

const HOST: &str = "\n[host]\nselinux = \"permissive\"\nhostname = \"set\"\ntime_servers = [\"192.0.2.123\"]\n";
const SWAPS: &str = "Filename Type Size Used Priority\n";
/// Keys that the kernel changes together with `net.ipv4.ip_forward`, and how this operator has them.
const FOLLOWING: [(&str, &str); 3] = [
    ("/proc/sys/net/ipv4/conf/all/accept_redirects", "0"),
    ("/proc/sys/net/ipv4/conf/default/forwarding", "0"),
    ("/proc/sys/net/ipv4/conf/eth0/forwarding", "1"),
];
const PARTITION: &str = "/dev/sda2 partition 1048572 2048 5\n";

/// What the kernel and the daemons of the machine hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Machine {
    firewalld: Vec<String>,
    /// The daemon was stopped.
    stopped: bool,
    chrony: (bool, bool),
}

/// A machine on which every setting has something to do.
struct Site {
    bed: Bed,
    machine: Arc<Mutex<Machine>>,
}

impl Site {
    fn new() -> Self {
        let bed = Bed::new();
        let host = &bed.host;
        let config = host.read_text(Path::new("/media/cluster.toml")).unwrap().unwrap() + HOST;
        for (path, text) in [
            ("/media/cluster.toml", config.as_str()),
            ("/etc/hosts", "127.0.0.1 localhost"),
            ("/etc/hostname", "d9\n"),
            ("/etc/fstab", "/dev/sda1 / ext4 defaults 0 1\n/dev/sda2 none swap sw,pri=5 0 0\n"),
            ("/etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=targeted\n"),
            ("/etc/chrony/chrony.conf", "pool 2.debian.pool.ntp.org iburst\n"),
            ("/etc/systemd/system/srv-own.swap", "[Swap]\nWhat=/srv/own\n"),
            ("/usr/sbin/chronyd", ""),
            ("/usr/bin/firewall-cmd", ""),
            ("/usr/lib/systemd/system/chrony.service", ""),
            ("/sys/fs/selinux/enforce", "1"),
            ("/proc/swaps", &format!("{SWAPS}{PARTITION}")),
            ("/proc/sys/kernel/hostname", "d9\n"),
            ("/proc/sys/net/ipv4/ip_forward", "0\n"),
            ("/proc/sys/vm/overcommit_memory", "0\n"),
        ] {
            host.write(Path::new(path), text.as_bytes(), if path == "/etc/fstab" { 0o640 } else { 0o644 }).unwrap();
        }
        for (path, value) in FOLLOWING.into_iter().chain([("/sys/class/block/sda2/partition", "2")]) {
            host.write(Path::new(path), value.as_bytes(), 0o644).unwrap();
        }
        let site = Self { bed, machine: Arc::default() };
        site.script();
        site.bed.host.fake().clear();
        site
    }

    fn script(&self) {
        let fake = self.bed.host.fake();
        fake.on("systemctl", Reply::ok(""));
        for command in ["ip -j link", "ip -4", "ip -6"] {
            fake.on(command, Reply::ok("[]"));
        }
        let units = self.bed.directory.path().join("etc/systemd/system");
        fake.answer("systemctl show --property=Id,LoadState", move |_| {
            // Made by a generator; the operator's own.
            let shown = ["dev-zram0.swap", "srv-own.swap"].map(|name| {
                let state = if units.join(name).is_symlink() { "masked" } else { "loaded" };
                format!("Id={name}\nLoadState={state}\nFragmentPath=/x/{name}\nSourcePath=\n")
            });
            Reply::ok(shown.join("\n"))
        });
        for (verb, swaps) in [("swapoff /dev/sda2", ""), ("swapon --priority 5 /dev/sda2", PARTITION)] {
            let file = self.bed.host.real_path(Path::new("/proc/swaps"));
            fake.answer(verb, move |_| {
                fs_err::write(&file, format!("{SWAPS}{swaps}")).unwrap();
                Reply::ok("")
            });
        }
        let files = FOLLOWING.map(|(path, _)| self.bed.host.real_path(Path::new(path)));
        fake.on_sysctl("net.ipv4.ip_forward", move |on| {
            for file in &files {
                let redirects = file.ends_with("accept_redirects");
                fs_err::write(file, if redirects == (on == "1") { "0" } else { "1" }).unwrap();
            }
        });
        for program in ["firewall-cmd", "firewall-offline-cmd"] {
            let state = Arc::clone(&self.machine);
            fake.answer(program, move |command| {
                let machine = &mut *state.lock().unwrap();
                let line = command.line();
                match (program, machine.stopped) {
                    ("firewall-cmd", true) => Reply::fail(252, "FirewallD is not running"),
                    ("firewall-cmd", false) => firewalld(&mut machine.firewalld, &line),
                    _ => firewalld(&mut machine.firewalld, &line.replacen(' ', " --permanent ", 1)),
                }
            });
        }
        self.script_chrony();
    }

    /// `(enabled, active)` of chrony.service.
    fn script_chrony(&self) {
        let fake = self.bed.host.fake();
        for (verb, change) in [
            ("enable", (Some(true), None)),
            ("disable", (Some(false), None)),
            ("start", (None, Some(true))),
            ("stop", (None, Some(false))),
        ] {
            let state = Arc::clone(&self.machine);
            fake.answer(&format!("systemctl {verb} chrony.service"), move |_| {
                let chrony = &mut state.lock().unwrap().chrony;
                *chrony = (change.0.unwrap_or(chrony.0), change.1.unwrap_or(chrony.1));
                Reply::ok("")
            });
        }
        let word = |is: bool, yes: &'static str, no: &'static str| if is { yes } else { no };
        let state = Arc::clone(&self.machine);
        fake.answer(
            "systemctl show --property=ActiveState,SubState,UnitFileState,NeedDaemonReload,NRestarts chrony.service",
            move |_| {
                let chrony = state.lock().unwrap().chrony;
                let (enabled, active) = (word(chrony.0, "enabled", "disabled"), word(chrony.1, "active", "inactive"));
                Reply::ok(format!("ActiveState={active}\nSubState=x\nUnitFileState={enabled}\n"))
            },
        );
        let state = Arc::clone(&self.machine);
        fake.answer("systemctl is-enabled chrony.service", move |_| {
            Reply::ok(word(state.lock().unwrap().chrony.0, "enabled\n", "disabled\n"))
        });
        let state = Arc::clone(&self.machine);
        fake.answer("systemctl is-active chrony.service", move |_| {
            Reply::ok(word(state.lock().unwrap().chrony.1, "active\n", "inactive\n"))
        });
    }

    fn install(&self) -> anyhow::Result<Exit> {
        unlocked(|| commands::install(&self.bed.host, &self.bed.arguments, &Output::silent(), &steps))
    }

    fn reset(&self) -> anyhow::Result<Exit> {
        unlocked(|| commands::reset(&self.bed.host, &YES, &Output::silent()))
    }

    /// Files, what the kernel shows, and what the daemons hold.
    fn all(&self) -> (Tree, Vec<String>, Machine) {
        let shown = [
            "/proc/swaps",
            "/proc/sys/kernel/hostname",
            "/proc/sys/net/ipv4/ip_forward",
            "/proc/sys/vm/overcommit_memory",
        ];
        let read = |path: &str| self.bed.host.read_text(Path::new(path)).unwrap().unwrap();
        let mut tree = self.bed.tree();
        // Its end is told apart from its beginning by the mode alone: a file of the kernel has no temporary one.
        tree.retain(|path, _| !path.ends_with("enforce"));
        let mut shown: Vec<String> = shown.into_iter().map(|path| read(path).trim().to_owned()).collect();
        shown.push(read("/sys/fs/selinux/enforce"));
        shown.extend(FOLLOWING.map(|(path, _)| read(path)));
        (tree, shown, self.machine.lock().unwrap().clone())
    }
}

fn steps(_: &Roles) -> Steps {
    Steps { preflight: vec![], rest: vec![Box::new(HostSettings)] }
}

/// A firewalld of a few lines: what was added, as the words of the command without its verb.
fn firewalld(added: &mut Vec<String>, line: &str) -> Reply {
    let words: Vec<&str> = line.split(' ').skip(1).collect();
    let place = words[..words.len() - 1].join(" ");
    let last = words[words.len() - 1];
    match last {
        "--state" => return Reply::ok("running\n"),
        "--get-default-zone" => return Reply::ok("public\n"),
        "--list-all" => {
            let of = |kind: &str| {
                let all = added.iter().filter_map(|rule| rule.strip_prefix(&format!("{place} {kind}=")));
                all.collect::<Vec<_>>().join(" ")
            };
            let forward = if added.contains(&format!("{place} forward")) { "yes" } else { "no" };
            let (ports, sources, interfaces) = (of("port"), of("source"), of("interface"));
            return Reply::ok(format!(
                "x\n  target: default\n  interfaces: {interfaces}\n  sources: {sources}\n  ports: {ports}\n  forward: {forward}\n"
            ));
        }
        last if last.starts_with("--get-zone") => return Reply::fail(2, "no zone"),
        _ => {}
    }
    let (verb, element) = last.trim_start_matches('-').split_once('-').unwrap();
    let rule = format!("{place} {element}");
    match verb {
        "query" if added.contains(&rule) => {}
        "query" => return Reply::fail(1, "no"),
        "add" => added.push(rule),
        _ => added.retain(|other| *other != rule),
    }
    Reply::ok("")
}

fn assert_same(found: &(Tree, Vec<String>, Machine), wanted: &(Tree, Vec<String>, Machine), when: &str) {
    let paths: std::collections::BTreeSet<_> = found.0.keys().chain(wanted.0.keys()).collect();
    let differ: Vec<_> = paths.into_iter().filter(|path| found.0.get(*path) != wanted.0.get(*path)).collect();
    assert!(differ.is_empty(), "{when}: {differ:?}");
    assert_eq!((&found.1, &found.2), (&wanted.1, &wanted.2), "{when}");
}

#[test]
fn a_run_sets_everything_and_reset_gives_it_back() {
    let site = Site::new();
    let before = site.all();
    assert_eq!(site.install().unwrap(), Exit::Done);
    let text = |path: &str| site.bed.host.read_text(Path::new(path)).unwrap().unwrap();
    assert!(text("/etc/hosts").contains("\n192.0.2.1 m1\n") && text("/etc/fstab").contains("# sealift: /dev/sda2"));
    assert_eq!((text("/proc/swaps").as_str(), text("/sys/fs/selinux/enforce").as_str()), (SWAPS, "0"));
    for unit in ["dev-zram0.swap", "dev-sda2.swap", "srv-own.swap"] {
        let mask = site.bed.host.link_target(&Path::new("/etc/systemd/system").join(unit)).unwrap();
        assert_eq!(mask.as_deref(), Some(Path::new("/dev/null")), "{unit}");
    }
    assert_eq!(text("/proc/sys/kernel/hostname"), "m1\n");
    assert_eq!(FOLLOWING.map(|(path, _)| text(path)), ["0", "1", "1"], "the kernel changes these itself");
    assert!(text("/etc/chrony/chrony.conf").contains("\nserver 192.0.2.123 iburst\n"));
    let machine = site.machine.lock().unwrap().clone();
    assert_eq!(machine.chrony, (true, true));
    assert!(machine.firewalld.contains(&"--permanent --zone=public port=6443/tcp".to_owned()), "{machine:?}");
    // The second run finds nothing to do.
    site.bed.host.fake().clear();
    assert_eq!(site.install().unwrap(), Exit::Done);
    let changing = |line: &&String| {
        ["create", "sysctl", "poke", "run swap", "run systemctl st", "--add"].iter().any(|word| line.contains(word))
    };
    let operations = site.bed.host.fake().operations();
    assert_eq!(operations.iter().find(changing), None);
    assert_eq!(site.reset().unwrap(), Exit::Done);
    assert_same(&site.all(), &before, "after reset");
}

/// What the operator writes into files that Sealift has edited stays.
#[test]
fn reset_keeps_what_others_wrote_in_the_meantime() {
    let site = Site::new();
    site.install().unwrap();
    let host = &site.bed.host;
    for (path, line) in [("/etc/fstab", "/dev/sdb1 /srv ext4 defaults 0 2\n"), ("/etc/hosts", "192.0.2.50 printer\n")] {
        let text = host.read_text(Path::new(path)).unwrap().unwrap();
        host.edit(Path::new(path), (text + line).as_bytes()).unwrap();
    }
    site.reset().unwrap();
    let text = |path: &str| host.read_text(Path::new(path)).unwrap().unwrap();
    assert!(text("/etc/fstab").ends_with("/dev/sda2 none swap sw,pri=5 0 0\n/dev/sdb1 /srv ext4 defaults 0 2\n"));
    assert_eq!(text("/etc/hosts"), "127.0.0.1 localhost\n192.0.2.50 printer\n");
}

/// A run that died anywhere is finished by the next one, and undone by `reset` at once.
#[test]
fn a_run_that_died_at_any_operation_is_repaired_or_undone() {
    let whole = Site::new();
    let before = whole.all();
    whole.install().unwrap();
    let after = whole.all();
    let operations = whole.bed.host.fake().operations();
    let first = operations.iter().position(|line| line.contains("/etc/sysctl.d") || line.contains("fstab")).unwrap();
    // What comes before is every run's, and tested as that.
    for (n, operation) in operations.iter().enumerate().skip(first) {
        let died = || {
            let site = Site::new();
            site.bed.host.fake().die_at(n);
            let _ = site.install();
            site.bed.host.fake().revive();
            site
        };
        let site = died();
        site.install().unwrap_or_else(|error| panic!("operation {n}: {}", render(&error)));
        let (tree, shown, machine) = site.all();
        let settings = |tree: &Tree| -> Tree {
            let mut tree = tree.clone();
            tree.retain(|path, _| path.starts_with("etc") && !path.starts_with("etc/sealift"));
            tree
        };
        let mut machine = machine;
        machine.firewalld.sort();
        let mut wanted = after.2.clone();
        wanted.firewalld.sort();
        assert_same(
            &(settings(&tree), shown, machine),
            &(settings(&after.0), after.1.clone(), wanted),
            &format!("repaired, operation {n}"),
        );
        let site = died();
        site.reset().unwrap_or_else(|error| panic!("operation {n}: {}", render(&error)));
        assert_same(&site.all(), &before, &format!("undone, operation {n}: {operation}"));
    }
}

/// A reset that died anywhere in these settings is finished by the next one.
#[test]
fn a_reset_that_died_at_any_operation_is_finished_by_the_next() {
    dies_in_reset(|_| {});
}

/// As above, with a firewalld that was stopped in the meantime: what it had in memory is gone.
#[test]
fn a_reset_without_the_daemon_of_the_firewall_that_died_is_finished_too() {
    dies_in_reset(|machine| {
        machine.stopped = true;
        machine.firewalld.retain(|rule| rule.starts_with("--permanent"));
    });
}

fn dies_in_reset(meanwhile: impl Fn(&mut Machine)) {
    let whole = Site::new();
    let mut before = whole.all();
    meanwhile(&mut before.2);
    whole.install().unwrap();
    meanwhile(&mut whole.machine.lock().unwrap());
    whole.bed.host.fake().clear();
    whole.reset().unwrap();
    let total = whole.bed.host.fake().operations().len();
    assert!(total > 60, "{total}");
    for n in 0..total {
        let site = Site::new();
        site.install().unwrap();
        meanwhile(&mut site.machine.lock().unwrap());
        site.bed.host.fake().die_at(n);
        let _ = site.reset();
        site.bed.host.fake().revive();
        site.reset().unwrap_or_else(|error| panic!("operation {n}: {}", render(&error)));
        assert_same(&site.all(), &before, &format!("operation {n}"));
    }
}

/// Where it cannot be put back, it is said, and the rest is.
#[test]
fn what_cannot_be_put_back_is_named() {
    let site = Site::new();
    site.install().unwrap();
    let host: &Host = &site.bed.host;
    host.fake().on("swapon", Reply::fail(255, "swapon: /dev/sda2: read swap header failed"));
    assert_eq!(site.reset().unwrap(), Exit::Done);
    assert!(host.read_text(Path::new("/etc/fstab")).unwrap().unwrap().contains("\n/dev/sda2 none swap"));
}
