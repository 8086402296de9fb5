//! Whether everything is in the bundle that its parts need on the hosts it is promised for; else the build fails and says what
//! is missing, who needs it, and what to add. All problems at once.
//!
//! Each rule is a function from values to problems. What a host of a promised distribution has is its stated base, and what the
//! bundle's own packages bring ([`Target`]). Without `distributions` only the rules that need no host are asked, and a warning
//! says so.

mod addons;
mod architectures;
mod kernels;
mod needs;
mod packages;
mod problem;
mod target;
mod templates;
mod units;

#[cfg(test)]
mod fake;

use std::path::Path;

use bundle::{Architecture, Component, component};

use crate::elf::ElfFiles;
use crate::failure::Failure;
use crate::manifest::Manifest;
use crate::session::Session;
use problem::{Fault, Problem};
use target::Target;

/// One component as it will be in the bundle, and what is known of its files.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Its description.
    pub component: Component,
    /// For components with a layer: its files.
    pub files: Vec<component::File>,
    /// What its programs and libraries need.
    pub elf: ElfFiles,
    /// For container images: the reference they are known by.
    pub reference: Option<String>,
    /// Kernel modules that the kernel loads by itself when they are used.
    pub modules_on_demand: Vec<String>,
}

/// Refuses what is not complete.
pub fn check(
    manifest: &Manifest,
    recipes: &Path,
    architecture: Architecture,
    pieces: &[Piece],
    jobs: usize,
    session: &Session,
) -> anyhow::Result<()> {
    let release = &manifest.release;
    let (targets, mut problems) = target::gather(manifest, architecture, pieces, jobs, &session.cache)?;
    problems.extend(architectures::problems(release, recipes)?);
    problems.extend(packages::problems(release, &targets));
    problems.extend(of_pieces(pieces, architecture, &targets));
    if release.distributions.is_empty() {
        session.output.warning(
            "the manifest promises no distribution: libraries, glibc, programs of the host, kernel modules and OS packages were not checked; \
             `distributions = [\"debian-12\"]` and `bases/debian-12.toml` beside the manifest would have them checked",
        );
    }
    refuse(problems)
}

/// The rules that need nothing but the pieces and the targets.
fn of_pieces(pieces: &[Piece], architecture: Architecture, targets: &[Target]) -> Vec<Problem> {
    let mut problems = templates::problems(pieces, targets);
    problems.extend(units::problems(pieces, targets));
    problems.extend(addons::problems(pieces));
    problems.extend(needs::problems(pieces, architecture, targets));
    problems.extend(kernels::problems(pieces, targets));
    problems
}

fn refuse(mut problems: Vec<Problem>) -> anyhow::Result<()> {
    problems.sort();
    problems.dedup();
    if problems.is_empty() {
        return Ok(());
    }
    let count = if problems.len() == 1 { "one problem".to_owned() } else { format!("{} problems", problems.len()) };
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let text = format!("the bundle would not be complete, {count}:\n    {}", lines.join("\n    "));
    // What people wrote is wrong usage; what upstream's files turned out to hold is not.
    let written = problems.iter().any(|problem| problem.fault == Fault::Written);
    Err(if written { Failure::usage(text) } else { Failure::new(text) }.into())
}
