//! What preflight says of a host as a whole; single checks are in `preflight_checks`.

use super::*;
use crate::steps::preflight::{Verdict, findings};

#[test]
fn preflight_gives_all_findings_at_once_and_its_own_exit_code() {
    let mut bed = Bed::new();
    bed.facts.tools.remove("nft");
    bed.facts.memory_mib = 512;
    bed.node.address = "192.0.2.77".parse().unwrap();
    bed.facts.listening.insert((6443, "0.0.0.0".parse().unwrap()));
    bed.host.fake().on("ss ", Reply::ok("LISTEN 0 9 *:6443 *:* users:((\"haproxy\",pid=42,fd=3))\n"));
    bed.put("/etc/kubernetes/admin.conf", "x");
    bed.put("/usr/lib/systemd/system/etcd.service", "[Service]\nExecStart=/usr/bin/etcd\n");
    let error = Preflight.check(&bed.context()).unwrap_err();
    assert_eq!(exit_of(&error), Exit::Preflight);
    let text = format!("{error:#}");
    for part in ["`nft`", "512 MiB", "192.0.2.77", "port 6443", "haproxy", "/etc/kubernetes", "etcd.service"] {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
    assert!(bed.host.fake().operations().iter().all(|operation| operation.starts_with("run ss ")));
}

#[test]
fn preflight_welcomes_a_host_that_already_runs_sealift() {
    let mut bed = Bed::new();
    bed.facts.listening.insert((2379, "127.0.0.1".parse().unwrap()));
    bed.host.fake().on("ss ", Reply::ok("LISTEN 0 9 127.0.0.1:2379 *:* users:((\"etcd\",pid=42,fd=3))\n"));
    bed.put("/proc/42/cgroup", "0::/system.slice/etcd.service\n");
    bed.put("/etc/sealift/pki/ca.crt", "x");
    bed.put("/var/lib/etcd/member/snap", "x");
    bed.put("/etc/systemd/system/etcd.service", UNIT);
    assert_eq!(Preflight.check(&bed.context()).unwrap(), Check::Done);
    bed.put("/proc/42/cgroup", "0::/system.slice/other.service\n");
    assert!(Preflight.check(&bed.context()).is_err());
}

#[test]
fn preflight_reports_the_limits_of_a_container_and_goes_on() {
    let mut bed = Bed::new();
    bed.facts.container = Some("systemd-nspawn".to_owned());
    bed.facts.nofile = 20_000;
    bed.facts.oom_score_adj = false;
    let Check::Kept(limits) = Preflight.check(&bed.context()).unwrap() else { panic!("not reported") };
    assert_eq!(limits, "3 limits");
    let said = bed.events.events().iter().filter_map(crate::event::Event::line).collect::<Vec<_>>();
    let limits = said.join("\n");
    assert!(limits.contains("systemd-nspawn") && limits.contains("20000") && limits.contains("OOM"), "{limits}");
}

#[test]
fn our_own_interfaces_may_have_addresses_of_the_cluster() {
    let mut bed = Bed::new();
    let row = |interface: &str| crate::facts::Address {
        interface: interface.to_owned(),
        address: [10, 96, 0, 1].into(),
        prefix: 32,
    };
    bed.facts.addresses.push(row("kube-ipvs0"));
    assert_eq!(Preflight.check(&bed.context()).unwrap(), Check::Done);
    bed.facts.addresses.push(row("eth1"));
    assert!(format!("{:#}", Preflight.check(&bed.context()).unwrap_err()).contains("eth1"));
}

#[test]
fn preflight_refuses_a_bundle_without_a_part_of_the_role() {
    let mut bed = Bed::new();
    bed.components.retain(|component| component.name.as_str() != "kube-scheduler");
    let kubelet = bed.components.iter_mut().find(|component| component.name.as_str() == "kubelet").unwrap();
    kubelet.roles = vec![Role::Worker];
    let error = Preflight.check(&bed.context()).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("component `kube-scheduler`: found none in the bundle"), "{text}");
    assert!(text.contains("component `kubelet`: found one for worker only"), "{text}");
    assert_eq!(exit_of(&error), Exit::Preflight);
}

#[test]
fn preflight_takes_every_role_and_combination() {
    use Role::{Etcd, Master, Worker};
    for roles in [
        vec![Master],
        vec![Worker],
        vec![Etcd],
        vec![Master, Worker],
        vec![Master, Etcd],
        vec![Worker, Etcd],
        vec![Master, Worker, Etcd],
    ] {
        let mut bed = Bed::new();
        bed.become_member(&roles);
        assert_eq!(Preflight.check(&bed.context()).unwrap(), Check::Done, "{roles:?}");
    }
}

#[test]
fn preflight_asks_nothing_of_an_etcd_host_that_only_a_node_needs() {
    let mut bed = Bed::new();
    bed.facts.cgroup = crate::facts::Cgroup::Missing;
    bed.facts.swap = vec!["/dev/sda2".to_owned()];
    bed.facts.tools.retain(|tool, _| ["ip", "systemctl"].contains(&tool.as_str()));
    bed.facts.listening.insert((10250, "0.0.0.0".parse().unwrap()));
    bed.components.retain(|component| component.name.as_str() == "etcd");
    bed.put("/etc/kubernetes/admin.conf", "x");
    let row =
        |address: [u8; 4]| crate::facts::Address { interface: "eth1".to_owned(), address: address.into(), prefix: 16 };
    bed.facts.addresses.push(row([10, 244, 0, 9]));
    bed.become_member(&[Role::Etcd]);
    assert_eq!(Preflight.check(&bed.context()).unwrap(), Check::Done);
    assert_eq!(
        bed.changes(&HostSettings),
        ["edit /etc/hosts: the names of 2 nodes"],
        "sets the kernel of an etcd host"
    );
    bed.put("/var/lib/etcd/member/snap/db", "x");
    assert!(format!("{:#}", Preflight.check(&bed.context()).unwrap_err()).contains("data of another etcd"));

    let mut bed = Bed::new();
    bed.become_member(&[Role::Worker]);
    bed.components.retain(|component| !component.name.as_str().starts_with("kube-s"));
    bed.put("/var/lib/etcd/member/snap/db", "x");
    bed.facts.listening.insert((2379, "0.0.0.0".parse().unwrap()));
    assert_eq!(Preflight.check(&bed.context()).unwrap(), Check::Done, "a worker has nothing to do with etcd");
    bed.facts.swap = vec!["/dev/sda2".to_owned()];
    assert_eq!(Preflight.check(&bed.context()).unwrap(), Check::Done, "it is turned off before the kubelet starts");
}

#[test]
fn preflight_refuses_another_identity() {
    let bed = Bed::new();
    bed.put("/etc/sealift/cluster.toml", CONFIG);
    assert_eq!(Preflight.check(&bed.context()).unwrap(), Check::Done);
    bed.put("/etc/sealift/cluster.toml", &CONFIG.replace("\"test\"", "\"other\"").replace("m1", "n1"));
    let text = format!("{:#}", Preflight.check(&bed.context()).unwrap_err());
    assert!(text.contains("name: found `test`") && text.contains("name of this node: found `m1`"), "{text}");
}

#[test]
fn preflight_counts_the_room_that_the_bundle_needs() {
    let mut bed = Bed::new();
    bed.images = vec![containers::image(&bed)];
    bed.images[0].blobs[2].digest = Digest::of(b"not in the store yet");
    bed.images[0].blobs[2].size = 3 << 30;
    bed.host.fake().set_filesystem("/", disk(13 << 10));
    let error = format!("{:#}", Preflight.check(&bed.context()).unwrap_err());
    assert!(error.contains("disk /dev/sda1 at `/`: found 13312 MiB free"), "{error}");
    assert!(error.contains("3201 MiB for `/opt/sealift`, 9985 MiB for `/var/lib/containerd`"), "{error}");
    // The same on two disks: each has to have its part only.
    bed.host.fake().set_filesystem("/var/lib/containerd", Filesystem { device: "8:2".to_owned(), ..disk(10 << 10) });
    bed.host.fake().set_filesystem("/", disk(5 << 10));
    assert_eq!(Preflight.check(&bed.context()).unwrap(), Check::Done);
    bed.host.fake().set_filesystem("/var/lib/containerd", Filesystem { device: "8:2".to_owned(), ..disk(9 << 10) });
    assert!(Preflight.check(&bed.context()).is_err(), "the second disk is too small");
    bed.host.fake().set_filesystem("/var/lib/containerd", Filesystem { device: "8:2".to_owned(), ..disk(10 << 10) });
    assert_eq!(Preflight.check(&bed.context()).unwrap(), Check::Done);
}

#[test]
fn preflight_names_what_cannot_be_resolved_and_goes_on() {
    let mut bed = Bed::new();
    bed.config.api_names = ["known.example", "unknown.example"].map(str::to_owned).into();
    bed.host.fake().on("getent ahosts known.example", Reply::ok("192.0.2.1\n"));
    bed.host.fake().on("getent ahosts unknown.example", Reply::fail(2, ""));
    let findings = findings(&bed.context()).unwrap();
    let names: Vec<_> = findings.iter().filter(|finding| finding.subject == "names").collect();
    assert_eq!(names.len(), 1);
    assert_eq!(names[0].verdict, Verdict::Limit);
    assert_eq!(names[0].found, "cannot resolve unknown.example");
}
