use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use bundle::Digest;
use bundle::component::{Kind, Package, Relations, Role};

use super::*;
use crate::host::Reply;
use crate::report::exit_of;
use crate::steps::tests::Bed;

const STATUS: &str = "/var/lib/dpkg/status";

/// A bed whose bundle has `jq` and what it needs; the host has a C library.
fn bed() -> Bed {
    let mut bed = Bed::new();
    let mut component = bundle::fake::component("packages-debian-12", "1", Kind::Packages, &[Role::Master]).unwrap();
    component.distribution = Some("debian-12".to_owned());
    for (name, version, depends) in [("libjq1", "1.6-2.1", "libc6 (>= 2.34)"), ("jq", "1.6-2.1", "libjq1 (= 1.6-2.1)")]
    {
        let bytes = format!("the package {name}");
        let package = Package {
            name: name.to_owned(),
            version: version.to_owned(),
            file: format!("{name}_{version}_amd64.deb"),
            sha256: Digest::of(bytes.as_bytes()),
            size: bytes.len() as u64,
            architecture: "amd64".to_owned(),
            relations: Relations { depends: depends.to_owned(), ..Relations::default() },
        };
        bed.host.write(&blob_path(&package.sha256), bytes.as_bytes(), 0o444).unwrap();
        component.packages.push(package);
    }
    bed.components.push(component);
    installed(&bed, &[("libc6", "2.36-9", "install ok installed")]);
    bed
}

fn installed(bed: &Bed, packages: &[(&str, &str, &str)]) {
    let mut text = String::new();
    for (name, version, status) in packages {
        writeln!(text, "Package: {name}\nStatus: {status}\nArchitecture: amd64\nVersion: {version}\n").unwrap();
    }
    bed.host.write(Path::new(STATUS), text.as_bytes(), 0o644).unwrap();
}

/// dpkg that installs what it is given by the names of their blobs, and remembers whether services could have started.
fn script_dpkg(bed: &Bed) {
    let root = bed.directory.path().to_owned();
    let packages = bed.components.last().unwrap().packages.clone();
    bed.host.fake().answer("dpkg ", move |command| {
        let line = command.line();
        let path = root.join(STATUS.trim_start_matches('/'));
        let mut status = fs_err::read_to_string(&path).unwrap();
        if line.contains("--configure") {
            status = status.replace("ok unpacked", "ok installed");
        } else {
            assert!(root.join("usr/sbin/policy-rc.d").exists(), "services would start");
            for package in packages.iter().filter(|package| line.contains(&package.sha256.hex())) {
                let kept: Vec<&str> = status
                    .split("\n\n")
                    .filter(|stanza| {
                        !stanza.trim().is_empty() && !stanza.contains(&format!("Package: {}\n", package.name))
                    })
                    .collect();
                status = format!(
                    "{}\n\nPackage: {}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {}\n\n",
                    kept.join("\n\n").trim(),
                    package.name,
                    package.version
                );
            }
        }
        fs_err::write(&path, status).unwrap();
        Reply::ok("")
    });
}

fn lines(check: Check) -> Vec<String> {
    match check {
        Check::Needed(changes) => changes.into_iter().map(|change| change.0).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_missing_is_installed_once() {
    let bed = bed();
    script_dpkg(&bed);
    assert_eq!(lines(OsPackages.check(&bed.context()).unwrap()), ["install libjq1 1.6-2.1", "install jq 1.6-2.1"]);
    OsPackages.apply(&bed.context()).unwrap();
    let run = bed.host.fake().commands();
    let dpkg: Vec<&String> = run.iter().filter(|line| line.starts_with("dpkg ")).collect();
    assert_eq!(dpkg.len(), 1);
    assert!(dpkg[0].contains("--force-confdef --force-confold --refuse-downgrade --install"), "{dpkg:?}");
    assert!(!bed.host.exists(Path::new(policy::POLICY)).unwrap());
    assert!(matches!(OsPackages.check(&bed.context()).unwrap(), Check::Kept(_)));
}

#[test]
fn an_operators_policy_is_put_back_even_after_death_at_any_moment() {
    let own = "#!/bin/sh\nexit 104\n";
    for at in 0.. {
        let bed = bed();
        script_dpkg(&bed);
        bed.host.write(Path::new(policy::POLICY), own.as_bytes(), 0o750).unwrap();
        bed.host.fake().die_at(at);
        let died = OsPackages.apply(&bed.context()).is_err();
        bed.host.fake().revive();
        if matches!(OsPackages.check(&bed.context()).unwrap(), Check::Needed(_)) {
            OsPackages.apply(&bed.context()).unwrap();
        }
        assert!(bed.host.has(Path::new(policy::POLICY), own.as_bytes(), 0o750).unwrap(), "death at {at}");
        assert!(!policy::is_left(&bed.host).unwrap(), "death at {at}");
        assert!(matches!(OsPackages.check(&bed.context()).unwrap(), Check::Kept(_)), "death at {at}");
        if !died {
            assert!(at > 5);
            break;
        }
    }
}

#[test]
fn services_of_new_packages_are_disabled() {
    let bed = bed();
    script_dpkg(&bed);
    let list = "/.\n/lib/systemd/system\n/lib/systemd/system/jq.service\n/usr/bin/jq\n";
    bed.host.write(Path::new("/var/lib/dpkg/info/jq.list"), list.as_bytes(), 0o644).unwrap();
    bed.host.write(Path::new("/var/lib/dpkg/info/libc6.list"), b"/lib/systemd/system/libc.service\n", 0o644).unwrap();
    bed.host.fake().on("systemctl is-enabled", Reply::ok("enabled\n"));
    OsPackages.apply(&bed.context()).unwrap();
    let run = bed.host.fake().commands();
    let disabled: Vec<&String> = run.iter().filter(|line| line.starts_with("systemctl disable")).collect();
    assert_eq!(disabled, ["systemctl disable jq.service"]);
    assert!(!services::is_left(&bed.host).unwrap());
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

#[test]
fn a_blob_that_changed_is_not_handed_on() {
    let bed = bed();
    script_dpkg(&bed);
    let path = blob_path(&bed.components.last().unwrap().packages[1].sha256);
    bed.host.write(&path, b"the package jQ", 0o444).unwrap();
    let error = format!("{:#}", OsPackages.apply(&bed.context()).unwrap_err());
    assert!(error.contains("does not hold package `jq`"), "{error}");
    assert!(!bed.host.fake().commands().iter().any(|line| line.starts_with("dpkg ")));
    assert!(!bed.host.exists(Path::new(policy::POLICY)).unwrap());
}

#[test]
fn a_locked_database_is_waited_for_and_then_named() {
    let bed = bed();
    script_dpkg(&bed);
    bed.host.write(Path::new("/proc/4711/comm"), b"apt-get\n", 0o444).unwrap();
    bed.host.fake().on_lock(|path| path.ends_with("lock-frontend").then_some(4711));
    let context = Context { patience: Duration::from_secs(20), ..bed.context() };
    let error = OsPackages.apply(&context).unwrap_err();
    assert_eq!(exit_of(&error), Exit::Preflight);
    let text = format!("{error:#}");
    assert!(text.contains("`apt-get` (pid 4711) holds `/var/lib/dpkg/lock-frontend`"), "{text}");
    assert!(bed.host.monotonic() >= Duration::from_secs(20));
    assert!(!bed.host.fake().commands().iter().any(|line| line.starts_with("dpkg ")));
    // Somebody who lets go in time.
    let seen = std::sync::atomic::AtomicUsize::new(0);
    bed.host.fake().on_lock(move |path| {
        let busy = path.ends_with("lock-frontend") && seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 5;
        busy.then_some(4711)
    });
    OsPackages.apply(&context).unwrap();
}

#[test]
fn a_failing_dpkg_ends_with_what_it_said() {
    let bed = bed();
    let said = "dpkg: error processing archive X (--install):\n cannot copy extracted data: No space left on device\n";
    bed.host.fake().on("dpkg ", Reply::fail(1, said));
    let error = OsPackages.apply(&bed.context()).unwrap_err();
    assert!(format!("{error:#}").contains("No space left on device"));
    // Twice: dpkg may need another run for a chain of Pre-Depends, but not without progress.
    assert_eq!(bed.host.fake().commands().iter().filter(|line| line.starts_with("dpkg ")).count(), 2);
    assert!(!bed.host.exists(Path::new(policy::POLICY)).unwrap());
}

#[test]
fn units_that_sealift_replaces_are_masked_before_their_package_comes() {
    let mut bed = bed();
    bed.components.last_mut().unwrap().packages[1].name = "nginx-common".to_owned();
    script_dpkg(&bed);
    let mask = Path::new("/etc/systemd/system/nginx.service");
    assert!(
        lines(OsPackages.check(&bed.context()).unwrap()).contains(&"mask nginx.service of the distribution".to_owned())
    );
    assert_eq!(OsPackages.touches(&bed.context()).unwrap(), [Target::File(mask.to_owned())]);
    OsPackages.apply(&bed.context()).unwrap();
    assert_eq!(bed.host.link_target(mask).unwrap().as_deref(), Some(Path::new("/dev/null")));
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_changed() {
    let bed = bed();
    installed(&bed, &[("libc6", "2.31-1", "install ok installed")]);
    bed.host.fake().clear();
    let error = OsPackages.check(&bed.context()).unwrap_err();
    assert_eq!(exit_of(&error), Exit::Preflight);
    assert!(
        format!("{error:#}").contains("`libjq1`: it needs libc6 (>= 2.34); the host has libc6 2.31-1"),
        "{error:#}"
    );
    assert_eq!(bed.host.fake().operations(), [""; 0]);
}

/// chrony conflicts with all that provide `time-daemon`, such as the systemd-timesyncd of an ordinary Debian.
#[test]
fn beside_another_time_daemon_the_bundles_own_is_not_wanted() {
    let mut bed = bed();
    let chrony = Package {
        name: CLOCK.to_owned(),
        relations: Relations { conflicts: "time-daemon".to_owned(), ..Relations::default() },
        ..bed.components.last().unwrap().packages[0].clone()
    };
    bed.components.last_mut().unwrap().packages.push(chrony);
    let work = |bed: &Bed| {
        let context = bed.context();
        let (_, work) = work_on(&context).unwrap().unwrap();
        (work.packages().any(|package| package.name == CLOCK), work.problems.len())
    };
    assert_eq!(work(&bed), (true, 0));
    let status = bed.host.read_text(Path::new(STATUS)).unwrap().unwrap();
    let other = "Package: systemd-timesyncd\nStatus: install ok installed\nArchitecture: amd64\nVersion: 252\n\
                 Provides: time-daemon\n\n";
    bed.host.write(Path::new(STATUS), (status + other).as_bytes(), 0o644).unwrap();
    assert_eq!(work(&bed), (false, 0));
}
