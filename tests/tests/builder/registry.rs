//! Container images out of Debian's docker-registry, compared byte for byte with what skopeo reads there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bundle::Digest;
use e2e::product::{Programs, bundle_in};
use e2e::registry::{ENCODED, Guard, PASSWORD, Registry, TokenServer};
use e2e::{Finished, Process};

/// Media types of an index and the manifests in it.
pub(super) const OCI: (&str, &str) =
    ("application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json");
const DOCKER: (&str, &str) = (
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
);
/// Component, repository, tag.
const IMAGES: [(&str, &str, &str); 3] = [("app", "team/app", "1.0"), ("tool", "tool", "2"), ("dense", "dense", "3")];

/// Three images in a registry's storage, and a release that wants them from `registry.example`.
struct Harbour {
    directory: tempfile::TempDir,
    programs: Programs,
    open: Registry,
}

impl Harbour {
    fn fill() -> Result<Self> {
        let directory = tempfile::tempdir_in("/var/tmp")?;
        let path = |name: &str| directory.path().join(name);
        let open = Registry::start(&path("open"), &path("storage"), &Guard::Open)?;
        let (layout, dense) = (path("layout"), path("dense layout"));
        for architecture in ["amd64", "arm64"] {
            make_image(&layout, architecture)?;
            let (plain, zstd) = (oci(&layout, architecture), oci(&dense, architecture));
            let copy = Process::new("skopeo").args(["copy", "--quiet", "--insecure-policy"]);
            copy.args(["--dest-compress-format", "zstd", &plain, &zstd]).run()?;
            for (source, (_, repository, _), format) in
                [(&plain, IMAGES[0], "oci"), (&plain, IMAGES[1], "v2s2"), (&zstd, IMAGES[2], "oci")]
            {
                open.push(source, &format!("{repository}:{architecture}"), format)?;
            }
        }
        put_index(&open, IMAGES[0], OCI)?;
        put_index(&open, IMAGES[1], DOCKER)?;
        put_index(&open, IMAGES[2], OCI)?;
        let harbour = Self { programs: Programs::build()?, open, directory };
        harbour.write_release()?;
        Ok(harbour)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write_release(&self) -> Result<()> {
        let mut parts = vec![
            "name = \"images\"\nversion = \"1-1\"\nsequence = 1\ncreated = \"2026-11-21\"".to_owned(),
            "architectures = [\"amd64\", \"arm64\"]".to_owned(),
        ];
        for (name, repository, tag) in IMAGES {
            parts.push(format!("\n[component.{name}]\nversion = \"{tag}\"\n[[component.{name}.artifact]]"));
            parts.push(format!("image = \"registry.example/{repository}:{{version}}\""));
            let recipe = self.path("components").join(name);
            fs_err::create_dir_all(&recipe)?;
            let head = format!("name = \"{name}\"\ndescription = \"an image\"\nlicence = \"MIT\"\n");
            fs_err::write(recipe.join("component.toml"), head + "kind = \"container\"\nroles = [\"master\"]\n")?;
        }
        fs_err::write(self.path("images.toml"), parts.join("\n"))?;
        Ok(())
    }

    /// The builder on the release, with `registry` in the place of registry.example and a cache of its own.
    fn builder(&self, command: &str, registry: &Registry, cache: &str) -> Process {
        let mirror = format!("https://registry.example/=http://{}/", registry.address);
        let builder = Process::new(&self.programs.builder).args([command, "images.toml", "--mirror", &mirror]);
        builder.args(["--retries", "0", "--cache"]).arg(self.path(cache)).directory(self.directory.path())
    }

    fn lock(&self, registry: &Registry, cache: &str, config: &str) -> Result<Finished> {
        self.builder("lock", registry, cache).env("DOCKER_CONFIG", self.path(config)).finish()
    }

    /// Docker's config.json for a registry.
    fn login(&self, registry: &Registry, config: &str) -> Result<()> {
        fs_err::create_dir_all(self.path(config))?;
        let text = format!(r#"{{"auths":{{"{}":{{"auth":"{ENCODED}"}}}}}}"#, registry.address);
        fs_err::write(self.path(config).join("config.json"), text)?;
        Ok(())
    }

    /// A signed bundle for one architecture.
    fn bundle(&self, architecture: &str) -> Result<PathBuf> {
        let out = self.path(&format!("dist-{architecture}"));
        let build = self.builder("build", &self.open, "cache").args(["--arch", architecture, "--installer"]);
        build.arg(&self.programs.installer).args(["--key", "demo.key", "--out"]).arg(&out).run()?;
        bundle_in(&out)
    }
}

pub(super) fn oci(layout: &Path, tag: &str) -> String {
    format!("oci:{}:{tag}", layout.display())
}

/// An index for both architectures, with an attestation beside them as BuildKit pushes it.
pub(super) fn put_index(registry: &Registry, image: (&str, &str, &str), types: (&str, &str)) -> Result<()> {
    let (_, repository, tag) = image;
    let mut children = Vec::new();
    for (name, os, architecture) in
        [("amd64", "linux", "amd64"), ("arm64", "linux", "arm64"), ("amd64", "unknown", "unknown")]
    {
        let bytes = registry.raw(&format!("{repository}:{name}"))?;
        children.push(format!(
            r#"{{"mediaType":"{}","digest":"{}","size":{},"platform":{{"architecture":"{architecture}","os":"{os}"}}}}"#,
            types.1,
            Digest::of(&bytes),
            bytes.len()
        ));
    }
    let children = children.join(",\n  ");
    let index = format!("{{\"schemaVersion\":2,\n \"mediaType\":\"{}\",\n \"manifests\":[{children}]}}\n", types.0);
    registry.put(repository, tag, types.0, index.as_bytes())
}

/// A small image of two layers in an OCI layout, tagged by its architecture.
pub(super) fn make_image(layout: &Path, architecture: &str) -> Result<()> {
    let umoci = || Process::new("umoci");
    if !layout.exists() {
        umoci().args(["init", "--layout"]).arg(layout).run()?;
    }
    let image = format!("{}:{architecture}", layout.display());
    umoci().args(["new", "--image", &image]).run()?;
    let source = tempfile::tempdir()?;
    for (name, length) in [("shared", 30_000), (architecture, 300_000)] {
        let content: Vec<u8> =
            (0..length).map(|at: usize| (at * at / (7 + name.len()) % 251).to_le_bytes()[0]).collect();
        fs_err::write(source.path().join(name), content)?;
        umoci().args(["insert", "--image", &image]).arg(source.path().join(name)).arg(format!("/{name}")).run()?;
    }
    umoci().args(["config", "--image", &image, "--architecture", architecture, "--os", "linux"]).run()?;
    Ok(())
}

fn blobs(layout: &Path) -> Result<BTreeSet<String>> {
    let names = fs_err::read_dir(layout.join("blobs/sha256"))?;
    names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// The blobs of what is no container: the bill of materials, which the builder makes itself.
fn of_ours(layout: &Path, bundled: &serde_json::Value) -> Result<BTreeSet<String>> {
    let mut blobs = BTreeSet::new();
    let entries = bundled["manifests"].as_array().into_iter().flatten();
    for entry in entries.filter(|entry| entry["annotations"]["dev.sealift.kind"] != "container") {
        let root = hex(&entry["digest"])?;
        let manifest = fs_err::read(layout.join("blobs/sha256").join(&root))?;
        let manifest: serde_json::Value = serde_json::from_slice(&manifest)?;
        for blob in manifest["layers"].as_array().into_iter().flatten().chain([&manifest["config"]]) {
            blobs.insert(hex(&blob["digest"])?);
        }
        blobs.insert(root);
    }
    Ok(blobs)
}

pub(super) fn hex(digest: &serde_json::Value) -> Result<String> {
    Ok(digest.as_str().and_then(|text| text.strip_prefix("sha256:")).context("no digest")?.to_owned())
}

/// Lock, build and verify; then every blob of the bundle is the one that skopeo gets, and there is no other in it.
pub(crate) fn images_are_the_registrys_byte_for_byte() -> Result<()> {
    let harbour = Harbour::fill()?;
    let locked = harbour.lock(&harbour.open, "cache", "no config")?;
    ensure!(locked.success(), "{}", locked.tail());
    let lock = fs_err::read_to_string(harbour.path("images.lock"))?;
    Process::new(&harbour.programs.builder)
        .args(["keygen", "--no-password", "--out", "demo"])
        .directory(harbour.directory.path())
        .run()?;
    for architecture in ["amd64", "arm64"] {
        let bundle = harbour.bundle(architecture)?;
        let layout = harbour.path(&format!("unpacked-{architecture}"));
        fs_err::create_dir(&layout)?;
        Process::new("tar").arg("-xf").arg(&bundle).arg("-C").arg(&layout).run()?;
        let bundled: serde_json::Value = serde_json::from_slice(&fs_err::read(layout.join("index.json"))?)?;
        let mut expected = of_ours(&layout, &bundled)?;
        for (name, repository, tag) in IMAGES {
            let reference = format!("registry.example/{repository}:{tag}");
            let mut entries = bundled["manifests"].as_array().into_iter().flatten();
            let entry = entries.find(|entry| entry["annotations"]["io.containerd.image.name"] == reference.as_str());
            let root = hex(&entry.with_context(|| format!("{reference} is not in the bundle"))?["digest"])?;
            let raw = harbour.open.raw(&format!("{repository}:{tag}"))?;
            ensure!(Digest::of(&raw).hex() == root && lock.contains(&root), "{name}: the root is another");
            ensure!(fs_err::read(layout.join("blobs/sha256").join(&root))? == raw, "{name}: the root has changed");
            expected.insert(root);

            let index: serde_json::Value = serde_json::from_slice(&raw)?;
            let mut children = index["manifests"].as_array().into_iter().flatten();
            let child = children.find(|child| child["platform"]["architecture"] == architecture);
            let child = hex(&child.context("no child")?["digest"])?;
            let out = harbour.path(&format!("{name}-{architecture}"));
            harbour.open.copy_out(&format!("{repository}@sha256:{child}"), &out)?;
            let manifest: serde_json::Value = serde_json::from_slice(&fs_err::read(out.join("manifest.json"))?)?;
            Process::new("cmp").arg(out.join("manifest.json")).arg(layout.join("blobs/sha256").join(&child)).run()?;
            expected.insert(child);
            let layers = manifest["layers"].as_array().context("no layers")?;
            ensure!(layers.len() == 2, "{name} has {} layers", layers.len());
            for descriptor in layers.iter().chain([&manifest["config"]]) {
                let digest = hex(&descriptor["digest"])?;
                Process::new("cmp").arg(out.join(&digest)).arg(layout.join("blobs/sha256").join(&digest)).run()?;
                expected.insert(digest);
            }
        }
        let found = blobs(&layout)?;
        ensure!(found == expected, "{found:?} is in the bundle, {expected:?} in the registry");
        let verify = Process::new(&harbour.programs.builder).args(["verify", "--key", "demo.pub"]).arg(&bundle);
        verify.directory(harbour.directory.path()).run()?;
    }
    let verify = Process::new(&harbour.programs.installer).args(["verify", "--key", "demo.pub", "--bundle"]);
    verify.arg(harbour.bundle("amd64")?).directory(harbour.directory.path()).run()?;
    Ok(())
}

/// The same lock from a registry that wants a password and from one that wants tokens; without them, a clear refusal.
pub(crate) fn guarded_registries_let_us_in_with_the_login_alone() -> Result<()> {
    let harbour = Harbour::fill()?;
    let lock = harbour.path("images.lock");
    ensure!(harbour.lock(&harbour.open, "cache", "no config")?.success());
    let expected = fs_err::read(&lock)?;

    let tokens = TokenServer::start(&harbour.path("tokens"))?;
    for (name, guard) in [("password", Guard::Password), ("token", Guard::Token(&tokens))] {
        let registry = Registry::start(&harbour.path(name), &harbour.path("storage"), &guard)?;
        fs_err::remove_file(&lock)?;
        let (cache, config) = (format!("cache-{name}"), format!("config-{name}"));
        let refused = harbour.lock(&registry, &cache, &config)?;
        ensure!(!refused.success() && refused.stderr.contains("wants a login"), "{name}: {}", refused.tail());
        ensure!(!lock.exists(), "{name}: a lock was written");

        harbour.login(&registry, &config)?;
        let locked = harbour.lock(&registry, &cache, &config)?;
        ensure!(locked.success(), "{name}: {}", locked.tail());
        ensure!(fs_err::read(&lock)? == expected, "{name}: the lock differs");
        let fetch = harbour.builder("fetch", &registry, &cache).env("DOCKER_CONFIG", harbour.path(&config)).finish()?;
        ensure!(fetch.success(), "{name}: {}", fetch.tail());
        for said in [&refused, &locked, &fetch] {
            let said = format!("{}{}", said.stdout, said.stderr);
            ensure!(!said.contains(PASSWORD) && !said.contains(ENCODED), "{name}: a secret is shown: {said}");
        }
        // All of it is in the cache now: nobody is asked any more.
        drop(registry);
        let offline = Process::new(&harbour.programs.builder).args(["fetch", "images.toml", "--offline", "--cache"]);
        offline.arg(harbour.path(&cache)).directory(harbour.directory.path()).run()?;
    }
    ensure!(!tokens.asked().is_empty(), "no token was asked for");
    Ok(())
}
