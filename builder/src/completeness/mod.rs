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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Base;
    use crate::recipe::Recipe;

    /// What can be judged without an artifact holds for each release in `manifests/`: it promises distributions, their bases are
    /// there and have what units start, and every architecture gets every program.
    #[test]
    fn releases_of_this_repository_can_keep_their_promises() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
        let mut releases = 0;
        for entry in fs_err::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "toml") || path.ends_with("flags.toml") {
                continue;
            }
            let manifest = Manifest::read(&path).unwrap();
            let release = &manifest.release;
            assert!(!release.distributions.is_empty(), "{} promises no distribution", path.display());
            let base = |name: &str| Target::new(Base::read(&directory, name).unwrap()).unwrap();
            let targets: Vec<_> = release.distributions.iter().map(|name| base(name.as_str())).collect();
            let mut pieces: Vec<_> =
                release.components.iter().map(|(name, text)| piece(&directory, name, text)).collect();
            pieces.extend(release.addons.iter().map(|(name, text)| Piece {
                modules_on_demand: text.modules.clone(),
                ..fake::program(name.as_str(), &[])
            }));
            let mut problems = architectures::problems(release, &directory.join("components")).unwrap();
            problems.extend(units::problems(&pieces, &targets));
            let own_kernel = |target: &&Target| !release.kernels.keys().any(|name| name.as_str() == target.name());
            problems
                .extend(kernels::problems(&pieces, &targets.iter().filter(own_kernel).cloned().collect::<Vec<_>>()));
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            assert!(problems.is_empty(), "{}: {problems:#?}", path.display());
            releases += 1;
        }
        assert!(releases > 1);
    }

    fn piece(directory: &Path, name: &bundle::ComponentName, text: &crate::manifest::ComponentText) -> Piece {
        let recipe = Recipe::read(&directory.join("components"), name).unwrap();
        let mut piece = fake::program(name.as_str(), &[]);
        piece.component.version = text.version.clone();
        piece.component.programs = recipe.text.programs;
        piece.component.modules = recipe.text.modules;
        piece.component.templates = recipe.templates;
        piece.modules_on_demand = recipe.text.modules_on_demand;
        piece
    }
}
