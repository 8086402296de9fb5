//! Every kind of upstream that a manifest can name, on loopback: files, an apt archive, an rpm-md repository, a registry.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bundle::Digest;
use e2e::Process;
use e2e::apt_archive::AptArchive;
use e2e::registry::{Guard, Registry};
use e2e::rpm::{self, Package};
use e2e::signer::Signer;
use e2e::web::Web;

use super::registry::{OCI, make_image, oci, put_index};

/// One manifest with everything in it; `DIGEST:FILE` stands for a digest.
const MANIFEST: &str = r#"
name = "full"
version = "1.0-1"
sequence = 1
created = "2026-11-21"
architectures = ["amd64"]
distributions = ["debian-12", "el9"]

[component.tool]
version = "1.0"
[[component.tool.artifact]]
url = "https://upstream.example/tool-{version}-{arch}.tar.gz"
mirrors = ["https://mirror.example/tool-{version}-{arch}.tar.gz"]
checksums = "https://upstream.example/SHA256SUMS"
files = [{ from = "tool-{version}/tool", to = "bin/tool", mode = "0755" }]

[component.notes]
version = "1"
[[component.notes.artifact]]
file = "notes.txt"
sha256 = { amd64 = "DIGEST:notes.txt" }
files = [{ from = "notes.txt", to = "notes.txt" }]

[component.greet]
version = "2.1"
[[component.greet.artifact]]
apt = "greet"
suite = "local"
files = [{ from = "usr/bin/greet", to = "bin/greet", mode = "0755" }]

[component.tell]
version = "3.2"
[[component.tell.artifact]]
rpm = "tell"
repositories = ["local"]
files = [{ from = "usr/bin/tell", to = "bin/tell", mode = "0755" }]

[component.app]
version = "1.0"
[[component.app.artifact]]
image = "registry.example/team/app:{version}"

[component.pause]
version = "3"
[[component.pause.artifact]]
url = "https://upstream.example/pause"
sha256 = { amd64 = "DIGEST:web/upstream/pause" }
files = [{ from = "pause", to = "pause", mode = "0755" }]

[packages.debian-12]
install = ["greet"]
suites = ["local"]

[packages.el9]
install = ["tell"]
repositories = ["local"]

[kernel.debian-12]
install = ["linux-image-6.1.0-9-amd64"]
suites = ["local"]

[addon.web]
version = "1"
licence = "MIT"
file = "web.yaml"
sha256 = "DIGEST:web.yaml"
modules = ["vxlan", "overlay"]
[[addon.web.patch]]
kind = "ConfigMap"
name = "web"
path = "/data/zone"
value = "{{ cluster.domain }}"
"#;

const ADDON: &str = "\
# comment
apiVersion: v1
kind: ConfigMap
metadata: {name: web, namespace: kube-system}
data: {zone: cluster.local, mode: \"0644\"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: kube-system}
spec: {template: {spec: {containers: [{name: web, image: \"registry.example/team/web:1\"}]}}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: kube-system}
spec: {ports: [{port: 80}]}
";

/// Recipe of each component that a manifest's table names: kind, and what else it says.
const RECIPES: [(&str, &str, &str); 6] = [
    ("tool", "program", "programs = [\"bin/tool\"]\nmodules = [\"br_netfilter\"]\n"),
    ("notes", "program", ""),
    ("greet", "program", "programs = [\"bin/greet\"]\n"),
    ("tell", "program", "programs = [\"bin/tell\"]\n"),
    ("app", "container", ""),
    ("pause", "container", "[container]\nreference = \"ours.example/pause:{version}\"\nentrypoint = [\"/pause\"]\n"),
];

const KERNEL: &str = "6.1.0-9-amd64";

/// The servers, and a directory with what they serve and the release that wants it.
pub(crate) struct Upstreams {
    directory: tempfile::TempDir,
    pub(crate) registry: Registry,
    pub(crate) archive: AptArchive,
    web: Web,
}

impl Upstreams {
    pub(crate) fn start() -> Result<Self> {
        let directory = tempfile::tempdir_in("/var/tmp")?;
        let path = |name: &str| directory.path().join(name);
        let archive = fill_archive(&path("apt"))?;
        fill_repository(&path("web/rpm"))?;
        fill_files(directory.path())?;
        let registry = fill_registry(directory.path())?;
        let web = Web::serve(&path("web"))?;
        let upstreams = Self { directory, registry, archive, web };
        upstreams.write_release()?;
        Ok(upstreams)
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// How the release's upstreams are reached.
    pub(crate) fn network(&self) -> Result<Vec<String>> {
        let mut arguments = Vec::new();
        for (host, to) in [
            ("upstream", format!("{}/upstream", self.web.url())),
            ("mirror", format!("{}/mirror", self.web.url())),
            ("registry", format!("http://{}", self.registry.address)),
        ] {
            arguments.extend(["--mirror".to_owned(), format!("https://{host}.example/={to}/")]);
        }
        arguments.extend(["--apt-sources".to_owned(), self.archive.sources()?.display().to_string()]);
        arguments.extend(["--rpm-repos", "local.repo", "--retries", "0"].map(str::to_owned));
        Ok(arguments)
    }

    /// Where the packages of the rpm-md repository lie.
    pub(crate) fn repository(&self) -> PathBuf {
        self.path("web/rpm")
    }

    /// Puts another image under the tag of `app`.
    pub(crate) fn move_the_tag(&self) -> Result<()> {
        self.registry.push(&oci(&self.path("images"), "amd64"), "team/app:1.0", "oci")
    }

    fn write_release(&self) -> Result<()> {
        let mut manifest = MANIFEST.to_owned();
        for name in ["notes.txt", "web/upstream/pause", "web.yaml"] {
            let digest = Digest::of(&fs_err::read(self.path(name))?).hex();
            manifest = manifest.replace(&format!("DIGEST:{name}"), &digest);
        }
        fs_err::write(self.path("full.toml"), manifest)?;
        for (name, kind, more) in RECIPES {
            let recipe = format!(
                "name = \"{name}\"\ndescription = \"x\"\nkind = \"{kind}\"\nroles = [\"master\", \"worker\"]\nlicence = \"MIT\"\n{more}"
            );
            fs_err::create_dir_all(self.path("components").join(name))?;
            fs_err::write(self.path("components").join(name).join("component.toml"), recipe)?;
        }
        let known = "glibc = \"2.34\"\nlibraries = [\"libc.so.6\"]\nprograms = [\"/bin/sh\"]";
        fs_err::create_dir_all(self.path("bases"))?;
        for (name, family, modules, has) in [
            ("debian-12", "deb", "[]", "libc6 = \"2.36-9\""),
            ("el9", "rpm", "[\"vxlan\", \"overlay\", \"br_netfilter\"]", "glibc = \"2.34-60.el9\""),
        ] {
            let base = format!(
                "distribution = \"{name}\"\nfamily = \"{family}\"\n{known}\nmodules = {modules}\n[packages]\n{has}\n"
            );
            fs_err::write(self.path("bases").join(format!("{name}.toml")), base)?;
        }
        let repository = format!(
            "[local]\nname=x\nbaseurl={}/rpm/\ngpgcheck=1\nrepo_gpgcheck=1\ngpgkey=file://{}\n",
            self.web.url(),
            self.path("web/rpm/key.asc").display()
        );
        fs_err::write(self.path("local.repo"), repository)?;
        Ok(())
    }
}

/// A package with these files, built by dpkg-deb and added to the archive.
fn add_deb(archive: &AptArchive, name: &str, version: &str, depends: &str, files: &[(&str, &str)]) -> Result<()> {
    let tree = tempfile::tempdir()?;
    for (path, content) in files {
        let path = tree.path().join(path);
        fs_err::create_dir_all(path.parent().context("a file has a directory")?)?;
        fs_err::write(path, content)?;
    }
    fs_err::create_dir_all(tree.path().join("DEBIAN"))?;
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: x <x@example.invalid>\n{depends}Description: x\n"
    );
    fs_err::write(tree.path().join("DEBIAN/control"), control)?;
    let file = format!("{name}_{version}_amd64.deb");
    let package = archive.pool().join(&file);
    Process::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(tree.path()).arg(package).run()?;
    Ok(())
}

fn fill_archive(directory: &Path) -> Result<AptArchive> {
    let archive = AptArchive::new(directory)?;
    let needs = "Depends: libgreet0 (>= 2), libc6 (>= 2.34)\n";
    add_deb(&archive, "greet", "2.1-1", needs, &[("usr/bin/greet", "#!/bin/sh\necho hello\n")])?;
    add_deb(&archive, "libgreet0", "2.1-1", "", &[("usr/share/greet/words", "hello\n")])?;
    add_deb(&archive, "libc6", "2.36-9", "", &[("usr/share/doc/libc6/copyright", "x\n")])?;
    let boot = |name: &str| format!("boot/{name}-{KERNEL}");
    let module = |name: &str| format!("lib/modules/{KERNEL}/{name}");
    let files = [
        (boot("vmlinuz"), "kernel\n"),
        (boot("config"), "CONFIG_OVERLAY_FS=y\nCONFIG_VXLAN=m\n"),
        (module("kernel/drivers/net/vxlan/vxlan.ko"), "module\n"),
        (module("modules.builtin"), "kernel/net/bridge/br_netfilter.ko\n"),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(path, content)| (path.as_str(), *content)).collect();
    add_deb(&archive, &format!("linux-image-{KERNEL}"), "6.1.9-1", "", &files)?;
    archive.publish()?;
    Ok(archive)
}

fn fill_repository(directory: &Path) -> Result<()> {
    let package = |name, version, lines, files| Package { name, version, lines, files };
    let packages = [
        package(
            "tell",
            "3.2-4.el9",
            &["Requires: libtell >= 3, libc.so.6(GLIBC_2.34)(64bit)"][..],
            &["/usr/bin/tell"][..],
        ),
        package("libtell", "1:3.2-4.el9", &[], &["/usr/share/tell"]),
        package("glibc", "2.34-60.el9", &["Provides: libc.so.6(GLIBC_2.34)(64bit)"], &[]),
    ];
    rpm::build(&packages, directory, "x86_64", "w3.zstdio")?;
    rpm::index(directory)?;
    let signer = Signer::new(&directory.with_extension("gpg"))?;
    signer.export_text(&directory.join("key.asc"))?;
    signer.sign_beside(&directory.join("repodata/repomd.xml"))
}

/// The archive of `tool` is gone from upstream, whose list of digests is still there; a mirror has it.
fn fill_files(directory: &Path) -> Result<()> {
    let path = |name: &str| directory.join(name);
    for name in ["tool-1.0", "web/upstream", "web/mirror"] {
        fs_err::create_dir_all(path(name))?;
    }
    fs_err::write(path("tool-1.0/tool"), "#!/bin/sh\necho tool\n")?;
    let archive = path("web/mirror/tool-1.0-amd64.tar.gz");
    Process::new("tar").arg("-czf").arg(&archive).arg("tool-1.0").directory(directory).run()?;
    let list = Process::new("sha256sum").arg("tool-1.0-amd64.tar.gz").directory(&path("web/mirror")).run()?.stdout;
    fs_err::write(path("web/upstream/SHA256SUMS"), list)?;
    fs_err::write(path("web/upstream/pause"), "pause\n")?;
    fs_err::write(path("notes.txt"), "read me\n")?;
    fs_err::write(path("web.yaml"), ADDON)?;
    Ok(())
}

/// `team/app:1.0` is an index for two architectures, `team/web:1` a single image.
fn fill_registry(directory: &Path) -> Result<Registry> {
    let registry = Registry::start(&directory.join("registry"), &directory.join("storage"), &Guard::Open)?;
    let layout = directory.join("images");
    for architecture in ["amd64", "arm64"] {
        make_image(&layout, architecture)?;
        registry.push(&oci(&layout, architecture), &format!("team/app:{architecture}"), "oci")?;
    }
    put_index(&registry, ("app", "team/app", "1.0"), OCI)?;
    registry.push(&oci(&layout, "amd64"), "team/web:1", "oci")?;
    Ok(registry)
}
