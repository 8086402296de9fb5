//! One manifest with every kind of source and every kind of component, from its upstreams to the bundle; each part judged by the
//! tools of those who made it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use e2e::Process;
use e2e::process::Finished;
use e2e::product::{Programs, bundle_in};
use serde_json::{Value, json};

use super::registry::hex;
use super::upstreams::Upstreams;

/// Each component with its kind, and how many artifacts which proof vouched for.
const EXPECTED: [(&str, &str, &str, u64); 12] = [
    ("addon-web", "addon", "manifest", 1),
    ("app", "container", "registry", 1),
    ("greet", "program", "apt", 1),
    ("image-team-web-1", "container", "registry", 1),
    ("kernel-debian-12", "kernel", "apt", 1),
    ("notes", "program", "manifest", 1),
    ("packages-debian-12", "packages", "apt", 2),
    ("packages-el9", "packages", "rpm", 2),
    ("pause", "container", "manifest", 1),
    ("tell", "program", "rpm", 1),
    ("tool", "program", "checksums", 1),
    ("sbom", "program", "", 0),
];

/// The release, and the programs that make a bundle of it.
struct Work {
    upstreams: Upstreams,
    programs: Programs,
}

impl Work {
    fn builder(&self, command: &str) -> Process {
        Process::new(&self.programs.builder).arg(command).directory(self.upstreams.directory())
    }

    fn online(&self, command: &str, arguments: &[&str], cache: &str) -> Result<Finished> {
        let process = self.builder(command).args(["full.toml", "--cache", cache]).args(arguments);
        process.args(self.upstreams.network()?).finish()
    }

    /// A bundle in `out`; of the cache alone when `offline`, for then nothing says where upstreams are.
    fn build(&self, out: &str, more: &[&str], cache: &str, offline: bool) -> Result<PathBuf> {
        let installer = self.programs.installer.display().to_string();
        let arguments = [&["--installer", &installer, "--out", out], more].concat();
        if offline {
            let process = self.builder("build").args(["full.toml", "--cache", cache, "--offline"]).args(arguments);
            process.run()?;
        } else {
            let built = self.online("build", &arguments, cache)?;
            ensure!(built.success(), "{}", built.tail());
        }
        bundle_in(&self.upstreams.path(out))
    }

    fn inspect(&self, bundle: &Path) -> Result<Value> {
        let text = self.builder("inspect").args(["--json", "--key", "demo.pub"]).arg(bundle).text()?;
        Ok(serde_json::from_str(&text)?)
    }
}

/// An unpacked bundle.
struct Layout {
    directory: PathBuf,
    index: Value,
}

impl Layout {
    fn of(bundle: &Path, directory: PathBuf) -> Result<Self> {
        fs_err::create_dir(&directory)?;
        Process::new("tar").arg("-xf").arg(bundle).arg("-C").arg(&directory).run()?;
        let index = serde_json::from_slice(&fs_err::read(directory.join("index.json"))?)?;
        Ok(Self { directory, index })
    }

    fn blob(&self, hex: &str) -> PathBuf {
        self.directory.join("blobs/sha256").join(hex)
    }

    /// A file of a component's only layer, as tar and zstd read it.
    fn file(&self, component: &str, path: &str) -> Result<String> {
        let mut entries = self.index["manifests"].as_array().into_iter().flatten();
        let is_it = |entry: &&Value| {
            let name = entry["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap_or_default();
            name.strip_prefix(component).is_some_and(|rest| rest.starts_with('-') && rest.ends_with("-amd64"))
        };
        let entry = entries.find(is_it).with_context(|| format!("{component} is not in the index"))?;
        let manifest: Value = serde_json::from_slice(&fs_err::read(self.blob(&hex(&entry["digest"])?))?)?;
        let layer = self.blob(&hex(&manifest["layers"][0]["digest"])?);
        let tar = Process::new("tar").args(["--zstd", "-xOf"]).arg(layer).arg(path).run();
        Ok(tar.with_context(|| format!("{path} of {component}"))?.stdout)
    }
}

/// What a shell command prints, byte for byte, with `$1` and `$2`.
fn shell(command: &str, first: &Path, second: &str) -> Result<String> {
    let script = format!("set -o pipefail; {command}");
    Ok(Process::new("bash").args(["-c", &script, "bash"]).arg(first).arg(second).run()?.stdout)
}

/// From lock to bundle and back: everything is there, is what upstream has, and stays that when upstream moves.
pub(crate) fn one_manifest_has_every_kind_of_source() -> Result<()> {
    let work = Work { upstreams: Upstreams::start()?, programs: Programs::build()? };
    let upstreams = &work.upstreams;
    // Upstream has lost the file, and the mirror has another one than upstream's list says.
    let mirrored = upstreams.path("web/mirror/tool-1.0-amd64.tar.gz");
    let right = fs_err::read(&mirrored)?;
    fs_err::write(&mirrored, [&right[..], b"x"].concat())?;
    let refused = work.online("lock", &[], "lied to")?;
    ensure!(!refused.success() && !upstreams.path("full.lock").exists(), "a mirror is believed: {}", refused.tail());
    ensure!(refused.stderr.contains("sent wrong content"), "nobody says what the mirror did: {}", refused.tail());
    fs_err::write(&mirrored, right)?;

    let locked = work.online("lock", &[], "cache")?;
    ensure!(locked.success(), "{}", locked.tail());
    let lock = fs_err::read(upstreams.path("full.lock"))?;
    let check = work.online("lock", &["--check"], "cache")?;
    ensure!(check.success(), "a new lock is not current: {}", check.tail());

    work.builder("keygen").args(["--no-password", "--out", "demo"]).run()?;
    let bundle = work.build("dist", &["--key", "demo.key"], "cache", false)?;
    work.builder("verify").args(["--key", "demo.pub"]).arg(&bundle).run()?;
    let verify = Process::new(upstreams.path("dist/installer")).args(["verify", "--key"]);
    verify.arg(upstreams.path("demo.pub")).arg("--bundle").arg(&bundle).run()?;

    let inspected = work.inspect(&bundle)?;
    let layout = Layout::of(&bundle, upstreams.path("layout"))?;
    components_have_their_proofs(&inspected)?;
    images_are_the_registrys(upstreams, &layout)?;
    packages_are_the_archives(upstreams, &inspected, &layout)?;
    files_are_the_right_ones(upstreams, &layout)?;

    // Built again from the artifacts in the cache, with nothing that was packed before.
    let rebuild = work.builder("verify").args(["--key", "demo.pub", "--rebuild", "full.toml", "--offline"]);
    rebuild.args(["--cache", "cache"]).arg(&bundle).run()?;
    let unsigned = work.build("offline", &[], "cache", true)?;
    let again = Layout::of(&unsigned, upstreams.path("offline layout"))?;
    ensure!(again.index == layout.index, "offline, the index is another");

    // A cache that knows nothing, and a tag that was moved: told by name, and nothing else comes into the bundle.
    upstreams.move_the_tag()?;
    let check = work.online("lock", &["--check"], "cache")?;
    ensure!(check.code == Some(1), "a moved tag is not told: {}", check.tail());
    let said = format!("{}{}", check.stdout, check.stderr);
    ensure!(said.contains("app (amd64): image:registry.example/team/app\n") && !said.contains("team/web"), "{said}");
    ensure!(fs_err::read(upstreams.path("full.lock"))? == lock, "--check has written the lock");
    let moved = work.build("moved", &[], "second cache", false)?;
    Process::new("cmp").arg(&unsigned).arg(&moved).run().context("a moved tag changed the bundle")?;
    Ok(())
}

fn components_have_their_proofs(inspected: &Value) -> Result<()> {
    let components = inspected["components"].as_array().context("no components")?;
    let found: BTreeSet<&str> = components.iter().filter_map(|component| component["name"].as_str()).collect();
    let expected: BTreeSet<&str> = EXPECTED.iter().map(|(name, ..)| *name).collect();
    ensure!(found == expected, "{found:?} is in the bundle, not {expected:?}");
    for (name, kind, proof, artifacts) in EXPECTED {
        let component = components.iter().find(|component| component["name"] == name).context(name)?;
        ensure!(component["kind"] == kind, "{name} is {}", component["kind"]);
        let proofs = component["proofs"].as_object().context("no proofs")?;
        let vouched: Vec<(&str, u64)> = proofs
            .iter()
            .filter_map(|(proof, count)| Some((proof.as_str(), count.as_u64()?)))
            .filter(|(_, count)| *count > 0)
            .collect();
        let right: &[(&str, u64)] = if artifacts > 0 { &[(proof, artifacts)] } else { &[] };
        ensure!(vouched == right, "{name}: {vouched:?}");
    }
    ensure!(inspected["first_use"] == json!([]), "{}", inspected["first_use"]);
    Ok(())
}

/// Index, manifests, configs and layers, beside what skopeo copies out of the registry.
fn images_are_the_registrys(upstreams: &Upstreams, layout: &Layout) -> Result<()> {
    for (component, name) in [("app", "team/app:1.0"), ("image-team-web-1", "team/web:1")] {
        let reference = format!("registry.example/{name}");
        let mut entries = layout.index["manifests"].as_array().into_iter().flatten();
        let entry = entries.find(|entry| entry["annotations"]["io.containerd.image.name"] == reference.as_str());
        let root = hex(&entry.with_context(|| format!("{reference} is not in the bundle"))?["digest"])?;
        let raw = upstreams.registry.raw(name)?;
        ensure!(fs_err::read(layout.blob(&root))? == raw, "{reference}: the root is another");

        let copy = upstreams.path(&format!("copy of {component}"));
        let skopeo = Process::new("skopeo").args(["copy", "--quiet", "--insecure-policy", "--src-tls-verify=false"]);
        let skopeo = skopeo.args(["--override-arch", "amd64", "--override-os", "linux", "--preserve-digests"]);
        skopeo.arg(upstreams.registry.name(name)).arg(format!("oci:{}:x", copy.display())).run()?;
        let mut blobs = 0;
        for entry in fs_err::read_dir(copy.join("blobs/sha256"))? {
            let path = entry?.path();
            let hex = path.file_name().context("a blob without a name")?.to_string_lossy().into_owned();
            Process::new("cmp").arg(&path).arg(layout.blob(&hex)).run().with_context(|| reference.clone())?;
            blobs += 1;
        }
        ensure!(blobs == 4, "{reference}: manifest, config and two layers are not {blobs} blobs");
    }
    Ok(())
}

/// Every package is the archive's file, by name.
fn packages_are_the_archives(upstreams: &Upstreams, inspected: &Value, layout: &Layout) -> Result<()> {
    let kernel = "linux-image-6.1.0-9-amd64_6.1.9-1_amd64.deb";
    let (pool, repository) = (upstreams.archive.pool(), upstreams.repository());
    for (component, theirs, files) in [
        ("packages-debian-12", &pool, ["greet_2.1-1_amd64.deb", "libgreet0_2.1-1_amd64.deb"].as_slice()),
        ("packages-el9", &repository, &["tell-3.2-4.el9.x86_64.rpm", "libtell-3.2-4.el9.x86_64.rpm"]),
        ("kernel-debian-12", &pool, &[kernel]),
    ] {
        let mut components = inspected["components"].as_array().into_iter().flatten();
        let component = components.find(|found| found["name"] == component).context(component)?;
        let packages = component["packages"].as_array().context("no packages")?;
        ensure!(packages.len() == files.len(), "{packages:?}");
        for file in files {
            let package = packages.iter().find(|package| package["file"] == *file);
            let package = package.with_context(|| format!("{file} is not in {packages:?}"))?;
            Process::new("cmp").arg(theirs.join(file)).arg(layout.blob(&hex(&package["sha256"])?)).run()?;
        }
    }
    Ok(())
}

/// Files that were picked, and the objects of the addon.
fn files_are_the_right_ones(upstreams: &Upstreams, layout: &Layout) -> Result<()> {
    let deb = upstreams.archive.pool().join("greet_2.1-1_amd64.deb");
    let rpm = upstreams.repository().join("tell-3.2-4.el9.x86_64.rpm");
    let read = |name: &str| fs_err::read_to_string(upstreams.path(name));
    for (component, path, theirs) in [
        ("greet", "bin/greet", shell("dpkg-deb --fsys-tarfile \"$1\" | tar -xO \"$2\"", &deb, "./usr/bin/greet")?),
        ("tell", "bin/tell", shell("rpm2cpio \"$1\" | cpio --quiet -i --to-stdout \"$2\"", &rpm, "./usr/bin/tell")?),
        ("tool", "bin/tool", read("tool-1.0/tool")?),
        ("notes", "notes.txt", read("notes.txt")?),
        ("pause", "pause", read("web/upstream/pause")?),
    ] {
        let ours = layout.file(component, path)?;
        ensure!(!theirs.is_empty() && ours == theirs, "{path} of {component} is {ours:?}, not {theirs:?}");
    }

    let objects: Value = serde_json::from_str(&layout.file("addon-web", "objects.json")?)?;
    let metadata = json!({ "name": "web", "namespace": "kube-system" });
    let containers = json!([{ "name": "web", "image": "registry.example/team/web:1" }]);
    let expected = json!([
        { "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { "zone": "cluster.local", "mode": "0644" } },
        { "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
          "spec": { "template": { "spec": { "containers": containers } } } },
        { "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": { "ports": [{ "port": 80 }] } },
    ]);
    ensure!(objects == expected, "{objects:#}");
    let patches: Value = serde_json::from_str(&layout.file("addon-web", "patches.json")?)?;
    ensure!(patches.as_array().is_some_and(|patches| patches.len() == 1), "{patches}");
    Ok(())
}
