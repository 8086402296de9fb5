//! `builder build`: manifest + lock → bundle.

use std::time::Instant;

use serde_json::json;

use crate::assemble::{Assembled, Order};
use crate::cli::BuildArgs;
use crate::emit::{self, Installer};
use crate::keys;
use crate::output::{Output, bytes, rate};
use crate::session::Session;

/// Builds.
pub(super) fn run(args: &BuildArgs, output: &Output) -> anyhow::Result<()> {
    let started = Instant::now();
    let order = Order::read(&args.manifest, args.arch, args.components_dir.as_deref(), args.jobs)?;
    // Ask for the password and find missing files before the work, not after it.
    let key = args.key.as_deref().map(|path| keys::secret(path, &args.password)).transpose()?;
    let installer = Installer::read(&args.installer)?;
    let session = Session::new(&args.network, output)?;
    let Assembled { layout, fresh } = order.assemble(installer.digest(), &session)?;
    let writing = Instant::now();
    let (path, size) = emit::write(&layout, &installer, key.as_ref(), &args.out, &session.cache)?;
    output.event("wrote", &format!("{} ({}, {})", path.display(), bytes(size), rate(size, writing.elapsed())));
    if key.is_none() {
        output.warning("the bundle is not signed: no host will take it before `builder sign`");
    }
    let (total, seconds) = (layout.images().len(), started.elapsed().as_secs_f64());
    output.result(&format!(
        "{}: {total} components, {} packed anew, {seconds:.1} s, index {}",
        path.display(),
        fresh,
        layout.index_digest()
    ));
    output.result_json(&json!({
        "bundle": path, "bytes": size, "components": total, "packed": fresh, "seconds": seconds,
        "index": layout.index_digest(), "signed": key.is_some(),
    }));
    Ok(())
}
