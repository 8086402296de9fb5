//! What a host of one promised distribution has when the bundle's packages are installed: its stated base, and they.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;
use bundle::Architecture;
use bundle::component::{Kind, Package};

use super::Piece;
use super::problem::Problem;
use crate::base::{Base, Family};
use crate::cache::Cache;
use crate::elf::GlibcVersion;
use crate::failure::Failure;
use crate::kernel_modules::{self, Kernels};
use crate::manifest::Manifest;
use crate::package_contents::{self, Contents};
use crate::parallel;

/// A host of one distribution.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// What it has of itself.
    pub(super) base: Base,
    /// The C library it runs with: the base's, or a newer one of the bundle.
    pub(super) glibc: GlibcVersion,
    /// Names of the packages that the bundle brings.
    pub(super) packages: BTreeSet<String>,
    /// Programs and libraries of those packages, without `/` in front and in merged directories.
    files: BTreeSet<String>,
    /// Names of the libraries among them.
    libraries: BTreeSet<String>,
    /// The kernels that the bundle brings, by component.
    pub(super) kernels: BTreeMap<String, Kernels>,
}

/// `/bin/x` and `usr/bin/x` are one file on every distribution whose directories are merged, and all that have a base here are.
fn merged(path: &str) -> String {
    let path = path.trim_start_matches('/');
    let path = path.strip_prefix("usr/").unwrap_or(path);
    let inside = ["bin/", "sbin/", "lib/", "lib64/"].iter().any(|top| path.starts_with(top));
    if inside { format!("usr/{path}") } else { path.to_owned() }
}

fn ends(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}

/// Whether the loader looks for libraries in the directory of this file (ld.so(8); Debian's multiarch directories too).
fn is_library(path: &str, architecture: Architecture) -> bool {
    let Some((directory, name)) = path.rsplit_once('/') else { return false };
    let multiarch = format!("usr/lib/{}-linux-gnu", architecture.machine());
    let searched = ["usr/lib", "usr/lib64", "usr/local/lib", &multiarch].contains(&directory);
    searched && (name.contains(".so.") || ends(name, "so"))
}

impl Target {
    /// A host with its base alone.
    pub(super) fn new(base: Base) -> anyhow::Result<Self> {
        let glibc = base
            .glibc
            .parse()
            .map_err(|error: String| Failure::usage(format!("the base of `{}`: {error}", base.distribution)))?;
        let (packages, files, libraries) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        Ok(Self { base, glibc, packages, files, libraries, kernels: BTreeMap::new() })
    }

    /// Installs a package.
    pub(super) fn install(
        &mut self,
        kind: Kind,
        component: &str,
        package: &Package,
        contents: &Contents,
        on: Architecture,
    ) {
        self.packages.insert(package.name.clone());
        if let ("libc6" | "glibc", Some(version)) = (package.name.as_str(), upstream(&package.version)) {
            self.glibc = self.glibc.max(version);
        }
        for path in contents.files.iter().map(|path| merged(path)) {
            if is_library(&path, on) {
                self.libraries.extend(path.rsplit('/').next().map(str::to_owned));
            }
            self.files.insert(path);
        }
        if kind == Kind::Kernel || !contents.kernels.is_empty() {
            kernel_modules::merge(self.kernels.entry(component.to_owned()).or_default(), &contents.kernels);
        }
    }

    /// Forgets what `component`, which is no kernel, brings of kernels that it does not bring themselves: headers, for example.
    fn forget_parts(&mut self, component: &str) {
        self.kernels.retain(|name, kernels| name != component || kernels.values().any(|kernel| kernel.image));
    }

    /// Whether it has a program at this absolute path.
    pub(super) fn has_program(&self, path: &str) -> bool {
        self.base.has_program(path) || self.files.contains(&merged(path))
    }

    /// Whether its loader finds a library by this name.
    pub(super) fn has_library(&self, name: &str) -> bool {
        self.base.has_library(name) || self.libraries.contains(name)
    }

    /// Whether a package of the bundle brings this file.
    pub(super) fn has_packaged(&self, path: &str) -> bool {
        self.files.contains(&merged(path))
    }

    /// Whether it has a package of this name, or one of the base that stands for it, in whatever version.
    pub(super) fn has_package(&self, name: &str) -> bool {
        let mut provided = self.base.provides.values().flat_map(|names| names.split(','));
        let is_it = |one: &str| one.split('(').next().is_some_and(|one| one.trim() == name);
        self.base.packages.contains_key(name) || self.packages.contains(name) || provided.any(is_it)
    }

    /// Its name: `debian-12`.
    pub(super) fn name(&self) -> &str {
        &self.base.distribution
    }

    /// The manifest's table that brings it packages.
    pub(super) fn packages_table(&self) -> String {
        format!("`[packages.{}]`", self.base.distribution)
    }
}

/// The upstream part of a package version, `2.36` of `2.36-9+deb12u10` and of `0:2.34-100.el9`.
fn upstream(version: &str) -> Option<GlibcVersion> {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    let end = version.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(version.len());
    version[..end].parse().ok()
}

/// The promised targets with everything the bundle brings them; a promised distribution without a base is a problem.
pub(super) fn gather(
    manifest: &Manifest,
    architecture: Architecture,
    pieces: &[Piece],
    jobs: usize,
    cache: &Cache,
) -> anyhow::Result<(Vec<Target>, Vec<Problem>)> {
    let promised = &manifest.release.distributions;
    let packages: Vec<(&Piece, &Package)> =
        pieces.iter().flat_map(|piece| piece.component.packages.iter().map(move |package| (piece, package))).collect();
    let read = |(_, package): &(&Piece, &Package)| {
        package_contents::of(cache, &package.sha256, &package.file)
            .with_context(|| format!("looking into the package `{}`", package.file))
    };
    // Nobody asks for contents without a promise.
    let contents = if promised.is_empty() { Vec::new() } else { parallel::map(jobs, &packages, read) };
    let contents = contents.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let (mut targets, mut problems) = (Vec::new(), Vec::new());
    for distribution in promised {
        let name = distribution.as_str();
        if !manifest.directory().join("bases").join(format!("{name}.toml")).exists() {
            problems.push(Problem::written(
                format!("the promised distribution `{name}`"),
                format!("`bases/{name}.toml` beside the manifest"),
                format!("make it with `builder base --distribution {name}` from a root directory, or take `{name}` out of `distributions`"),
            ));
            continue;
        }
        let mut target = Target::new(Base::read(manifest.directory(), name)?)?;
        for ((piece, package), contents) in packages.iter().zip(&contents) {
            let component = &piece.component;
            let fits = match &component.distribution {
                Some(distribution) => distribution == name,
                // Packages of no stated distribution go to the hosts that can take them.
                None => ends(&package.file, "deb") == (target.base.family == Family::Deb),
            };
            if fits {
                target.install(component.kind, component.name.as_str(), package, contents, architecture);
            }
        }
        for component in pieces.iter().map(|piece| &piece.component).filter(|component| component.kind != Kind::Kernel)
        {
            target.forget_parts(component.name.as_str());
        }
        targets.push(target);
    }
    Ok((targets, problems))
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;

    #[test]
    fn a_host_has_its_base_and_what_packages_bring() {
        let mut target = fake::target();
        assert!(target.has_program("/bin/mkdir") && target.has_program("/usr/bin/mkdir"));
        assert!(!target.has_program("/usr/sbin/nginx") && !target.has_library("libpcre2-8.so.0"));
        assert!(!target.has_package("nginx"));
        target.base.provides = [("adduser".to_owned(), "useradd (= 1), user-tools".to_owned())].into();
        assert!(target.has_package("useradd") && target.has_package("user-tools") && !target.has_package("user"));
        let package = |name: &str, version: &str| Package {
            name: name.into(),
            version: version.into(),
            file: format!("{name}.deb"),
            sha256: bundle::Digest::of(b""),
            size: 0,
            architecture: String::new(),
            relations: bundle::component::Relations::default(),
        };
        let files = |files: &[&str]| {
            let mut contents = Contents::default();
            contents.files.extend(files.iter().map(|file| (*file).to_owned()));
            contents
        };
        let nginx = files(&[
            "usr/sbin/nginx",
            "lib/x86_64-linux-gnu/libpcre2-8.so.0",
            "usr/lib/nginx/modules/libodd.so.1",
            "usr/lib/aarch64-linux-gnu/libarm.so.1",
        ]);
        target.install(Kind::Packages, "packages-debian-12", &package("nginx", "1"), &nginx, Architecture::Amd64);
        assert!(
            target.has_program("/usr/sbin/nginx") && target.has_program("/sbin/nginx") && target.has_package("nginx")
        );
        assert!(target.has_library("libpcre2-8.so.0"));
        assert!(!target.has_library("libodd.so.1"), "the loader does not look there");
        assert!(!target.has_library("libarm.so.1"), "of another architecture");

        assert_eq!(target.glibc.to_string(), "2.36");
        for (version, glibc) in [("2.31-1", "2.36"), ("2.41-12+deb13u1", "2.41"), ("0:2.42-1.el10", "2.42")] {
            target.install(Kind::Packages, "p", &package("libc6", version), &files(&[]), Architecture::Amd64);
            assert_eq!(target.glibc.to_string(), glibc);
        }
    }
}
