//! What the config wants of the kernel, held against what runs and what the bundle brings.

use anyhow::{Result, anyhow};
use bundle::Architecture;
use bundle::component::{Component, Kind, Package};

use super::packages;
use super::state::Identity;
use crate::config::KernelPolicy;
use crate::context::Context;
use crate::report::{Exit, Explain as _};

/// What is to be done about the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// Nothing, whatever runs.
    Keep(String),
    /// What runs is what is wanted.
    Have(String),
    /// The bundle's kernel is to be installed and tried.
    Install(Identity),
}

impl Goal {
    /// Works it out; an error when the config wants what cannot be had here.
    pub(super) fn of(context: &Context<'_>) -> Result<Self> {
        let running = &context.facts.kernel;
        let component = component(context);
        let wanted = match &context.config.kernel.policy {
            KernelPolicy::Keep => return Ok(Self::Keep(kept(context, component))),
            KernelPolicy::Require(requirement) if requirement.fits(running) => {
                return Ok(Self::Have(format!("Linux {running} fits `{requirement}`")));
            }
            KernelPolicy::Exact(release) if release == running => {
                return Ok(Self::Have(format!("Linux {running}")));
            }
            KernelPolicy::Require(requirement) => format!("`{requirement}`"),
            KernelPolicy::Exact(release) => format!("exactly Linux {release}"),
            KernelPolicy::Bundle => "the bundle's kernel".to_owned(),
        };
        let unmet = |why: String| {
            let error: Result<Self> =
                Err(anyhow!("the config wants {wanted}, this host runs Linux {running}, and {why}"));
            error.exit(Exit::Preflight).hint("take a bundle with such a kernel, or change `[kernel]` in the config")
        };
        let Some(component) = component else {
            return unmet(format!("the bundle brings no kernel for {}", context.facts.os.distribution));
        };
        let Some(found) = identity(component, context.facts.architecture) else {
            return unmet(format!("no package of {} {} is a kernel", component.name, component.version));
        };
        let fits = match &context.config.kernel.policy {
            KernelPolicy::Require(requirement) => requirement.fits(&found.release),
            KernelPolicy::Exact(release) => *release == found.release,
            KernelPolicy::Keep | KernelPolicy::Bundle => true,
        };
        if !fits {
            return unmet(format!("the bundle brings Linux {}", found.release));
        }
        if found.release == *running {
            return same_name(context, &found);
        }
        Ok(Self::Install(found))
    }
}

/// The bundle's kernel for this host.
pub(super) fn component<'a>(context: &Context<'a>) -> Option<&'a Component> {
    let share = context.share();
    context.components.iter().find(|component| component.kind == Kind::Kernel && share.has(component))
}

/// A kernel of this name runs already. Another patch level of the same name would take the files of the running kernel
/// away under it, and with them the way back.
fn same_name(context: &Context<'_>, found: &Identity) -> Result<Goal> {
    let installed = packages::installed(context.host, &found.package)?;
    let older = match &installed {
        Some(installed) => packages::is_older(context.host, installed, &found.version)?,
        // Not from a package of this name: built by hand, or of another flavour.
        None => true,
    };
    if !older {
        return Ok(Goal::Have(format!("Linux {}, the kernel of the bundle", found.release)));
    }
    let installed = installed.unwrap_or_else(|| "no package of that name".to_owned());
    let error: Result<Goal> = Err(anyhow!(
        "the bundle's kernel {} {} has the name of the running one ({installed}): installing it would overwrite the files of \
         the running kernel, and nothing could be gone back to",
        found.package,
        found.version
    ));
    error.exit(Exit::Preflight).hint(
        "take a bundle whose kernel has another release (`uname -r`), upgrade this one with the distribution's own tools, or \
         set `[kernel] policy = \"keep\"`",
    )
}

/// Which kernel a component brings.
fn identity(component: &Component, architecture: Option<Architecture>) -> Option<Identity> {
    component.packages.iter().find_map(|package| {
        let release = release(package, architecture)?;
        Some(Identity { release, package: package.name.clone(), version: package.version.clone() })
    })
}

/// The release (`uname -r`) of the kernel in a package: in its name on Debian and its descendants
/// (`linux-image-6.1.0-49-amd64`; `linux-image-amd64` only depends on one), its version on Enterprise Linux (`kernel-core`).
pub(super) fn release(package: &Package, architecture: Option<Architecture>) -> Option<String> {
    if let Some(release) = package.name.strip_prefix("linux-image-") {
        let release = release.strip_prefix("unsigned-").unwrap_or(release);
        let release = release.strip_suffix("-unsigned").unwrap_or(release);
        let release = release.split_once(':').map_or(release, |(release, _)| release);
        let is_release = crate::config::kernel::numbers(release).len() > 1;
        return (is_release && !release.ends_with("-dbg")).then(|| release.to_owned());
    }
    if package.name != "kernel-core" {
        return None;
    }
    let version = package.version.split_once(':').map_or(package.version.as_str(), |(_, version)| version);
    let machine = match architecture? {
        Architecture::Amd64 => "x86_64",
        Architecture::Arm64 => "aarch64",
    };
    Some(format!("{version}.{machine}"))
}

fn kept(context: &Context<'_>, component: Option<&Component>) -> String {
    let running = &context.facts.kernel;
    match component {
        Some(kernel) if kernel.packages.iter().any(|package| package.name.ends_with(running.as_str())) => {
            format!("{running}, the kernel of the bundle")
        }
        Some(kernel) => format!("{running}; the bundle has {} {} (policy \"keep\")", kernel.name, kernel.version),
        None => format!("{running}; the bundle brings no kernel"),
    }
}

#[cfg(test)]
mod tests {
    use bundle::Digest;

    use super::*;

    #[test]
    fn the_release_is_in_the_package() {
        let package = |name: &str, version: &str| Package {
            name: name.to_owned(),
            version: version.to_owned(),
            file: "x".to_owned(),
            sha256: Digest::of(b"x"),
            size: 1,
            architecture: "amd64".to_owned(),
            relations: bundle::component::Relations::default(),
        };
        for (name, version, expected) in [
            ("linux-image-6.1.0-49-amd64", "6.1.174-1", Some("6.1.0-49-amd64")),
            ("linux-image-6.12.57+deb13-cloud-amd64", "6.12.57-1", Some("6.12.57+deb13-cloud-amd64")),
            ("linux-image-6.1.0-49-amd64-unsigned", "6.1.174-1", Some("6.1.0-49-amd64")),
            ("linux-image-unsigned-6.8.0-49-generic", "6.8.0-49.49", Some("6.8.0-49-generic")),
            ("linux-image-6.1.0-49-amd64-dbg", "6.1.174-1", None),
            ("linux-image-amd64", "6.1.174-1", None),
            ("linux-base", "4.9", None),
            ("kernel-core", "0:5.14.0-503.11.1.el9_5", Some("5.14.0-503.11.1.el9_5.x86_64")),
            ("kernel-modules", "5.14.0-503.11.1.el9_5", None),
        ] {
            let found = release(&package(name, version), Some(Architecture::Amd64));
            assert_eq!(found.as_deref(), expected, "{name}");
        }
    }
}
