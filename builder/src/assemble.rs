//! Manifest + lock + cache → layout: what `build` writes and signs, and `verify --rebuild` compares.

use std::num::NonZero;
use std::path::{Path, PathBuf};

use bundle::layout::Layout;
use bundle::{Architecture, Digest, Release};

use crate::completeness;
use crate::failure::Failure;
use crate::fit;
use crate::lock::Lock;
use crate::manifest::Manifest;
use crate::pack;
use crate::sbom;
use crate::session::Session;

/// What is to be built.
#[derive(Debug)]
pub struct Order {
    manifest: Manifest,
    lock: Lock,
    lock_digest: Digest,
    architecture: Architecture,
    recipes: PathBuf,
    jobs: usize,
}

/// A bundle before it is written.
#[derive(Debug)]
pub struct Assembled {
    /// All of it.
    pub layout: Layout,
    /// Components that had to be packed anew.
    pub fresh: usize,
}

impl Order {
    /// Reads manifest and lock; refuses a lock that does not fit or is not complete.
    ///
    /// `path` is the manifest or the lock beside it; `recipes` are `components` beside the manifest unless they are given.
    pub fn read(
        path: &Path,
        architecture: Option<Architecture>,
        recipes: Option<&Path>,
        jobs: Option<u16>,
    ) -> anyhow::Result<Self> {
        let is_lock = path.extension().is_some_and(|extension| extension == "lock");
        let manifest = Manifest::read(&if is_lock { path.with_extension("toml") } else { path.to_owned() })?;
        let (lock, lock_digest) = Lock::read(&manifest.lock_path())?;
        fit::check(&manifest, &lock)?;
        let architecture = choose(architecture, &manifest)?;
        refuse_unresolved(&lock, architecture)?;
        let recipes = recipes.map_or_else(|| manifest.directory().join("components"), Path::to_owned);
        let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
        let jobs = jobs.map_or_else(cores, usize::from);
        Ok(Self { manifest, lock, lock_digest, architecture, recipes, jobs })
    }

    /// Fetches, packs, checks that all is there, and adds the bill of materials.
    pub fn assemble(&self, installer: Digest, session: &Session) -> anyhow::Result<Assembled> {
        let Self { manifest, lock, architecture, recipes, jobs, .. } = self;
        let packed = pack::pack(manifest, lock, *architecture, recipes, *jobs, session)?;
        completeness::check(manifest, recipes, *architecture, &packed.pieces, *jobs, session)?;
        let text = &manifest.release;
        let release = Release {
            name: text.name.clone(),
            version: text.version.clone(),
            architecture: *architecture,
            sequence: text.sequence,
            created: text.created.as_str().to_owned(),
            lock: self.lock_digest,
            installer,
        };
        if packed.components.iter().any(|component| component.name.as_str() == sbom::COMPONENT) {
            let text = format!("no component can be called `{}`: the builder makes one", sbom::COMPONENT);
            return Err(Failure::usage(text).into());
        }
        let document = sbom::document(&release, lock, &packed.components)?;
        let mut images = packed.images;
        images.push(sbom::image(document, &release, lock.level, session)?);
        Ok(Assembled { layout: Layout::new(&release, images)?, fresh: packed.fresh })
    }
}

fn choose(wanted: Option<Architecture>, manifest: &Manifest) -> anyhow::Result<Architecture> {
    let offered = &manifest.release.architectures;
    match (wanted, &offered[..]) {
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
