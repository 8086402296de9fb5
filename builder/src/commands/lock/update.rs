//! `builder lock --update NAME`: only what is named moves; everything else stays as it was, byte for byte.

use std::collections::BTreeSet;

use bundle::{Architecture, ComponentName};

use crate::failure::Failure;
use crate::fit;
use crate::glob;
use crate::lock::{Lock, LockedArtifact, LockedComponent};
use crate::manifest::Manifest;
use crate::resolve;
use crate::session::Session;

/// The lock with the named components resolved anew. Indexes they were found in are recorded as they are now.
pub(super) fn updated(
    manifest: &Manifest,
    before: &Lock,
    asked_for: &[ComponentName],
    session: &Session,
) -> anyhow::Result<Lock> {
    let named: BTreeSet<ComponentName> = asked_for.iter().cloned().collect();
    let wanted = fit::wanted(manifest);
    if let Some(unknown) = named.iter().find(|name| !wanted.contains(*name) && !before.component.contains_key(*name)) {
        let known: BTreeSet<&str> = wanted.iter().chain(before.component.keys()).map(ComponentName::as_str).collect();
        let near = glob::near_misses(unknown.as_str(), known.iter().copied());
        let list = if near.is_empty() { known.into_iter().collect() } else { near };
        let failure = Failure::usage(format!("neither manifest nor lock has a component `{unknown}`"));
        return Err(failure.hint(format!("there is {}", list.join(", "))).into());
    }
    // An image that another addon needs, too, stays as it is unless it is named itself.
    let moving: BTreeSet<ComponentName> = named.union(&fit::images(before, &named)).cloned().collect();
    let others: Vec<String> = fit::misfits(manifest, before)
        .into_iter()
        .filter(|(name, _)| !moving.contains(name))
        .map(|(name, wrong)| format!("{name} {wrong}"))
        .collect();
    if !others.is_empty() {
        let text = format!("the manifest changed for other components, too:\n    {}", others.join("\n    "));
        let hint = format!("name them with `--update`, too, or run `builder lock {}`", manifest.path.display());
        return Err(Failure::new(text).hint(hint).into());
    }

    // An image is found by resolving the addons that need it.
    let needs = |name: &ComponentName| {
        let mut entries = before.component.get(name).into_iter().flat_map(|image| image.artifacts.values().flatten());
        let reference = entries.find_map(|artifact| artifact.url.strip_prefix("image:"));
        let addons = before.component.iter().filter(move |(_, addon)| {
            reference.is_some_and(|reference| addon.images.iter().any(|image| image == reference))
        });
        addons.map(|(addon, _)| addon.clone())
    };
    let asked: BTreeSet<ComponentName> = named.iter().cloned().chain(named.iter().flat_map(needs)).collect();
    let mut known = before.clone();
    known.component.retain(|name, _| !moving.contains(name));
    let found = resolve::resolve(&fit::narrowed(manifest, &asked), Some(&known), session)?;
    let lost = |(name, _, artifact): &(&ComponentName, Architecture, &LockedArtifact)| {
        let was = before.component.get(*name).is_some_and(is_complete);
        was && artifact.resolved().is_err()
    };
    if let Some((name, _, artifact)) = found.entries().find(lost) {
        let reason = artifact.resolved().err().unwrap_or_default();
        return Err(Failure::new(format!("`{name}` cannot be moved: {}: {reason}", artifact.url))
            .hint("the lock stays as it is; try again where upstream can be reached")
            .into());
    }

    let mut after = before.clone();
    (after.name, after.version) = (found.name, found.version);
    (after.manifest, after.level) = (found.manifest, found.level);
    after.apt.extend(found.apt);
    after.rpm.extend(found.rpm);
    after.component.retain(|name, _| !moving.contains(name));
    let is_new = |name: &ComponentName| moving.contains(name) || !before.component.contains_key(name);
    after.component.extend(found.component.into_iter().filter(|(name, _)| is_new(name)));
    drop_orphans(&mut after);
    Ok(after)
}

fn is_complete(component: &LockedComponent) -> bool {
    component.artifacts.values().flatten().all(|artifact| artifact.resolved().is_ok())
}

/// Takes out images that no addon needs.
fn drop_orphans(lock: &mut Lock) {
    let needed: BTreeSet<String> =
        lock.component.values().flat_map(|addon| addon.images.iter().map(|image| format!("image:{image}"))).collect();
    lock.component.retain(|name, component| {
        let mut artifacts = component.artifacts.values().flatten();
        !name.as_str().starts_with("image-") || artifacts.any(|artifact| needed.contains(&artifact.url))
    });
}
