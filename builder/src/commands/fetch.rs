//! `builder fetch`: everything a lock names comes into the cache.

use std::collections::{BTreeMap, BTreeSet};

use bundle::{Architecture, Digest};

use crate::cli::FetchArgs;
use crate::failure::Failure;
use crate::fit;
use crate::lock::{Lock, Resolved};
use crate::manifest::Manifest;
use crate::output::{Output, bytes};
use crate::session::Session;

/// Fetches and verifies.
pub(super) fn run(args: &FetchArgs, output: &Output) -> anyhow::Result<()> {
    let manifest = Manifest::read(&args.manifest)?;
    let (lock, _) = Lock::read(&manifest.lock_path())?;
    fit::check(&manifest, &lock)?;
    let mut artifacts: Vec<Resolved> = Vec::new();
    let mut images: BTreeMap<Architecture, BTreeSet<Resolved>> = BTreeMap::new();
    for (component, architecture, artifact) in
        lock.entries().filter(|(_, architecture, _)| args.arch.is_none_or(|arch| arch == *architecture))
    {
        let unresolved = |reason| {
            Failure::new(format!("`{component}` ({architecture}) is not resolved: {}: {reason}", artifact.url))
        };
        let resolved = artifact.resolved().map_err(unresolved)?;
        if resolved.reference().is_some() {
            images.entry(architecture).or_default().insert(resolved);
        } else {
            artifacts.push(resolved);
        }
    }
    artifacts.sort();
    artifacts.dedup();
    let session = Session::new(&args.network, output)?;
    let fetched = session.fetch(&artifacts, &manifest)?;
    // By digest: what images and architectures share is one blob.
    let mut files: BTreeMap<Digest, u64> = fetched.iter().map(|file| (file.sha256, file.size)).collect();
    let count = fetched.len() + images.values().flatten().collect::<BTreeSet<_>>().len();
    for (architecture, images) in images {
        let images: Vec<Resolved> = images.into_iter().collect();
        for image in session.fetch_images(&images, architecture)? {
            files.extend(image.metadata.iter().map(|bytes| (Digest::of(bytes), bytes.len() as u64)));
            files.extend(image.blobs.iter().map(|blob| (blob.digest, blob.size)));
        }
    }
    let total = crate::output::total(files.values().copied());
    output.result(&format!("{count} artifacts ({}) are in the cache and verified", bytes(total)));
    output.result_json(&serde_json::json!({ "artifacts": count, "bytes": total }));
    Ok(())
}
