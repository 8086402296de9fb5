//! Figures beside a baseline of the same run: packing against `tar | zstd -T0`, verifying against `openssl dgst`, unpacking
//! against `zstd -d | tar x`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::master::{Master, events};
use crate::measure::{Taken, best, mebibytes, megabytes, rate, ratio, seconds, taken};
use crate::output::{heading, say, table};
use crate::product::{Product, Programs, Yard};
use crate::{Bed, Host, Process, Route};

/// Measures and prints.
pub fn run() -> Result<()> {
    let directory = tempfile::tempdir_in("/var/tmp")?;
    let report = directory.path().join("time");
    let programs = Programs::build()?;
    let (product, mut rows) = build(&programs, directory.path(), &report)?;
    rows.extend(verify(&product, &report)?);
    rows.extend(install(&product, directory.path())?);
    heading("figures");
    table(&rows);
    Ok(())
}

fn row(name: &str, value: impl Into<String>) -> (String, String) {
    (name.to_owned(), value.into())
}

/// Runs `process` under GNU time on this machine.
fn local(report: &Path, program: &Path, arguments: &[String], directory: &Path) -> Result<Taken> {
    taken(report, |time| Process::new(&time[0]).args(&time[1..]).arg(program).args(arguments).directory(directory))
}

fn build(programs: &Programs, directory: &Path, report: &Path) -> Result<(Product, Vec<(String, String)>)> {
    heading("builder: cold and warm");
    let yard = Yard::lay(programs, &directory.join("yard"), Some(&directory.join("cache")))?;
    yard.keygen("demo")?;
    yard.lock()?;
    let arguments = yard.build_arguments(Some("demo"), "dist");
    let run = || local(report, &programs.builder, &arguments, yard.directory());
    let (cold, warm) = (run()?, best(run)?);
    // Another link in one component: its layer is made anew, all others are known.
    let recipe = yard.manifest().with_file_name("components").join("etcd/component.toml");
    let text = fs_err::read_to_string(&recipe)?;
    fs_err::write(&recipe, format!("links = {{ \"bin/etcd-bench\" = \"etcd\" }}\n{text}"))?;
    let changed = run()?;
    fs_err::write(&recipe, text)?;
    // All artifacts at hand, no layer known.
    fs_err::remove_dir_all(directory.join("cache/layer"))?;
    let anew = run()?;
    let product = yard.build("demo", "dist")?;
    let mut rows = vec![
        row("bundle", megabytes(fs_err::metadata(&product.bundle)?.len())),
        row("installer program", megabytes(fs_err::metadata(&product.installer)?.len())),
        row("builder build, cold", format!("{}, peak {}", seconds(cold.time), mebibytes(cold.peak_kib))),
        row("builder build, warm", format!("{}, peak {}", seconds(warm.time), mebibytes(warm.peak_kib))),
        row("builder build, etcd changed", format!("{}, peak {}", seconds(changed.time), mebibytes(changed.peak_kib))),
    ];
    rows.extend(pack(&product, directory, anew)?);
    Ok((product, rows))
}

/// A build without any layer, which unpacks, packs, hashes, checks and writes, beside the usual tools on files at hand.
fn pack(product: &Product, directory: &Path, anew: Taken) -> Result<Vec<(String, String)>> {
    heading("packing: a build without layers beside tar | zstd -T0 -12 of the same files");
    let layers = layers(product, directory)?;
    let roots = directory.join("files");
    unpack_layers(&layers, &roots)?;
    let out = directory.join("files.tar.zst");
    let start = Instant::now();
    let line = "tar -c -C \"$1\" . | zstd -q -f -T0 -12 -o \"$2\"";
    Process::new("sh").args(["-c", line, "sh"]).arg(&roots).arg(&out).run()?;
    let plain = start.elapsed();
    let listed = Process::new("du").args(["-sb", &roots.display().to_string()]).text()?;
    let size: u64 = listed.split_whitespace().next().context("du said nothing")?.parse()?;
    let mut ours = 0;
    for layer in &layers {
        ours += fs_err::metadata(layer)?.len();
    }
    let theirs = fs_err::metadata(&out)?.len();
    fs_err::remove_dir_all(&roots)?;
    Ok(vec![
        row("builder build, no layer known", format!("{}, peak {}", seconds(anew.time), mebibytes(anew.peak_kib))),
        row("  of files that hold", megabytes(size)),
        row("  packed", format!("{}, {}", rate(size, anew.time), megabytes(ours))),
        row("tar | zstd -T0 -12", format!("{}, {}", rate(size, plain), megabytes(theirs))),
        row("build / tar | zstd", ratio(anew.time, plain)),
    ])
}

fn verify(product: &Product, report: &Path) -> Result<Vec<(String, String)>> {
    heading("verifying: installer verify beside openssl dgst -sha256");
    let size = fs_err::metadata(&product.bundle)?.len();
    let here = Path::new("/");
    let (bundle, key) = (product.bundle.display().to_string(), product.key.display().to_string());
    let ours = ["verify", "--bundle", &bundle, "--key", &key].map(str::to_owned);
    let theirs = ["dgst", "-sha256", &bundle].map(str::to_owned);
    let ours = best(|| local(report, &product.installer, &ours, here))?;
    let theirs = best(|| local(report, Path::new("openssl"), &theirs, here))?;
    ensure!(ours.peak_kib < 64 * 1024, "verifying took {} of memory, more than 64 MiB", mebibytes(ours.peak_kib));
    Ok(vec![
        row("installer verify", format!("{}, peak {}", rate(size, ours.time), mebibytes(ours.peak_kib))),
        row("openssl dgst -sha256", rate(size, theirs.time)),
        row("verify / openssl", ratio(ours.time, theirs.time)),
    ])
}

fn install(product: &Product, directory: &Path) -> Result<Vec<(String, String)>> {
    heading("installing: the store step beside zstd -d | tar x of the same layers");
    let bed = Bed::new()?;
    let master = Master::prepare(Host::boot(&bed, "master-1", 11, Route::None)?, product, "")?;
    master.host.copy(Path::new("/usr/bin/time"), "/root/time")?;
    let argv = master.command("install", "/root/x.bundle");
    let start = Instant::now();
    let time = ["--quiet", "--format=%M", "--output", "/root/time.out"];
    let finished = master.host.inside("/root/time").args(time).args(&argv).arg("--json").run()?;
    master.ready(Duration::from_secs(120))?;
    let ready = start.elapsed();
    let install = crate::master::Install { events: events(&finished.stdout), finished };
    let peak: u64 = fs_err::read_to_string(master.host.file("/root/time.out"))?.trim().parse()?;
    ensure!(peak < 64 * 1024, "installing took {} of memory, more than 64 MiB", mebibytes(peak));

    let steps = install.slowest();
    let store = steps.iter().find(|(name, _)| name == "store").context("no step `store`")?.1;
    let store = Duration::from_millis(store);
    let plain = unpack_plainly(product, directory)?;
    let slowest: Vec<String> =
        steps.iter().take(5).map(|(name, time)| format!("{name} {}", seconds(Duration::from_millis(*time)))).collect();
    say(format_args!("slowest steps: {}", slowest.join(", ")));
    Ok(vec![
        row("store step (verify and unpack)", seconds(store)),
        row("zstd -d | tar x, one after another", seconds(plain)),
        row("store / plain", ratio(store, plain)),
        row("installer install, peak", mebibytes(peak)),
        row("installer start to node Ready", seconds(ready)),
        row("slowest steps", slowest.join(", ")),
    ])
}

/// Unpacks the layers of all components with the usual tools, and syncs as the installer does; nothing is verified.
fn unpack_plainly(product: &Product, directory: &Path) -> Result<Duration> {
    let layers = layers(product, directory)?;
    let start = Instant::now();
    unpack_layers(&layers, &directory.join("plain"))?;
    Process::new("sync").arg("-f").arg(directory).run()?;
    Ok(start.elapsed())
}

fn unpack_layers(layers: &[PathBuf], directory: &Path) -> Result<()> {
    for (number, layer) in layers.iter().enumerate() {
        let root = directory.join(number.to_string());
        fs_err::create_dir_all(&root)?;
        let line = "zstd -qdc \"$1\" | tar -x -C \"$2\"";
        Process::new("sh").args(["-c", line, "sh"]).arg(layer).arg(&root).run()?;
    }
    Ok(())
}

/// The layers of all programs in the bundle, as files.
fn layers(product: &Product, directory: &Path) -> Result<Vec<PathBuf>> {
    let layout = directory.join("layout");
    fs_err::create_dir_all(&layout)?;
    Process::new("tar").arg("-xf").arg(&product.bundle).arg("-C").arg(&layout).run()?;
    let blob = |digest: &Value| -> Result<PathBuf> {
        let hex =
            digest.as_str().and_then(|text| text.strip_prefix("sha256:")).context("a descriptor without a digest")?;
        Ok(layout.join("blobs/sha256").join(hex))
    };
    let index: Value = serde_json::from_slice(&fs_err::read(layout.join("index.json"))?)?;
    let mut layers = Vec::new();
    for descriptor in index["manifests"].as_array().into_iter().flatten() {
        if descriptor["annotations"]["dev.sealift.kind"] == "program" {
            let manifest: Value = serde_json::from_slice(&fs_err::read(blob(&descriptor["digest"])?)?)?;
            layers.push(blob(&manifest["layers"][0]["digest"])?);
        }
    }
    ensure!(!layers.is_empty(), "no layers of programs in the index");
    Ok(layers)
}
