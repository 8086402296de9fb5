//! `builder lock`: manifest → lock.

use serde_json::json;

use crate::cache;
use crate::cli::LockArgs;
use crate::failure::Failure;
use crate::lock::Lock;
use crate::manifest::Manifest;
use crate::output::Output;
use crate::resolve;
use crate::session::Session;

/// Resolves and writes, or with `--check` only compares.
pub(super) fn run(args: &LockArgs, output: &Output) -> anyhow::Result<()> {
    let manifest = Manifest::read(&args.manifest)?;
    let path = manifest.lock_path();
    if args.check {
        let (lock, _) = Lock::read(&path)?;
        lock.check_fits(&manifest)?;
        return complete(&lock, output);
    }
    let before = if path.exists() { Some(Lock::read(&path)?.0) } else { None };
    let session = Session::new(&args.network, output)?;
    let lock = resolve::resolve(&manifest, before.as_ref(), &session)?;
    let bytes = lock.to_bytes()?;
    for line in changes(before.as_ref(), &lock) {
        output.event("locked", &line);
    }
    if fs_err::read(&path).ok().as_deref() == Some(&bytes) {
        output.result(&format!("{} is current", path.display()));
    } else {
        cache::write_atomic(&path, &bytes, 0o644)?;
        output.result(&format!("wrote {}", path.display()));
    }
    let unresolved = lock.unresolved();
    for entry in &unresolved {
        output.warning(&format!("unresolved: {entry}"));
    }
    output.result_json(&json!({ "lock": path, "unresolved": unresolved }));
    Ok(())
}

fn complete(lock: &Lock, output: &Output) -> anyhow::Result<()> {
    let unresolved = lock.unresolved();
    output.result_json(&json!({ "unresolved": unresolved }));
    if unresolved.is_empty() {
        output.result("the lock fits its manifest and is complete");
        return Ok(());
    }
    for entry in &unresolved {
        output.result(&format!("unresolved: {entry}"));
    }
    Err(Failure::new(format!("{} entries of the lock are not resolved", unresolved.len()))
        .hint("run `builder lock` where they can be reached")
        .into())
}

/// One line for every artifact that is new or has changed.
fn changes(before: Option<&Lock>, after: &Lock) -> Vec<String> {
    let known: Vec<_> = before.into_iter().flat_map(Lock::entries).collect();
    let new = after.entries().filter(|entry| !known.contains(entry));
    new.map(|(component, architecture, artifact)| format!("{component} ({architecture}): {}", artifact.url)).collect()
}
