//! The distribution, the kernel and what guards it: version, modules, settings, security modules, Secure Boot, entropy.

use std::collections::BTreeSet;

use bundle::component::Kind;

use super::finding::Finding;
use crate::checks::CheckName;
use crate::config::KernelPolicy;
use crate::config::host::Selinux;
use crate::context::Context;
use crate::distro;
use crate::facts::{Facts, ROOT_DISK, SeLinux};
use crate::steps::kernel;

/// The oldest kernel that containerd, runc and the kubelet are built for: that of EL8, with its backports.
const KERNEL_NEEDED: (u32, u32) = (4, 18);
/// Bits of entropy below which keys have to wait (random(4); since Linux 5.18 it is 256 whenever there is enough).
const ENTROPY_NEEDED: u64 = 128;

/// All findings of this file.
pub(super) fn look(context: &Context<'_>) -> Vec<Finding> {
    let facts = context.facts;
    let mut findings = vec![distribution(facts), capabilities(facts), running(facts)];
    findings.extend(selinux(context));
    findings.extend(apparmor(context));
    if context.roles.run_pods() {
        findings.extend(modules(context));
    }
    findings.extend(secure_boot(context));
    findings.extend(foreign_modules(context));
    findings.extend(entropy(facts));
    findings.extend(immutable(context));
    findings.extend(shutdown(facts));
    findings
}

fn distribution(facts: &Facts) -> Finding {
    let (name, pretty) = (&facts.os.distribution, &facts.os.pretty);
    let shown = if pretty.is_empty() { name } else { pretty };
    if distro::known(name).is_some() {
        return Finding::good(CheckName::Distribution, "distribution", shown);
    }
    let known: Vec<&str> = distro::KNOWN.iter().map(|known| known.name).collect();
    let advice = "use one of these; another one can work when it is like one of them";
    Finding::refused(CheckName::Distribution, "distribution", format!("{shown} (`{name}`)"), known.join(", "), advice)
}

fn capabilities(facts: &Facts) -> Finding {
    let subject = "capabilities";
    if facts.missing_capabilities.is_empty() {
        return Finding::good(CheckName::Capabilities, subject, "all that are needed");
    }
    let missing = format!("none of {}", facts.missing_capabilities.join(", "));
    let needed = "root with its capabilities";
    let advice = "run it as root, outside of containers that take them away";
    Finding::refused(CheckName::Capabilities, subject, missing, needed, advice)
}

/// `6.1.0-40-amd64` → (6, 1).
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn running(facts: &Facts) -> Finding {
    let (major, minor) = KERNEL_NEEDED;
    if version(&facts.kernel).is_some_and(|version| version < KERNEL_NEEDED) {
        let needed = format!("{major}.{minor} or newer");
        let advice = "use a newer distribution, or its newer kernel";
        return Finding::refused(CheckName::Kernel, "kernel", &facts.kernel, needed, advice);
    }
    Finding::good(CheckName::Kernel, "kernel", &facts.kernel)
}

fn selinux(context: &Context<'_>) -> Option<Finding> {
    let name = CheckName::SeLinux;
    match context.facts.security.selinux {
        SeLinux::Off => None,
        SeLinux::Permissive => Some(Finding::good(name, "SELinux", "permissive")),
        SeLinux::Enforcing if context.facts.container.is_some() => Some(Finding::limit(
            name,
            "SELinux",
            "enforcing on the machine",
            "its policy decides what works here",
            "look into that machine's audit log when something is denied",
        )),
        SeLinux::Enforcing if context.config.host.selinux == Selinux::Permissive => {
            Some(Finding::good(name, "SELinux", "enforcing; it will be made permissive"))
        }
        SeLinux::Enforcing => Some(Finding::refused(
            name,
            "SELinux",
            "enforcing",
            "permissive: no policy knows the programs below /opt/sealift",
            "`selinux = \"permissive\"` in `[host]` of the cluster config",
        )),
    }
}

/// containerd gives pods its profile only where it finds the parser.
fn apparmor(context: &Context<'_>) -> Option<Finding> {
    let facts = context.facts;
    if !facts.security.apparmor || !context.roles.run_pods() || facts.container.is_some() {
        return None;
    }
    if facts.tools.contains_key("apparmor_parser") {
        return Some(Finding::good(CheckName::AppArmor, "AppArmor", "on"));
    }
    let (found, follows) = ("on, without `apparmor_parser`", "containers run without a profile");
    Some(Finding::limit(CheckName::AppArmor, "AppArmor", found, follows, "install the package `apparmor`"))
}

/// Modules that the components of this role ask for.
fn modules(context: &Context<'_>) -> Vec<Finding> {
    let (facts, share) = (context.facts, context.share());
    let known = &facts.modules;
    let name = CheckName::Modules;
    let mut findings = Vec::new();
    // In a container they are the machine's, and what is built in does not always show.
    if facts.container.is_none() && !known.directory {
        let installed = context.host.list(std::path::Path::new("/lib/modules")).unwrap_or_default();
        if !installed.is_empty() {
            findings.push(Finding::refused(
                name,
                "kernel modules",
                format!("none of the running kernel {} (there are those of {})", facts.kernel, installed.join(", ")),
                "the directory of the running kernel below /lib/modules",
                "reboot into an installed kernel: this one's files were removed",
            ));
        }
    }
    if known.unreadable {
        let ending = known.compression.as_deref().unwrap_or_default();
        let found = format!("compressed (`.ko.{ending}`), and modprobe was built without that");
        findings.push(Finding::limit(
            name,
            "kernel modules",
            found,
            "they load only if the kernel decompresses them itself",
            "install the distribution's own `kmod`, which reads them",
        ));
    }
    let components = context.components.iter().filter(|component| share.has(component));
    let wanted: BTreeSet<&str> =
        components.flat_map(|component| component.modules.iter().map(String::as_str)).collect();
    let absent: Vec<&str> =
        wanted.iter().copied().filter(|module| !known.available(&module.replace('-', "_"))).collect();
    if absent.is_empty() {
        findings.push(Finding::good(name, "kernel modules", format!("{} wanted, all there", wanted.len())));
    } else {
        let follows = "what needs them may not work";
        let advice = match &facts.container {
            Some(_) => "load them on the machine that this container runs on",
            None => {
                "install the distribution's package that has them (`linux-modules-extra-…`, `kernel-modules-extra`), or let \
                 `[kernel]` take the bundle's kernel"
            }
        };
        findings.push(Finding::limit(name, "kernel modules", format!("no {}", absent.join(", ")), follows, advice));
    }
    findings
}

/// Names of the kernel packages that the bundle has for this distribution.
fn kernel_packages<'a>(context: &'a Context<'_>) -> Vec<&'a str> {
    let share = context.share();
    let kernels = context.components.iter().filter(|component| component.kind == Kind::Kernel && share.has(component));
    kernels.flat_map(|component| component.packages.iter().map(|package| package.name.as_str())).collect()
}

fn secure_boot(context: &Context<'_>) -> Option<Finding> {
    let (name, subject) = (CheckName::SecureBoot, "Secure Boot");
    if context.facts.security.secure_boot != Some(true) || context.facts.container.is_some() {
        return None;
    }
    // Debian and Ubuntu name it; ELRepo's kernels (`kernel-ml`, `kernel-lt`) are signed with a key no firmware has.
    let unsigned: Vec<&str> = kernel_packages(context)
        .into_iter()
        .filter(|package| {
            package.contains("unsigned") || package.starts_with("kernel-ml") || package.starts_with("kernel-lt")
        })
        .collect();
    if unsigned.is_empty() {
        return Some(Finding::good(name, subject, "on"));
    }
    let found = format!("on, and {} of the bundle is not signed for it", unsigned.join(", "));
    let advice = "use the distribution's signed kernel, or switch Secure Boot off in the firmware";
    if context.config.kernel.policy == KernelPolicy::Keep {
        return Some(Finding::limit(name, subject, found, "that kernel would not start here", advice));
    }
    // GRUB would stand in its menu until somebody comes: nothing that leads back runs by then.
    Some(Finding::refused(name, subject, found, "a kernel that this firmware starts", advice))
}

/// What to do about a module that does not come with a kernel.
const BUILT: &str = "build it for each new kernel before that boots (DKMS with headers and compiler)";

/// Drivers of others: a new kernel starts without them until somebody builds them for it. When one comes, that is no kernel
/// for a host whose root disk or network needs them.
fn foreign_modules(context: &Context<'_>) -> Vec<Finding> {
    let (facts, name) = (context.facts, CheckName::OutOfTreeModules);
    let coming = kernel::coming(context).ok().flatten();
    let needs = |what: &String| what == ROOT_DISK || ways(context).contains(what.as_str());
    let mut findings = Vec::new();
    for module in &facts.foreign_modules {
        let subject = format!("module `{}`", module.name);
        let taint = &module.taint;
        if module.drives.is_empty() {
            let found = format!("not of the kernel's own tree (taint {taint})");
            let follows = "it is not there after a kernel upgrade until somebody builds it";
            findings.push(Finding::limit(name, subject, found, follows, BUILT));
            continue;
        }
        let found =
            format!("it drives {}, and is not of the kernel's own tree (taint {taint})", module.drives.join(", "));
        match &coming {
            // One that is only unsigned (`E`) is of a kernel that somebody built: the new kernel has its own.
            Some(coming) if taint.contains(['O', 'P']) && module.drives.iter().any(needs) => {
                let needed = format!("a driver that Linux {} has, or the host comes up without it", coming.release);
                let advice = "use the kernel's own driver, or set `[kernel] policy = \"keep\"`; ignore it when the module is built \
                              for that kernel as soon as it is installed (DKMS with headers and compiler)";
                findings.push(Finding::refused(name, subject, found, needed, advice));
            }
            _ => {
                findings.push(Finding::limit(
                    name,
                    subject,
                    found,
                    "it has to be built anew for another kernel",
                    BUILT,
                ));
            }
        }
    }
    if !facts.dkms.is_empty() {
        let found = facts.dkms.join(", ");
        findings.push(Finding::limit(
            name,
            "DKMS",
            found,
            "they are built again for each kernel, which takes headers and a compiler",
            "have both on the host before it gets another kernel",
        ));
    }
    findings
}

/// Interfaces that this host cannot do without: that of its address, those of its default routes.
fn ways<'a>(context: &'a Context<'_>) -> BTreeSet<&'a str> {
    let facts = context.facts;
    let own = facts.addresses.iter().filter(|found| found.address == context.node.address);
    let routes = facts.default_routes.iter().map(|route| route.interface.as_str());
    own.map(|found| found.interface.as_str()).chain(routes).collect()
}

fn entropy(facts: &Facts) -> Option<Finding> {
    let bits = facts.entropy?;
    let (name, found) = (CheckName::Entropy, format!("{bits} bits"));
    if bits >= ENTROPY_NEEDED {
        return Some(Finding::good(name, "entropy", found));
    }
    let advice = "give the machine a random number device (virtio-rng)";
    Some(Finding::limit(name, "entropy", found, "making keys waits for more", advice))
}

fn immutable(context: &Context<'_>) -> Option<Finding> {
    // Files of the boot loader are written for another kernel alone.
    let comes = kernel::coming(context).is_ok_and(|coming| coming.is_some());
    let paths = context.facts.immutable.iter().filter(|path| comes || !path.starts_with("/boot"));
    let paths: Vec<String> = paths.map(|path| path.display().to_string()).collect();
    (!paths.is_empty()).then(|| {
        Finding::refused(
            CheckName::ImmutableFiles,
            "immutable files",
            paths.join(", "),
            "that they can be changed",
            format!("`chattr -i -a {}`", paths.join(" ")),
        )
    })
}

fn shutdown(facts: &Facts) -> Option<Finding> {
    let (name, subject) = (CheckName::Shutdown, "shutdown");
    if facts.shutdown {
        let (found, needed) = ("one is scheduled", "a host that stays up");
        return Some(Finding::refused(name, subject, found, needed, "`shutdown -c`, or wait until it is over"));
    }
    let found = "logins are refused (/run/nologin or /etc/nologin)";
    let advice = "wait for its end (`systemctl is-system-running`), or remove a file that was forgotten";
    facts.nologin.then(|| {
        Finding::limit(name, subject, found, "the host may be starting, stopping or under maintenance", advice)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_kernels() {
        assert_eq!(version("6.1.0-40-amd64"), Some((6, 1)));
        assert_eq!(version("3.10.0-1160.el7.x86_64"), Some((3, 10)));
        assert_eq!(version("5"), None);
        assert!(version("4.18.0-553.el8_10.x86_64") >= Some(KERNEL_NEEDED));
    }
}
