//! `builder lock --check`: is the lock current and complete? Nothing is written, no artifact is downloaded.

use std::collections::{BTreeMap, BTreeSet};

use bundle::ComponentName;
use serde_json::json;

use super::show;
use crate::cli::LockArgs;
use crate::difference::{Change, Difference, differences};
use crate::failure::Failure;
use crate::fit;
use crate::lock::Lock;
use crate::manifest::Manifest;
use crate::output::Output;
use crate::resolve;
use crate::session::Session;

/// Compares the lock with its manifest and, unless `--offline`, with what upstreams say today.
pub(super) fn run(args: &LockArgs, manifest: &Manifest, output: &Output) -> anyhow::Result<()> {
    let (lock, _) = Lock::read(&manifest.lock_path())?;
    let misfits = fit::misfits(manifest, &lock);
    let unresolved = lock.unresolved();
    let (stale, silent) = if args.network.offline {
        output.event("offline", "comparing with the manifest alone; upstreams are not asked");
        (Vec::new(), Vec::new())
    } else {
        upstream(manifest, &lock, &misfits, &Session::new(&args.network, output)?)?
    };

    for (name, wrong) in &misfits {
        output.result(&format!("the manifest changed: {name} {wrong}"));
    }
    let elsewhere = misfits.is_empty() && lock.check_fits(manifest).is_err();
    if elsewhere {
        output.result("the manifest changed since, but in nothing that the lock repeats");
    }
    show(&stale, output);
    for entry in &unresolved {
        output.result(&format!("unresolved: {entry}"));
    }
    for name in &silent {
        output.result(&format!("not compared: {name}: upstream was not reached"));
    }
    let current = misfits.is_empty() && !elsewhere && stale.is_empty() && unresolved.is_empty() && silent.is_empty();
    output.result_json(&json!({
        "current": current,
        "manifest_changed": !misfits.is_empty() || elsewhere,
        "misfits": misfits,
        "differences": stale,
        "unresolved": unresolved,
        "not_compared": silent,
    }));
    if current {
        output.result("the lock is current and complete");
        return Ok(());
    }
    let mut counts = Vec::new();
    let mut count = |number: usize, what: &str| {
        if number > 0 {
            counts.push(format!("{number} {what}"));
        }
    };
    count(misfits.len() + usize::from(elsewhere), "changed in the manifest");
    count(stale.len(), "changed upstream");
    count(unresolved.len(), "unresolved");
    count(silent.len(), "not compared");
    let moved: BTreeSet<&ComponentName> = stale.iter().map(|difference| &difference.component).collect();
    let path = manifest.path.display();
    let hint = match moved.first() {
        Some(name) if misfits.is_empty() && unresolved.is_empty() => {
            format!("`builder lock {path} --update {name}` moves one component, `builder lock {path}` what is open")
        }
        _ => format!("run `builder lock {path}` where upstreams can be reached, and look at the difference"),
    };
    Err(Failure::new(format!("the lock is not current: {}", counts.join(", "))).hint(hint).into())
}

/// What upstreams say otherwise than the lock, and the components that could not be asked for.
fn upstream(
    manifest: &Manifest,
    lock: &Lock,
    misfits: &BTreeMap<ComponentName, String>,
    session: &Session,
) -> anyhow::Result<(Vec<Difference>, Vec<ComponentName>)> {
    let open: BTreeSet<&ComponentName> =
        lock.entries().filter(|(_, _, artifact)| artifact.resolved().is_err()).map(|(name, ..)| name).collect();
    let is_asked = |name: &ComponentName| !misfits.contains_key(name) && !open.contains(name);
    let names: BTreeSet<ComponentName> = fit::wanted(manifest).into_iter().filter(is_asked).collect();
    // What the manifest or a first use vouches for has nobody to ask; all else is asked anew, within what is known.
    let after = resolve::resolve_anew(&fit::narrowed(manifest, &names), lock, session)?;
    let silent: BTreeSet<ComponentName> = after
        .entries()
        .filter(|(_, _, artifact)| artifact.unresolved.is_some())
        .map(|(name, ..)| name.clone())
        .collect();
    let mut before = lock.clone();
    before.component.retain(|name, _| after.component.contains_key(name));
    let differs = |difference: &Difference| {
        !silent.contains(&difference.component) && (difference.change != Change::Changed || !is_about_index(difference))
    };
    let stale = differences(Some(&before), &after).into_iter().filter(differs).collect();
    Ok((stale, silent.into_iter().collect()))
}

/// Whether only the index that names a package is another.
fn is_about_index(difference: &Difference) -> bool {
    let is_package = |artifact: &String| artifact.starts_with("apt:") || artifact.starts_with("rpm:");
    difference.artifact.as_ref().is_some_and(is_package) && difference.fields.keys().all(|name| *name == "proof")
}
