//! `builder base`: root directory → what targets with its distribution have.

use serde_json::json;

use crate::base::{self, Source};
use crate::cache;
use crate::cli::BaseArgs;
use crate::output::Output;

/// Writes the base.
pub(super) fn run(args: &BaseArgs, output: &Output) -> anyhow::Result<()> {
    let source = Source {
        root: &args.from_root,
        kernel: args.kernel_root.as_deref(),
        distribution: &args.distribution,
        oldest: args.oldest,
    };
    let base = base::survey(&source)?;
    cache::write_atomic(&args.out, base.to_toml().as_bytes(), 0o644)?;
    let [packages, libraries, programs, modules] =
        [base.packages.len(), base.libraries.len(), base.programs.len(), base.modules.len()];
    output.result(&format!(
        "wrote {}: {packages} packages, {libraries} libraries, {programs} programs, {modules} modules, glibc {}",
        args.out.display(),
        base.glibc
    ));
    output.result_json(&json!({
        "base": args.out, "packages": packages, "libraries": libraries, "programs": programs, "modules": modules,
        "glibc": base.glibc,
    }));
    Ok(())
}
