use std::fmt::Write as _;
use std::path::Path;

use bundle::Digest;
use bundle::component::{Kind, Package, Relations, Role};

mod cut_short;
mod refused;

use super::*;
use crate::host::Reply;
use crate::report::exit_of;
use crate::steps::tests::Bed;
use crate::store::blob_path;

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
    bed.host.fake().on("sync", Reply::ok(""));
    bed.host.fake().answer("dpkg ", move |command| {
        let line = command.line();
        let path = root.join(STATUS.trim_start_matches('/'));
        let mut status = fs_err::read_to_string(&path).unwrap();
        let policy = fs_err::read_to_string(root.join("usr/sbin/policy-rc.d")).unwrap();
        assert!(policy.contains("exit 101"), "services would start");
        if line.contains("--configure") {
            status = status.replace("ok unpacked", "ok installed");
        } else {
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
    assert!(
        dpkg[0].contains("--force-confdef --force-confold --refuse-downgrade --refuse-unsafe-io --install"),
        "{dpkg:?}"
    );
    assert!(!bed.host.exists(Path::new(policy::POLICY)).unwrap());
    assert!(matches!(OsPackages.check(&bed.context()).unwrap(), Check::Kept(_)));
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
    assert!(packages::left(&bed.host).unwrap().is_nothing());
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

/// A mask only hides that a unit is enabled: `reset` takes it away.
#[test]
fn units_are_disabled_below_their_mask_and_what_was_enabled_before_stays() {
    let mut bed = bed();
    bed.components.last_mut().unwrap().packages[1].name = "nginx-common".to_owned();
    script_dpkg(&bed);
    let place = |unit: &str| Path::new("/etc/systemd/system/multi-user.target.wants").join(unit);
    let list = "/lib/systemd/system/nginx.service\n/lib/systemd/system/mine.service\n/etc/init.d/old\n";
    bed.host.write(Path::new("/var/lib/dpkg/info/nginx-common.list"), list.as_bytes(), 0o644).unwrap();
    for link in [place("mine.service"), "/etc/rc2.d/S01old".into()] {
        bed.host.symlink(&link, Path::new("/somewhere")).unwrap();
    }
    // What the package's script does, and what systemd says then.
    let link = bed.directory.path().join(place("nginx.service").strip_prefix("/").unwrap());
    bed.host.fake().on("systemctl is-enabled", Reply::ok("enabled\n"));
    bed.host.fake().answer("systemctl is-enabled nginx.service", move |_| {
        std::os::unix::fs::symlink("/lib/systemd/system/nginx.service", &link).unwrap();
        Reply::fail(1, "").stdout("masked\n")
    });
    OsPackages.apply(&bed.context()).unwrap();
    assert_eq!(bed.host.link_target(&place("nginx.service")).unwrap(), None);
    assert!(bed.host.link_target(&place("mine.service")).unwrap().is_some());
    let run = bed.host.fake().commands();
    assert!(!run.iter().any(|line| line.starts_with("systemctl disable")), "{run:?}");
}

/// What rpm packages need is not in the bundle, so the clock's cannot be told from the rest.
#[test]
fn a_host_without_pods_gets_the_clock_and_what_it_needs() {
    let lines_on = |rpm: &[&str]| {
        let mut bed = bed();
        let packages = &mut bed.components.last_mut().unwrap().packages;
        let mut clock = packages[0].clone();
        clock.name = CLOCK.to_owned();
        packages.push(clock);
        bed.components.last_mut().unwrap().roles = vec![Role::Etcd, Role::Master];
        bed.roles = crate::config::Roles::new([Role::Etcd]);
        if !rpm.is_empty() {
            bed.host.remove(Path::new(STATUS)).unwrap();
            bed.host.write(Path::new("/var/lib/rpm/rpmdb.sqlite"), b"", 0o644).unwrap();
            bed.host.fake().on("rpm --query --all", Reply::ok(rpm.concat()));
        }
        match OsPackages.check(&bed.context()).unwrap() {
            Check::Needed(changes) => changes.into_iter().map(|change| change.0).collect(),
            Check::Kept(_) => Vec::new(),
            other => panic!("{other:?}"),
        }
    };
    let chrony = "install chrony 1.6-2.1".to_owned();
    assert_eq!(lines_on(&[]).join(" "), chrony);
    let glibc = "glibc\t2.34-1\tx86_64\n";
    let all = ["install libjq1 1.6-2.1".to_owned(), "install jq 1.6-2.1".to_owned(), chrony];
    assert_eq!(lines_on(&[glibc]), all);
    assert_eq!(lines_on(&[glibc, "chrony\t4.3-1\tx86_64\n"]), [""; 0]);
    assert_eq!(lines_on(&[glibc, "ntpsec\t1.2-1\tx86_64\n"]), [""; 0]);
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
