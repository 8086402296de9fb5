//! A signed apt archive in a directory: Packages by dpkg-scanpackages, InRelease by gpg with a key of its own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process::Process;
use crate::signer::Signer;

/// Name of its one suite.
pub const SUITE: &str = "local";

/// The archive.
#[derive(Debug)]
pub struct AptArchive {
    directory: PathBuf,
    signer: Signer,
}

impl AptArchive {
    /// An empty archive and its key, in a directory of its own.
    pub fn new(directory: &Path) -> Result<Self> {
        let archive = Self { signer: Signer::new(&directory.join("gpg"))?, directory: directory.to_owned() };
        fs_err::create_dir_all(archive.pool())?;
        archive.signer.export(&archive.keyring())?;
        Ok(archive)
    }

    fn keyring(&self) -> PathBuf {
        self.directory.join("keyring.gpg")
    }

    /// Where packages lie.
    pub fn pool(&self) -> PathBuf {
        self.directory.join("pool")
    }

    /// Adds a copy of a package under this name.
    pub fn add(&self, package: &Path, name: &str) -> Result<()> {
        fs_err::copy(package, self.pool().join(name))?;
        Ok(())
    }

    /// Writes and signs the indexes of what is in the pool.
    pub fn publish(&self) -> Result<()> {
        let scanned = Process::new("dpkg-scanpackages")
            .args(["--multiversion", "pool"])
            .directory(&self.directory)
            .run()
            .context("indexing the pool (scripts/prerequisites.sh installs dpkg-dev)")?;
        let suite = self.directory.join("dists").join(SUITE);
        let index = suite.join("main/binary-amd64/Packages");
        fs_err::create_dir_all(index.parent().context("the index has a directory")?)?;
        fs_err::write(&index, &scanned.stdout)?;
        Process::new("gzip").args(["--force", "--keep", "--no-name"]).arg(&index).run()?;
        let date = Process::new("date").args(["--utc", "+%a, %d %b %Y %H:%M:%S UTC"]).env("LC_ALL", "C").text()?;
        let mut release = format!(
            "Origin: Test\nSuite: {SUITE}\nCodename: {SUITE}\nDate: {date}\nArchitectures: amd64\nComponents: main\nSHA256:\n"
        );
        for name in ["Packages", "Packages.gz"] {
            let path = format!("main/binary-amd64/{name}");
            let bytes = fs_err::read(suite.join(&path))?;
            writeln!(release, " {} {} {path}", bundle::Digest::of(&bytes).hex(), bytes.len())?;
        }
        fs_err::write(suite.join("Release"), release)?;
        self.signer.sign_text(&suite.join("Release"), &suite.join("InRelease"))?;
        Ok(())
    }

    /// An apt sources file that names it.
    pub fn sources(&self) -> Result<PathBuf> {
        let path = self.directory.join("local.sources");
        let (place, keyring) = (self.directory.display(), self.keyring());
        let text = format!(
            "Types: deb\nURIs: file:{place}\nSuites: {SUITE}\nComponents: main\nSigned-By: {}\n",
            keyring.display()
        );
        fs_err::write(&path, text)?;
        Ok(path)
    }
}
