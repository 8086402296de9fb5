//! Closures of Debian packages, proven: dpkg alone installs them on a minimal root without a network, and apt's own resolver
//! comes to the same set.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use e2e::Process;
use e2e::apt_archive::{self, AptArchive};
use e2e::process::Finished;
use e2e::product::{Programs, bundle_in, repository};
use e2e::root::{self, Debian};

/// The default set of `[packages.…]`.
const ASKED: [&str; 11] = [
    "chrony",
    "conntrack",
    "curl",
    "ethtool",
    "ipset",
    "iptables",
    "ipvsadm",
    "jq",
    "libseccomp2",
    "nftables",
    "socat",
];

/// A directory with a manifest that asks for packages of a release, and the programs.
struct Shop {
    release: Debian,
    directory: tempfile::TempDir,
    programs: Programs,
}

/// One package of a lock.
#[derive(Debug)]
struct Locked {
    name: String,
    version: String,
    sha256: String,
    needed_by: Option<String>,
}

impl Shop {
    fn open(release: Debian, suites: &[String], more: &str) -> Result<Self> {
        let directory = tempfile::tempdir_in("/var/tmp")?;
        for part in ["components", "bases"] {
            Process::new("cp").arg("-r").arg(repository().join("manifests").join(part)).arg(directory.path()).run()?;
        }
        let (name, busybox) = match release {
            Debian::Bookworm => (release.name(), "1.35.0"),
            Debian::Trixie => (release.name(), "1.37.0"),
        };
        let manifest = format!(
            "name = \"shop\"\nversion = \"1\"\nsequence = 1\ncreated = \"2026-11-21\"\narchitectures = [\"amd64\"]\n\
             distributions = [\"{name}\"]\n[packages.{name}]\nsuites = {suites:?}\n{more}\n\
             [component.busybox]\nversion = \"{busybox}\"\n[[component.busybox.artifact]]\napt = \"busybox-static\"\n\
             files = [{{ from = \"bin/busybox\", to = \"bin/busybox\", mode = \"0755\" }}]\n"
        );
        fs_err::write(directory.path().join("shop.toml"), manifest)?;
        Ok(Self { release, directory, programs: Programs::build()? })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn builder(&self, arguments: &[&str], sources: &Path) -> Result<Finished> {
        let builder = Process::new(&self.programs.builder).args(arguments).directory(self.directory.path());
        builder.arg("--cache").arg(root::cache()?.join("builder")).arg("--apt-sources").arg(sources).run()
    }

    /// Locks and fetches; the packages of a component in the lock's order.
    fn closure(&self, component: &str, sources: &Path) -> Result<Vec<Locked>> {
        self.builder(&["lock", "shop.toml"], sources)?;
        self.builder(&["fetch", "shop.toml"], sources)?;
        self.locked(component)
    }

    fn locked(&self, component: &str) -> Result<Vec<Locked>> {
        let lock: toml::Table = toml::from_str(&fs_err::read_to_string(self.path("shop.lock"))?)?;
        let entries = lock["component"][component]["amd64"].as_array().context("no packages for amd64")?;
        let text = |entry: &toml::Value, key: &str| entry.get(key).and_then(toml::Value::as_str).map(str::to_owned);
        let package = |entry: &toml::Value| -> Option<Locked> {
            let url = text(entry, "url")?;
            let (name, version) = url.strip_prefix("apt:")?.split_once('=')?;
            let sha256 = text(entry, "sha256")?;
            let sha256 = sha256.strip_prefix("sha256:").unwrap_or(&sha256).to_owned();
            let needed_by = text(entry, "needed_by");
            Some(Locked { name: name.to_owned(), version: version.to_owned(), sha256, needed_by })
        };
        entries.iter().map(|entry| package(entry).with_context(|| format!("{entry} is no package"))).collect()
    }

    /// The downloaded file of a package.
    fn file(package: &Locked) -> Result<PathBuf> {
        Ok(root::cache()?.join("builder/sha256").join(&package.sha256))
    }

    /// A copy of the minimal root.
    fn root(&self, name: &str) -> Result<PathBuf> {
        let copy = self.path(name);
        Process::new("cp").args(["--archive", "--reflink=auto"]).arg(self.release.minimal()?).arg(&copy).run()?;
        // No daemon is started by an installation.
        fs_err::write(copy.join("usr/sbin/policy-rc.d"), "#!/bin/sh\nexit 101\n")?;
        Process::new("chmod").arg("0755").arg(copy.join("usr/sbin/policy-rc.d")).run()?;
        Ok(copy)
    }
}

/// Runs a program in a root that has no network and sees none of the machine's processes.
fn inside(root: &Path, arguments: &[&str]) -> Result<Finished> {
    Process::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child"])
        .arg(format!("--mount-proc={}", root.join("proc").display()))
        .arg("chroot")
        .arg(root)
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .run()
}

/// Gives the packages to dpkg, all at once and in this order; everything is configured then and nothing is missing. Where one
/// must be configured before another is unpacked (`Pre-Depends`), dpkg takes the other in a later run only.
fn install(root: &Path, packages: &[Locked], runs: usize) -> Result<()> {
    fs_err::create_dir_all(root.join("debs"))?;
    let mut arguments = vec!["dpkg".to_owned(), "--install".to_owned()];
    for package in packages {
        let name = format!("/debs/{}.deb", package.name);
        fs_err::copy(Shop::file(package)?, root.join(&name[1..]))?;
        arguments.push(name);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    for _ in 1..runs {
        let error = inside(root, &arguments).err().context("dpkg took all of it in fewer runs")?;
        ensure!(format!("{error:#}").contains("pre-dependency problem"), "{error:#}");
    }
    inside(root, &arguments)?;
    let audit = inside(root, &["dpkg", "--audit"])?;
    ensure!(audit.stdout.is_empty(), "dpkg --audit: {}", audit.stdout);
    inside(root, &["apt-get", "check"])?;
    for package in packages {
        let format = "${db:Status-Abbrev} ${Version}";
        let state = inside(root, &["dpkg-query", "--show", "--showformat", format, &package.name])?.stdout;
        ensure!(state == format!("ii  {}", package.version), "{}: {state}", package.name);
    }
    Ok(())
}

/// What apt would install on a root, by its own reading of the same sources: name, and version with its digest.
fn apts_choice(shop: &Shop, root: &Path, sources: &Path, asked: &[&str]) -> Result<BTreeMap<String, String>> {
    let state = shop.path("apt");
    for part in ["state/lists/partial", "cache/archives/partial", "etc"] {
        fs_err::create_dir_all(state.join(part))?;
    }
    let extension = sources.extension().and_then(|end| end.to_str()).context("apt goes by the extension")?;
    fs_err::copy(sources, state.join("etc").join(format!("one.{extension}")))?;
    let apt = |arguments: &[&str]| {
        let mut process = Process::new("apt-get");
        let settings = [
            ("Dir::State", state.join("state")),
            ("Dir::State::status", root.join("var/lib/dpkg/status")),
            ("Dir::Cache", state.join("cache")),
            ("Dir::Etc::sourceparts", state.join("etc")),
            ("Dir::Etc::sourcelist", "/dev/null".into()),
            ("Dir::Etc::preferencesparts", "/dev/null".into()),
            ("APT::Sandbox::User", "root".into()),
            ("APT::Architecture", "amd64".into()),
        ];
        for (name, value) in settings {
            process = process.arg("-o").arg(format!("{name}={}", value.display()));
        }
        process.args(arguments).run()
    };
    apt(&["-qq", "update"])?;
    let plan = apt(&[&["-qq", "--yes", "--no-install-recommends", "--print-uris", "install"][..], asked].concat())?;
    let mut chosen = BTreeMap::new();
    for line in plan.stdout.lines().filter(|line| line.starts_with('\'')) {
        // 'URI' NAME_VERSION_ARCHITECTURE.deb SIZE SHA256:HEX
        let file = line.split(' ').nth(1).context("a line without a file")?;
        let (name, rest) = file.split_once('_').context("a file without a version")?;
        let version = rest.rsplit_once('_').context("a file without an architecture")?.0.replace("%3a", ":");
        chosen.insert(name.to_owned(), version);
    }
    ensure!(!chosen.is_empty(), "apt chose nothing: {}", plan.stdout);
    Ok(chosen)
}

fn versions(packages: &[Locked]) -> BTreeMap<String, String> {
    packages.iter().map(|package| (package.name.clone(), package.version.clone())).collect()
}

/// The same packages in the same versions; there is no difference to explain.
fn same(ours: &[Locked], apts: &BTreeMap<String, String>) -> Result<()> {
    let ours = versions(ours);
    let all: BTreeSet<&String> = ours.keys().chain(apts.keys()).collect();
    let differs = |name: &&&String| ours.get(**name) != apts.get(**name);
    let differences: Vec<String> = all
        .iter()
        .filter(differs)
        .map(|name| format!("{name}: {:?}, apt {:?}", ours.get(*name), apts.get(*name)))
        .collect();
    ensure!(differences.is_empty(), "the builder and apt differ:\n{}", differences.join("\n"));
    Ok(())
}

/// The default set and the kernel, against the base that we ship: what the base states is true of the minimal root, dpkg
/// installs the packages there, and apt would have taken the same.
pub(crate) fn dpkg_alone_installs_the_closure_that_apt_would_choose() -> Result<()> {
    let (shop, root, packages) = closure_of_the_default_set(Debian::Bookworm)?;
    install(&root, &packages, 1)?;
    let version = inside(&root, &["jq", "--version"])?;
    ensure!(version.stdout.starts_with("jq-"), "{version:?}");

    // The same root without one member of the closure: dpkg says so, or this test would prove nothing.
    let short = shop.root("short")?;
    let without: Vec<Locked> = packages.into_iter().filter(|package| package.name != "libjq1").collect();
    let error = install(&short, &without, 1).err().context("dpkg did not miss libjq1")?;
    ensure!(format!("{error:#}").contains("libjq1"), "{error:#}");
    Ok(())
}

/// The same on Debian 13.
pub(crate) fn debian_13_takes_its_closure() -> Result<()> {
    let (_shop, root, packages) = closure_of_the_default_set(Debian::Trixie)?;
    install(&root, &packages, 1)?;
    let version = inside(&root, &["jq", "--version"])?;
    ensure!(version.stdout.starts_with("jq-"), "{version:?}");
    Ok(())
}

fn closure_of_the_default_set(release: Debian) -> Result<(Shop, PathBuf, Vec<Locked>)> {
    let (name, suites) = (release.name(), release.suites());
    let kernel = format!("[kernel.{name}]\ninstall = [\"linux-image-amd64\"]\nsuites = {suites:?}\n");
    let shop = Shop::open(release, &suites, &kernel)?;
    let root = shop.root("root")?;
    let stated: toml::Table = toml::from_str(&fs_err::read_to_string(shop.path(&format!("bases/{name}.toml")))?)?;
    for (name, version) in stated["packages"].as_table().context("a base without packages")? {
        let there = inside(&root, &["dpkg-query", "--show", "--showformat", "${Version}", name])?.stdout;
        let version = version.as_str().context("a version is text")?;
        Process::new("dpkg")
            .args(["--compare-versions", &there, "ge", version])
            .run()
            .with_context(|| format!("the base states `{name}` {version}, a minimal root has {there}"))?;
    }
    let sources = release.sources()?;
    let packages = shop.closure(&format!("packages-{name}"), &sources)?;
    ensure!(packages.len() > ASKED.len(), "{packages:?}");
    let asked = |package: &Locked| ASKED.contains(&package.name.as_str());
    for package in &packages {
        ensure!(asked(package) == package.needed_by.is_none(), "{package:?}");
    }
    same(&packages, &apts_choice(&shop, &root, &sources, &ASKED)?)?;
    same(&shop.locked(&format!("kernel-{name}"))?, &apts_choice(&shop, &root, &sources, &["linux-image-amd64"])?)?;
    Ok((shop, root, packages))
}

/// The same out of a local archive made with dpkg-scanpackages, down to the bytes in the bundle.
pub(crate) fn a_local_archive_becomes_a_bundle() -> Result<()> {
    let release = Debian::Bookworm;
    let machine = Shop::open(release, &release.suites(), "")?;
    let packages = machine.closure("packages-debian-12", &release.sources()?)?;
    let local = Shop::open(release, &[apt_archive::SUITE.to_owned()], "")?;
    let archive = AptArchive::new(&local.path("archive"))?;
    for package in packages.iter().chain(&machine.locked("busybox")?) {
        archive.add(&Shop::file(package)?, &format!("{}_{}.deb", package.name, package.version.replace(':', "%3a")))?;
    }
    archive.publish()?;
    let sources = archive.sources()?;
    let again = local.closure("packages-debian-12", &sources)?;
    ensure!(versions(&again) == versions(&packages), "{again:?}");
    let installer = local.programs.installer.display().to_string();
    local.builder(&["build", "shop.toml", "--installer", &installer, "--out", "dist"], &sources)?;
    let layout = local.path("layout");
    fs_err::create_dir_all(&layout)?;
    Process::new("tar").arg("-xf").arg(bundle_in(&local.path("dist"))?).arg("-C").arg(&layout).run()?;
    for package in &again {
        let blob = layout.join("blobs/sha256").join(&package.sha256);
        let shown =
            Process::new("dpkg-deb").args(["--show", "--showformat", "${Package}=${Version}"]).arg(&blob).text()?;
        ensure!(shown == format!("{}={}", package.name, package.version), "{shown}");
        let file = format!("{}_{}.deb", package.name, package.version.replace(':', "%3a"));
        Process::new("cmp").arg(&blob).arg(archive.pool().join(file)).run()?;
    }
    Ok(())
}

/// A target whose libxtables12 is older than the stated one: iptables needs its exact version, so the closure brings it, apt
/// would, too, and dpkg takes it.
pub(crate) fn a_base_package_that_is_too_old_is_renewed() -> Result<()> {
    let release = Debian::Bookworm;
    let shop = Shop::open(release, &release.suites(), "")?;
    let root = shop.root("root")?;
    let sources = release.sources()?;
    // The package itself under an older version: only its number matters here.
    let tree = shop.path("tree");
    let files = inside(&root, &["dpkg", "--listfiles", "libxtables12"])?.stdout;
    for file in files.lines().filter(|file| file.contains(".so")) {
        let to = tree.join(file.trim_start_matches('/'));
        fs_err::create_dir_all(to.parent().context("a library has a directory")?)?;
        Process::new("cp").arg("--archive").arg(root.join(file.trim_start_matches('/'))).arg(&to).run()?;
    }
    fs_err::create_dir_all(tree.join("DEBIAN"))?;
    fs_err::write(
        tree.join("DEBIAN/control"),
        "Package: libxtables12\nVersion: 1.8.7-1\nArchitecture: amd64\nMulti-Arch: same\nMaintainer: x <x@example.invalid>\n\
         Depends: libc6 (>= 2.34)\nDescription: older\n",
    )?;
    Process::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&tree).arg(root.join("old.deb")).run()?;
    inside(&root, &["dpkg", "--force-downgrade", "--install", "/old.deb"])?;

    let base = Process::new(&shop.programs.builder).args(["base", "--distribution", "debian-12", "--from-root"]);
    base.arg(&root).arg("--out").arg(shop.path("bases/debian-12.toml")).run()?;
    let packages = shop.closure("packages-debian-12", &sources)?;
    let renewed =
        packages.iter().find(|package| package.name == "libxtables12").context("libxtables12 is not renewed")?;
    ensure!(renewed.needed_by.as_deref() == Some("iptables"), "{renewed:?}");
    same(&packages, &apts_choice(&shop, &root, &sources, &ASKED)?)?;
    install(&root, &packages, 1)
}

/// A chain of `Pre-Depends` between members (nfs-common needs python3, that python3-minimal before, that python3.11-minimal
/// before): as many runs of dpkg as it has links, in the lock's order, and not one more.
pub(crate) fn dpkg_takes_a_chain_of_pre_depends_in_as_many_runs() -> Result<()> {
    let release = Debian::Bookworm;
    let shop = Shop::open(release, &release.suites(), "install = [\"nfs-common\"]")?;
    let (root, sources) = (shop.root("root")?, release.sources()?);
    let packages = shop.closure("packages-debian-12", &sources)?;
    same(&packages, &apts_choice(&shop, &root, &sources, &["nfs-common"])?)?;
    let at = |name: &str| packages.iter().position(|package| package.name == name);
    let [minimal, python, last] = ["python3.11-minimal", "python3-minimal", "nfs-common"].map(at);
    ensure!(minimal.is_some() && minimal < python && python < last, "{packages:?}");
    install(&root, &packages, 3)
}
