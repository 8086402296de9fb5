//! What is missing in a bundle is said at build time, with a remedy; what the builder reads of programs is what binutils read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use builder::elf::{self, Elf, GlibcVersion};
use bundle::Digest;

use crate::forged::Forged;
use crate::rpm_yard::Yard;
use crate::workshop::{Workshop, stderr};

/// The programs and libraries of this machine, some hundred of them.
fn programs() -> Vec<PathBuf> {
    let libraries = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let files = ["/usr/bin", "/usr/sbin", &libraries].into_iter().flat_map(|directory| {
        fs_err::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    });
    let mut files: Vec<PathBuf> =
        files.filter_map(|path| fs_err::canonicalize(path).ok()).filter(|path| path.is_file()).collect();
    files.sort();
    files.dedup();
    files
}

/// What `readelf` (binutils) says about many files, in the same words.
fn readelf(files: &[&PathBuf]) -> BTreeMap<PathBuf, Elf> {
    let output = Command::new("readelf").env("LC_ALL", "C").arg("-hldVW").args(files).output();
    let output =
        output.unwrap_or_else(|error| panic!("readelf of build-essential (scripts/prerequisites.sh): {error}"));
    let text = String::from_utf8(output.stdout).unwrap();
    let bracket = |line: &str| line.split_once('[').unwrap().1.rsplit_once(']').unwrap().0.to_owned();
    let mut all = BTreeMap::new();
    for part in text.split("\nFile: ").skip(1) {
        let (path, rest) = part.split_once('\n').unwrap();
        let mut elf = Elf {
            machine: if rest.contains("X86-64") { "x86_64".into() } else { "aarch64".into() },
            interpreter: None,
            soname: None,
            needed: Vec::new(),
            run_path: Vec::new(),
            glibc: None,
            unusual: Vec::new(),
        };
        for line in rest.lines() {
            if line.contains("[Requesting program interpreter: ") {
                elf.interpreter = Some(bracket(line).replace("Requesting program interpreter: ", ""));
            } else if line.contains("(NEEDED)") {
                elf.needed.push(bracket(line));
            } else if line.contains("(SONAME)") {
                elf.soname = Some(bracket(line));
            } else if line.contains("(RUNPATH)") || line.contains("(RPATH)") {
                elf.run_path = bracket(line).split(':').map(str::to_owned).collect();
            } else if let Some((_, version)) = line.split_once(" Name: GLIBC_")
                && line.contains("Version: ")
                && !line.contains("WEAK")
            {
                let version = version.split_whitespace().next().unwrap();
                match if version == "ABI_DT_RELR" { "2.36" } else { version }.parse::<GlibcVersion>() {
                    Ok(version) => elf.glibc = elf.glibc.max(Some(version)),
                    Err(_) => elf.unusual.push(format!("GLIBC_{version}")),
                }
            }
        }
        all.insert(Path::new(path).to_owned(), elf);
    }
    all
}

/// Every program and library in this machine's directories: the same as readelf says, name by name.
#[test]
fn programs_need_what_readelf_says() {
    let files = programs();
    let ours: Vec<(&PathBuf, Elf)> = files
        .iter()
        .filter_map(|path| {
            let read = elf::read(&mut fs_err::File::open(path).unwrap());
            Some((path, read.unwrap_or_else(|error| panic!("{}: {error}", path.display()))?))
        })
        .collect();
    let theirs = readelf(&ours.iter().map(|(path, _)| *path).collect::<Vec<_>>());
    assert!(ours.len() > 100 && theirs.len() == ours.len(), "{} files, readelf {}", ours.len(), theirs.len());
    for (path, elf) in &ours {
        assert_eq!(&theirs[*path], elf, "{}", path.display());
    }
    assert!(ours.iter().any(|(_, elf)| elf.glibc > Some("2.30".parse().unwrap())));
}

const MANIFEST: &str = r#"
name = "demo"
version = "1.0-1"
sequence = 1
created = "2026-11-21"
architectures = ["amd64"]
distributions = ["debian-12"]

[component.tool]
version = "1"
[[component.tool.artifact]]
file = "tool"
trust = "first-use"
files = [{ from = "tool", to = "bin/tool", mode = "0755" }]

[component.host]
version = "1"
[[component.host.artifact]]
file = "host_1_amd64.deb"
trust = "first-use"
"#;

const BASE: &str = r#"
distribution = "debian-12"
family = "deb"
glibc = "2.36"
libraries = ["libc.so.6"]
programs = ["/usr/bin/mkdir"]
modules = ["overlay"]
[packages]
adduser = "3.134"
"#;

const TOOL: &str = r#"
name = "tool"
description = "x"
kind = "program"
roles = ["master"]
licence = "MIT"
programs = ["bin/tool"]
modules = ["overlay"]
modules_on_demand = ["vxlan"]
[[template]]
file = "tool.service.j2"
name = "tool.service"
kind = "unit"
"#;

const UNIT: &str = r#"
[Service]
ExecStartPre=-/bin/mkdir -p /run/tool
ExecStart={{ program("tool", "bin/tool") }}
ExecReload=/usr/sbin/helper reload
"#;

const PROGRAM: Forged<'_> = Forged {
    machine: 62,
    interpreter: Some("/lib64/ld-linux-x86-64.so.2"),
    needed: &["libhelp.so.1", "libc.so.6"],
    run_path: None,
    versions: &["GLIBC_2.34"],
};

/// What the package `host` brings: a library, a program and a kernel.
const HOST: [&str; 5] = [
    "usr/lib/x86_64-linux-gnu/libhelp.so.1",
    "usr/sbin/helper",
    "boot/vmlinuz-6.1",
    "lib/modules/6.1/kernel/overlay.ko",
    "lib/modules/6.1/kernel/vxlan.ko.xz",
];

/// The Debian package `host` with these files, each empty.
fn deb(files: &[&str]) -> Vec<u8> {
    let files: Vec<(String, Vec<u8>)> = files.iter().map(|path| (format!("/{path}"), Vec::new())).collect();
    let files: Vec<(&str, Vec<u8>)> = files.iter().map(|(path, content)| (path.as_str(), content.clone())).collect();
    crate::workshop::deb("host", "1", "amd64", &files)
}

/// A release in which nothing is missing.
fn complete() -> Workshop {
    let workshop = Workshop::new(10);
    for (name, content) in [
        ("demo.toml", MANIFEST.as_bytes()),
        ("bases/debian-12.toml", BASE.as_bytes()),
        ("components/tool/component.toml", TOOL.as_bytes()),
        ("components/tool/tool.service.j2", UNIT.as_bytes()),
        ("tool", &PROGRAM.bytes()),
        ("host_1_amd64.deb", &deb(&HOST)),
    ] {
        workshop.write(&format!("release/{name}"), content);
    }
    let host = "name = \"host\"\ndescription = \"x\"\nkind = \"packages\"\nroles = [\"master\"]\nlicence = \"MIT\"\n";
    workshop.write("release/components/host/component.toml", host.as_bytes());
    workshop
}

/// Locks and builds; exit code and what was said.
fn outcome(workshop: &Workshop) -> (i32, String) {
    workshop.lock().success();
    let mut build = workshop.build("dist");
    build.args(["--arch", "amd64"]);
    let build = build.assert();
    (build.get_output().status.code().unwrap(), stderr(&build))
}

#[test]
fn what_is_complete_is_built_without_a_word() {
    let workshop = complete();
    let (code, said) = outcome(&workshop);
    assert_eq!(code, 0, "{said}");
    assert!(!said.contains("not checked"), "{said}");
    // And again, when all of it is in the cache and the files are gone.
    for file in ["release/tool", "release/host_1_amd64.deb"] {
        fs_err::remove_file(workshop.path(file)).unwrap();
    }
    workshop.build("again").assert().success();
}

/// Each row changes one thing; the build then fails and says what is missing, who needs it, and what to add.
#[test]
fn what_is_missing_is_named_with_who_needs_it_and_what_to_add() {
    type Row = (&'static str, fn(&Workshop), i32, &'static [&'static str]);
    let base = "release/bases/debian-12.toml";
    let rows: [Row; 12] = [
        (
            "a distribution without a base",
            |workshop| fs_err::remove_file(workshop.path("release/bases/debian-12.toml")).unwrap(),
            2,
            &["the promised distribution `debian-12` needs `bases/debian-12.toml`", "builder base"],
        ),
        (
            "a program of a unit that no host has",
            |workshop| workshop.edit("release/bases/debian-12.toml", "/usr/bin/mkdir", "/usr/bin/true"),
            2,
            &[
                "unit `tool.service` of `tool` needs `/bin/mkdir`, which debian-12 does not have",
                "`[packages.debian-12]`",
            ],
        ),
        (
            "a program of a unit that the packages do not bring",
            |workshop| workshop.write("release/host_1_amd64.deb", &deb(&[HOST[0], HOST[2], HOST[3], HOST[4]])),
            2,
            &["unit `tool.service` of `tool` needs `/usr/sbin/helper`"],
        ),
        (
            "a newer glibc than hosts have",
            |workshop| workshop.edit("release/bases/debian-12.toml", "2.36", "2.31"),
            1,
            &["`tool` (bin/tool) needs glibc 2.34, but debian-12 has 2.31: take a build made for debian-12"],
        ),
        (
            "a library that nobody brings",
            |workshop| workshop.write("release/host_1_amd64.deb", &deb(&HOST[1..])),
            1,
            &[
                "`tool` (bin/tool) needs the library `libhelp.so.1`, which debian-12 does not have",
                "[component.tool.packages.debian-12]",
            ],
        ),
        (
            "a module that the bundle's kernel lacks",
            |workshop| workshop.write("release/host_1_amd64.deb", &deb(&HOST[..4])),
            1,
            &["`tool` needs the kernel module `vxlan`, which `host` does not bring for 6.1", "`[kernel.debian-12]`"],
        ),
        (
            "a module that the distribution's kernel lacks",
            |workshop| workshop.write("release/host_1_amd64.deb", &deb(&HOST[..2])),
            2,
            &[
                "`tool` needs the kernel module `vxlan`, which debian-12's own kernel does not have",
                "`bases/debian-12.toml`",
            ],
        ),
        (
            "two kernels",
            |workshop| workshop.write("release/host_1_amd64.deb", &deb(&[&HOST[..], &["boot/vmlinuz-6.2"]].concat())),
            1,
            &["`host` needs one kernel, but its packages are for 6.1, 6.2"],
        ),
        (
            "a program for another architecture",
            |workshop| workshop.write("release/tool", &Forged { machine: 183, ..PROGRAM }.bytes()),
            1,
            &["`tool` (bin/tool) needs a machine that is aarch64, but the bundle is for amd64", "`{arch}`"],
        ),
        (
            "a damaged program",
            |workshop| workshop.write("release/tool", &PROGRAM.bytes()[..300]),
            1,
            &["`tool` (bin/tool) needs a whole ELF file", "compare the artifact with upstream's"],
        ),
        (
            "a promised architecture without the program",
            |workshop| {
                workshop.edit(
                    "release/demo.toml",
                    "architectures = [\"amd64\"]",
                    "architectures = [\"amd64\", \"arm64\"]",
                );
                workshop.edit("release/demo.toml", "file = \"tool\"", "file = \"tool\"\narchitectures = [\"amd64\"]");
            },
            2,
            &["`tool` needs an artifact for arm64: add an artifact whose `architectures` has arm64"],
        ),
        (
            "a program that no component promises",
            |workshop| workshop.edit("release/components/tool/tool.service.j2", "\"bin/tool\"", "\"bin/other\""),
            2,
            &[
                "template `tool.service` of `tool` needs `bin/other`, which component `tool` does not promise: add it to `programs`",
            ],
        ),
    ];
    for (what, change, expected, parts) in rows {
        let workshop = complete();
        change(&workshop);
        let (code, said) = outcome(&workshop);
        assert!(said.contains("the bundle would not be complete, one problem:"), "{what}: {said}");
        for part in parts {
            assert!(said.contains(part), "{what}: {part} in {said}");
        }
        assert_eq!(code, expected, "{what}: {said}");
        assert!(!workshop.path("dist").exists(), "{what}: something was written");
    }
    // All of them at once, and then none: the base is believed.
    let workshop = complete();
    workshop.edit(base, "2.36", "2.31");
    workshop.edit(base, "/usr/bin/mkdir", "/usr/bin/true");
    workshop.write("release/host_1_amd64.deb", &deb(&HOST[1..4]));
    let (code, said) = outcome(&workshop);
    assert!(said.contains("not be complete, 4 problems:") && code == 2, "{said}");
    for part in ["glibc 2.34", "`/bin/mkdir`", "`libhelp.so.1`", "`vxlan`"] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[test]
fn without_a_promise_the_rules_that_need_none_are_asked_and_it_is_said() {
    let workshop = complete();
    workshop.edit("release/demo.toml", "distributions = [\"debian-12\"]", "");
    // No package is opened, and nothing is asked of any host.
    workshop.write("release/host_1_amd64.deb", &deb(&[]));
    workshop.write("release/tool", &Forged { versions: &["GLIBC_2.99"], ..PROGRAM }.bytes());
    let (code, said) = outcome(&workshop);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("warning: the manifest promises no distribution: libraries, glibc"), "{said}");
    workshop.write("release/tool", &Forged { machine: 183, ..PROGRAM }.bytes());
    fs_err::remove_file(workshop.path("release/demo.lock")).unwrap();
    let (code, said) = outcome(&workshop);
    assert!(code == 1 && said.contains("aarch64"), "{said}");
}

/// The release with packages and an addon in place of the component `host`, and a lock for it as a connected machine would
/// have written it, without an archive or a registry to ask.
fn with_closure(install: &str, addon: &str, dns: &str, images: &str) -> Workshop {
    let workshop = complete();
    workshop.lock().success();
    workshop.write("release/dns.yaml", dns.as_bytes());
    let (without_host, _) = MANIFEST.split_once("[component.host]").unwrap();
    let manifest = format!(
        "{without_host}[packages.debian-12]\nsuites = [\"x\"]\ninstall = {install}\n\
         [addon.dns]\nversion = \"1\"\nfile = \"dns.yaml\"\ntrust = \"first-use\"\n{addon}\n"
    );
    workshop.write("release/demo.toml", manifest.as_bytes());
    let lock = fs_err::read_to_string(workshop.path("release/demo.lock")).unwrap();
    let before = Digest::of(MANIFEST.as_bytes()).to_string();
    assert!(lock.contains(&before) && lock.contains("[component.host]\nversion = \"1\"\n"), "{lock}");
    let made = "[component.packages-debian-12]\nversion = \"1\"\nmade = \"packages\"\ndistribution = \"debian-12\"\n";
    let lock = lock
        .replace(&before, &Digest::of(manifest.as_bytes()).to_string())
        .replace("[component.host]\nversion = \"1\"\n", made)
        .replace("component.host.", "component.packages-debian-12.");
    let (at, rest) = lock.split_once("url = \"file:host_1_amd64.deb\"").unwrap();
    let rest = rest.replacen("proof = \"first-use\"", "proof = \"apt:x/main/amd64\"", 1);
    let lock = format!("{at}url = \"apt:host=1\"\npath = \"pool/host_1_amd64.deb\"{rest}");
    let addon = format!(
        "\n[component.addon-dns]\nversion = \"1\"\nmade = \"addon\"\nimages = {images}\n\n[[component.addon-dns.amd64]]\n\
         url = \"file:dns.yaml\"\nsize = {}\nsha256 = \"{}\"\nproof = \"first-use\"\n",
        dns.len(),
        Digest::of(dns.as_bytes())
    );
    workshop.write("release/demo.lock", (lock + &addon).as_bytes());
    workshop
}

/// What was locked is judged once more when it is packed: a lock that lost something does not become a bundle.
#[test]
fn packages_and_images_that_a_lock_has_lost_are_named() {
    let settings = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"dns"}}"#;
    let whole = with_closure("[\"host\", \"adduser\"]", "modules = [\"vxlan\"]", settings, "[]");
    whole.build("dist").assert().success();

    let pods = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"dns"},"spec":{"template":{"spec":
        {"initContainers":[{"name":"a","image":"registry.example/dns:1"}]}}}}"#;
    let images = "[\"registry.example/dns:1\"]";
    let lost = with_closure("[\"host\"]", "modules = [\"ip_vs\"]", pods, images);
    let build = lost.build("dist").assert().code(1);
    let said = stderr(&build);
    for part in [
        "not be complete, 2 problems:",
        "`addon-dns` needs the kernel module `ip_vs`, which `packages-debian-12` does not bring for 6.1",
        "addon `addon-dns` needs the image `registry.example/dns:1`, which is not in the bundle for this architecture: run `builder lock`",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }

    let lost = with_closure("[\"host\", \"socat=1.7\"]", "", settings, "[]");
    let said = stderr(&lost.build("dist").assert().code(1));
    assert!(said.contains("packages-debian-12 does not have `socat`, which the manifest asks for"), "{said}");
}

/// A kernel in real RPM packages: what is built in, what is in another package, and what is there.
#[test]
fn a_kernel_of_rpm_packages_is_looked_into() {
    let yard = Yard::new();
    let directory = "/lib/modules/5.14.0-1.el9.x86_64";
    let (image, config) = (format!("{directory}/vmlinuz"), format!("{directory}/config"));
    let module = format!("{directory}/kernel/drivers/net/vxlan/vxlan.ko.xz");
    let kernel = [(image.as_str(), "MZ"), (config.as_str(), "CONFIG_OVERLAY_FS=y\nCONFIG_VXLAN=m\n")];
    yard.build(&[("kernel-core", "5.14.0-1.el9", &[], &kernel)], "w3.zstdio");
    yard.build(&[("kernel-modules", "5.14.0-1.el9", &[], &[(module.as_str(), "x")])], "w6.xzdio");
    let rpm = |name: &str| fs_err::read(yard.workshop.path(&format!("repo/{name}-5.14.0-1.el9.x86_64.rpm"))).unwrap();

    let workshop = complete();
    let base = BASE
        .replace("debian-12", "el9")
        .replace("\"deb\"", "\"rpm\"")
        .replace("\"libc.so.6\"", "\"libc.so.6\", \"libhelp.so.1\"")
        .replace("\"/usr/bin/mkdir\"", "\"/usr/bin/mkdir\", \"/usr/sbin/helper\"");
    workshop.write("release/bases/el9.toml", base.as_bytes());
    workshop.write("release/kernel-core-5.14.0-1.el9.x86_64.rpm", &rpm("kernel-core"));
    workshop.write("release/kernel-modules-5.14.0-1.el9.x86_64.rpm", &rpm("kernel-modules"));
    let manifest =
        MANIFEST.replace("debian-12", "el9").replace("host_1_amd64.deb", "kernel-core-5.14.0-1.el9.x86_64.rpm");
    workshop.write("release/demo.toml", manifest.as_bytes());
    let (code, said) = outcome(&workshop);
    assert_eq!(code, 1, "{said}");
    let part = "`tool` needs the kernel module `vxlan`, which `host` does not bring for 5.14.0-1.el9.x86_64 (CONFIG_VXLAN=m: it is in a package that is not here)";
    assert!(said.contains("one problem:") && said.contains(part), "{said}");

    let modules =
        "\n[[component.host.artifact]]\nfile = \"kernel-modules-5.14.0-1.el9.x86_64.rpm\"\ntrust = \"first-use\"\n";
    workshop.write("release/demo.toml", (manifest + modules).as_bytes());
    let (code, said) = outcome(&workshop);
    assert_eq!(code, 0, "{said}");
}
