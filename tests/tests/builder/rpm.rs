//! Bundles with RPM packages, judged by rpm, dnf, rpm2cpio and cpio.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use e2e::Process;
use e2e::product::{Programs, bundle_in};
use e2e::rpm::{self, Package, Root};
use e2e::web::Web;

const fn package<'a>(name: &'a str, version: &'a str, lines: &'a [&'a str], files: &'a [&'a str]) -> Package<'a> {
    Package { name, version, lines, files }
}

/// What targets have.
const BASE: &[Package<'_>] = &[
    package(
        "bash",
        "5.1.8-9.el9",
        &["Provides: /bin/sh", "Requires: libc.so.6(GLIBC_2.34)(64bit)"],
        &["/usr/bin/bash", "/usr/bin/sh -> bash"],
    ),
    package(
        "glibc",
        "2.34-60.el9",
        &["Provides: libc.so.6()(64bit)", "Provides: libc.so.6(GLIBC_2.34)(64bit)", "Provides: rtld(GNU_HASH)"],
        &[],
    ),
    package("shadow-utils", "2:4.9-8.el9", &[], &["/usr/sbin/useradd"]),
    package("openssl-libs", "1:3.0.7-27.el9", &["Provides: libcrypto.so.3()(64bit)"], &[]),
    package("openssl", "1:3.0.7-27.el9", &["Requires: openssl-libs%{?_isa} = 1:3.0.7-27.el9"], &["/usr/bin/openssl"]),
    package("systemd", "252-32.el9", &["Provides: systemd-units"], &["/usr/bin/systemctl"]),
];

const BASEOS: &[Package<'_>] = &[
    package(
        "chrony",
        "4.5-1.el9",
        &[
            "Requires: /bin/sh, shadow-utils, libc.so.6(GLIBC_2.34)(64bit), rtld(GNU_HASH), libnettle.so.8()(64bit)",
            "Requires: (timedatex if systemd < 240), (chrony-systemd if systemd)",
            "Recommends: logrotate",
            "Conflicts: ntp < 5",
        ],
        &["/usr/sbin/chronyd", "/usr/bin/chronyc"],
    ),
    package(
        "chrony-systemd",
        "4.5-1.el9",
        &["Requires: systemd-units", "BuildArch: noarch"],
        &["/usr/share/chrony-systemd"],
    ),
    package("timedatex", "0.6-1.el9", &[], &[]),
    package("logrotate", "3.18.0-8.el9", &[], &[]),
    package(
        "nettle",
        "3.9.1-1.el9",
        &["Provides: libnettle.so.8()(64bit)", "Requires: libgmp.so.10()(64bit), /usr/share/gmp/tables"],
        &[],
    ),
    package("gmp", "1:6.2.0-13.el9", &["Provides: libgmp.so.10()(64bit)"], &["/usr/share/gmp/tables"]),
    package("libnetfilter_conntrack", "1.0.9-1.el9", &["Provides: libnetfilter_conntrack.so.3()(64bit)"], &[]),
    package(
        "conntrack-tools",
        "1.4.5-17.el9",
        &["Requires: libnetfilter_conntrack >= 1.0.8, libnetfilter_conntrack.so.3()(64bit)"],
        &["/usr/sbin/conntrack"],
    ),
    package(
        "libcurl",
        "7.76.1-31.el9",
        &["Provides: libcurl.so.4()(64bit)", "Requires: openssl-libs%{?_isa} >= 1:3.2"],
        &[],
    ),
    package("libcurl-minimal", "7.76.1-31.el9", &["Provides: libcurl.so.4()(64bit)", "Conflicts: libcurl"], &[]),
    package(
        "curl",
        "7.76.1-31.el9",
        &["Requires: libcurl%{?_isa} >= 7.76.1-31.el9, libcurl.so.4()(64bit)"],
        &["/usr/bin/curl"],
    ),
    package("openssl-libs", "1:3.2.2-6.el9", &["Provides: libcrypto.so.3()(64bit)"], &[]),
    package("openssl", "1:3.2.2-6.el9", &["Requires: openssl-libs%{?_isa} = 1:3.2.2-6.el9"], &["/usr/bin/openssl"]),
];

const APPSTREAM: &[Package<'_>] = &[
    package(
        "jq",
        "1.6-16.el9",
        &["Requires: libonig.so.5()(64bit), (oniguruma with libonig.so.5()(64bit))"],
        &["/usr/bin/jq"],
    ),
    package("jq", "1.6-9.el9", &["Requires: nothing-that-is-there"], &["/usr/bin/jq"]),
    package("oniguruma", "6.9.6-1.el9.5", &["Provides: libonig.so.5()(64bit)"], &[]),
    package(
        "socat",
        "1.7.4.1-5.el9^20240101",
        &["Requires: /usr/bin/openssl"],
        &[
            "/usr/bin/socat",
            "/usr/bin/filan = /usr/bin/socat",
            "/usr/bin/socat1 -> socat",
            "/usr/share/doc/socat/README",
        ],
    ),
    // Of kernels the newest alone is taken, with its modules.
    package(
        "kernel",
        "5.14.0-611.el9",
        &["Requires: kernel-core = 5.14.0-611.el9, kernel-modules-core = 5.14.0-611.el9"],
        &[],
    ),
    package("kernel-core", "5.14.0-503.el9", &["Provides: installonlypkg(kernel)"], &[]),
    package(
        "kernel-core",
        "5.14.0-611.el9",
        &["Provides: installonlypkg(kernel)", "Requires: kernel-modules-core = 5.14.0-611.el9, /bin/sh, systemd"],
        &["/lib/modules/5.14.0-611.el9.x86_64/vmlinuz", "/lib/modules/5.14.0-611.el9.x86_64/config"],
    ),
    package(
        "kernel-modules-core",
        "5.14.0-611.el9",
        &["Provides: installonlypkg(kernel-module)"],
        &["/lib/modules/5.14.0-611.el9.x86_64/kernel/net/bridge/br_netfilter.ko"],
    ),
];

const ROOTS: [&str; 5] = ["chrony", "conntrack-tools", "curl", "jq", "socat"];

const COMPONENT: &str = "name = \"socat\"\ndescription = \"x\"\nkind = \"program\"\nroles = [\"master\", \"worker\"]\nlicence = \"GPL-2.0-only\"\nprograms = [\"bin/socat\"]\n";

/// The repositories, behind a web server, and a release that takes packages from them.
struct Stage {
    directory: tempfile::TempDir,
    programs: Programs,
    web: Web,
}

impl Stage {
    fn new() -> Result<Self> {
        let directory = tempfile::tempdir_in("/var/tmp")?;
        let path = |name: &str| directory.path().join(name);
        for (name, packages, payload) in
            [("base", BASE, "w1.gzdio"), ("baseos", BASEOS, "w6.xzdio"), ("appstream", APPSTREAM, "w3.zstdio")]
        {
            // Two versions of a package are two specs.
            for package in packages {
                rpm::build(&[*package], &path("web").join(name), "x86_64", payload)?;
            }
        }
        rpm::build(&[package("jq", "9-1.el9", &[], &[])], &path("web/appstream"), "i686", "w1.gzdio")?;
        // A distribution offers what its targets have.
        Process::new("cp").arg("-r").arg(path("web/base/.")).arg(path("web/baseos")).run()?;
        for name in ["baseos", "appstream"] {
            rpm::index(&path("web").join(name))?;
        }
        let web = Web::serve(&path("web"))?;
        let section =
            |id: &str| format!("[{id}]\nname=x\nbaseurl=http://127.0.0.1:1/ {}/{id}/\ngpgcheck=0\n", web.url());
        fs_err::write(path("el.repo"), section("baseos") + &section("appstream"))?;
        let manifest = format!(
            "name = \"el\"\nversion = \"1\"\nsequence = 1\ncreated = \"2026-11-21\"\narchitectures = [\"amd64\"]\ndistributions = [\"el9\"]\n\
             [packages.el9]\ntrust = \"first-use\"\nrepositories = [\"baseos\", \"appstream\"]\ninstall = {ROOTS:?}\n\
             [kernel.el9]\ntrust = \"first-use\"\nrepositories = [\"baseos\", \"appstream\"]\ninstall = [\"kernel\"]\n\
             [component.socat]\nversion = \"1.7.4.1\"\n[[component.socat.artifact]]\nrpm = \"socat\"\ntrust = \"first-use\"\nrepositories = [\"appstream\"]\n\
             files = [{{ from = \"usr/bin/socat\", to = \"bin/socat\", mode = \"0755\" }}, {{ from = \"usr/bin/filan\", to = \"bin/filan\", mode = \"0755\" }},\n\
             {{ from = \"usr/bin/socat1\", to = \"bin/socat1\", mode = \"0755\" }}, {{ from = \"usr/share/doc/socat/README\", to = \"README\" }}]\n"
        );
        fs_err::write(path("el.toml"), manifest)?;
        fs_err::create_dir_all(path("components/socat"))?;
        fs_err::write(path("components/socat/component.toml"), COMPONENT)?;
        let mut base = "distribution = \"el9\"\nfamily = \"rpm\"\nglibc = \"2.34\"\nlibraries = [\"libc.so.6\"]\nprograms = [\"/usr/bin/sh\"]\nmodules = []\n[packages]\n".to_owned();
        for package in BASE {
            writeln!(base, "{} = \"{}\"", package.name, package.version)?;
        }
        fs_err::create_dir_all(path("bases"))?;
        fs_err::write(path("bases/el9.toml"), base)?;
        Ok(Self { programs: Programs::build()?, web, directory })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn builder(&self, command: &str) -> Process {
        let builder = Process::new(&self.programs.builder).directory(self.directory.path());
        builder.args([command, "el.toml", "--rpm-repos", "el.repo", "--cache", "cache", "--retries", "0"])
    }

    /// The packages of a closure of the lock: where the repositories have them.
    fn closure(&self, component: &str) -> Result<Vec<PathBuf>> {
        let lock = fs_err::read_to_string(self.path("el.lock"))?;
        let lock: toml::Value = toml::from_str(&lock)?;
        let entries = lock["component"][component]["amd64"].as_array().context("no closure")?;
        let place = |entry: &toml::Value| -> Result<PathBuf> {
            let repository =
                entry["proof"].as_str().and_then(|proof| proof.strip_prefix("first-use:")?.split('/').next());
            Ok(self.path("web").join(repository.context("no proof")?).join(entry["path"].as_str().context("no path")?))
        };
        entries.iter().map(place).collect()
    }
}

fn names(files: &[PathBuf]) -> Vec<String> {
    let mut names: Vec<String> =
        files.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect();
    names.sort();
    names
}

fn files_of(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs_err::read_dir(directory)? {
        files.push(entry?.path());
    }
    Ok(files)
}

/// A closure that rpm and dnf would install, packed, and files picked out of a package.
pub(crate) fn a_bundle_of_rpm_packages_is_what_rpm_and_dnf_expect() -> Result<()> {
    let stage = Stage::new()?;
    stage.builder("lock").run()?;
    let (closure, kernel) = (stage.closure("packages-el9")?, stage.closure("kernel-el9")?);

    // rpm installs the closure on the base, and misses each package that is taken out.
    let root = Root::new(&stage.path("root"), &files_of(&stage.path("web/base"))?)?;
    root.accepts(&closure).map_err(anyhow::Error::msg).context("rpm does not accept the closure")?;
    for without in 0..closure.len() {
        let mut rest = closure.clone();
        let name = names(&[rest.remove(without)]);
        let is_root = ROOTS.iter().any(|root| name[0].starts_with(&format!("{root}-")) && !name[0].contains("systemd"));
        ensure!(is_root || root.accepts(&rest).is_err(), "{name:?} is not needed");
    }

    root.accepts(&kernel).map_err(anyhow::Error::msg).context("rpm does not accept the kernel")?;

    // dnf chooses the same.
    let directories = [stage.path("web/baseos"), stage.path("web/appstream")];
    let dnf = root.dnf(&directories, &ROOTS, &stage.path("dnf"))?;
    let ours = names(&closure);
    ensure!(ours == dnf, "ours: {ours:#?}\ndnf's: {dnf:#?}");
    let (of_kernel, dnf) = (names(&kernel), root.dnf(&directories, &["kernel"], &stage.path("dnf-kernel"))?);
    ensure!(of_kernel == dnf && dnf.len() == 3, "ours: {of_kernel:#?}\ndnf's: {dnf:#?}");
    ensure!(
        ours.contains(&"openssl-3.2.2-6.el9.x86_64.rpm".to_owned()),
        "what hangs on a replaced package follows: {ours:?}"
    );

    // The bundle is accepted, and holds the repositories' very files.
    stage.builder("fetch").run()?;
    Process::new(&stage.programs.builder)
        .directory(stage.directory.path())
        .args(["keygen", "--no-password", "--out", "test"])
        .run()?;
    let installer = stage.programs.installer.display().to_string();
    stage
        .builder("build")
        .args(["--offline", "--installer", &installer, "--key", "test.key", "--out", "dist"])
        .run()?;
    let bundle = bundle_in(&stage.path("dist"))?;
    Process::new(&stage.programs.installer)
        .args(["verify", "--bundle"])
        .arg(&bundle)
        .arg("--key")
        .arg(stage.path("test.pub"))
        .run()?;
    let layout = stage.path("layout");
    fs_err::create_dir(&layout)?;
    Process::new("tar").arg("-xf").arg(&bundle).arg("-C").arg(&layout).run()?;
    for package in closure.iter().chain(&kernel) {
        let digest = Process::new("sha256sum").arg(package).text()?;
        let digest = digest.split(' ').next().context("no digest")?;
        Process::new("cmp").arg(package).arg(layout.join("blobs/sha256").join(digest)).run()?;
    }
    let inspected = Process::new(&stage.programs.builder).args(["inspect", "--json"]).arg(&bundle).text()?;
    ensure!(inspected.contains("socat-1.7.4.1-5.el9^20240101.x86_64.rpm"), "{inspected}");

    // Files that were picked are those that rpm2cpio and cpio unpack; hard and symbolic links give their content.
    let unpacked = stage.path("unpacked");
    fs_err::create_dir(&unpacked)?;
    let socat = stage.path("web/appstream/socat-1.7.4.1-5.el9^20240101.x86_64.rpm");
    Process::new("sh")
        .args(["-c", "rpm2cpio \"$1\" | cpio --quiet -idm", "sh"])
        .arg(&socat)
        .directory(&unpacked)
        .run()?;
    for (ours, theirs) in [
        ("bin/socat", "usr/bin/socat"),
        ("bin/filan", "usr/bin/filan"),
        ("bin/socat1", "usr/bin/socat1"),
        ("README", "usr/share/doc/socat/README"),
    ] {
        let digest = Process::new("sha256sum").arg(unpacked.join(theirs)).text()?;
        let digest = digest.split(' ').next().context("no digest")?;
        let files = Process::new(&stage.programs.builder).args(["inspect", "--files", "--json"]).arg(&bundle).text()?;
        ensure!(files.contains(digest) && files.contains(ours), "{ours} is not {theirs}: {files}");
    }
    drop(stage.web);
    Ok(())
}

/// The table of the version comparison, given to rpm itself.
pub(crate) fn versions_compare_as_rpm_compares_them() -> Result<()> {
    let table = include_str!("../../../bundle/src/rpm_version.rs");
    let cases = table.split("KNOWN_CASES").nth(1).and_then(|rest| rest.split("];").next()).context("no table")?;
    let mut count = 0;
    for line in cases.lines().filter(|line| line.trim_start().starts_with("(\"")) {
        let mut words = line.split('"');
        let (Some(left), Some(right)) = (words.nth(1), words.nth(1)) else { continue };
        let expected = match line {
            line if line.contains("Less") => "-1",
            line if line.contains("Greater") => "1",
            _ => "0",
        };
        // rpm refuses what is no version.
        if [left, right].iter().any(|text| text.starts_with(['+', '_'])) {
            continue;
        }
        let lua = format!("%{{lua:print(rpm.vercmp('{left}', '{right}'))}}");
        let found = Process::new("rpm").args(["--eval", &lua]).text()?;
        ensure!(found == expected, "{left} {right}: rpm says {found}, the table {expected}");
        count += 1;
    }
    ensure!(count > 40, "only {count} cases");
    Ok(())
}
