//! `builder build`: manifest + lock → bundle.

use std::num::NonZero;
use std::time::Instant;

use bundle::layout::Layout;
use bundle::{Architecture, Release};
use serde_json::json;

use crate::cli::BuildArgs;
use crate::completeness;
use crate::emit::{self, Installer};
use crate::failure::Failure;
use crate::keys;
use crate::lock::Lock;
use crate::manifest::Manifest;
use crate::output::{Output, bytes, rate};
use crate::pack;
use crate::session::Session;

/// Builds.
pub(super) fn run(args: &BuildArgs, output: &Output) -> anyhow::Result<()> {
    let started = Instant::now();
    let manifest = Manifest::read(&args.manifest)?;
    let (lock, lock_digest) = Lock::read(&manifest.lock_path())?;
    lock.check_fits(&manifest)?;
    let architecture = architecture(args, &manifest)?;
    refuse_unresolved(&lock, architecture)?;
    // Ask for the password and find missing files before the work, not after it.
    let key = args.key.as_deref().map(|path| keys::secret(path, &args.password)).transpose()?;
    let installer = Installer::read(&args.installer)?;
    let recipes = args.components_dir.clone().unwrap_or_else(|| manifest.directory().join("components"));
    let jobs = args.jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, NonZero::get), usize::from);

    let session = Session::new(&args.network, output)?;
    let packed = pack::pack(&manifest, &lock, architecture, &recipes, jobs, &session)?;
    completeness::check(&manifest, &recipes, architecture, &packed.pieces, jobs, &session)?;
    let text = &manifest.release;
    let release = Release {
        name: text.name.clone(),
        version: text.version.clone(),
        architecture,
        sequence: text.sequence,
        created: text.created.as_str().to_owned(),
        lock: lock_digest,
        installer: installer.digest(),
    };
    let layout = Layout::new(&release, packed.images)?;
    let writing = Instant::now();
    let (path, size) = emit::write(&layout, &installer, key.as_ref(), &args.out)?;
    output.event("wrote", &format!("{} ({}, {})", path.display(), bytes(size), rate(size, writing.elapsed())));
    if key.is_none() {
        output.warning("the bundle is not signed: no host will take it before `builder sign`");
    }
    let (total, seconds) = (packed.components.len(), started.elapsed().as_secs_f64());
    output.result(&format!(
        "{}: {total} components, {} packed anew, {seconds:.1} s, index {}",
        path.display(),
        packed.fresh,
        layout.index_digest()
    ));
    output.result_json(&json!({
        "bundle": path, "bytes": size, "components": total, "packed": packed.fresh, "seconds": seconds,
        "index": layout.index_digest(), "signed": key.is_some(),
    }));
    Ok(())
}

fn architecture(args: &BuildArgs, manifest: &Manifest) -> anyhow::Result<Architecture> {
    let offered = &manifest.release.architectures;
    match (args.arch, &offered[..]) {
        (Some(wanted), _) if offered.contains(&wanted) => Ok(wanted),
        (None, [only]) => Ok(*only),
        (wanted, _) => {
            let names: Vec<&str> = offered.iter().map(|architecture| architecture.as_str()).collect();
            let what = wanted.map_or_else(
                || "no `--arch` was given".to_owned(),
                |wanted| format!("the manifest is not for {wanted}"),
            );
            Err(Failure::usage(what).hint(format!("give `--arch` with one of {}", names.join(", "))).into())
        }
    }
}

fn refuse_unresolved(lock: &Lock, architecture: Architecture) -> anyhow::Result<()> {
    let open: Vec<String> = lock
        .entries()
        .filter(|(_, entry, _)| *entry == architecture)
        .filter_map(|(component, _, artifact)| {
            Some(format!("`{component}`: {}: {}", artifact.url, artifact.resolved().err()?))
        })
        .collect();
    if open.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("the lock has unresolved entries:\n    {}", open.join("\n    ")))
        .hint("run `builder lock` where they can be reached")
        .into())
}
