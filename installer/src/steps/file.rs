//! A file as it should be, for steps that write a few of them.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::host::Host;
use crate::step::{Change, Target};

/// A file as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedFile {
    /// Where.
    pub path: PathBuf,
    /// What it holds.
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

impl WantedFile {
    /// A file that everybody may read.
    pub fn public(path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), bytes: bytes.into(), mode: 0o644 }
    }

    /// A file for root only.
    pub fn private(path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), bytes: bytes.into(), mode: 0o600 }
    }

    /// The change that would be made; `None` when it is already so.
    pub fn change(&self, host: &Host) -> Result<Option<Change>> {
        Ok((!host.has(&self.path, &self.bytes, self.mode)?).then(|| writing(&self.path, &self.bytes)))
    }

    /// Writes it when it is not already so; tells whether it did.
    pub fn write(&self, host: &Host) -> Result<bool> {
        if host.has(&self.path, &self.bytes, self.mode)? {
            return Ok(false);
        }
        host.write(&self.path, &self.bytes, self.mode)?;
        Ok(true)
    }

    /// For [`crate::step::Step::touches`].
    pub fn target(&self) -> Target {
        Target::File(self.path.clone())
    }
}

/// `write /etc/crictl.yaml (112 B)`
pub fn writing(path: &Path, bytes: &[u8]) -> Change {
    Change::new(format!("write {} ({})", path.display(), size(bytes.len() as u64)))
}

/// A size as people read it: `112 B`, `1.4 KiB`, `23.0 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = bytes.saturating_mul(10) / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1434), "1.4 KiB");
        assert_eq!(size(23 << 20), "23.0 MiB");
        assert_eq!(size(5 << 40), "5.0 TiB");
    }
}
