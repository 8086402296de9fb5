//! `/usr/sbin/policy-rc.d`: while packages are installed it forbids their scripts to start, stop or restart services
//! (invoke-rc.d(8), deb-systemd-invoke(1p)).
//!
//! An operator's own one is kept aside and put back, also by the next run or by `reset` when this one dies.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::host::Host;
use crate::journal::BeforeImage;
use crate::step::Target;

/// Asked by the scripts of packages before they touch a service; exit code 101: "action forbidden by policy".
pub const POLICY: &str = "/usr/sbin/policy-rc.d";
/// How it was before, as a before-image.
const ASIDE: &str = "/var/lib/sealift/policy-rc.d.json";
const OURS: &str = "#!/bin/sh\n# Put here by Sealift while it installs packages, taken away afterwards.\nexit 101\n";

/// Whether an installation that died left ours in place.
pub fn is_left(host: &Host) -> Result<bool> {
    Ok(is_ours(host)? || host.exists(Path::new(ASIDE))?)
}

fn is_ours(host: &Host) -> Result<bool> {
    Ok(host.read(Path::new(POLICY))?.as_deref() == Some(OURS.as_bytes()))
}

/// Puts ours in place.
pub(crate) fn forbid(host: &Host) -> Result<()> {
    let path = Path::new(POLICY);
    if !is_ours(host)? {
        let image = BeforeImage::capture(host, &Target::File(path.to_owned()))
            .with_context(|| format!("keeping `{POLICY}` aside"))?;
        host.write(Path::new(ASIDE), &serde_json::to_vec(&image)?, 0o600)?;
    }
    host.write(path, OURS.as_bytes(), 0o755)
}

/// Puts back what was there before ours; nothing when ours is not there.
pub fn put_back(host: &Host) -> Result<()> {
    let (path, aside) = (Path::new(POLICY), Path::new(ASIDE));
    host.sweep_beside(path)?;
    if is_ours(host)? {
        let image = match host.read(aside)? {
            Some(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| format!("reading how `{POLICY}` was in `{ASIDE}`"))?
            }
            None => BeforeImage::Absent,
        };
        image.restore(host, &Target::File(path.to_owned())).with_context(|| format!("putting `{POLICY}` back"))?;
    }
    host.remove(aside)
}
