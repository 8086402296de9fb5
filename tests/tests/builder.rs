//! The real builder on the Debian manifest: the same bytes anywhere, readable with the tools of others, and nothing half-written after
//! kill -9. Artifacts come from this machine's own apt sources, Kubernetes from Debian's source package. Beside it smaller releases, from
//! a registry, an archive and a repository on loopback.

mod builder {
    pub(crate) mod complete;
    pub(crate) mod full;
    pub(crate) mod packages;
    pub(crate) mod registry;
    pub(crate) mod rpm;
    mod upstreams;
}

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use builder::{complete, full, packages, registry, rpm};
use e2e::measure::taken;
use e2e::product::{Product, Programs, Yard, bundle_in};
use e2e::{Process, wait};
use libtest_mimic::{Arguments, Trial};

/// What the scenarios share: one yard and the bundle built in it.
struct Stage {
    directory: tempfile::TempDir,
    made: OnceLock<Result<(Yard, Product), String>>,
}

impl Stage {
    fn cache(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    fn made(&self) -> Result<&(Yard, Product)> {
        let make = || -> Result<(Yard, Product)> {
            // A cache of its own: the second build must not get the layers of the first.
            let cache = self.cache();
            let yard = Yard::lay(&Programs::build()?, &self.directory.path().join("one"), Some(&cache))?;
            let product = yard.make()?;
            Ok((yard, product))
        };
        self.made
            .get_or_init(|| make().map_err(|error| format!("{error:#}")))
            .as_ref()
            .map_err(|text| anyhow::anyhow!("{text}"))
    }
}

/// The same lock, another directory, cache, umask, time zone, locale and number of threads: the same bytes. Compared unsigned, for a
/// signature is random by design; what is signed is what is compared.
fn builds_are_identical(stage: &Stage) -> Result<()> {
    let (first, product) = stage.made()?;
    // The yard builds in POSIX. A locale that this machine lacks would silently be the same.
    let other_locale = "C.UTF-8";
    let locales = Process::new("locale").arg("-a").text()?;
    ensure!(locales.lines().any(|name| name.eq_ignore_ascii_case("C.utf8")), "there is no locale {other_locale}");
    let unsigned = first.build_unsigned("unsigned")?;
    let cache = stage.directory.path().join("second cache");
    let second = Yard::lay(&first.programs, &stage.directory.path().join("another directory"), Some(&cache))?;
    fs_err::copy(first.manifest().with_extension("lock"), second.manifest().with_extension("lock"))?;
    Process::new("sh")
        .args(["-c", "umask 077; exec \"$@\"", "sh"])
        .arg(&second.programs.builder)
        .args(second.build_arguments(None, "dist"))
        .args(["--jobs", "1"])
        .directory(second.directory())
        .env("TZ", "Pacific/Chatham")
        .env("LC_ALL", other_locale)
        .run()?;
    let other = bundle_in(&second.directory().join("dist"))?;
    ensure!(other.file_name() == product.bundle.file_name());
    Process::new("cmp").arg(&unsigned).arg(&other).run().context("two builds differ")?;
    Process::new("cmp").arg(&product.installer).arg(second.directory().join("dist/installer")).run()?;

    // The signed bundle holds the same index.
    let index = |bundle: &Path| Process::new("tar").arg("-xOf").arg(bundle).arg("index.json").text();
    ensure!(index(&product.bundle)? == index(&other)?, "the signed index differs");
    Ok(())
}

/// Debian's tar and minisign accept the signature, and refuse it for an index that differs by one bit.
fn minisign_verifies_the_index(stage: &Stage) -> Result<()> {
    let (_, product) = stage.made()?;
    let directory = tempfile::tempdir()?;
    let layout = unpack(&product.bundle, directory.path())?;
    let signature = layout_file(&layout, ".minisig")?;
    let verify = |index: &Path| {
        let process = Process::new("minisign").args(["-V", "-H", "-m"]).arg(index).arg("-x").arg(&signature);
        process.arg("-p").arg(&product.key).finish()
    };
    let verified = verify(&layout.join("index.json"))?;
    ensure!(verified.success(), "{}", verified.tail());
    ensure!(verified.stdout.contains("name=debian-12"), "the trusted comment names the bundle: {}", verified.stdout);
    let mut index = fs_err::read(layout.join("index.json"))?;
    index[10] ^= 1;
    fs_err::write(layout.join("flipped"), index)?;
    ensure!(!verify(&layout.join("flipped"))?.success());
    Ok(())
}

/// skopeo reads every image in the bundle and copies it out; umoci unpacks a gzip copy of each component to the files that were signed.
fn skopeo_and_umoci_read_the_images(stage: &Stage) -> Result<()> {
    let (_, product) = stage.made()?;
    let directory = tempfile::tempdir()?;
    let layout = unpack(&product.bundle, directory.path())?;
    let index: serde_json::Value = serde_json::from_slice(&fs_err::read(layout.join("index.json"))?)?;
    let descriptors = index["manifests"].as_array().context("an index without manifests")?;
    ensure!(descriptors.len() >= 10, "{} images", descriptors.len());
    let skopeo = |command: &str| Process::new("skopeo").arg(command).arg("--insecure-policy");
    let mut unpacked = 0;
    for (number, descriptor) in descriptors.iter().enumerate() {
        let annotations = &descriptor["annotations"];
        let reference = annotations["org.opencontainers.image.ref.name"].as_str().context("an image without a name")?;
        let source = format!("oci:{}:{reference}", layout.display());
        skopeo("inspect").arg("--raw").arg(&source).run()?;
        if number == 0 {
            Process::new("skopeo")
                .arg("inspect")
                .arg(format!("oci-archive:{}:{reference}", product.bundle.display()))
                .run()?;
        }
        let kind = annotations["dev.sealift.kind"].as_str().context("an image without a kind")?;
        if ["packages", "kernel"].contains(&kind) {
            continue; // its layers are packages, not file systems
        }
        let copy = directory.path().join(format!("copy-{number}"));
        skopeo("copy")
            .args(["--quiet", "--dest-compress-format", "gzip"])
            .arg(&source)
            .arg(format!("oci:{}:copy", copy.display()))
            .run()
            .with_context(|| format!("copying {reference}"))?;
        let root = directory.path().join(format!("root-{number}"));
        Process::new("umoci")
            .args(["raw", "unpack", "--image"])
            .arg(format!("{}:copy", copy.display()))
            .arg(&root)
            .run()
            .with_context(|| format!("unpacking {reference}"))?;
        ensure!(fs_err::read_dir(&root)?.next().is_some(), "{reference} unpacks to nothing");
        unpacked += 1;
        fs_err::remove_dir_all(&copy)?;
        fs_err::remove_dir_all(&root)?;
    }
    ensure!(unpacked >= 8, "only {unpacked} images were unpacked");
    Ok(())
}

/// kill -9 at six moments of a build: no result under its final name that is not the right one, and the next build completes.
fn a_killed_build_leaves_nothing_half_written(stage: &Stage) -> Result<()> {
    let (yard, _) = stage.made()?;
    let right = yard.build_unsigned("unsigned")?;
    let directory = stage.directory.path().join("killed");
    let killed = Yard::lay(&yard.programs, &directory, Some(&stage.directory.path().join("killed cache")))?;
    fs_err::copy(yard.manifest().with_extension("lock"), killed.manifest().with_extension("lock"))?;
    let mut interrupted = 0;
    for milliseconds in [300, 1000, 2000, 4000, 8000, 12000] {
        let process =
            Process::new(&killed.programs.builder).args(killed.build_arguments(None, "dist")).directory(&directory);
        let mut build = process.spawn(&directory.join("log"))?;
        let ended = wait::until("the moment", Duration::from_millis(milliseconds), || {
            build.try_wait()?.context("still building")
        });
        if ended.is_err() {
            build.kill()?;
            interrupted += 1;
        }
        build.wait()?;
        if let Ok(bundle) = bundle_in(&directory.join("dist")) {
            Process::new("cmp").arg(&right).arg(bundle).run().context("a killed build left a wrong bundle")?;
        }
    }
    ensure!(interrupted >= 2, "the build was too quick to be killed");
    let again = killed.build_unsigned("dist")?;
    Process::new("cmp").arg(&right).arg(&again).run()?;
    for entry in fs_err::read_dir(directory.join("dist"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        ensure!(name == "installer" || name.ends_with(".bundle"), "`{name}` is left in dist");
    }
    Ok(())
}

/// `verify` accepts the right key and nothing else; `inspect` shows every component.
fn verify_and_inspect_say_what_is_inside(stage: &Stage) -> Result<()> {
    let (yard, product) = stage.made()?;
    yard.builder("verify").args(["--key", "demo.pub"]).arg(&product.bundle).run()?;
    yard.keygen("stranger")?;
    let refused = yard.builder("verify").args(["--key", "stranger.pub"]).arg(&product.bundle).finish()?;
    ensure!(refused.code == Some(4), "{refused:?}");
    let text = product.inspect(&yard.programs)?.to_string();
    for component in ["etcd", "kube-apiserver", "kubelet", "containerd", "runc", "cni", "nginx", "pause", "busybox"] {
        ensure!(text.contains(&format!("\"{component}\"")), "{component} is missing in {text}");
    }
    Ok(())
}

/// The installer reads a bundle of hundreds of megabytes, decompressing all of it, in less than 64 MiB.
fn verify_needs_little_memory(stage: &Stage) -> Result<()> {
    let (yard, product) = stage.made()?;
    let size = fs_err::metadata(&product.bundle)?.len();
    ensure!(size > 128 << 20, "a bundle of {size} bytes proves nothing");
    let taken = taken(&stage.directory.path().join("memory"), |time| {
        let verify = Process::new(&time[0]).args(&time[1..]).arg(&yard.programs.installer);
        verify.args(["verify", "--bundle"]).arg(&product.bundle).arg("--key").arg(&product.key)
    })?;
    ensure!(taken.peak_kib < 64 << 10, "{} KiB", taken.peak_kib);
    Ok(())
}

fn unpack(bundle: &Path, directory: &Path) -> Result<PathBuf> {
    let layout = directory.join("layout");
    fs_err::create_dir_all(&layout)?;
    Process::new("tar").arg("-xf").arg(bundle).arg("-C").arg(&layout).run()?;
    Ok(layout)
}

fn layout_file(layout: &Path, suffix: &str) -> Result<PathBuf> {
    for entry in fs_err::read_dir(layout)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(suffix) {
            return Ok(path);
        }
    }
    anyhow::bail!("no file in the layout ends with `{suffix}`")
}

type Scenario = fn(&Stage) -> Result<()>;

fn main() -> Result<()> {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let stage = Arc::new(Stage { directory: tempfile::tempdir_in("/var/tmp")?, made: OnceLock::new() });
    let scenarios: [(&str, Scenario); 18] = [
        ("one_manifest_has_every_kind_of_source", |_| full::one_manifest_has_every_kind_of_source()),
        ("images_are_the_registrys_byte_for_byte", |_| registry::images_are_the_registrys_byte_for_byte()),
        ("guarded_registries_let_us_in_with_the_login_alone", |_| {
            registry::guarded_registries_let_us_in_with_the_login_alone()
        }),
        ("verify_and_inspect_say_what_is_inside", verify_and_inspect_say_what_is_inside),
        ("verify_needs_little_memory", verify_needs_little_memory),
        ("minisign_verifies_the_index", minisign_verifies_the_index),
        ("programs_of_a_newer_distribution_are_refused", complete::programs_of_a_newer_distribution_are_refused),
        ("modules_of_the_kernel_are_those_that_dpkg_lists", complete::modules_of_the_kernel_are_those_that_dpkg_lists),
        ("skopeo_and_umoci_read_the_images", skopeo_and_umoci_read_the_images),
        ("builds_are_identical", builds_are_identical),
        ("a_killed_build_leaves_nothing_half_written", a_killed_build_leaves_nothing_half_written),
        ("dpkg_alone_installs_the_closure_that_apt_would_choose", |_| {
            packages::dpkg_alone_installs_the_closure_that_apt_would_choose()
        }),
        ("debian_13_takes_its_closure", |_| packages::debian_13_takes_its_closure()),
        ("dpkg_takes_a_chain_of_pre_depends_in_as_many_runs", |_| {
            packages::dpkg_takes_a_chain_of_pre_depends_in_as_many_runs()
        }),
        ("a_local_archive_becomes_a_bundle", |_| packages::a_local_archive_becomes_a_bundle()),
        ("a_bundle_of_rpm_packages_is_what_rpm_and_dnf_expect", |_| {
            rpm::a_bundle_of_rpm_packages_is_what_rpm_and_dnf_expect()
        }),
        ("versions_compare_as_rpm_compares_them", |_| rpm::versions_compare_as_rpm_compares_them()),
        ("a_base_package_that_is_too_old_is_renewed", |_| packages::a_base_package_that_is_too_old_is_renewed()),
    ];
    let trials = scenarios.into_iter().map(|(name, scenario)| {
        let stage = stage.clone();
        Trial::test(name, move || scenario(&stage).map_err(|error| format!("{error:#}").into()))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    drop(stage);
    conclusion.exit();
}
