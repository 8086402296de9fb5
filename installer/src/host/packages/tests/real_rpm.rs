//! The real rpm on a made-up root (scripts/prerequisites.sh installs `rpm`; `unshare` lets it change its root without root's
//! rights).

use std::path::{Path, PathBuf};
use std::process::{Command as Process, Output};
use std::time::Duration;

use bundle::Digest;

use super::super::{Archive, Database, Family, Mode, install, left, settle};
use crate::host::{Host, Reply};

const SPEC: &str = "\
Name: all
Version: 1
Release: 1
Summary: x
License: MIT
BuildArch: noarch
%description
x
%install
for name in lib-1 lib-2 tool newer kernel-1 kernel-2 deadly-1 deadly-2; do
  mkdir -p %{buildroot}/usr/share/$name; echo $name > %{buildroot}/usr/share/$name/file
done
";

/// Name, version, more lines of its preamble, its directory.
const PACKAGES: &[(&str, &str, &str, &str)] = &[
    ("lib", "1", "", "lib-1"),
    ("lib", "2", "", "lib-2"),
    ("tool", "1", "Requires: lib >= 2", "tool"),
    ("newer", "1", "", "newer"),
    ("newer", "2", "", "newer"),
    ("kernel", "1", "", "kernel-1"),
    ("kernel", "2", "", "kernel-2"),
    ("deadly", "1", "", "deadly-1"),
    ("deadly", "2", "", "deadly-2"),
];

/// A script that takes rpm with it as `kill -9` would, as long as a file says so, and else leaves a trace. Lua runs inside rpm:
/// a made-up root has no shell.
const DEADLY: &str = "%post -n deadly -p <lua>
local file = io.open('/die')
if file then file:close(); posix.kill(posix.getprocessid('pid'), 9) end
file = io.open('/trace', 'a'); file:write('post '); file:close()
";

#[expect(clippy::disallowed_methods, reason = "the tool that the test is about")]
fn process(program: &str, arguments: &[String]) -> Output {
    let output = Process::new(program).args(arguments).env("LC_ALL", "C").output();
    output.unwrap_or_else(|error| panic!("starting `{program}` (scripts/prerequisites.sh): {error}"))
}

fn text(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// One package a run: several versions of one name cannot come out of one spec.
fn build(directory: &Path, (name, version, lines, files): (&str, &str, &str, &str)) -> PathBuf {
    let spec = directory.join("one.spec");
    let package = format!(
        "%package -n {name}\nVersion: {version}\nRelease: 1\nSummary: x\nAutoReqProv: no\n{lines}\n%description -n {name}\nx\n\
         %files -n {name}\n/usr/share/{files}\n"
    );
    let script = if name == "deadly" { DEADLY } else { "" };
    fs_err::write(&spec, SPEC.to_owned() + &package + script).unwrap();
    let top = directory.join(format!("{name}-{version}"));
    let mut arguments = text(&["-bb", "--quiet", "--define", "_unpackaged_files_terminate_build 0", "--define"]);
    arguments.extend([format!("_topdir {}", top.display()), spec.display().to_string()]);
    let built = process("rpmbuild", &arguments);
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    top.join(format!("RPMS/noarch/{name}-{version}-1.noarch.rpm"))
}

/// rpm on the root.
fn rpm(root: &Path, arguments: &[String]) -> Output {
    let mut all = text(&["--map-root-user", "rpm", "--force-debian", "--dbpath", "/var/lib/rpm", "--root"]);
    all.push(root.display().to_string());
    all.extend_from_slice(arguments);
    process("unshare", &all)
}

struct Bed {
    directory: tempfile::TempDir,
    host: Host,
}

impl Bed {
    fn new(installed: &[usize]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs_err::create_dir_all(root.join("var/lib/rpm")).unwrap();
        let host = Host::under(&root);
        let place = root.clone();
        host.fake().answer("rpm ", move |command| {
            let line = command.line();
            let path = |word: &str| match word.strip_prefix("/opt/") {
                Some(rest) => place.join("opt").join(rest).display().to_string(),
                None => word.to_owned(),
            };
            let output = rpm(&place, &line.split(' ').skip(1).map(path).collect::<Vec<_>>());
            let code = output.status.code().unwrap_or(128 + 9);
            if code == 0 { Reply::ok(output.stdout) } else { Reply::fail(code, output.stderr).stdout(output.stdout) }
        });
        host.fake().on("sync", Reply::ok(""));
        host.fake().on("rpmdb --verifydb", Reply::ok(""));
        let bed = Self { directory, host };
        for number in installed {
            let package = build(bed.directory.path(), PACKAGES[*number]);
            let done = rpm(&root, &text(&["--install", &package.display().to_string()]));
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
        bed
    }

    fn archive(&self, number: usize) -> Archive {
        let (name, version, ..) = PACKAGES[number];
        let path = PathBuf::from(format!("/opt/blobs/{number}"));
        // A package that is built again has other bytes.
        if !self.host.exists(&path).unwrap() {
            let bytes = fs_err::read(build(self.directory.path(), PACKAGES[number])).unwrap();
            self.host.write(&path, &bytes, 0o444).unwrap();
        }
        let bytes = self.host.read(&path).unwrap().unwrap();
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        Archive { name: name.to_owned(), version: format!("{version}-1"), path, digest, size }
    }

    fn install(&self, numbers: &[usize], mode: Mode) -> anyhow::Result<()> {
        let archives: Vec<Archive> = numbers.iter().map(|number| self.archive(*number)).collect();
        install(&self.host, Family::Rpm, &archives, mode, Duration::ZERO, &|_| {})
    }

    fn versions(&self, name: &str) -> Vec<String> {
        let database = Database::read(&self.host).unwrap().unwrap();
        let mut versions: Vec<String> = database.entries(name).iter().map(|entry| entry.version.clone()).collect();
        versions.sort();
        versions
    }

    fn has(&self, path: &str) -> bool {
        self.host.exists(Path::new(path)).unwrap()
    }
}

#[test]
fn packages_are_upgraded_and_never_downgraded() {
    let bed = Bed::new(&[0, 4]);
    bed.install(&[1, 2, 3], Mode::Upgrade).unwrap();
    assert_eq!(
        (bed.versions("lib"), bed.versions("tool"), bed.versions("newer")),
        (vec!["2-1".to_owned()], vec!["1-1".to_owned()], vec!["2-1".to_owned()])
    );
    assert!(bed.has("/usr/share/lib-2/file") && !bed.has("/usr/share/lib-1/file") && bed.has("/usr/share/tool/file"));
    bed.host.fake().clear();
    bed.install(&[1, 2, 3], Mode::Upgrade).unwrap();
    assert!(bed.host.fake().commands().iter().all(|line| line.starts_with("rpm --query")), "again: nothing to do");
}

#[test]
fn nothing_is_changed_when_something_is_missing() {
    let bed = Bed::new(&[0]);
    let error = format!("{:#}", bed.install(&[2, 3], Mode::Upgrade).unwrap_err());
    assert!(error.contains("lib >= 2 is needed by tool-1-1"), "{error}");
    assert_eq!((bed.versions("lib"), bed.versions("newer")), (vec!["1-1".to_owned()], vec![]));
}

#[test]
fn kernels_stand_beside_each_other() {
    let bed = Bed::new(&[5]);
    bed.install(&[6], Mode::Beside).unwrap();
    assert_eq!(bed.versions("kernel"), ["1-1", "2-1"]);
    assert!(bed.has("/usr/share/kernel-1/file") && bed.has("/usr/share/kernel-2/file"));
}

/// A machine where rpm died in a script of the upgrade of `deadly`; `tool` and `lib` were in the same transaction.
fn killed(mode: Mode) -> Bed {
    let bed = Bed::new(if mode == Mode::Upgrade { &[0, 7] } else { &[7] });
    bed.host.write(Path::new("/trace"), b"", 0o644).unwrap();
    bed.host.write(Path::new("/die"), b"", 0o644).unwrap();
    let error = format!("{:#}", bed.install(&[8, 1, 2], mode).unwrap_err());
    assert!(error.contains("installing packages with rpm failed"), "{error}");
    bed.host.remove(Path::new("/die")).unwrap();
    assert!(bed.versions("deadly").contains(&"2-1".to_owned()), "rpm takes it for installed");
    assert!(!left(&bed.host).unwrap().is_nothing());
    bed
}

fn trace(bed: &Bed) -> String {
    bed.host.read_text(Path::new("/trace")).unwrap().unwrap()
}

#[test]
fn what_a_killed_rpm_left_is_installed_again_with_its_scripts() {
    let bed = killed(Mode::Upgrade);
    // Nothing to install, so far as rpm's database tells of the one.
    bed.install(&[8], Mode::Upgrade).unwrap();
    assert_eq!(trace(&bed), "post ");
    for (name, versions) in [("deadly", ["2-1"]), ("lib", ["2-1"]), ("tool", ["1-1"])] {
        assert_eq!(bed.versions(name), versions, "{name}");
    }
    assert!(!bed.has("/usr/share/deadly-1/file") && bed.has("/usr/share/deadly-2/file"));
    assert!(left(&bed.host).unwrap().is_nothing());
    bed.install(&[8], Mode::Upgrade).unwrap();
    assert_eq!(trace(&bed), "post ", "once");
}

#[test]
fn a_kernel_that_a_killed_rpm_left_is_installed_again_beside_the_old_one() {
    let bed = killed(Mode::Beside);
    bed.install(&[], Mode::Upgrade).unwrap();
    assert_eq!(trace(&bed), "post ");
    assert_eq!(bed.versions("deadly"), ["1-1", "2-1"]);
    assert!(bed.has("/usr/share/deadly-1/file") && bed.has("/usr/share/deadly-2/file"));
}

#[test]
fn reset_settles_what_a_killed_rpm_left() {
    let bed = killed(Mode::Upgrade);
    let settled = settle(&bed.host, Duration::ZERO, &|_| {}).unwrap();
    assert_eq!(settled.left, [""; 0]);
    assert_eq!(trace(&bed), "post ");
    assert!(left(&bed.host).unwrap().is_nothing());
}

#[test]
fn what_went_out_of_the_store_is_named() {
    let bed = killed(Mode::Upgrade);
    for number in [8, 1, 2] {
        bed.host.remove(Path::new(&format!("/opt/blobs/{number}"))).unwrap();
    }
    let said = std::cell::RefCell::new(Vec::new());
    install(&bed.host, Family::Rpm, &[], Mode::Upgrade, Duration::ZERO, &|text| said.borrow_mut().push(text)).unwrap();
    let said = said.into_inner().join("\n");
    assert!(said.contains("deadly 2-1 is not in the store any more: `dnf reinstall deadly`"), "{said}");
}
