use std::fmt::Write as _;

use bundle::Digest;
use bundle::component::{Package, Relations};

use super::*;
use crate::host::Host;

/// `NAME VERSION[; Field: value]…`
fn package(text: &str) -> Package {
    let mut parts = text.split("; ");
    let (name, version) = parts.next().unwrap().split_once(' ').unwrap();
    let mut relations = Relations::default();
    for part in parts {
        let (field, value) = part.split_once(": ").unwrap();
        *match field {
            "Pre-Depends" => &mut relations.pre_depends,
            "Depends" => &mut relations.depends,
            "Conflicts" => &mut relations.conflicts,
            "Breaks" => &mut relations.breaks,
            "Provides" => &mut relations.provides,
            _ => panic!("{field}"),
        } = value.to_owned();
    }
    Package {
        name: name.to_owned(),
        version: version.to_owned(),
        file: format!("{name}_{version}_amd64.deb"),
        sha256: Digest::of(name.as_bytes()),
        size: 1,
        architecture: "amd64".to_owned(),
        relations,
    }
}

/// `NAME VERSION[; Field: value]…`, `Status` among the fields.
fn database(packages: &[&str]) -> Database {
    let directory = tempfile::tempdir().unwrap();
    let mut status = String::new();
    for text in packages {
        let mut parts = text.split("; ");
        let (name, version) = parts.next().unwrap().split_once(' ').unwrap();
        let fields: Vec<&str> = parts.collect();
        let (name, architecture) = name.split_once(':').unwrap_or((name, "amd64"));
        writeln!(status, "Package: {name}\nVersion: {version}\nArchitecture: {architecture}").unwrap();
        if !fields.iter().any(|field| field.starts_with("Status: ")) {
            writeln!(status, "Status: install ok installed").unwrap();
        }
        for field in fields {
            writeln!(status, "{field}").unwrap();
        }
        status.push('\n');
    }
    fs_err::create_dir_all(directory.path().join("var/lib/dpkg")).unwrap();
    fs_err::write(directory.path().join("var/lib/dpkg/status"), status).unwrap();
    Database::read(&Host::under(directory.path())).unwrap().unwrap()
}

/// Installed, again, upgraded, kept, problems.
type Shown = (Vec<String>, Vec<String>, Vec<String>, usize, Vec<String>);

fn shown(host: &[&str], bundle: &[&str], wanted: &dyn Fn(&Package) -> bool) -> Shown {
    let packages: Vec<Package> = bundle.iter().map(|text| package(text)).collect();
    let references: Vec<&Package> = packages.iter().collect();
    let work = Work::of(&database(host), &references, wanted);
    let names = |list: &[&Package]| list.iter().map(|package| package.name.clone()).collect();
    (
        names(&work.install),
        names(&work.again),
        work.upgrade.iter().map(|(package, old)| format!("{} {old} → {}", package.name, package.version)).collect(),
        work.kept,
        work.problems.iter().map(|problem| format!("{}: {}", problem.package, problem.text)).collect(),
    )
}

fn all(_: &Package) -> bool {
    true
}

const HOST: &[&str] = &["dpkg 1.21", "libc6 2.36-9"];

#[test]
fn what_is_missing_is_installed_and_what_is_there_stays() {
    let host = ["libc6 2.36-9", "curl 7.88.1-10", "jq 1.7-1"];
    let bundle = [
        "curl 7.88.1-12; Depends: libc6 (>= 2.34)",
        "jq 1.6-2.1",
        "ipset 7.17-1; Depends: libipset13 (>= 7.17)",
        "libipset13 7.17-1",
    ];
    let (install, again, upgrade, kept, problems) = shown(&host, &bundle, &all);
    assert_eq!(install, ["ipset", "libipset13"]);
    // An older curl is good enough, a newer jq is never replaced.
    assert_eq!((again, upgrade, kept, problems), (vec![], vec![], 2, vec![]));
}

#[test]
fn an_upgrade_only_where_something_needs_it() {
    let host = ["libc6 2.36-9", "libxtables12 1.8.7-1", "libnftnl11 1.2.3-1"];
    let bundle = [
        "libxtables12 1.8.9-2; Depends: libc6 (>= 2.34)",
        "libnftnl11 1.2.4-2",
        "iptables 1.8.9-2; Depends: libxtables12 (= 1.8.9-2), libnftnl11 (>= 1.1.6)",
    ];
    let (install, _, upgrade, kept, problems) = shown(&host, &bundle, &all);
    assert_eq!(
        (install, upgrade, kept),
        (vec!["iptables".to_owned()], vec!["libxtables12 1.8.7-1 → 1.8.9-2".to_owned()], 1)
    );
    assert_eq!(problems, [""; 0]);
}

#[test]
fn a_held_package_that_would_have_to_change_is_a_problem() {
    let host = ["libxtables12 1.8.7-1; Status: hold ok installed", "jq 1.5-1; Status: hold ok installed"];
    let bundle = ["libxtables12 1.8.9-2", "iptables 1.8.9-2; Depends: libxtables12 (= 1.8.9-2)", "jq 1.6-1"];
    let (.., problems) = shown(&host, &bundle, &all);
    assert_eq!(problems, ["libxtables12: 1.8.7-1 is held, 1.8.9-2 would have to take its place for `iptables`"]);
}

#[test]
fn a_newer_package_of_the_host_is_not_downgraded_for_an_exact_dependency() {
    let host = ["libxtables12 1.8.10-1"];
    let bundle = ["libxtables12 1.8.9-2", "iptables 1.8.9-2; Depends: libxtables12 (= 1.8.9-2)"];
    let (.., problems) = shown(&host, &bundle, &all);
    assert_eq!(problems, ["libxtables12: `iptables` needs 1.8.9-2, and 1.8.10-1 is installed"]);
}

#[test]
fn dependencies_that_nobody_meets_are_problems() {
    let (.., problems) = shown(HOST, &["jq 1.6-1; Depends: libjq1 (= 1.6-1), libc6 (>= 2.38) | musl"], &all);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems.contains(
        &"jq: it needs libjq1 (= 1.6-1); the host has nothing of it, the bundle nothing that fits".to_owned()
    ));
    assert!(problems.contains(
        &"jq: it needs libc6 (>= 2.38) | musl; the host has libc6 2.36-9, the bundle nothing that fits".to_owned()
    ));
}

#[test]
fn virtual_packages_and_alternatives_count() {
    let host = ["exim4 4; Provides: mail-transport-agent, smtpd (= 2)"];
    let bundle = [
        "a 1; Depends: mail-transport-agent, smtpd (>= 1), nothing | b:any",
        "b 1; Pre-Depends: c-virtual",
        "c 1; Provides: c-virtual",
    ];
    let (install, .., problems) = shown(&host, &bundle, &all);
    assert_eq!((install.len(), problems), (3, vec![]));
}

#[test]
fn conflicts_are_found_in_both_directions() {
    let host = ["chrony-other 1; Provides: time-daemon", "firewall 2; Breaks: nftables (<< 2)"];
    let bundle = ["chrony 4; Conflicts: time-daemon; Provides: time-daemon", "nftables 1"];
    let (.., problems) = shown(&host, &bundle, &all);
    assert_eq!(
        problems,
        [
            "chrony: 4 cannot be installed beside `chrony-other` 1",
            "nftables: 1 cannot be installed beside `firewall` 2"
        ]
    );
    let (.., problems) = shown(HOST, &bundle, &all);
    assert_eq!(problems, [""; 0], "its own virtual package is no conflict");
}

#[test]
fn what_packages_of_the_host_would_lose_is_a_problem() {
    let host = ["libfoo 1", "tool 1; Depends: libfoo (= 1)"];
    let (.., problems) = shown(&host, &["libfoo 2", "new 1; Depends: libfoo (>= 2)"], &all);
    assert_eq!(problems, ["libfoo: `tool` 1 needs libfoo (= 1)"]);
}

#[test]
fn what_is_half_installed_is_installed_again() {
    let host = ["ipset 7.17-1; Status: install reinstreq half-installed", "jq 1.6-1; Status: install ok unpacked"];
    let (install, again, _, kept, problems) = shown(&host, &["ipset 7.17-1", "jq 1.6-1"], &all);
    assert_eq!((install, again, kept, problems), (vec![], vec!["ipset".to_owned()], 1, vec![]));
    let (.., problems) = shown(&["ipset 8-1; Status: install reinstreq half-installed"], &["ipset 7.17-1"], &all);
    assert_eq!(problems, ["ipset: 8-1 is only half installed, and the bundle has the older 7.17-1"]);
}

#[test]
fn only_what_is_wanted_comes_with_what_it_needs() {
    let bundle = [
        "chrony 4; Depends: libedit2, adduser",
        "libedit2 3",
        "adduser 3",
        "ipset 7; Depends: libipset13",
        "libipset13 7",
    ];
    let (install, ..) = shown(HOST, &bundle, &|package| package.name == "chrony");
    assert_eq!(install, ["chrony", "libedit2", "adduser"]);
}

#[test]
fn packages_of_another_architecture_meet_no_dependencies() {
    let host = [
        "dpkg 1.21",
        "libfoo:i386 1; Multi-Arch: same",
        "tool:i386 1; Multi-Arch: foreign",
        "perl:i386 5; Multi-Arch: allowed",
    ];
    let bundle = ["new 1; Depends: libfoo, tool, perl:any", "libfoo 1"];
    let (install, .., problems) = shown(&host, &bundle, &|package| package.name == "new");
    assert_eq!((install, problems), (vec!["new".to_owned(), "libfoo".to_owned()], vec![]));
    let (.., problems) = shown(&host, &["new 1; Depends: perl"], &all);
    assert_eq!(problems, ["new: it needs perl; the host has nothing of it, the bundle nothing that fits"]);
}

/// dpkg configures neither of two architectures of a `Multi-Arch: same` package while their versions differ.
#[test]
fn versions_that_differ_between_architectures_are_a_problem() {
    let host = ["dpkg 1.21", "libc6 2.36-8; Multi-Arch: same", "libc6:i386 2.36-8; Multi-Arch: same", "jq:i386 1"];
    let bundle = ["libc6 2.36-9", "new 1; Depends: libc6 (>= 2.36-9)", "jq 1"];
    let (.., problems) = shown(&host, &bundle, &all);
    assert_eq!(
        problems,
        [
            "jq: 1 cannot be installed beside `jq:i386` 1",
            "libc6: 2.36-9 cannot be installed beside `libc6:i386` 2.36-8"
        ]
    );
    let fine = ["dpkg 1.21", "libfoo:i386 2; Multi-Arch: same", "user:i386 1; Depends: libfoo (= 2)"];
    let (install, .., problems) = shown(&fine, &["libfoo 2"], &all);
    assert_eq!((install, problems), (vec!["libfoo".to_owned()], vec![]));
}
