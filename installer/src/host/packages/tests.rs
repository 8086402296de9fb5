mod real_rpm;

use super::*;
use crate::host::{Host, Reply};

const STATUS: &str = "\
Package: jq
Status: install ok installed
Priority: optional
Architecture: amd64
Multi-Arch: foreign
Version: 1.6-2.1
Depends: libjq1 (= 1.6-2.1), libc6 (>= 2.34)
Conffiles:
 /etc/jq.conf 0123456789abcdef0123456789abcdef
Description: lightweight and flexible command-line JSON processor
 jq is like sed for JSON data
 .
 you can use it

Package: containerd
Status: hold ok installed
Architecture: amd64
Version: 1.6.20~ds1-1+deb12u1
Provides: container-runtime,
 runtime (= 1)

Package: libc6
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Version: 2.36-9+deb12u10

Package: libc6
Status: install ok installed
Architecture: i386
Multi-Arch: same
Version: 2.36-9+deb12u10

Package: ipset
Status: install reinstreq half-installed
Architecture: amd64
Version: 7.17-1

Package: exim4
Status: deinstall ok config-files
Architecture: all
Version: 4.96-15

Package: known
Status: unknown ok not-installed

";

fn host(status: &str) -> (tempfile::TempDir, Host) {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::under(directory.path());
    let dpkg = directory.path().join("var/lib/dpkg/updates");
    fs_err::create_dir_all(&dpkg).unwrap();
    fs_err::write(directory.path().join("var/lib/dpkg/status"), status).unwrap();
    (directory, host)
}

#[test]
fn dpkgs_database_is_read() {
    let (_directory, host) = host(STATUS);
    let database = Database::read(&host).unwrap().unwrap();
    assert_eq!(database.family, Family::Dpkg);
    assert!(database.has("jq", "1.6-2") && !database.has("jq", "1:1.0"));
    let jq = database.find("jq").unwrap();
    assert_eq!(jq.relations, [(Relation::Depends, "libjq1 (= 1.6-2.1), libc6 (>= 2.34)".to_owned())]);
    let containerd = database.find("containerd").unwrap();
    assert!(containerd.held);
    assert_eq!(containerd.provides, ["container-runtime", "runtime (= 1)"]);
    assert_eq!(database.entries("libc6").len(), 2);
    assert_eq!(database.entries("libc6")[1].multi_arch, MultiArch::Same);
    assert_eq!(database.find("exim4"), None);
    assert_eq!(database.entries("known"), []);
    let unfinished: Vec<_> = database.unfinished().map(|(name, entry)| (name, entry.state, entry.reinstall)).collect();
    assert_eq!(unfinished, [("ipset", State::HalfInstalled, true)]);
    assert!(!database.has("ipset", "7.17-1"), "half of it is not there");
}

/// Multiarch: `libc6:i386` is no `libc6` for programs of amd64.
#[test]
fn packages_of_another_architecture_are_not_the_hosts_own() {
    let text = "\
Package: dpkg\nStatus: install ok installed\nArchitecture: amd64\nMulti-Arch: foreign\nVersion: 1.21\n\n\
Package: libc6\nStatus: install ok installed\nArchitecture: i386\nMulti-Arch: same\nVersion: 2.36-9\n\n\
Package: jq\nStatus: install ok installed\nArchitecture: i386\nMulti-Arch: foreign\nVersion: 1.6\n\n\
Package: perl\nStatus: install ok installed\nArchitecture: i386\nMulti-Arch: allowed\nVersion: 5\n\n\
Package: adduser\nStatus: install ok installed\nArchitecture: all\nVersion: 3\n";
    let (_directory, host) = host(text);
    let database = Database::read(&host).unwrap().unwrap();
    assert!(!database.has("libc6", "2.36-9") && database.find("libc6").is_none());
    assert!(!database.has("perl", "5"));
    assert!(database.serves(&database.entries("perl")[0], "amd64", true), "`perl:any`");
    assert!(database.serves(&database.entries("libc6")[0], "i386", false), "for its own kind");
    assert!(database.has("jq", "1.6"), "it serves every architecture");
    assert!(database.has("adduser", "3"));
}

#[test]
fn changes_that_a_killed_dpkg_did_not_merge_count() {
    let (directory, host) = host(STATUS);
    let updates = directory.path().join("var/lib/dpkg/updates");
    let stanza = |state: &str| {
        format!(
            "Package: jq\nStatus: install ok {state}\nArchitecture: amd64\nVersion: 1.7-1\nConfig-Version: 1.6-2.1\n"
        )
    };
    fs_err::write(updates.join("0000"), stanza("half-installed")).unwrap();
    fs_err::write(updates.join("0001"), stanza("unpacked")).unwrap();
    fs_err::write(updates.join("tmp.i"), "half a st").unwrap();
    let database = Database::read(&host).unwrap().unwrap();
    let jq = database.find("jq").unwrap();
    assert_eq!((jq.version.as_str(), jq.state), ("1.7-1", State::Unpacked));
    assert_eq!(database.unfinished().count(), 2);
}

#[test]
fn a_damaged_database_is_an_error() {
    let (_directory, host) = host("Package: jq\nStatus: install ok wonderful\n");
    let error = format!("{:#}", Database::read(&host).unwrap_err());
    assert!(error.contains("/var/lib/dpkg/status") && error.contains("jq"), "{error}");
}

#[test]
fn rpms_database_is_asked_of_rpm() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::under(directory.path());
    assert_eq!(Database::read(&host).unwrap(), None);
    let root = directory.path();
    for path in ["var/lib/rpm", "etc/dnf/plugins"] {
        fs_err::create_dir_all(root.join(path)).unwrap();
    }
    fs_err::write(root.join("var/lib/rpm/rpmdb.sqlite"), "").unwrap();
    fs_err::write(root.join("etc/dnf/dnf.conf"), "[main]\ngpgcheck=1\nexcludepkgs=kernel* , foo\n").unwrap();
    fs_err::write(root.join("etc/dnf/plugins/versionlock.list"), "# by hand\ncurl-0:7.76.1-31.el9.*\n").unwrap();
    let lines = "kernel-core\t5.14.0-503.el9\tx86_64\nkernel-core\t5.14.0-570.el9\tx86_64\ncurl\t7.76.1-31.el9\tx86_64\n\
                 ipset\t7.11-8.el9\tx86_64\ngpg-pubkey\tfd431d51-4ae0493b\t(none)\nchrony\t1:4.3-1.el9\tx86_64\n";
    host.fake().on("rpm --query --all", Reply::ok(lines));
    let database = Database::read(&host).unwrap().unwrap();
    assert_eq!(database.family, Family::Rpm);
    assert_eq!(database.find("kernel-core").unwrap().version, "5.14.0-570.el9");
    let held: Vec<_> = database.all().filter(|(_, entry)| entry.held).map(|(name, _)| name).collect();
    assert_eq!(held, ["curl", "kernel-core", "kernel-core"]);
    assert!(database.has("chrony", "1:4.2-1.el9") && !database.has("ipset", "7.11-9.el9"));
    assert_eq!(database.find("gpg-pubkey"), None);
    let lines = "rpm\t4.16.1-37.el9\tx86_64\nglibc\t2.34-168.el9\ti686\ntzdata\t2025b-1.el9\tnoarch\n";
    host.fake().on("rpm --query --all", Reply::ok(lines));
    let database = Database::read(&host).unwrap().unwrap();
    assert!(!database.has("glibc", "2.34-168.el9") && database.has("tzdata", "2025b-1.el9"));
}
