//! Debian packages made here with dpkg-deb.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process::Process;

/// A package to build, of architecture `all`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Package<'a> {
    /// Name.
    pub name: &'a str,
    /// Version.
    pub version: &'a str,
    /// More lines of its control file, such as `Depends: a (>= 1)`.
    pub lines: &'a [&'a str],
    /// Its files: path and content.
    pub files: &'a [(&'a str, &'a str)],
    /// Paths of those that are conffiles.
    pub conffiles: &'a [&'a str],
    /// Maintainer scripts: `postinst` and its text for sh.
    pub scripts: &'a [(&'a str, &'a str)],
}

impl Package<'_> {
    /// Builds it into `directory` as `NAME_VERSION_all.deb`.
    pub fn build(&self, directory: &Path) -> Result<PathBuf> {
        let tree = tempfile::tempdir()?;
        let control = tree.path().join("DEBIAN");
        fs_err::create_dir_all(&control)?;
        Process::new("chmod").args(["0755"]).arg(tree.path()).arg(&control).run()?;
        let Self { name, version, lines, .. } = self;
        let mut text =
            format!("Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: x <x@example.invalid>\n");
        for line in *lines {
            writeln!(text, "{line}")?;
        }
        text.push_str("Description: fixture\n");
        fs_err::write(control.join("control"), text)?;
        if !self.conffiles.is_empty() {
            fs_err::write(control.join("conffiles"), self.conffiles.join("\n") + "\n")?;
        }
        for (path, content) in self.files {
            let path = tree.path().join(path.trim_start_matches('/'));
            fs_err::create_dir_all(path.parent().context("a file has a directory")?)?;
            fs_err::write(path, content)?;
        }
        for (script, text) in self.scripts {
            let path = control.join(script);
            fs_err::write(&path, format!("#!/bin/sh\nset -e\n{text}\n"))?;
            Process::new("chmod").arg("0755").arg(&path).run()?;
        }
        let package = directory.join(format!("{name}_{version}_all.deb"));
        Process::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(tree.path()).arg(&package).run()?;
        Ok(package)
    }
}
