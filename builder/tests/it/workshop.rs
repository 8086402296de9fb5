//! A small release in a temporary directory: manifest, recipes, artifacts, cache, and the program `builder` to run on it.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use bundle::Digest;

/// The directory and what is in it.
pub(crate) struct Workshop {
    directory: tempfile::TempDir,
}

/// A file of an archive.
pub(crate) enum Piece<'a> {
    /// Content.
    File(&'a [u8]),
    /// Symbolic link.
    Link(&'a str),
}

/// A .tar.gz with these members; names are written as they are, however hostile.
pub(crate) fn tar_gz(pieces: &[(&str, Piece<'_>)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, piece) in pieces {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(0o600);
        let content: &[u8] = match piece {
            Piece::File(content) => content,
            Piece::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
                &[]
            }
        };
        header.set_size(content.len() as u64);
        header.set_cksum();
        archive.append(&header, content).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

/// Bytes that compress somewhat, different for each seed.
pub(crate) fn bytes(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0] & 0x3f
    };
    (0..length).map(|_| next()).collect()
}

/// A package with these files, as `dpkg-deb` makes it.
pub(crate) fn deb(name: &str, version: &str, architecture: &str, files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let control = format!("Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nDescription: x\n");
    let control = tar_gz(&[("./control", Piece::File(control.as_bytes()))]);
    let names: Vec<String> = files.iter().map(|(path, _)| format!(".{path}")).collect();
    let pieces: Vec<_> =
        names.iter().zip(files).map(|(name, (_, content))| (name.as_str(), Piece::File(content))).collect();
    let mut package = ar::Builder::new(Vec::new());
    for (name, content) in
        [("debian-binary", b"2.0\n".to_vec()), ("control.tar.gz", control), ("data.tar.gz", tar_gz(&pieces))]
    {
        let mut header = ar::Header::new(name.into(), content.len() as u64);
        header.set_mode(0o100_644);
        package.append(&header, content.as_slice()).unwrap();
    }
    package.into_inner().unwrap()
}

impl Workshop {
    /// Two programs out of one archive, a container and a package; everything by digest.
    pub(crate) fn new(size: usize) -> Self {
        let workshop = Self { directory: tempfile::tempdir().unwrap() };
        let (alpha, beta) = (bytes(1, size), bytes(2, size));
        let archive = tar_gz(&[
            ("./pkg/bin/alpha", Piece::File(&alpha)),
            ("./pkg/bin/beta-1.0", Piece::File(&beta)),
            ("./pkg/bin/beta", Piece::Link("beta-1.0")),
        ]);
        workshop.write("release/server.tar.gz", &archive);
        workshop.write("release/shell", b"#!static");
        workshop.write("release/tool_1.0-1_amd64.deb", &deb("tool", "1.0-1", "amd64", &[]));
        let digest = |name: &str| Digest::of(&fs_err::read(workshop.path(name)).unwrap()).hex();
        let manifest = format!(
            r#"name = "demo"
version = "1.0-1"
sequence = 3
created = "2026-11-21"
architectures = ["amd64"]

[component.alpha]
version = "1.0"
[[component.alpha.artifact]]
url = "https://upstream.invalid/v{{version}}/server.tar.gz"
sha256 = {{ amd64 = "{0}" }}
files = [{{ from = "pkg/bin/alpha", to = "bin/alpha", mode = "0755" }}]

[component.beta]
version = "1.0"
[[component.beta.artifact]]
url = "https://upstream.invalid/v{{version}}/server.tar.gz"
sha256 = {{ amd64 = "{0}" }}
files = [{{ from = "pkg/*/beta", to = "bin/beta", mode = "0755" }}]

[component.shell]
version = "2"
[[component.shell.artifact]]
file = "shell"
trust = "first-use"
files = [{{ from = "shell", to = "bin/shell", mode = "0755" }}]

[component.tools]
version = "1.0"
[[component.tools.artifact]]
file = "tool_1.0-1_amd64.deb"
sha256 = {{ amd64 = "{1}" }}
"#,
            digest("release/server.tar.gz"),
            digest("release/tool_1.0-1_amd64.deb"),
        );
        workshop.write("release/demo.toml", manifest.as_bytes());
        let head = |name: &str, kind: &str| {
            format!(
                "name = \"{name}\"\ndescription = \"x\"\nkind = \"{kind}\"\nroles = [\"worker\", \"master\"]\nlicence = \"MIT\"\n"
            )
        };
        let template = "\n[[template]]\nfile = \"alpha.service.j2\"\nname = \"alpha.service\"\nkind = \"unit\"\n";
        workshop.write(
            "release/components/alpha/component.toml",
            format!("{}programs = [\"bin/alpha\"]\n{template}", head("alpha", "program")).as_bytes(),
        );
        workshop
            .write("release/components/alpha/alpha.service.j2", b"ExecStart={{ program(\"beta\", \"bin/beta\") }}\n");
        workshop.write(
            "release/components/beta/component.toml",
            format!("{}programs = [\"bin/beta\"]\n", head("beta", "program")).as_bytes(),
        );
        let container = "links = { \"bin/sh\" = \"shell\" }\n[container]\nreference = \"sealift.invalid/shell:{version}\"\nentrypoint = [\"/bin/sh\"]\n";
        workshop.write(
            "release/components/shell/component.toml",
            format!("{}{container}", head("shell", "container")).as_bytes(),
        );
        workshop.write("release/components/tools/component.toml", head("tools", "packages").as_bytes());
        workshop.write("installer.bin", b"#!/bin/sh\necho installer\n");
        workshop
    }

    /// A path inside.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file, making its directories.
    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        let path = self.path(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, content).unwrap();
    }

    /// Replaces text in a file.
    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs_err::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{from} is not in {name}");
        self.write(name, text.replace(from, to).as_bytes());
    }

    /// `builder` with this workshop's cache and mirror, for commands that need artifacts.
    pub(crate) fn builder(&self, command: &str) -> Command {
        let mut builder = plain();
        builder.current_dir(self.directory.path()).arg(command);
        builder.arg("--cache").arg(self.path("cache")).args(["--retries", "0"]);
        builder
            .arg("--mirror")
            .arg(format!("https://upstream.invalid/v1.0/=file://{}/", self.path("release").display()));
        builder
    }

    /// `lock`.
    pub(crate) fn lock(&self) -> assert_cmd::assert::Assert {
        self.builder("lock").arg("release/demo.toml").assert()
    }

    /// `build` into `out`.
    pub(crate) fn build(&self, out: &str) -> Command {
        let mut build = self.builder("build");
        build.args(["release/demo.toml", "--installer", "installer.bin", "--out", out]);
        build
    }

    /// Path of the bundle in `out`.
    pub(crate) fn bundle(&self, out: &str) -> PathBuf {
        self.path(out).join("demo-1.0-1-amd64.bundle")
    }
}

/// The program without arguments, in a clean environment.
pub(crate) fn plain() -> Command {
    let mut builder = Command::cargo_bin("builder").unwrap();
    builder.env_clear();
    builder
}

/// Standard error of a finished command.
pub(crate) fn stderr(assert: &assert_cmd::assert::Assert) -> String {
    String::from_utf8(assert.get_output().stderr.clone()).unwrap()
}

/// Standard output of a finished command.
pub(crate) fn stdout(assert: &assert_cmd::assert::Assert) -> String {
    String::from_utf8(assert.get_output().stdout.clone()).unwrap()
}

/// Files of a directory, sorted; empty if it is not there.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs_err::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
