//! The apt source against a signed archive made here with gpg and dpkg-deb: the chain holds, and each lie is refused.

mod addresses;
mod closure;
mod hostile;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use bundle::Digest;

use crate::workshop::{Workshop, plain, stderr};

/// A signed archive in a directory, and a manifest that takes one package from it.
struct Archive {
    workshop: Workshop,
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; install it"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Archive {
    fn new() -> Self {
        let archive = Self { workshop: Workshop::new(10) };
        for home in ["gpg", "gpg-other"] {
            let home = archive.home(home);
            fs_err::create_dir(&home).unwrap();
            fs_err::set_permissions(&home, Permissions::from_mode(0o700)).unwrap();
            let home = home.to_str().unwrap().to_owned();
            run(
                "gpg",
                &[
                    "--homedir",
                    &home,
                    "--batch",
                    "--quiet",
                    "--passphrase",
                    "",
                    "--quick-gen-key",
                    "Test <test@example.invalid>",
                    "ed25519",
                    "sign",
                    "never",
                ],
            );
            run(
                "gpg",
                &["--homedir", &home, "--batch", "--yes", "--output", &format!("{home}/keyring.gpg"), "--export"],
            );
        }
        for version in ["1.0~rc1-1", "1.0-1"] {
            archive.add_package(version);
        }
        archive.publish("Sat, 07 Nov 2026 10:00:00 UTC");
        archive.sources("");
        let manifest = "name = \"deb\"\nversion = \"1\"\nsequence = 1\ncreated = \"2026-11-21\"\narchitectures = [\"amd64\"]\n\
                        [component.tool]\nversion = \"1.0\"\n[[component.tool.artifact]]\napt = \"tool\"\nfiles = [{ from = \"usr/bin/tool\", to = \"bin/tool\", mode = \"0755\" }]\n";
        archive.workshop.write("deb.toml", manifest.as_bytes());
        let recipe = "name = \"tool\"\ndescription = \"x\"\nkind = \"program\"\nroles = [\"master\"]\nlicence = \"MIT\"\nprograms = [\"bin/tool\"]\n";
        archive.workshop.write("components/tool/component.toml", recipe.as_bytes());
        archive
    }

    fn home(&self, name: &str) -> PathBuf {
        self.workshop.path(name)
    }

    fn add_package(&self, version: &str) {
        let tree = self.workshop.path(&format!("tree-{version}"));
        let control = format!(
            "Package: tool\nVersion: {version}\nArchitecture: amd64\nMaintainer: x <x@example.invalid>\nDescription: x\n"
        );
        self.workshop.write(&format!("tree-{version}/DEBIAN/control"), control.as_bytes());
        self.workshop.write(&format!("tree-{version}/usr/bin/tool"), format!("tool {version}").as_bytes());
        fs_err::create_dir_all(self.workshop.path("archive/pool")).unwrap();
        let deb = self.workshop.path(&format!("archive/pool/tool_{version}_amd64.deb"));
        run("dpkg-deb", &["--root-owner-group", "--build", tree.to_str().unwrap(), deb.to_str().unwrap()]);
    }

    fn packages(&self) -> String {
        let entry = |version: &str| {
            let path = format!("pool/tool_{version}_amd64.deb");
            let deb = fs_err::read(self.workshop.path("archive").join(&path)).unwrap();
            format!(
                "Package: tool\nVersion: {version}\nArchitecture: amd64\nFilename: {path}\nSize: {}\nSHA256: {}\n",
                deb.len(),
                Digest::of(&deb).hex()
            )
        };
        format!("{}\n{}", entry("1.0-1"), entry("1.0~rc1-1"))
    }

    /// Writes Packages, Release and InRelease.
    fn publish(&self, date: &str) {
        self.publish_index(&self.packages(), date);
    }

    /// The same with this text as Packages.
    fn publish_index(&self, packages: &str, date: &str) {
        self.workshop.write("archive/dists/stable/main/binary-amd64/Packages", packages.as_bytes());
        let line = format!(" {} {} main/binary-amd64/Packages", Digest::of(packages.as_bytes()).hex(), packages.len());
        self.sign(&format!("Origin: Test\nSuite: stable\nCodename: testing-x\nDate: {date}\nSHA256:\n{line}\n"), "gpg");
    }

    fn sign(&self, release: &str, home: &str) {
        self.sign_with(release, home, "SHA512");
    }

    fn sign_with(&self, release: &str, home: &str, hash: &str) {
        self.workshop.write("Release", release.as_bytes());
        let (home, input, output) =
            (self.home(home), self.workshop.path("Release"), self.workshop.path("archive/dists/stable/InRelease"));
        let path = |path: &PathBuf| path.to_str().unwrap().to_owned();
        run(
            "gpg",
            &[
                "--homedir",
                &path(&home),
                "--batch",
                "--yes",
                "--quiet",
                "--allow-weak-digest-algos",
                "--digest-algo",
                hash,
                "--clearsign",
                "--output",
                &path(&output),
                &path(&input),
            ],
        );
    }

    fn in_release(&self) -> String {
        fs_err::read_to_string(self.workshop.path("archive/dists/stable/InRelease")).unwrap()
    }

    fn write_in_release(&self, text: &str) {
        self.workshop.write("archive/dists/stable/InRelease", text.as_bytes());
    }

    fn sources(&self, more: &str) {
        let keyring = self.home("gpg/keyring.gpg");
        let text = format!(
            "Types: deb\nURIs: file:{}\nSuites: stable\nComponents: main\nSigned-By: {}\n{more}",
            self.workshop.path("archive").display(),
            keyring.display()
        );
        self.workshop.write("test.sources", text.as_bytes());
    }

    fn lock(&self) -> assert_cmd::assert::Assert {
        plain()
            .current_dir(self.workshop.path(""))
            .args(["lock", "deb.toml", "--apt-sources", "test.sources", "--cache", "cache", "--retries", "0"])
            .assert()
    }

    fn assert_refused(&self, says: &str) {
        let text = stderr(&self.lock().code(1));
        assert!(text.contains(says), "{text}");
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        for home in ["gpg", "gpg-other"] {
            let _ = Command::new("gpgconf").arg("--homedir").arg(self.home(home)).args(["--kill", "all"]).status();
        }
    }
}

#[test]
fn a_package_comes_through_the_whole_chain() {
    let archive = Archive::new();
    archive.lock().success();
    let lock = fs_err::read_to_string(archive.workshop.path("deb.lock")).unwrap();
    assert!(lock.contains("apt:tool=1.0-1"), "the highest version: {lock}");
    assert!(lock.contains("proof = \"apt:stable/main/amd64\"") && lock.contains("inrelease = \"sha256:"), "{lock}");
    assert!(
        !lock.contains("file:") && !lock.contains(archive.workshop.path("").to_str().unwrap()),
        "no address of this machine: {lock}"
    );
    let build = [
        "build",
        "deb.toml",
        "--apt-sources",
        "test.sources",
        "--cache",
        "cache",
        "--installer",
        "installer.bin",
        "--out",
        "dist",
    ];
    plain().current_dir(archive.workshop.path("")).args(build).assert().success();
    assert!(archive.workshop.path("dist/deb-1-amd64.bundle").exists());
    // The same again, and a newer Release: both fine.
    archive.lock().success();
    archive.publish("Sat, 07 Nov 2026 11:00:00 UTC");
    archive.lock().success();
}

#[test]
fn an_older_release_than_the_locks_is_refused() {
    let archive = Archive::new();
    archive.lock().success();
    archive.publish("Sat, 07 Nov 2026 09:59:59 UTC");
    archive.assert_refused("the lock has seen one of Sat, 07 Nov 2026 10:00:00 UTC");
}

#[test]
fn a_suite_that_nothing_came_from_may_not_get_older_either() {
    let archive = Archive::new();
    let release = fs_err::read_to_string(archive.workshop.path("Release")).unwrap();
    let empty = "Package: other\nVersion: 1\nArchitecture: amd64\nFilename: x\nSize: 1\nSHA256: ".to_owned()
        + &Digest::of(b"x").hex()
        + "\n";
    archive.workshop.write("archive/dists/security/main/binary-amd64/Packages", empty.as_bytes());
    let line = format!(" {} {} main/binary-amd64/Packages", Digest::of(empty.as_bytes()).hex(), empty.len());
    let security = |date: &str| {
        let text = format!("Suite: security\nCodename: security-x\nDate: {date}\nSHA256:\n{line}\n");
        archive.sign(&text, "gpg");
        archive.workshop.write("archive/dists/security/InRelease", archive.in_release().as_bytes());
        archive.sign(&release, "gpg");
    };
    let sources = fs_err::read_to_string(archive.workshop.path("test.sources")).unwrap();
    archive.workshop.edit("test.sources", &sources, &sources.replace("Suites: stable", "Suites: stable security"));
    security("Sat, 07 Nov 2026 10:00:00 UTC");
    archive.lock().success();
    let lock = fs_err::read(archive.workshop.path("deb.lock")).unwrap();
    archive.lock().success();
    assert_eq!(lock, fs_err::read(archive.workshop.path("deb.lock")).unwrap());
    security("Sat, 07 Nov 2026 09:00:00 UTC");
    archive.assert_refused("the Release of `security/main/amd64` is of Sat, 07 Nov 2026 09:00:00 UTC");
}

#[test]
fn an_expired_release_is_refused_unless_the_source_says_it_is_a_snapshot() {
    let archive = Archive::new();
    let release = fs_err::read_to_string(archive.workshop.path("Release")).unwrap();
    let until = |date: &str| {
        archive.sign(&release.replace("SHA256:", &format!("Valid-Until: {date}\nSHA256:")), "gpg");
    };
    until("Sat, 07 Nov 9998 10:00:00 UTC");
    archive.lock().success();
    until("Tue, 07 Nov 2023 10:00:00 UTC");
    archive.assert_refused("was valid until Tue, 07 Nov 2023 10:00:00 UTC, now is ");
    archive.sources("Check-Valid-Until: no\n");
    archive.lock().success();
    until("soon");
    archive.assert_refused("its `Valid-Until: soon` cannot be read");
}

#[test]
fn a_bad_signature_is_refused() {
    let archive = Archive::new();
    let good = archive.in_release();
    archive.write_in_release(&good.replace("Suite: stable", "Suite: stable\nNote: x"));
    archive.assert_refused("no good signature");
    // A good signature, but by a key that the source's keyring lacks.
    archive.sign(&fs_err::read_to_string(archive.workshop.path("Release")).unwrap(), "gpg-other");
    archive.assert_refused("no good signature");
    archive.write_in_release(&fs_err::read_to_string(archive.workshop.path("Release")).unwrap());
    archive.assert_refused("not one signed message");
}

#[test]
fn a_signature_with_a_weak_hash_is_refused() {
    let archive = Archive::new();
    archive.sign_with(&fs_err::read_to_string(archive.workshop.path("Release")).unwrap(), "gpg", "SHA1");
    assert!(archive.in_release().contains("Hash: SHA1"));
    archive.assert_refused("no good signature");
}

#[test]
fn text_around_the_signed_part_is_refused() {
    let archive = Archive::new();
    let good = archive.in_release();
    for around in [format!("SHA256:\n evil\n{good}"), format!("{good}SHA256:\n evil\n"), format!("{good}{good}")] {
        archive.write_in_release(&around);
        archive.assert_refused("not one signed message and nothing else");
    }
    archive.write_in_release(&good);
    archive.lock().success();
}

#[test]
fn indexes_and_packages_that_do_not_fit_are_refused() {
    let archive = Archive::new();
    let packages = archive.packages();
    archive
        .workshop
        .write("archive/dists/stable/main/binary-amd64/Packages", packages.replace("tool", "eviI").as_bytes());
    archive.assert_refused("wrong content");
    archive.workshop.write("archive/dists/stable/main/binary-amd64/Packages", packages.as_bytes());
    archive.lock().success();
    let deb = archive.workshop.path("archive/pool/tool_1.0-1_amd64.deb");
    let mut bytes = fs_err::read(&deb).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs_err::write(&deb, bytes).unwrap();
    let build = [
        "build",
        "deb.toml",
        "--apt-sources",
        "test.sources",
        "--cache",
        "cache",
        "--installer",
        "installer.bin",
        "--out",
        "dist",
    ];
    let build = plain().current_dir(archive.workshop.path("")).args(build).assert().code(1);
    assert!(stderr(&build).contains("wrong content"), "{}", stderr(&build));
}

#[test]
fn sources_without_a_signature_and_other_suites_are_refused() {
    let archive = Archive::new();
    archive.sources("Trusted: yes\n");
    archive.assert_refused("trusted=yes");
    archive.sources("");
    archive.sign("Suite: unstable\nCodename: sid\nDate: Sat, 07 Nov 2026 10:00:00 UTC\nSHA256:\n", "gpg");
    archive.assert_refused("suite `unstable`, codename `sid`, not for `stable`");
}

#[test]
fn a_version_that_is_not_the_manifests_is_an_error_with_the_alternative() {
    let archive = Archive::new();
    archive.workshop.edit("deb.toml", "version = \"1.0\"", "version = \"1.1\"");
    archive.assert_refused("is not upstream version 1.1");
    archive.workshop.edit("deb.toml", "version = \"1.1\"", "version = \"1.0\"");
    archive.workshop.edit("deb.toml", "apt = \"tool\"", "apt = \"tool\"\nversion = \"9-1\"");
    archive.assert_refused("on offer: 1.0-1 in testing-x");
}

#[test]
fn an_endless_in_release_is_refused() {
    let archive = Archive::new();
    archive.write_in_release(&"x".repeat((16 << 20) + 1));
    archive.assert_refused("more arrives than the expected at most 16777216 bytes");
}
