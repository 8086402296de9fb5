//! RPM packages made here with rpmbuild, and repositories of them made with createrepo_c.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::process::Process;

/// A package to build.
#[derive(Debug, Clone, Copy)]
pub struct Package<'a> {
    /// Name.
    pub name: &'a str,
    /// `[EPOCH:]VERSION-RELEASE`.
    pub version: &'a str,
    /// Lines of its preamble, such as `Requires: a >= 1`.
    pub lines: &'a [&'a str],
    /// Its files, each with its path as content; a path that ends in ` -> TARGET` is a symbolic link, one with ` = PATH` a hard link.
    pub files: &'a [&'a str],
}

/// Builds packages into `directory`, for `target` (`x86_64`), with a payload as rpm's `%_binary_payload` names it.
pub fn build(packages: &[Package<'_>], directory: &Path, target: &str, payload: &str) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut spec = "Name: all\nVersion: 1\nRelease: 1\nSummary: x\nLicense: MIT\n%description\nx\n".to_owned();
    let mut install = String::from("%install\n");
    for Package { name, version, lines, files } in packages {
        let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
        let (version, release) = rest.rsplit_once('-').unwrap_or((rest, "1"));
        writeln!(
            spec,
            "%package -n {name}\nEpoch: {epoch}\nVersion: {version}\nRelease: {release}\nSummary: x\nAutoReqProv: no\n{}\n\
             %description -n {name}\nx\n%files -n {name}",
            lines.join("\n")
        )?;
        for file in *files {
            let path = file.split(' ').next().unwrap_or(file);
            writeln!(spec, "{path}")?;
            writeln!(install, "mkdir -p %{{buildroot}}$(dirname {path})")?;
            match (file.split_once(" -> "), file.split_once(" = ")) {
                (Some((_, to)), _) => writeln!(install, "ln -s {to} %{{buildroot}}{path}")?,
                (_, Some((_, to))) => writeln!(install, "ln %{{buildroot}}{to} %{{buildroot}}{path}")?,
                _ => writeln!(install, "echo {path} > %{{buildroot}}{path}; chmod 755 %{{buildroot}}{path}")?,
            }
        }
    }
    let path = scratch.path().join("all.spec");
    fs_err::write(&path, spec + &install)?;
    let mut process = Process::new("rpmbuild").args(["-bb", "--quiet", "--target", target]);
    let defines = [
        format!("_topdir {}", scratch.path().display()),
        format!("_rpmdir {}", directory.display()),
        "_rpmfilename %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm".to_owned(),
        format!("_binary_payload {payload}"),
        "debug_package %{nil}".to_owned(),
        "__os_install_post %{nil}".to_owned(),
    ];
    for define in defines {
        process = process.args(["--define", &define]);
    }
    process.arg(path).run()?;
    Ok(())
}

/// Makes the metadata of a repository.
pub fn index(directory: &Path) -> Result<()> {
    Process::new("createrepo_c").args(["--quiet", "--no-database"]).arg(directory).run()?;
    Ok(())
}

/// A root directory with nothing but rpm's database, in which some packages count as installed.
#[derive(Debug)]
pub struct Root {
    directory: PathBuf,
}

impl Root {
    /// Notes packages, by file, as installed; nothing is unpacked.
    pub fn new(directory: &Path, installed: &[PathBuf]) -> Result<Self> {
        fs_err::create_dir_all(directory)?;
        let root = Self { directory: directory.to_owned() };
        root.rpm().args(["-i", "--justdb", "--nodeps"]).args(installed).run()?;
        Ok(root)
    }

    /// rpm with this root. Its database lies where Debian's rpm expects it.
    fn rpm(&self) -> Process {
        let rpm = Process::new("rpm").env("HOME", "/root").arg("--force-debian").arg("--ignorearch");
        rpm.arg("--root").arg(&self.directory)
    }

    /// Whether rpm would install these packages; if not, what it says.
    pub fn accepts(&self, packages: &[PathBuf]) -> Result<(), String> {
        let test = self.rpm().args(["-U", "--test", "--ignoresize"]).args(packages).finish();
        let test = test.map_err(|error| format!("{error:#}"))?;
        if test.success() { Ok(()) } else { Err(test.tail()) }
    }

    /// File names of what dnf would install for `names` out of the repositories in `directories`.
    pub fn dnf(&self, directories: &[PathBuf], names: &[&str], scratch: &Path) -> Result<Vec<String>> {
        let downloaded = scratch.join("downloaded");
        for part in ["log", "cache", "downloaded"] {
            fs_err::create_dir_all(scratch.join(part))?;
        }
        let mut dnf = Process::new("dnf").env("HOME", "/root").args(["--assumeyes", "--nogpgcheck", "--releasever=9"]);
        dnf = dnf.args(["--forcearch=x86_64", "--downloadonly", "--setopt=install_weak_deps=0"]);
        dnf = dnf.args(["--setopt=reposdir=/nonexistent", "--setopt=module_platform_id=platform:el9"]);
        for (option, path) in [("logdir", scratch.join("log")), ("cachedir", scratch.join("cache"))] {
            dnf = dnf.arg(format!("--setopt={option}={}", path.display()));
        }
        for (number, directory) in directories.iter().enumerate() {
            dnf = dnf.arg(format!("--repofrompath=repository{number},file://{}", directory.display()));
        }
        dnf = dnf.arg(format!("--installroot={}", self.directory.display()));
        dnf.arg(format!("--downloaddir={}", downloaded.display())).arg("install").args(names).run()?;
        let mut files = Vec::new();
        for entry in fs_err::read_dir(&downloaded)? {
            files.push(entry?.file_name().to_string_lossy().into_owned());
        }
        files.sort();
        Ok(files)
    }
}
