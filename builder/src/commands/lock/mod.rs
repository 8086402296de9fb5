//! `builder lock`: manifest → lock.

mod check;
mod update;

use std::path::Path;

use serde_json::json;

use crate::cache;
use crate::cli::LockArgs;
use crate::difference::{Change, Difference, differences};
use crate::lock::Lock;
use crate::manifest::Manifest;
use crate::output::Output;
use crate::resolve;
use crate::session::Session;

/// Resolves and writes; with `--check` only compares, with `--update` moves only what is named.
pub(super) fn run(args: &LockArgs, output: &Output) -> anyhow::Result<()> {
    let manifest = Manifest::read(&args.manifest)?;
    if args.check {
        return check::run(args, &manifest, output);
    }
    let path = manifest.lock_path();
    let session = Session::new(&args.network, output)?;
    let before = if path.exists() { Some(Lock::read(&path)?.0) } else { None };
    let after = if args.update.is_empty() {
        resolve::resolve(&manifest, before.as_ref(), &session)?
    } else {
        let (before, _) = Lock::read(&path)?;
        update::updated(&manifest, &before, &args.update, &session)?
    };
    write(&path, before.as_ref(), &after, output)
}

/// Writes the lock if it is another than before, and shows what is other.
fn write(path: &Path, before: Option<&Lock>, after: &Lock, output: &Output) -> anyhow::Result<()> {
    let bytes = after.to_bytes()?;
    let differences = differences(before, after);
    // What is new and open is said below, with the reason.
    let open = |one: &&Difference| one.change == Change::New && one.fields.contains_key("unresolved");
    show(differences.iter().filter(|one| !open(one)), output);
    for first_use in before.iter().flat_map(|before| differences.iter().filter(|one| one.replaces_first_use(before))) {
        let what = first_use.artifact.as_deref().unwrap_or_default();
        output.warning(&format!(
            "`{what}` now has another digest than at its first use, and nothing but the download vouches for either: \
             compare with a second source before you commit the lock"
        ));
    }
    if fs_err::read(path).ok().as_deref() == Some(&bytes) {
        output.result(&format!("{} is current", path.display()));
    } else {
        cache::write_atomic(path, &bytes, 0o644)?;
        output.result(&format!("wrote {}", path.display()));
    }
    let unresolved = after.unresolved();
    for entry in &unresolved {
        output.warning(&format!("unresolved: {entry}"));
    }
    output.result_json(&json!({ "lock": path, "differences": differences, "unresolved": unresolved }));
    Ok(())
}

/// Shows differences: to people as lines, to programs in the result's JSON.
fn show<'a>(differences: impl IntoIterator<Item = &'a Difference>, output: &Output) {
    for line in differences.into_iter().flat_map(Difference::lines) {
        output.result(&line);
    }
}
