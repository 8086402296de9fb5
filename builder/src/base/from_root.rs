//! A base read off a root directory: a minimal installation of a distribution, or a copy of a target's root.
//!
//! Nothing of the root is run, links are followed inside it alone, and nothing of the machine it lies on gets into the
//! result: the same root gives the same file.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::Context as _;
use deb822_fast::Deb822;

use super::{Base, Family};
use crate::failure::Failure;
use bundle::debian_version;

/// Directories of the modules that components may ask for; those of plain hardware are left out.
const MODULE_DIRECTORIES: [&str; 4] = ["kernel/net/", "kernel/fs/", "kernel/crypto/", "kernel/lib/"];
/// Directories whose own modules count, but not those below: virtual devices.
const DEVICE_DIRECTORIES: [&str; 8] = [
    "kernel/drivers/block/",
    "kernel/drivers/md/",
    "kernel/drivers/net/",
    "kernel/drivers/net/bonding/",
    "kernel/drivers/net/ipvlan/",
    "kernel/drivers/net/team/",
    "kernel/drivers/net/vxlan/",
    "kernel/drivers/net/wireguard/",
];

/// Where a base is read from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Root directory.
    pub root: &'a Path,
    /// Root directory with the distribution's kernel package, if that is another one.
    pub kernel: Option<&'a Path>,
    /// Name of the distribution.
    pub distribution: &'a str,
    /// Version of each package before the stable updates that the root has, so that older targets are covered.
    pub oldest: bool,
}

/// Reads the base.
pub fn survey(source: &Source<'_>) -> anyhow::Result<Base> {
    let root = Root(fs_err::canonicalize(source.root)?);
    let kernel = source.kernel.map(fs_err::canonicalize).transpose()?.map_or_else(|| root.clone(), Root);
    let status = root.0.join("var/lib/dpkg/status");
    if !status.exists() {
        return Err(Failure::new(format!("`{}` has no `var/lib/dpkg/status`", source.root.display()))
            .hint("give the root directory of a Debian or Ubuntu; bases of other families are written by hand")
            .into());
    }
    let status = fs_err::read_to_string(status)?;
    let (mut packages, mut provides) = (installed(&status, "Version")?, installed(&status, "Provides")?);
    if source.oldest {
        for version in packages.values_mut() {
            *version = debian_version::before_updates(version).to_owned();
        }
        for list in provides.values_mut() {
            *list = list.split(", ").map(before_updates).collect::<Vec<_>>().join(", ");
        }
    }
    let modules = kernel.modules()?;
    if let Some(kernel) = source.kernel.filter(|_| modules.is_empty()) {
        return Err(Failure::new(format!("`{}` has no kernel's modules", kernel.display()))
            .hint("unpack the distribution's kernel package there (`dpkg-deb -x`): it has lib/modules/VERSION/modules.order")
            .into());
    }
    let (libraries, glibc) = root.libraries()?;
    Ok(Base {
        distribution: source.distribution.to_owned(),
        family: Family::Deb,
        glibc,
        libraries,
        programs: root.programs()?,
        modules,
        packages,
        provides,
    })
}

/// `name (= 1.0-2)` out of `name (= 1.0-2+deb13u1)`.
fn before_updates(provided: &str) -> String {
    let version = provided.split_once("(= ").and_then(|(name, rest)| Some((name, rest.strip_suffix(')')?)));
    match version {
        Some((name, version)) => format!("{name}(= {})", debian_version::before_updates(version)),
        None => provided.to_owned(),
    }
}

/// A field of every package that dpkg has installed and that has the field, by name.
fn installed(status: &str, field: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let status: Deb822 = status.parse().map_err(|error| Failure::new(format!("dpkg's status is not one: {error}")))?;
    let mut packages = BTreeMap::new();
    for package in status.iter() {
        if package.get("Status").is_some_and(|status| status.ends_with(" installed"))
            && let (Some(name), Some(value)) = (package.get("Package"), package.get(field))
        {
            let words: Vec<&str> = value.split_whitespace().collect();
            packages.insert(name.to_owned(), words.join(" "));
        }
    }
    Ok(packages)
}

/// A root directory; every path in it is resolved without leaving it.
#[derive(Clone, Debug)]
struct Root(PathBuf);

impl Root {
    /// Where an absolute path of the root really lies, links followed; `None` if it is not there.
    fn resolve(&self, path: &Path) -> Option<PathBuf> {
        let mut rest: Vec<_> = path.components().rev().map(|part| part.as_os_str().to_owned()).collect();
        let mut place = self.0.clone();
        let mut links = 0;
        while let Some(part) = rest.pop() {
            match Path::new(&part).components().next() {
                Some(Component::Normal(name)) => {
                    let next = place.join(name);
                    let metadata = fs_err::symlink_metadata(&next).ok()?;
                    if !metadata.is_symlink() {
                        place = next;
                        continue;
                    }
                    links += 1;
                    if links > 40 {
                        return None;
                    }
                    let target = fs_err::read_link(&next).ok()?;
                    rest.extend(target.components().rev().map(|part| part.as_os_str().to_owned()));
                }
                Some(Component::ParentDir) if place != self.0 => place = place.parent()?.to_owned(),
                Some(Component::RootDir) => place.clone_from(&self.0),
                _ => {}
            }
        }
        Some(place)
    }

    /// Names in a directory of the root; none if it is not there.
    fn names(&self, directory: &str) -> anyhow::Result<Vec<String>> {
        let Some(place) = self.resolve(Path::new(directory)).filter(|place| place.is_dir()) else {
            return Ok(Vec::new());
        };
        let name = |entry: std::io::Result<fs_err::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        fs_err::read_dir(place)?.map(name).collect()
    }

    /// The regular file behind a path.
    fn file(&self, path: &str) -> Option<PathBuf> {
        self.resolve(Path::new(path)).filter(|place| place.is_file())
    }

    /// Executable files of the four program directories, each under its real directory.
    fn programs(&self) -> anyhow::Result<BTreeSet<String>> {
        let mut programs = BTreeSet::new();
        for directory in ["/bin", "/sbin", "/usr/bin", "/usr/sbin"] {
            let Some(place) = self.resolve(Path::new(directory)) else { continue };
            let Ok(real) = place.strip_prefix(&self.0) else { continue };
            for name in self.names(directory)? {
                let path = format!("/{}/{name}", real.display());
                let Some(file) = self.file(&path) else { continue };
                if fs_err::metadata(file)?.permissions().mode() & 0o111 != 0 {
                    programs.insert(path);
                }
            }
        }
        Ok(programs)
    }

    /// ELF files that the loader finds by name, and the version of the C library.
    fn libraries(&self) -> anyhow::Result<(BTreeSet<String>, String)> {
        let mut directories: Vec<String> = ["/lib", "/usr/lib", "/lib64", "/usr/lib64"].map(str::to_owned).into();
        for name in self.names("/etc/ld.so.conf.d")? {
            let is_list = Path::new(&name).extension().is_some_and(|extension| extension == "conf");
            if let Some(file) = self.file(&format!("/etc/ld.so.conf.d/{name}")).filter(|_| is_list) {
                let text = fs_err::read_to_string(file)?;
                directories.extend(text.lines().map(str::trim).filter(|line| line.starts_with('/')).map(str::to_owned));
            }
        }
        let mut libraries = BTreeSet::new();
        let mut glibc = None;
        for directory in directories {
            for name in self.names(&directory)?.into_iter().filter(|name| name.contains(".so")) {
                let Some(file) = self.file(&format!("{directory}/{name}")) else { continue };
                let mut magic = [0; 4];
                if fs_err::File::open(&file)?.read_exact(&mut magic).is_err() || magic != *b"\x7fELF" {
                    continue;
                }
                if name == "libc.so.6" && glibc.is_none() {
                    glibc = glibc_version(&fs_err::read(&file)?);
                }
                libraries.insert(name);
            }
        }
        let glibc = glibc.with_context(|| Failure::new("no `libc.so.6` of glibc is where the loader looks"))?;
        Ok((libraries, glibc))
    }

    /// Modules that a kernel in the root has, loadable or built in.
    fn modules(&self) -> anyhow::Result<BTreeSet<String>> {
        let mut modules = BTreeSet::new();
        // A kernel package that is only unpacked has no link (Debian 13).
        let place =
            ["/lib/modules", "/usr/lib/modules"].into_iter().find(|place| self.resolve(Path::new(place)).is_some());
        let place = place.unwrap_or_default();
        for version in self.names(place)? {
            for list in ["modules.order", "modules.builtin"] {
                let Some(file) = self.file(&format!("{place}/{version}/{list}")) else { continue };
                modules.extend(fs_err::read_to_string(file)?.lines().filter_map(module));
            }
        }
        Ok(modules)
    }
}

/// The name of a module by its path below `lib/modules/VERSION`, if components may ask for it.
fn module(path: &str) -> Option<String> {
    let (directory, file) = path.split_at(path.rfind('/')? + 1);
    let wanted = DEVICE_DIRECTORIES.contains(&directory)
        || MODULE_DIRECTORIES.iter().any(|wanted| directory.starts_with(wanted));
    let name = file.split('.').next().filter(|name| wanted && !name.is_empty())?;
    Some(name.replace('-', "_"))
}

/// `2.36` out of `GNU C Library (Debian GLIBC 2.36-9+deb12u10) stable release version 2.36.`
fn glibc_version(library: &[u8]) -> Option<String> {
    let banner = b"GNU C Library (";
    let at = library.windows(banner.len()).position(|window| window == banner)?;
    let line = library[at..].split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let (_, version) = line.split_once("release version ")?;
    Some(version.trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, name: &str, content: &[u8], mode: u32) {
        let path = root.join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, content).unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn link(root: &Path, target: &str, name: &str) {
        fs_err::os::unix::fs::symlink(target, root.join(name)).unwrap();
    }

    #[test]
    fn a_root_is_read_without_leaving_it() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let status = "Package: libc6\nStatus: install ok installed\nVersion: 2.36-9+deb12u10\n\n\
                      Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
                      Package: base-files\nStatus: hold ok installed\nVersion: 12.4+deb12u11\nProvides: base,\n other (= 1+deb12u11)\n";
        write(root, "var/lib/dpkg/status", status.as_bytes(), 0o644);
        let libc = b"\x7fELF....\0GNU C Library (Debian GLIBC 2.36-9+deb12u10) stable release version 2.36.\nCopyright";
        write(root, "usr/lib/x86_64-linux-gnu/libc.so.6", libc, 0o755);
        write(root, "usr/lib/x86_64-linux-gnu/libz.so.1.2.13", b"\x7fELF", 0o644);
        write(root, "usr/lib/x86_64-linux-gnu/libc.so", b"/* GNU ld script", 0o644);
        write(root, "etc/ld.so.conf.d/x86_64-linux-gnu.conf", b"# x\n/lib/x86_64-linux-gnu\n", 0o644);
        link(root, "usr/lib", "lib");
        link(root, "libz.so.1.2.13", "usr/lib/x86_64-linux-gnu/libz.so.1");
        write(root, "usr/bin/mawk", b"x", 0o755);
        write(root, "usr/bin/notes.txt", b"x", 0o644);
        write(root, "etc/alternatives/README", b"x", 0o644);
        link(root, "usr/bin", "bin");
        link(root, "/etc/alternatives/awk", "usr/bin/awk");
        link(root, "/usr/bin/mawk", "etc/alternatives/awk");
        link(root, "../../../../../../../../usr/bin/env", "usr/bin/outside");
        link(root, "loop", "usr/bin/loop");
        write(root, "usr/lib/modules/6.1.0/modules.order", b"kernel/net/netfilter/ipvs/ip_vs.ko\nkernel/fs/overlayfs/overlay.ko\nkernel/drivers/net/ethernet/intel/e1000/e1000.ko\nkernel/drivers/net/tun.ko\nkernel/drivers/net/vxlan/vxlan.ko\n", 0o644);
        write(root, "usr/lib/modules/6.1.0/modules.builtin", b"kernel/net/ipv4/tcp-cubic.ko\n", 0o644);

        let source = Source { root, kernel: None, distribution: "debian-12", oldest: true };
        let base = survey(&source).unwrap();
        assert_eq!(base.glibc, "2.36");
        assert_eq!(Vec::from_iter(&base.libraries), ["libc.so.6", "libz.so.1", "libz.so.1.2.13"]);
        assert_eq!(Vec::from_iter(&base.programs), ["/usr/bin/awk", "/usr/bin/mawk"]);
        assert_eq!(Vec::from_iter(&base.modules), ["ip_vs", "overlay", "tcp_cubic", "tun", "vxlan"]);
        let packages: Vec<_> = base.packages.iter().map(|(name, version)| format!("{name} {version}")).collect();
        assert_eq!(packages, ["base-files 12.4", "libc6 2.36-9"]);
        assert_eq!(base.provides, BTreeMap::from([("base-files".to_owned(), "base, other (= 1)".to_owned())]));
        let exact = survey(&Source { oldest: false, ..source }).unwrap();
        assert_eq!(exact.packages["libc6"], "2.36-9+deb12u10");
        assert_eq!(exact.provides["base-files"], "base, other (= 1+deb12u11)");
        let unpacked = directory.path().join("unpacked");
        write(&unpacked, "usr/lib/modules/6.12.1/modules.order", b"kernel/fs/overlayfs/overlay.ko\n", 0o644);
        let other = Source { kernel: Some(&unpacked), ..source };
        assert_eq!(Vec::from_iter(&survey(&other).unwrap().modules), ["overlay"]);
        let none = root.join("usr/bin");
        let error = format!("{:#}", survey(&Source { kernel: Some(&none), ..source }).unwrap_err());
        assert!(error.contains("has no kernel's modules"), "{error}");

        let error = survey(&Source { root: &root.join("usr"), ..source }).unwrap_err();
        assert!(format!("{error:#}").contains("has no `var/lib/dpkg/status`"), "{error:#}");
    }
}
