//! Runs that die, and what the next run or `reset` makes of it.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::config::KernelPolicy;

const OWN: &[u8] = b"#!/bin/sh\nexit 104\n";

fn with_a_policy() -> Bed {
    let bed = bed();
    script_dpkg(&bed);
    bed.host.write(Path::new(policy::POLICY), OWN, 0o750).unwrap();
    bed
}

fn is_as_before(bed: &Bed) -> bool {
    bed.host.has(Path::new(policy::POLICY), OWN, 0o750).unwrap() && packages::left(&bed.host).unwrap().is_nothing()
}

#[test]
fn an_operators_policy_is_put_back_even_after_death_at_any_moment() {
    for at in 0.. {
        let bed = with_a_policy();
        bed.host.fake().die_at(at);
        let died = OsPackages.apply(&bed.context()).is_err();
        bed.host.fake().revive();
        if matches!(OsPackages.check(&bed.context()).unwrap(), Check::Needed(_)) {
            OsPackages.apply(&bed.context()).unwrap();
        }
        assert!(is_as_before(&bed), "death at {at}");
        assert!(matches!(OsPackages.check(&bed.context()).unwrap(), Check::Kept(_)), "death at {at}");
        if !died {
            assert!(at > 5);
            break;
        }
    }
}

#[test]
fn an_interrupted_dpkg_is_finished_first() {
    let bed = bed();
    script_dpkg(&bed);
    installed(
        &bed,
        &[
            ("libc6", "2.36-9", "install ok installed"),
            ("other", "1", "install ok unpacked"),
            ("jq", "1.6-2.1", "install reinstreq half-installed"),
        ],
    );
    assert_eq!(
        lines(OsPackages.check(&bed.context()).unwrap()),
        ["configure other 1 (unpacked)", "install jq 1.6-2.1 again (half installed)", "install libjq1 1.6-2.1"]
    );
    OsPackages.apply(&bed.context()).unwrap();
    let run = bed.host.fake().commands();
    let dpkg: Vec<&String> = run.iter().filter(|line| line.starts_with("dpkg ")).collect();
    assert!(dpkg[0].ends_with("--configure --pending"), "{dpkg:?}");
    assert!(matches!(OsPackages.check(&bed.context()).unwrap(), Check::Kept(_)));
}

/// A bed whose bundle brings a kernel too, and a dpkg that cannot configure it: what it needs is not there. What needs nothing
/// of it is configured, as by `--pending`.
fn with_a_kernel(policy: KernelPolicy) -> Bed {
    let mut bed = bed();
    script_dpkg(&bed);
    let mut kernel = bundle::fake::component("kernel-debian-12", "1", Kind::Kernel, &[Role::Master]).unwrap();
    kernel.distribution = Some("debian-12".to_owned());
    let image = bed.components.last().unwrap().packages[0].clone();
    kernel.packages = vec![Package { name: "linux-image-6.1.0-99-amd64".to_owned(), ..image }];
    bed.components.push(kernel);
    bed.config.kernel.policy = policy;
    let path = bed.host.real_path(Path::new(STATUS));
    bed.host.fake().answer("dpkg ", move |command| {
        assert!(command.line().ends_with("--configure --pending"), "{}", command.line());
        let status = fs_err::read_to_string(&path).unwrap();
        let now = status.replace("other\nStatus: install ok unpacked", "other\nStatus: install ok installed");
        fs_err::write(&path, &now).unwrap();
        if now.contains("unpacked") { Reply::fail(1, "it depends on what is not there") } else { Reply::ok("") }
    });
    bed
}

/// All of the bundle, a kernel that is unpacked, and what else there is.
fn left_over(bed: &Bed, further: &[(&str, &str, &str)]) {
    let mut all = vec![
        ("libc6", "2.36-9", "install ok installed"),
        ("libjq1", "1.6-2.1", "install ok installed"),
        ("jq", "1.6-2.1", "install ok installed"),
        ("linux-image-6.1.0-99-amd64", "1.6-2.1", "install ok unpacked"),
    ];
    all.extend(further);
    installed(bed, &all);
}

/// dpkg ran out of room while it unpacked the kernel, and had unpacked what depends on it: only the kernel's own step can
/// finish that, and the record of it is kept for that step and for `reset`.
#[test]
fn what_is_left_of_the_kernels_packages_does_not_hold_up_the_others() {
    let bed = with_a_kernel(KernelPolicy::Bundle);
    let begun = |name: &str| {
        serde_json::json!({"archive": {"name": name, "version": "1.6-2.1", "path": "/x",
        "digest": bundle::Digest::of(b"x"), "size": 1}, "mode": "beside"})
    };
    let record = serde_json::json!({"begun": [begun("linux-image-6.1.0-99-amd64")], "new": [], "enabled": []});
    bed.put("/var/lib/sealift/packages.json", &record.to_string());
    left_over(&bed, &[]);
    assert!(matches!(OsPackages.check(&bed.context()).unwrap(), Check::Kept(_)));
    left_over(&bed, &[("other", "1", "install ok unpacked")]);
    assert_eq!(lines(OsPackages.check(&bed.context()).unwrap()), ["configure other 1 (unpacked)"]);
    OsPackages.apply(&bed.context()).unwrap();
    assert!(matches!(OsPackages.check(&bed.context()).unwrap(), Check::Kept(_)));
    assert_eq!(packages::left(&bed.host).unwrap().begun, ["linux-image-6.1.0-99-amd64 1.6-2.1"]);
    // One that stays unpacked is trouble as ever.
    left_over(&bed, &[("broken", "1", "install ok unpacked")]);
    let error = OsPackages.apply(&bed.context()).unwrap_err();
    assert!(error.to_string().contains("it depends on what is not there"), "{error:#}");
}

/// Nobody else would finish it.
#[test]
fn what_is_left_of_a_kernel_that_does_not_come_is_finished_here() {
    let bed = with_a_kernel(KernelPolicy::Keep);
    left_over(&bed, &[]);
    assert_eq!(
        lines(OsPackages.check(&bed.context()).unwrap()),
        ["configure linux-image-6.1.0-99-amd64 1.6-2.1 (unpacked)"]
    );
    assert!(OsPackages.apply(&bed.context()).is_err());
}

/// A machine whose run died at its operation `at`, and dpkg with it while `jq` was unpacked; `None` when it did not die.
fn died(at: usize) -> Option<Bed> {
    let bed = with_a_policy();
    bed.host.fake().die_at(at);
    let died = OsPackages.apply(&bed.context()).is_err();
    bed.host.fake().revive();
    if !died {
        return None;
    }
    let status = bed.host.read_text(Path::new(STATUS)).unwrap().unwrap();
    if !packages::left(&bed.host).unwrap().begun.is_empty() && !status.contains("Package: jq\n") {
        let jq = "Package: jq\nStatus: install ok unpacked\nArchitecture: amd64\nVersion: 1.6-2.1\n\n";
        bed.host.write(Path::new(STATUS), (status + jq).as_bytes(), 0o644).unwrap();
    }
    Some(bed)
}

/// Else `dpkg --configure -a`, by whoever repairs it later, starts services.
#[test]
fn reset_configures_before_the_operators_policy_is_back_whatever_dies() {
    let (mut at, mut configured) = (0, 0);
    while died(at).is_some() {
        for then in 0.. {
            let bed = died(at).unwrap();
            bed.host.fake().die_at(then);
            let again = packages::settle(&bed.host, Duration::ZERO, &|_| {}).is_err();
            bed.host.fake().revive();
            let settled = packages::settle(&bed.host, Duration::ZERO, &|_| {}).unwrap();
            assert_eq!(settled.left, [""; 0], "death at {at}, then at {then}");
            assert!(is_as_before(&bed), "death at {at}, then at {then}");
            let status = bed.host.read_text(Path::new(STATUS)).unwrap().unwrap();
            assert!(!status.contains("unpacked"), "death at {at}, then at {then}");
            configured += usize::from(bed.host.fake().commands().iter().any(|line| line.ends_with("--configure jq")));
            if !again {
                break;
            }
        }
        at += 1;
    }
    assert!(at > 5 && configured > 5, "{at} {configured}");
}

#[test]
fn reset_says_what_it_cannot_configure_and_leaves_what_is_others() {
    let bed = died(6).unwrap();
    let status = bed.host.read_text(Path::new(STATUS)).unwrap().unwrap();
    let other = "Package: other\nStatus: install ok unpacked\nArchitecture: amd64\nVersion: 1\n\n";
    bed.host.write(Path::new(STATUS), (status + other).as_bytes(), 0o644).unwrap();
    bed.host.fake().on("dpkg ", Reply::fail(1, "jq: its script failed"));
    let settled = packages::settle(&bed.host, Duration::ZERO, &|_| {}).unwrap();
    assert_eq!(
        settled.left,
        ["package jq is unpacked; `dpkg --configure jq` repairs it, and may start its services: jq: its script failed"]
    );
    assert!(is_as_before(&bed));
}

/// Also for a bundle that has no packages for this host, such as one with a kernel alone.
#[test]
fn what_is_left_is_settled_whatever_the_bundle_has() {
    let mut bed = died(6).unwrap();
    bed.components.pop();
    assert!(matches!(OsPackages.check(&bed.context()).unwrap(), Check::Needed(_)));
    OsPackages.apply(&bed.context()).unwrap();
    assert!(is_as_before(&bed));
    assert!(matches!(OsPackages.check(&bed.context()).unwrap(), Check::Kept(_)));
}
