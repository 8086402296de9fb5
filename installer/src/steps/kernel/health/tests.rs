use std::path::Path;

use super::*;
use crate::host::Reply;

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn healthy() -> Snapshot {
    Snapshot {
        interfaces: set(&["eth0", "eth1", "br0"]),
        links: set(&["eth0"]),
        node: Some("192.0.2.1".parse().unwrap()),
        addresses: set(&["eth0 192.0.2.1/24", "eth0 192.0.2.50/32"]),
        routes: vec!["via 192.0.2.254 dev eth0".to_owned(), "via 198.51.100.1 dev eth1".to_owned()],
        mounts: set(&["/ (ext4)", "/data (xfs)"]),
        optional_mounts: set(&["/backup (nfs4)"]),
        failed_units: set(&["old.service"]),
        event_units: set(&[]),
        modules: set(&["overlay", "ip_vs"]),
        overlay: true,
        packet_filter: true,
    }
}

#[test]
fn only_what_was_well_before_counts_and_each_loss_is_named() {
    let before = healthy();
    assert_eq!(before.difference(&before), Difference::default());
    let more = Snapshot { interfaces: set(&["eth0", "eth1", "br0", "eth2"]), failed_units: set(&[]), ..healthy() };
    assert_eq!(before.difference(&more), Difference::default(), "better is no reason to go back");
    let own = Snapshot { failed_units: set(&["sealift-resume.service"]), ..healthy() };
    assert_eq!(before.difference(&own), Difference::default());
    for (now, expected) in [
        (Snapshot { interfaces: set(&["eth1", "br0"]), links: set(&[]), ..healthy() }, "interface eth0 is gone"),
        (Snapshot { links: set(&[]), ..healthy() }, "interface eth0 has no carrier"),
        (
            Snapshot { node: None, addresses: set(&["eth0 192.0.2.50/32"]), ..healthy() },
            "the node's address 192.0.2.1 is gone",
        ),
        (
            Snapshot { routes: vec![healthy().routes[1].clone()], ..healthy() },
            "default route via 192.0.2.254 dev eth0 is gone",
        ),
        (Snapshot { mounts: set(&["/ (ext4)"]), ..healthy() }, "mount /data (xfs) is gone"),
        (Snapshot { failed_units: set(&["ssh.service"]), ..healthy() }, "unit ssh.service has failed"),
        (Snapshot { modules: set(&["overlay"]), ..healthy() }, "kernel module ip_vs is gone"),
        (Snapshot { overlay: false, ..healthy() }, "an overlay cannot be mounted"),
        (Snapshot { packet_filter: false, ..healthy() }, "a packet-filter rule cannot be made"),
    ] {
        assert_eq!(before.difference(&now), Difference { bad: vec![expected.to_owned()], other: Vec::new() });
    }
}

#[test]
fn what_may_have_another_cause_is_said_and_condemns_nothing() {
    let timed = set(&["apt-daily.service"]);
    let other_gateway = vec!["via 192.0.2.253 dev eth0".to_owned(), healthy().routes[1].clone()];
    for (now, expected) in [
        (Snapshot { addresses: set(&["eth0 192.0.2.1/24"]), ..healthy() }, "address eth0 192.0.2.50/32 is gone"),
        (Snapshot { interfaces: set(&["eth0", "eth1"]), ..healthy() }, "interface br0 is gone"),
        (Snapshot { optional_mounts: set(&[]), ..healthy() }, "mount /backup (nfs4) is gone"),
        (
            Snapshot { failed_units: timed.clone(), event_units: timed, ..healthy() },
            "unit apt-daily.service has failed",
        ),
        (Snapshot { routes: other_gateway, ..healthy() }, "default route via 192.0.2.254 dev eth0 is gone"),
        (
            Snapshot { routes: vec![healthy().routes[0].clone()], ..healthy() },
            "default route via 198.51.100.1 dev eth1 is gone",
        ),
    ] {
        assert_eq!(healthy().difference(&now), Difference { bad: Vec::new(), other: vec![expected.to_owned()] });
    }
}

fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::under(directory.path());
    for (path, text) in files {
        host.write(Path::new(path), text.as_bytes(), 0o644).unwrap();
    }
    (directory, host)
}

#[test]
fn mounts_that_a_boot_can_do_without_are_told_from_the_others() {
    let fstab = "UUID=1 / ext4 errors=remount-ro 0 1\nUUID=2 /data xfs defaults 0 2\nUUID=3 none swap sw 0 0\n\
        UUID=4 /backup ext4 nofail,x-systemd.device-timeout=5 0 2\nnas:/x /nas nfs4 rw\nUUID=5 /san xfs _netdev 0 0\n\
        UUID=6 /stick vfat noauto 0 0\nUUID=7 /auto ext4 x-systemd.automount 0 0\n# UUID=8 /old ext4 defaults\n";
    let mounted =
        ["/ ext4", "/data xfs", "/backup ext4", "/nas nfs4", "/san xfs", "/stick vfat", "/auto ext4", "/tmp tmpfs"];
    let mounted: Vec<String> = mounted
        .iter()
        .map(|mount| mount.split_once(' ').unwrap())
        .map(|(place, kind)| format!("23 1 254:1 / {place} rw - {kind} source rw"))
        .collect();
    let (_directory, host) = host(&[("/etc/fstab", fstab), ("/proc/self/mountinfo", &mounted.join("\n"))]);
    let found = look::mounts(&host).unwrap();
    assert_eq!(found.required, set(&["/ (ext4)", "/data (xfs)"]));
    assert_eq!(found.optional, set(&["/backup (ext4)", "/nas (nfs4)", "/san (xfs)"]));
}

#[test]
fn an_interface_counts_with_hardware_behind_it_and_a_cable_in_it() {
    let (_directory, host) = host(&[
        ("/sys/class/net/eth0/device/vendor", "x"),
        ("/sys/class/net/eth0/carrier", "1\n"),
        ("/sys/class/net/eth1/device/vendor", "x"),
        ("/sys/class/net/eth1/carrier", "0\n"),
        ("/sys/class/net/eth2/device/vendor", "x"),
        ("/sys/class/net/br0/carrier", "1\n"),
        ("/sys/class/net/lo/carrier", "1\n"),
        ("/sys/class/net/cni0/carrier", "1\n"),
    ]);
    let interfaces = look::interfaces(&host).unwrap();
    assert_eq!(interfaces, set(&["br0", "eth0", "eth1", "eth2"]));
    assert_eq!(look::links(&host, &interfaces).unwrap(), set(&["eth0"]));
}

#[test]
fn a_unit_that_no_boot_starts_is_told_from_one_that_belongs_to_it() {
    let (_directory, host) = host(&[]);
    for (unit, properties, expected) in [
        ("apt-daily.service", "TriggeredBy=apt-daily.timer\nWantedBy=\nRequiredBy=\nUpheldBy=\n", true),
        ("cups.service", "TriggeredBy=cups.path cups.socket\nWantedBy=\n", true),
        ("sshd@7-192.0.2.1:22.service", "TriggeredBy=sshd.socket\nWantedBy=\n", true),
        // Daemons behind a socket, and what the boot starts as well as a timer.
        ("docker.service", "TriggeredBy=docker.socket\nWantedBy=\n", false),
        ("sync.service", "TriggeredBy=sync.timer\nWantedBy=multi-user.target\n", false),
        ("ssh.service", "TriggeredBy=\nWantedBy=multi-user.target\n", false),
        ("user@1000.service", "", false),
    ] {
        host.fake().on("systemctl show", Reply::ok(properties));
        assert_eq!(look::is_started_by_events(&host, unit).unwrap(), expected, "{unit}");
    }
}
