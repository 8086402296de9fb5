//! A throwaway OpenPGP key, as archives and repositories sign their indexes with.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::process::Process;

/// The key, in a GnuPG home of its own.
#[derive(Debug)]
pub struct Signer {
    home: PathBuf,
}

impl Signer {
    /// Makes a key in `home`.
    pub fn new(home: &Path) -> Result<Self> {
        fs_err::create_dir_all(home)?;
        Process::new("chmod").arg("0700").arg(home).run()?;
        let signer = Self { home: home.to_owned() };
        let key = ["--passphrase", "", "--quick-gen-key", "Test <test@example.invalid>", "ed25519", "sign", "never"];
        signer.gpg().args(key).run()?;
        Ok(signer)
    }

    fn gpg(&self) -> Process {
        Process::new("gpg").arg("--homedir").arg(&self.home).args(["--batch", "--yes", "--quiet"])
    }

    /// Writes the public key, as a keyring.
    pub fn export(&self, to: &Path) -> Result<()> {
        self.gpg().arg("--output").arg(to).arg("--export").run()?;
        Ok(())
    }

    /// Writes the public key as text.
    pub fn export_text(&self, to: &Path) -> Result<()> {
        self.gpg().arg("--armor").arg("--output").arg(to).arg("--export").run()?;
        Ok(())
    }

    /// Writes a copy of a text with a signature around it.
    pub fn sign_text(&self, text: &Path, to: &Path) -> Result<()> {
        self.gpg().arg("--clearsign").arg("--output").arg(to).arg(text).run()?;
        Ok(())
    }

    /// Writes `FILE.asc` beside a file.
    pub fn sign_beside(&self, file: &Path) -> Result<()> {
        self.gpg().args(["--armor", "--detach-sign"]).arg(file).run()?;
        Ok(())
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        // The agent that gpg started for this key.
        let _ = Process::new("gpgconf").arg("--homedir").arg(&self.home).args(["--kill", "all"]).run();
    }
}
