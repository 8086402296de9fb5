//! `[packages.…]` and `[kernel.…]` → components `packages-DISTRIBUTION` and `kernel-DISTRIBUTION`: closures against the base.

use std::collections::BTreeMap;

use bundle::ComponentName;

use crate::failure::Failure;
use crate::lock::{AptProof, Lock, LockedComponent, RpmProof};
use crate::manifest::Manifest;
use crate::session::Session;

/// The components made of the manifest's packages and kernels; what vouched for them is added to `apt` and `rpm`.
pub(super) fn resolve(
    manifest: &Manifest,
    _before: Option<&Lock>,
    _session: &Session,
    _apt: &mut BTreeMap<String, AptProof>,
    _rpm: &mut BTreeMap<String, RpmProof>,
) -> anyhow::Result<BTreeMap<ComponentName, LockedComponent>> {
    let release = &manifest.release;
    if let Some(distribution) = release.packages.keys().chain(release.kernels.keys()).next() {
        return Err(Failure::new(format!("packages for `{distribution}` cannot be resolved yet")).into());
    }
    Ok(BTreeMap::new())
}
