//! What is refused before anything is changed, and whoever else is at work.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;

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

#[test]
fn conflicts_held_packages_and_missing_ones_are_refused_before_anything_is_changed() {
    let entry = |name: &str, version: &str, more: &str| {
        format!("Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n{more}\n")
    };
    let glibc = entry("libc6", "2.36-9", "");
    let held = entry("libjq1", "1.5-1", "").replace("install ok", "hold ok");
    for (status, expected) in [
        (glibc.clone() + &entry("gojq", "1", "Conflicts: jq\n"), "`jq`: 1.6-2.1 cannot be installed beside `gojq` 1"),
        (
            glibc.clone() + &entry("old", "1", "Breaks: libjq1 (>= 1.6)\n"),
            "`libjq1`: 1.6-2.1 cannot be installed beside",
        ),
        (glibc + &held, "`libjq1`: 1.5-1 is held, 1.6-2.1 would have to take its place for `jq`"),
        (entry("other", "1", ""), "`libjq1`: it needs libc6 (>= 2.34); the host has nothing of it"),
    ] {
        let bed = bed();
        bed.host.write(Path::new(STATUS), status.as_bytes(), 0o644).unwrap();
        bed.host.fake().clear();
        for error in [OsPackages.check(&bed.context()).unwrap_err(), OsPackages.apply(&bed.context()).unwrap_err()] {
            assert_eq!(exit_of(&error), Exit::Preflight, "{error:#}");
            assert!(format!("{error:#}").contains(expected), "{expected}: {error:#}");
        }
        assert_eq!(bed.host.fake().operations(), [""; 0], "{expected}");
    }
}

#[test]
fn a_locked_database_is_waited_for_and_then_named() {
    let bed = bed();
    script_dpkg(&bed);
    bed.host.write(Path::new("/proc/4711/comm"), b"apt-get\n", 0o444).unwrap();
    bed.host.fake().on_lock(|path| path.ends_with("lock-frontend").then_some(4711));
    let context = Context { patience: Duration::from_secs(20), ..bed.context() };
    let error = OsPackages.apply(&context).unwrap_err();
    // Not a host that does not fit: the run in the background tries again.
    assert_eq!(exit_of(&error), Exit::Failed);
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

/// It upgrades the C library meanwhile, or brings what does not go together with the bundle's.
#[test]
fn unattended_upgrades_end_by_themselves_and_may_change_what_fits() {
    for (after, refused) in [("libc6 2.36-10", None), ("libc6 2.31-1", Some("it needs libc6 (>= 2.34)"))] {
        let bed = bed();
        script_dpkg(&bed);
        bed.host.write(Path::new("/proc/812/comm"), b"unattended-upgr\n", 0o444).unwrap();
        let (asked, status) = (AtomicUsize::new(0), bed.directory.path().join(STATUS.trim_start_matches('/')));
        let (name, version) = after.split_once(' ').unwrap();
        bed.host.fake().on_lock(move |path| {
            // Twice a second: once to take it, once to say whose it is; then dpkg's own lock, without the front end's.
            let count = asked.fetch_add(1, Ordering::Relaxed);
            if count == 80 {
                let text = fs_err::read_to_string(&status).unwrap();
                fs_err::write(&status, text.replace("libc6", name).replace("2.36-9", version)).unwrap();
            }
            let busy = if count < 60 { path.ends_with("lock-frontend") } else { count < 80 && path.ends_with("lock") };
            busy.then_some(812)
        });
        let context = Context { patience: Duration::from_secs(120), ..bed.context() };
        let done = OsPackages.apply(&context);
        let said = format!("{:?}", bed.events);
        let frontend = "waiting, 120 s more at most: `unattended-upgr` (pid 812) holds `/var/lib/dpkg/lock-frontend`";
        assert!(said.contains(frontend) && said.contains("(pid 812) holds `/var/lib/dpkg/lock`"), "{said}");
        assert!(bed.host.monotonic() < Duration::from_secs(120));
        match refused {
            None => done.unwrap(),
            Some(expected) => {
                let error = done.unwrap_err();
                assert!(format!("{error:#}").contains(expected), "{error:#}");
                assert_eq!(exit_of(&error), Exit::Preflight);
                assert!(!bed.host.fake().commands().iter().any(|line| line.starts_with("dpkg ")));
            }
        }
    }
}

/// A kernel's package that comes anew breaks an old one that is renewed with it.
#[test]
fn packages_that_are_renewed_together_do_not_stand_in_each_others_way() {
    let mut bed = bed();
    installed(&bed, &[("libc6", "2.36-9", "install ok installed"), ("firmware-old", "1", "install ok installed")]);
    let package = |name: &str, breaks: &str| Package {
        name: name.to_owned(),
        version: "2".to_owned(),
        relations: Relations { breaks: breaks.to_owned(), ..Relations::default() },
        ..bed.components.last().unwrap().packages[0].clone()
    };
    let (new, old) = (package("firmware-new", "firmware-old (<< 2)"), package("firmware-old", ""));
    assert_eq!(problems_of(&bed.context(), &[&new, &old]).unwrap(), []);
    let alone = problems_of(&bed.context(), &[&new]).unwrap();
    assert!(alone.len() == 1 && alone[0].text.contains("firmware-old"), "{alone:?}");
    // What they need may come with the bundle's other packages, and from nowhere else.
    let needs = |depends: &str| Package {
        relations: Relations { depends: depends.to_owned(), ..Relations::default() },
        ..old.clone()
    };
    assert_eq!(problems_of(&bed.context(), &[&needs("jq (>= 1.6)")]).unwrap(), []);
    assert_eq!(problems_of(&bed.context(), &[&needs("linux-base")]).unwrap().len(), 1);
    bed.components.pop();
    assert_eq!(problems_of(&bed.context(), &[&needs("jq (>= 1.6)")]).unwrap().len(), 1);
}
