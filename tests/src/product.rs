//! What the connected side makes: the programs, a throwaway key, the lock and the bundle of the Debian manifest.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::apt_archive::{AptArchive, SUITE};
use crate::process::Process;
use crate::root::{self, Debian};

/// The release line that the tests build: every part of it comes from the Debian archive.
pub const MANIFEST: &str = "debian-12";

/// The release programs, built by `scripts/programs.sh`.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The bundle builder.
    pub builder: PathBuf,
    /// The static installer.
    pub installer: PathBuf,
}

/// A directory in which a bundle is made: a copy of the manifests, a key, a cache, results.
#[derive(Debug, Clone)]
pub struct Yard {
    /// The programs in use.
    pub programs: Programs,
    directory: PathBuf,
    cache: PathBuf,
    kubernetes: PathBuf,
    /// Apt sources other than this machine's.
    sources: Vec<PathBuf>,
}

/// A built bundle and what a host needs with it.
#[derive(Debug, Clone)]
pub struct Product {
    /// The signed bundle.
    pub bundle: PathBuf,
    /// The installer that lies beside it.
    pub installer: PathBuf,
    /// The public key that signed it.
    pub key: PathBuf,
    /// Time of `builder build`.
    pub took: Duration,
}

/// The repository's root directory.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/")).to_owned()
}

/// Runs one of `scripts/` and hands back the path that it prints last.
fn script(name: &str) -> Result<PathBuf> {
    let text = Process::new(repository().join("scripts").join(name)).text()?;
    Ok(PathBuf::from(text.lines().last().context("the script printed no path")?))
}

impl Programs {
    /// Builds them; quick when nothing changed. `$SEALIFT_PROGRAMS` names a directory with other ones, for work on the programs.
    pub fn build() -> Result<Self> {
        let directory = match std::env::var_os("SEALIFT_PROGRAMS") {
            Some(directory) => PathBuf::from(directory),
            None => script("programs.sh")?,
        };
        Ok(Self { builder: directory.join("builder"), installer: directory.join("installer") })
    }
}

impl Yard {
    /// Lays a yard out in `directory`, whose builder cache is `cache` or, without one, shared by all runs on this machine.
    pub fn lay(programs: &Programs, directory: &Path, cache: Option<&Path>) -> Result<Self> {
        fs_err::create_dir_all(directory)?;
        Process::new("cp").arg("-r").arg(repository().join("manifests")).arg(directory).run()?;
        let cache = match cache {
            Some(cache) => cache.to_owned(),
            None => root::cache()?.join("builder"),
        };
        let kubernetes = script("kubernetes-from-source.sh")?;
        Ok(Self { programs: programs.clone(), directory: directory.to_owned(), cache, kubernetes, sources: Vec::new() })
    }

    /// The yard's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The yard's copy of the manifest.
    pub fn manifest(&self) -> PathBuf {
        self.directory.join("manifests").join(format!("{MANIFEST}.toml"))
    }

    /// The builder with a subcommand.
    pub fn builder(&self, command: &str) -> Process {
        Process::new(&self.programs.builder).arg(command).directory(&self.directory)
    }

    /// Where artifacts come from: this machine's cache, and Kubernetes as built from source for upstream's addresses.
    pub fn network(&self) -> Vec<String> {
        let mirror = format!("https://dl.k8s.io/=file://{}/", self.kubernetes.display());
        let mut arguments = vec!["--mirror".into(), mirror, "--cache".into(), self.cache.display().to_string()];
        for sources in &self.sources {
            arguments.extend(["--apt-sources".into(), sources.display().to_string()]);
        }
        arguments
    }

    /// Takes the bundle's kernel from an archive beside this machine's own: this package instead of the manifest's.
    pub fn set_kernel(&mut self, package: &str, archive: &AptArchive) -> Result<()> {
        let text = fs_err::read_to_string(self.manifest())?;
        let (install, suites) = ("install = [\"linux-image-amd64\"]", "suites = [\"bookworm\",");
        anyhow::ensure!(
            text.contains(install) && text.contains(suites),
            "the manifest's kernel is not what was expected"
        );
        let text = text.replace(install, &format!("install = [\"{package}\"]"));
        let text = text.replacen(suites, &format!("suites = [\"{SUITE}\", \"bookworm\","), 1);
        fs_err::write(self.manifest(), text)?;
        self.sources = vec![Debian::Bookworm.sources()?, archive.sources()?];
        Ok(())
    }

    /// Makes the bundle one for hosts with any of these releases of Debian: kernel and packages of each, the programs of Debian 12.
    pub fn set_releases(&mut self, releases: &[Debian]) -> Result<()> {
        let text = fs_err::read_to_string(self.manifest())?;
        let parts = ["distributions = [\"debian-12\"]\n", "[kernel.debian-12]\n", "[component.etcd]\n"];
        let [promise, kernel, programs] = parts.map(|part| text.split_once(part));
        let (Some((head, rest)), Some(_), Some((_, programs))) = (promise, kernel, programs) else {
            anyhow::bail!("the manifest lacks one of {parts:?}");
        };
        let level = rest.lines().next().context("a manifest ends after its promise")?;
        let names: Vec<&str> = releases.iter().map(|release| release.name()).collect();
        let mut text = format!("{head}distributions = {names:?}\n{level}\n");
        for release in releases {
            let (name, suites) = (release.name(), release.suites());
            let (kernel, packages) = (format!("[kernel.{name}]"), format!("[packages.{name}]"));
            write!(
                text,
                "{kernel}\ninstall = [\"linux-image-amd64\"]\nsuites = {suites:?}\n{packages}\nsuites = {suites:?}\n"
            )?;
        }
        for line in ["[component.etcd]"].into_iter().chain(programs.lines()) {
            text.extend([line, "\n"]);
            if line.starts_with("apt = ") {
                writeln!(text, "suite = \"{}\"", Debian::Bookworm.suite())?;
            }
        }
        fs_err::write(self.manifest(), text)?;
        self.sources = vec![Debian::Bookworm.sources()?];
        for release in releases.iter().filter(|release| **release != Debian::Bookworm) {
            self.sources.push(release.sources()?);
        }
        Ok(())
    }

    /// Takes packages from an archive as well.
    pub fn add_archive(&mut self, archive: &AptArchive) -> Result<()> {
        self.sources.push(archive.sources()?);
        Ok(())
    }

    /// Makes the yard's key pair without a password: `NAME.key` and `NAME.pub`.
    pub fn keygen(&self, name: &str) -> Result<PathBuf> {
        self.builder("keygen").args(["--no-password", "--out", name]).run()?;
        Ok(self.directory.join(format!("{name}.pub")))
    }

    /// Resolves the manifest.
    pub fn lock(&self) -> Result<()> {
        self.builder("lock").arg(self.manifest()).args(self.network()).run()?;
        Ok(())
    }

    /// Arguments of a build into `out`. Without a key the result is unsigned, and every byte of it is reproducible; a signature is not:
    /// minisign mixes randomness in.
    pub fn build_arguments(&self, key: Option<&str>, out: &str) -> Vec<String> {
        let mut arguments = vec!["build".to_owned(), self.manifest().display().to_string()];
        arguments.extend(self.network());
        arguments.extend(["--installer".to_owned(), self.programs.installer.display().to_string()]);
        arguments.extend(["--out".to_owned(), out.to_owned()]);
        if let Some(key) = key {
            arguments.extend(["--key".to_owned(), format!("{key}.key")]);
        }
        arguments
    }

    /// Builds an unsigned bundle.
    pub fn build_unsigned(&self, out: &str) -> Result<PathBuf> {
        Process::new(&self.programs.builder)
            .args(self.build_arguments(None, out))
            .directory(&self.directory)
            .env("LC_ALL", "POSIX")
            .run()?;
        bundle_in(&self.directory.join(out))
    }

    /// Builds and signs the bundle.
    pub fn build(&self, key: &str, out: &str) -> Result<Product> {
        let start = Instant::now();
        Process::new(&self.programs.builder)
            .args(self.build_arguments(Some(key), out))
            .directory(&self.directory)
            .env("LC_ALL", "POSIX")
            .run()?;
        let took = start.elapsed();
        let product = self.directory.join(out);
        Ok(Product {
            bundle: bundle_in(&product)?,
            installer: product.join("installer"),
            key: self.directory.join(format!("{key}.pub")),
            took,
        })
    }

    /// Key, lock and bundle in one go.
    pub fn make(&self) -> Result<Product> {
        self.keygen("demo")?;
        self.lock()?;
        self.build("demo", "dist")
    }
}

/// The one bundle in a directory.
pub fn bundle_in(directory: &Path) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "bundle") {
            found.push(path);
        }
    }
    let [bundle] = found.as_slice() else {
        anyhow::bail!("{} holds {} bundles, not one", directory.display(), found.len());
    };
    Ok(bundle.clone())
}

impl Product {
    /// What `builder inspect --json` says about the bundle.
    pub fn inspect(&self, programs: &Programs) -> Result<serde_json::Value> {
        let text = Process::new(&programs.builder)
            .args(["inspect", "--json", "--key"])
            .arg(&self.key)
            .arg(&self.bundle)
            .text()?;
        serde_json::from_str(&text).context("reading `builder inspect --json`")
    }
}

/// The full reference of a container component, out of what `builder inspect --json` says.
pub fn reference(inspected: &serde_json::Value, component: &str) -> Result<String> {
    let images = inspected["images"].as_array().or_else(|| inspected["components"].as_array());
    let image = images.into_iter().flatten().find(|image| image["name"] == component);
    let image = image.with_context(|| format!("`{component}` is not in the bundle"))?;
    Ok(image["reference"].as_str().with_context(|| format!("`{component}` has no reference"))?.to_owned())
}
