//! Settings of a host: each where it has something to do, and where it has not.

use super::*;
use crate::config::host::{Firewall, HostName, Selinux, Swap};
use crate::steps::preflight;

const HOSTS: &str = "/etc/hosts";
const FSTAB: &str = "UUID=1 / ext4 defaults 0 1\nUUID=2 none swap sw 0 0\n";
const SWAPS: &str = "Filename Type Size Used Priority\n/dev/sda2 partition 1048572 2048 -2\n";

pub(super) fn text(bed: &Bed, path: &str) -> String {
    bed.host.read_text(Path::new(path)).unwrap().unwrap_or_default()
}

fn limits(bed: &Bed) -> String {
    match HostSettings.check(&bed.context()).unwrap() {
        Check::Kept(reason) => reason,
        _ => String::new(),
    }
}

/// Applies until nothing is left to do; gives the changes of the first round that are about something.
pub(super) fn applied(bed: &Bed, about: &str) -> Vec<String> {
    let changes = bed.changes(&HostSettings);
    HostSettings.apply(&bed.context()).unwrap();
    assert_eq!(bed.changes(&HostSettings), Vec::<String>::new());
    changes.into_iter().filter(|change| change.contains(about)).collect()
}

/// Starting, stopping and disabling units.
fn script_units(bed: &Bed) {
    for (verb, active, enabled) in [
        ("start ", Some("active"), None),
        ("stop ", Some("inactive"), None),
        ("disable --now ", Some("inactive"), Some(false)),
    ] {
        let units = Arc::clone(&bed.units);
        bed.host.fake().answer(&format!("systemctl {verb}"), move |command| {
            let mut units = units.lock().unwrap();
            let unit = units.entry(command.line().rsplit(' ').next().unwrap().to_owned()).or_default();
            unit.active = active.unwrap_or(unit.active);
            unit.enabled = enabled.unwrap_or(unit.enabled);
            Reply::ok("")
        });
    }
}

pub(super) fn runs(bed: &Bed, unit: &str) {
    bed.units.lock().unwrap().insert(unit.to_owned(), Unit { enabled: true, active: "active" });
}

#[test]
fn names_of_nodes_go_to_the_hosts_file_and_follow_the_config() {
    let mut bed = Bed::new();
    bed.put(HOSTS, "127.0.0.1 localhost");
    bed.settles(&HostSettings);
    let block = "# BEGIN sealift (the line before had no end)\n192.0.2.1 m1\n# END sealift\n";
    assert_eq!(text(&bed, HOSTS), format!("127.0.0.1 localhost\n{block}"));
    // A node more, and a line of somebody's below.
    bed.config.nodes.push(Node { name: "w1".to_owned(), address: "192.0.2.2".parse().unwrap(), ..bed.node.clone() });
    bed.put(HOSTS, &format!("10.0.0.9 w1\n{block}10.0.0.3 printer\n"));
    assert_eq!(bed.changes(&HostSettings), ["edit /etc/hosts: the names of 2 nodes"]);
    bed.settles(&HostSettings);
    assert!(text(&bed, HOSTS).ends_with("192.0.2.2 w1\n# END sealift\n10.0.0.3 printer\n"), "{}", text(&bed, HOSTS));
    assert!(limits(&bed).contains("line 1 has `w1` at 10.0.0.9, the cluster at 192.0.2.2"), "{}", limits(&bed));
    bed.config.host.hosts = false;
    bed.settles(&HostSettings);
    assert_eq!(text(&bed, HOSTS), "10.0.0.9 w1\n10.0.0.3 printer\n");
    assert!(!limits(&bed).contains("w1"), "not ours to say");
}

#[test]
fn a_hosts_file_in_another_encoding_is_no_obstacle() {
    let bed = Bed::new();
    let before = b"10.0.0.9 drucker # B\xfcro\n10.0.0.8 m1\n";
    bed.host.write(Path::new(HOSTS), before, 0o644).unwrap();
    let target = Target::Marks(HOSTS.into());
    let image = crate::journal::BeforeImage::capture(&bed.host, &target).unwrap();
    applied(&bed, "");
    assert!(limits(&bed).contains("line 2 has `m1` at 10.0.0.8"), "{}", limits(&bed));
    preflight::findings(&bed.context()).unwrap();
    assert!(image.differs(&bed.host, &target));
    image.restore(&bed.host, &target).unwrap();
    assert_eq!(bed.host.read(Path::new(HOSTS)).unwrap().unwrap(), before);
}

/// A machine with a swap partition in `/etc/fstab`, zram by a generator, and a service that makes swap.
fn with_swap() -> Bed {
    let mut bed = Bed::new();
    script_units(&bed);
    bed.put("/etc/fstab", FSTAB);
    bed.put("/proc/swaps", SWAPS);
    bed.put("/sys/class/block/sda2/partition", "2\n");
    bed.put("/proc/meminfo", "MemTotal: 4096000 kB\nMemAvailable: 100000 kB\n");
    bed.facts.swap = vec!["/dev/sda2".to_owned()];
    runs(&bed, "zramswap.service");
    let (root, fake) = (bed.directory.path().to_owned(), bed.host.fake());
    let mask = root.join("etc/systemd/system/dev-zram0.swap");
    fake.answer("systemctl show --property=Id,LoadState,FragmentPath,SourcePath *.swap", move |_| {
        let state = if mask.is_symlink() { "masked" } else { "loaded" };
        Reply::ok(format!(
            "Id=dev-zram0.swap\nLoadState={state}\nFragmentPath=/run/systemd/generator/dev-zram0.swap\nSourcePath=\n"
        ))
    });
    fake.answer("swapoff /dev/sda2", move |_| {
        fs_err::write(root.join("proc/swaps"), SWAPS.lines().next().unwrap()).unwrap();
        Reply::ok("")
    });
    bed
}

#[test]
fn swap_is_turned_off_now_and_at_boot() {
    let bed = with_swap();
    let changes = applied(&bed, "");
    for line in [
        "edit /etc/fstab: comment out 1 line of swap",
        "mask dev-zram0.swap, which turns swap on at boot",
        // systemd finds it in the partition table as soon as no line of fstab is about swap.
        "mask dev-sda2.swap, which turns swap on at boot",
        "stop and disable zramswap.service, which makes swap",
        "turn swap off on /dev/sda2 (2.0 MiB in it)",
    ] {
        assert!(changes.iter().any(|change| change == line), "`{line}` is not in {changes:#?}");
    }
    assert_eq!(text(&bed, "/etc/fstab"), FSTAB.replace("UUID=2", "# sealift: UUID=2"));
    for unit in ["dev-zram0.swap", "dev-sda2.swap"] {
        let mask = bed.host.link_target(&Path::new("/etc/systemd/system").join(unit)).unwrap();
        assert_eq!(mask.as_deref(), Some(Path::new("/dev/null")), "{unit}");
    }
    let unit = bed.units.lock().unwrap()["zramswap.service"].clone();
    assert!(!unit.enabled && unit.active == "inactive");
}

#[test]
fn a_table_of_mounts_in_another_encoding_is_no_obstacle() {
    let bed = with_swap();
    let before = [b"# B\xfcro\n", FSTAB.as_bytes()].concat();
    fs_err::write(bed.host.real_path(Path::new("/etc/fstab")), before).unwrap();
    applied(&bed, "");
    let expected = [b"# B\xfcro\n", FSTAB.replace("UUID=2", "# sealift: UUID=2").as_bytes()].concat();
    assert_eq!(bed.host.read(Path::new("/etc/fstab")).unwrap().unwrap(), expected);
}

#[test]
fn swap_of_a_machine_or_that_shall_stay_is_refused_and_not_touched() {
    let refusal = |bed: &Bed| match Preflight.check(&bed.context()) {
        Err(error) => format!("{error:#}"),
        Ok(_) => String::new(),
    };
    assert_eq!(refusal(&with_swap()), "", "it will be turned off");
    let mut bed = with_swap();
    bed.facts.container = Some("lxc".to_owned());
    assert!(refusal(&bed).contains("on the machine that this container runs on"), "{}", refusal(&bed));
    assert!(bed.changes(&HostSettings).iter().all(|change| !change.contains("swap")));
    let mut bed = with_swap();
    bed.config.host.swap = Swap::Keep;
    assert!(refusal(&bed).contains("`swap = \"off\"` in `[host]`"), "{}", refusal(&bed));
    assert!(bed.changes(&HostSettings).iter().all(|change| !change.contains("swap")));
    let bed = with_swap();
    bed.put("/proc/meminfo", "MemAvailable: 1024 kB\n");
    assert!(refusal(&bed).contains("memory for the 2.0 MiB in it"), "{}", refusal(&bed));
    let findings = preflight::findings(&Bed::new().context()).unwrap();
    assert!(findings.iter().all(|finding| finding.subject != "swap"), "a host without swap");
}

#[test]
fn selinux_and_the_name_change_only_when_the_config_says_so() {
    let (enforce, config) = ("/sys/fs/selinux/enforce", "# x\nSELINUX=enforcing\nSELINUXTYPE=targeted\n");
    let machine = || {
        let bed = Bed::new();
        bed.put(enforce, "1");
        bed.put("/etc/selinux/config", config);
        bed.put("/etc/hostname", "d9\n");
        bed.put("/proc/sys/kernel/hostname", "d9\n");
        bed
    };
    let mut bed = machine();
    assert!(applied(&bed, "").iter().all(|change| !change.contains("SELinux") && !change.contains("hostname")));
    bed.config.host.selinux = Selinux::Permissive;
    bed.config.host.hostname = HostName::Set;
    let changes = [
        "edit /etc/selinux/config: permissive at boot",
        "set SELinux to permissive (is enforcing)",
        "write /etc/hostname: m1",
        "set the host's name to m1 (is d9)",
    ];
    assert_eq!(applied(&bed, ""), changes);
    assert_eq!(text(&bed, enforce), "0");
    let block = "# BEGIN sealift\nSELINUX=permissive\n# END sealift\n";
    assert_eq!(text(&bed, "/etc/selinux/config"), config.replace("SELINUX=e", "# sealift: SELINUX=e") + block);
    assert_eq!(
        (text(&bed, "/etc/hostname").as_str(), text(&bed, "/proc/sys/kernel/hostname").as_str()),
        ("m1\n", "m1\n")
    );

    let mut bed = machine();
    bed.config.host.selinux = Selinux::Permissive;
    bed.facts.container = Some("podman".to_owned());
    HostSettings.apply(&bed.context()).unwrap();
    assert_eq!(text(&bed, enforce), "1", "the machine's");
    assert!(limits(&bed).contains("SELinux enforces on the machine"), "{}", limits(&bed));
}

#[test]
fn chrony_keeps_the_time_where_nobody_does() {
    let mut bed = Bed::new();
    script_units(&bed);
    HostSettings.apply(&bed.context()).unwrap();
    assert!(limits(&bed).contains("chrony is not installed"), "{}", limits(&bed));
    let default = "pool 2.debian.pool.ntp.org iburst\ndriftfile /var/lib/chrony/chrony.drift\n";
    bed.put("/usr/sbin/chronyd", "");
    bed.put("/etc/chrony/chrony.conf", default);
    bed.put("/usr/lib/systemd/system/chrony.service", "");
    runs(&bed, "systemd-timesyncd.service");
    assert_eq!(bed.changes(&HostSettings), Vec::<String>::new(), "somebody's service runs");
    bed.units.lock().unwrap().clear();
    let changes =
        ["edit /etc/chrony/chrony.conf: its own clock counts", "enable chrony.service", "start chrony.service"];
    assert_eq!(applied(&bed, ""), changes);
    assert!(text(&bed, "/etc/chrony/chrony.conf").contains("# sealift: pool 2.debian"));
    // Now it runs, and is still ours: servers of the config, another node.
    let second = Node { name: "m2".to_owned(), address: "192.0.2.2".parse().unwrap(), ..bed.node.clone() };
    bed.config.nodes.push(second);
    assert_eq!(applied(&bed, "chrony"), ["edit /etc/chrony/chrony.conf: ask 192.0.2.2", "restart chrony.service"]);
    for line in ["server 192.0.2.2 iburst", "local stratum 10 orphan", "allow 192.0.2.2", "makestep 1 3"] {
        assert!(text(&bed, "/etc/chrony/chrony.conf").contains(&format!("\n{line}\n")), "{line}");
    }
    bed.config.host.time_servers = vec!["ntp.example".to_owned()];
    assert_eq!(applied(&bed, "edit"), ["edit /etc/chrony/chrony.conf: ask ntp.example"]);
    assert!(!text(&bed, "/etc/chrony/chrony.conf").contains("local stratum"));
    bed.facts.container = Some("lxc".to_owned());
    bed.config.host.time_servers.clear();
    assert!(bed.changes(&HostSettings).is_empty(), "a container has the machine's clock");
}

/// A firewalld of a few lines: what was added by zone and place.
fn script_firewalld(bed: &Bed) -> Arc<Mutex<Vec<String>>> {
    bed.put("/usr/bin/firewall-cmd", "");
    let fake = bed.host.fake();
    let added: Arc<Mutex<Vec<String>>> = Arc::default();
    let state = Arc::clone(&added);
    fake.answer("firewall-cmd", move |command| {
        let mut added = state.lock().unwrap();
        let line = command.line();
        let words: Vec<&str> = line.split(' ').skip(1).collect();
        match words.as_slice() {
            ["--state"] => Reply::ok("running\n"),
            ["--get-zone-of-interface=eth0"] => Reply::fail(2, "no zone"),
            ["--get-default-zone"] => Reply::ok("public\n"),
            [place @ .., "--list-all"] => {
                let prefix = format!("{} --", place.join(" "));
                let of = |kind: &str| {
                    let all =
                        added.iter().filter_map(|line| line.strip_prefix(&prefix)?.strip_prefix(&format!("{kind}=")));
                    all.collect::<Vec<_>>().join(" ")
                };
                let target = if prefix.contains("trusted") { "ACCEPT" } else { "default" };
                let forward = if added.contains(&format!("{prefix}forward")) { "yes" } else { "no" };
                Reply::ok(format!(
                    "x\n  target: {target}\n  interfaces: {}\n  sources: {}\n  ports: {}\n  forward: {forward}\n",
                    of("interface"),
                    of("source"),
                    of("port")
                ))
            }
            [.., last] => {
                let (verb, element) = last.trim_start_matches('-').split_once('-').unwrap();
                let rule = format!("{} --{element}", words[..words.len() - 1].join(" "));
                let there = added.contains(&rule);
                match verb {
                    "query" => return if there { Reply::ok("yes") } else { Reply::fail(1, "no") },
                    "add" => added.push(rule),
                    _ => added.retain(|other| *other != rule),
                }
                Reply::ok("success")
            }
            [] => Reply::fail(2, ""),
        }
    });
    added
}

#[test]
fn firewalld_gets_each_port_by_itself_and_gives_it_back() {
    let bed = Bed::new();
    let added = script_firewalld(&bed);
    added.lock().unwrap().push("--permanent --zone=public --port=6443/tcp".to_owned());
    let before = added.lock().unwrap().clone();
    let mut journal = crate::journal::Journal::read(&bed.host).unwrap();
    journal.capture("host-settings", &HostSettings.touches(&bed.context()).unwrap()).unwrap();
    let changes = applied(&bed, "firewalld");
    assert!(changes.contains(&"open firewalld zone public, now: port=6443/tcp".to_owned()), "{changes:#?}");
    assert!(!changes.contains(&"open firewalld zone public, at boot: port=6443/tcp".to_owned()), "it was open");
    let all = added.lock().unwrap().join("\n");
    for rule in [
        "--permanent --zone=public --port=10250/tcp",
        "--zone=public --port=30000-32767/udp",
        "--permanent --zone=trusted --source=10.244.0.0/16",
        "--zone=public --interface=cni0",
        "--zone=public --forward",
    ] {
        assert!(all.lines().any(|line| line == rule), "`{rule}` is not in\n{all}");
    }
    assert!(!bed.host.fake().commands().iter().any(|line| line.contains("reload")));
    for (target, image) in journal.images().filter(|(target, _)| matches!(target, Target::Rule(_))) {
        assert_eq!(image.restore(&bed.host, target).unwrap(), None);
    }
    assert_eq!(*added.lock().unwrap(), before);
}

/// What is on disk goes without the daemon; what it had in memory went with it.
#[test]
fn a_firewalld_that_does_not_run_gives_its_rules_back() {
    let bed = Bed::new();
    let added = script_firewalld(&bed);
    added.lock().unwrap().push("--permanent --zone=public --port=6443/tcp".to_owned());
    let before = added.lock().unwrap().clone();
    let mut journal = crate::journal::Journal::read(&bed.host).unwrap();
    journal.capture("host-settings", &HostSettings.touches(&bed.context()).unwrap()).unwrap();
    applied(&bed, "");
    added.lock().unwrap().retain(|rule| rule.starts_with("--permanent"));
    let fake = bed.host.fake();
    fake.on("firewall-cmd", Reply::fail(252, "FirewallD is not running"));
    let state = Arc::clone(&added);
    fake.answer("firewall-offline-cmd", move |command| {
        let mut added = state.lock().unwrap();
        let line = command.line();
        let [_, zone, action] = line.split(' ').collect::<Vec<_>>()[..] else { return Reply::fail(2, "usage") };
        let (verb, element) = action.trim_start_matches('-').split_once('-').unwrap();
        let rule = format!("--permanent {zone} --{element}");
        match verb {
            "query" if !added.contains(&rule) => return Reply::fail(1, "no"),
            "remove" => added.retain(|other| *other != rule),
            _ => {}
        }
        Reply::ok("success")
    });
    for (target, image) in journal.images().filter(|(target, _)| matches!(target, Target::Rule(_))) {
        assert_eq!(image.restore(&bed.host, target).unwrap(), None);
    }
    assert_eq!(*added.lock().unwrap(), before);
}

#[test]
fn a_firewall_that_is_kept_or_not_active_is_left_alone() {
    let mut bed = Bed::new();
    let added = script_firewalld(&bed);
    bed.config.host.firewall = Firewall::Keep;
    applied(&bed, "");
    assert!(added.lock().unwrap().is_empty());
    bed.config.host.firewall = Firewall::Open;
    bed.host.fake().on("firewall-cmd --state", Reply::fail(252, "not running"));
    bed.put("/usr/sbin/ufw", "");
    bed.host.fake().on("ufw status", Reply::ok("Status: inactive\n"));
    bed.put("/usr/sbin/nft", "");
    let open = r#"{"nftables":[{"chain":{"family":"inet","table":"f","name":"i","type":"filter","hook":"input","policy":"accept"}}]}"#;
    bed.host.fake().on("nft -j list chain", Reply::ok(open));
    assert_eq!(bed.changes(&HostSettings), Vec::<String>::new());
}

/// Rules of ufw that were there before; the second is not what the cluster needs, and ufw would replace it.
const OPERATORS: [&str; 2] = ["allow 6443/tcp comment 'api'", "limit 2379/tcp"];

#[test]
fn ufw_gets_each_rule_with_a_comment_and_gives_it_back() {
    let bed = Bed::new();
    bed.put("/usr/sbin/ufw", "");
    let fake = bed.host.fake();
    let added: Arc<Mutex<Vec<String>>> = Arc::new(Mutex::new(OPERATORS.map(str::to_owned).to_vec()));
    fake.on("ufw status", Reply::ok("Status: active\n\nTo Action From\n"));
    let state = Arc::clone(&added);
    fake.answer("ufw show added", move |_| {
        let title = ["Added user rules (see 'ufw status' for running firewall):".to_owned()];
        let rules: Vec<String> = state.lock().unwrap().iter().map(|rule| format!("ufw {rule}")).collect();
        Reply::ok([&title[..], &rules].concat().join("\n"))
    });
    let state = Arc::clone(&added);
    fake.answer("ufw allow", move |command| {
        state.lock().unwrap().push(command.line().replacen("ufw ", "", 1).replace("sealift", "'sealift'"));
        Reply::ok("Rule added\n")
    });
    let state = Arc::clone(&added);
    fake.answer("ufw delete", move |command| {
        let rule = command.line().replacen("ufw delete ", "", 1);
        state.lock().unwrap().retain(|other| other.split(" comment ").next() != Some(rule.as_str()));
        Reply::ok("Rule deleted\n")
    });
    let mut journal = crate::journal::Journal::read(&bed.host).unwrap();
    journal.capture("host-settings", &HostSettings.touches(&bed.context()).unwrap()).unwrap();
    let changes = applied(&bed, "ufw");
    assert!(!changes.iter().any(|change| change.contains("6443")), "it was open: {changes:#?}");
    assert!(!changes.iter().any(|change| change.contains("2379/tcp")), "it is the operator's: {changes:#?}");
    let all = added.lock().unwrap().clone();
    for rule in [
        "allow 10250/tcp comment 'sealift'",
        "allow 30000:32767/udp comment 'sealift'",
        "allow from 10.244.0.0/16 comment 'sealift'",
    ] {
        assert!(all.iter().any(|found| found == rule), "`{rule}` is not in {all:#?}");
    }
    for (target, image) in journal.images().filter(|(target, _)| matches!(target, Target::Rule(_))) {
        assert_eq!(image.restore(&bed.host, target).unwrap(), None);
    }
    assert_eq!(*added.lock().unwrap(), OPERATORS);
}

#[test]
fn chains_of_iptables_are_named_and_not_written_to() {
    let bed = Bed::new();
    bed.put("/usr/sbin/nft", "");
    let chain = r#"{"nftables":[{"chain":{"family":"ip","table":"filter","name":"INPUT","type":"filter","hook":"input","policy":"drop"}}]}"#;
    bed.host.fake().on("nft -j list chains", Reply::ok(chain));
    bed.host.fake().on("nft -j list chain ip filter INPUT", Reply::ok(r#"{"nftables":[]}"#));
    HostSettings.apply(&bed.context()).unwrap();
    assert!(!bed.host.fake().commands().iter().any(|line| line.starts_with("nft -f")));
    let said = limits(&bed);
    assert!(said.contains("rules of iptables (chain INPUT)") && said.contains("6443/tcp"), "{said}");
}
