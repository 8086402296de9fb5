//! `[addon.…]` → components `addon-NAME` and `image-…`.

use std::collections::BTreeMap;

use bundle::ComponentName;

use crate::failure::Failure;
use crate::lock::{Lock, LockedComponent};
use crate::manifest::Manifest;
use crate::session::Session;

/// The components made of the manifest's addons.
pub(super) fn resolve(
    manifest: &Manifest,
    _before: Option<&Lock>,
    _session: &Session,
) -> anyhow::Result<BTreeMap<ComponentName, LockedComponent>> {
    if let Some(name) = manifest.release.addons.keys().next() {
        return Err(Failure::new(format!("addon `{name}` cannot be resolved yet")).into());
    }
    Ok(BTreeMap::new())
}
