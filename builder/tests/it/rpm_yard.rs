//! RPM packages built with rpmbuild, in a repository made with createrepo_c and signed with gpg.

use std::fmt::Write as _;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use assert_cmd::assert::Assert;

use crate::workshop::{Workshop, plain, stderr};

/// A package: name, `VERSION-RELEASE`, lines of its preamble, files with content.
pub(crate) type Piece<'a> = (&'a str, &'a str, &'a [&'a str], &'a [(&'a str, &'a str)]);

/// The repository `repo`, keys `gpg` and `gpg-other`, and a manifest `el.toml` that takes a program from it.
pub(crate) struct Yard {
    pub(crate) workshop: Workshop,
}

/// Runs a program to the end and hands back its output.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; install it"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

pub(crate) const TOOL: Piece<'static> = (
    "tool",
    "1.0-1.el9",
    &["License: MIT and BSD", "Requires: /bin/sh"],
    &[("/usr/bin/tool", "tool 1.0"), ("/usr/share/tool/data", "data")],
);
const OLD_TOOL: Piece<'static> = ("tool", "1.0~rc1-1.el9", &["License: MIT"], &[("/usr/bin/tool", "tool 1.0~rc1")]);

impl Yard {
    /// `tool` in two versions, a signed index of revision 100, and a `.repo` file with the key.
    pub(crate) fn new() -> Self {
        let yard = Self { workshop: Workshop::new(10) };
        for home in ["gpg", "gpg-other"] {
            yard.make_key(home);
        }
        yard.build(&[TOOL], "w3.zstdio");
        yard.build(&[OLD_TOOL], "w6.xzdio");
        yard.publish(100, &[]);
        yard.sign_index("gpg");
        yard.repo_file("gpgcheck=0\n", true);
        let manifest = "name = \"el\"\nversion = \"1\"\nsequence = 1\ncreated = \"2026-11-21\"\narchitectures = [\"amd64\"]\n\
                        [component.tool]\nversion = \"1.0\"\n[[component.tool.artifact]]\nrpm = \"tool\"\nrepositories = [\"base\"]\nfiles = [{ from = \"usr/bin/tool\", to = \"bin/tool\", mode = \"0755\" }]\n";
        yard.workshop.write("el.toml", manifest.as_bytes());
        let recipe = "name = \"tool\"\ndescription = \"x\"\nkind = \"program\"\nroles = [\"master\"]\nlicence = \"MIT\"\nprograms = [\"bin/tool\"]\n";
        yard.workshop.write("components/tool/component.toml", recipe.as_bytes());
        yard
    }

    pub(crate) fn text_path(&self, name: &str) -> String {
        self.workshop.path(name).to_str().unwrap().to_owned()
    }

    fn make_key(&self, home: &str) {
        let path = self.workshop.path(home);
        fs_err::create_dir(&path).unwrap();
        fs_err::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        let home = self.text_path(home);
        // RSA, for rpmsign of Debian 12 as well as gpgv.
        let generate = [
            "--batch",
            "--quiet",
            "--passphrase",
            "",
            "--quick-gen-key",
            "Test <test@example.invalid>",
            "rsa2048",
            "sign",
            "never",
        ];
        run("gpg", &[&["--homedir", &home][..], &generate].concat());
        run(
            "gpg",
            &["--homedir", &home, "--batch", "--yes", "--armor", "--output", &format!("{home}/key.asc"), "--export"],
        );
    }

    /// Builds packages into the repository, payload packed as `payload` says.
    pub(crate) fn build(&self, pieces: &[Piece<'_>], payload: &str) {
        let mut spec = "Name: yard\nVersion: 1\nRelease: 1\nSummary: x\nLicense: MIT\n%description\nx\n".to_owned();
        let mut install = String::from("%install\n");
        for (name, version, lines, files) in pieces {
            let (version, release) = version.rsplit_once('-').unwrap();
            let (epoch, version) = version.split_once(':').map_or(("0", version), |(epoch, version)| (epoch, version));
            writeln!(
                spec,
                "%package -n {name}\nEpoch: {epoch}\nVersion: {version}\nRelease: {release}\nSummary: x\nAutoReqProv: no"
            )
            .unwrap();
            for line in *lines {
                writeln!(spec, "{line}").unwrap();
            }
            writeln!(spec, "%description -n {name}\nx\n%files -n {name}").unwrap();
            for (path, content) in *files {
                writeln!(spec, "\"{path}\"").unwrap();
                writeln!(
                    install,
                    "mkdir -p \"%{{buildroot}}$(dirname '{path}')\"\nprintf '%%s' '{content}' > '%{{buildroot}}{path}'\nchmod 755 '%{{buildroot}}{path}'"
                )
                .unwrap();
            }
        }
        self.workshop.write("yard.spec", format!("{spec}{install}").as_bytes());
        let define = |name: &str, value: &str| ["--define".to_owned(), format!("{name} {value}")];
        let top = self.text_path("rpmbuild");
        let defines = [
            define("_topdir", &top),
            define("_rpmdir", &self.text_path("repo")),
            define("_rpmfilename", "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm"),
            define("_binary_payload", payload),
            define("debug_package", "%{nil}"),
            define("__os_install_post", "%{nil}"),
            define("_build_id_links", "none"),
        ];
        let spec = self.text_path("yard.spec");
        let mut arguments: Vec<&str> = vec!["-bb", "--quiet", "--target", "x86_64"];
        arguments.extend(defines.iter().flatten().map(String::as_str));
        arguments.push(&spec);
        run("rpmbuild", &arguments);
    }

    /// Makes the index anew.
    pub(crate) fn publish(&self, revision: u64, more: &[&str]) {
        let (repo, revision) = (self.text_path("repo"), revision.to_string());
        let mut arguments = vec!["--quiet", "--no-database", "--revision", &revision];
        arguments.extend(more);
        arguments.push(&repo);
        run("createrepo_c", &arguments);
    }

    /// Signs repomd.xml with a key.
    pub(crate) fn sign_index(&self, home: &str) {
        let index = self.text_path("repo/repodata/repomd.xml");
        let signature = format!("{index}.asc");
        run(
            "gpg",
            &[
                "--homedir",
                &self.text_path(home),
                "--batch",
                "--yes",
                "--quiet",
                "--armor",
                "--output",
                &signature,
                "--detach-sign",
                &index,
            ],
        );
    }

    /// Signs a package with a key.
    pub(crate) fn sign_package(&self, home: &str, package: &str) {
        let path = format!("_gpg_path {}", self.text_path(home));
        run(
            "rpmsign",
            &[
                "--define",
                &path,
                "--define",
                "_gpg_name Test",
                "--define",
                "__gpg /usr/bin/gpg",
                "--addsign",
                &self.text_path(package),
            ],
        );
    }

    /// The `.repo` file.
    pub(crate) fn repo_file(&self, more: &str, with_key: bool) {
        let key = if with_key { format!("gpgkey=file://{}\n", self.text_path("gpg/key.asc")) } else { String::new() };
        let text = format!("[base]\nname=x\nbaseurl=file://{}\n{key}{more}", self.text_path("repo"));
        self.workshop.write("test.repo", text.as_bytes());
    }

    /// `builder COMMAND el.toml` with the `.repo` file and a cache.
    pub(crate) fn builder(&self, command: &str) -> assert_cmd::Command {
        let mut builder = plain();
        builder.current_dir(self.workshop.path(""));
        builder.args([command, "el.toml", "--rpm-repos", "test.repo", "--cache", "cache", "--retries", "0"]);
        builder
    }

    pub(crate) fn lock(&self) -> Assert {
        self.builder("lock").assert()
    }

    pub(crate) fn lock_text(&self) -> String {
        fs_err::read_to_string(self.workshop.path("el.lock")).unwrap()
    }

    pub(crate) fn build_bundle(&self) -> Assert {
        self.builder("build").args(["--installer", "installer.bin", "--out", "dist"]).assert()
    }

    /// Locking fails, saying this.
    pub(crate) fn assert_refused(&self, says: &str) {
        let text = stderr(&self.lock().failure());
        assert!(text.contains(says), "{text}");
    }

    /// Path of a file of the index, by the end of its name.
    pub(crate) fn metadata(&self, end: &str) -> PathBuf {
        let entries = fs_err::read_dir(self.workshop.path("repo/repodata")).unwrap();
        entries.map(|entry| entry.unwrap().path()).find(|path| path.to_str().unwrap().ends_with(end)).unwrap()
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        for home in ["gpg", "gpg-other"] {
            let _ =
                Command::new("gpgconf").arg("--homedir").arg(self.workshop.path(home)).args(["--kill", "all"]).status();
        }
    }
}
