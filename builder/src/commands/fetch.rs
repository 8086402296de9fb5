//! `builder fetch`: everything a lock names comes into the cache.

use crate::cli::FetchArgs;
use crate::failure::Failure;
use crate::lock::{Lock, Resolved};
use crate::manifest::Manifest;
use crate::output::{Output, bytes};
use crate::session::Session;

/// Fetches and verifies.
pub(super) fn run(args: &FetchArgs, output: &Output) -> anyhow::Result<()> {
    let manifest = Manifest::read(&args.manifest)?;
    let (lock, _) = Lock::read(&manifest.lock_path())?;
    lock.check_fits(&manifest)?;
    let mut artifacts: Vec<Resolved> = Vec::new();
    for (component, architecture, artifact) in
        lock.entries().filter(|(_, architecture, _)| args.arch.is_none_or(|arch| arch == *architecture))
    {
        let unresolved = |reason| {
            Failure::new(format!("`{component}` ({architecture}) is not resolved: {}: {reason}", artifact.url))
        };
        artifacts.push(artifact.resolved().map_err(unresolved)?);
    }
    artifacts.sort();
    artifacts.dedup();
    let session = Session::new(&args.network, output)?;
    let fetched = session.fetch(&artifacts, manifest.directory())?;
    let total: u64 = fetched.iter().map(|file| file.size).sum();
    output.result(&format!("{} artifacts ({}) are in the cache and verified", fetched.len(), bytes(total)));
    output.result_json(&serde_json::json!({ "artifacts": fetched.len(), "bytes": total }));
    Ok(())
}
