//! Completeness on the real release: programs of a newer distribution are refused for an older one, by name, and the modules of
//! the real kernel package are what dpkg lists.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use e2e::Process;
use e2e::product::Yard;

use crate::Stage;

/// Debian 12's own programs, promised for a distribution with glibc 2.31 (Debian 11's) and without libseccomp: the gap that a
/// trixie runc falls into on bookworm, one release further back. The cache is warm: no artifact is opened to say so.
pub(crate) fn programs_of_a_newer_distribution_are_refused(stage: &Stage) -> Result<()> {
    let (first, _) = stage.made()?;
    let older = Yard::lay(&first.programs, &stage.directory.path().join("older"), Some(&stage.cache()))?;
    fs_err::copy(first.manifest().with_extension("lock"), older.manifest().with_extension("lock"))?;
    let base = older.directory().join("manifests/bases/debian-12.toml");
    let text = fs_err::read_to_string(&base)?;
    let lowered = text.replace("glibc = \"2.36\"", "glibc = \"2.31\"").replace("\"libseccomp.so.2\",", "");
    ensure!(lowered.len() == text.len() - "\"libseccomp.so.2\",".len(), "the base is not what this test changes");
    fs_err::write(&base, lowered)?;

    let build = Process::new(&older.programs.builder).args(older.build_arguments(None, "dist"));
    let refused = build.args(["--offline"]).directory(older.directory()).finish()?;
    ensure!(refused.code == Some(1), "{refused:?}");
    for part in [
        "the bundle would not be complete",
        "`runc` (bin/runc) needs glibc 2.34, but debian-12 has 2.31: take a build made for debian-12 or an older",
        "`runc` (bin/runc) needs the library `libseccomp.so.2`, which debian-12 does not have: add the package",
        "`cni` (bin/bridge, bin/host-local, bin/loopback, bin/portmap) needs glibc",
    ] {
        ensure!(refused.stderr.contains(part), "`{part}` is not in {}", refused.stderr);
    }
    ensure!(!refused.stderr.contains("kubelet"), "a static program needs no glibc: {}", refused.stderr);
    ensure!(!older.directory().join("dist").exists(), "something was written");
    Ok(())
}

/// What the builder keeps of the kernel package, beside the list that dpkg-deb makes of it.
pub(crate) fn modules_of_the_kernel_are_those_that_dpkg_lists(stage: &Stage) -> Result<()> {
    stage.made()?;
    let mut kernels = 0;
    for entry in fs_err::read_dir(stage.cache().join("contents"))? {
        let path = entry?.path();
        let contents: serde_json::Value = serde_json::from_slice(&fs_err::read(&path)?)?;
        let all = contents["kernels"].as_object().context("no kernels in the contents of a package")?;
        let Some((release, kernel)) = all.iter().find(|(_, kernel)| kernel["image"] == true) else { continue };
        let digest = path.file_stem().context("contents without a digest")?;
        let list = Process::new("dpkg-deb").arg("-c").arg(stage.cache().join("sha256").join(digest)).text()?;
        let module = |line: &str| Some(line.rsplit('/').next()?.strip_suffix(".ko")?.replace('-', "_"));
        let expected: BTreeSet<String> = list.lines().filter_map(module).collect();
        let found = kernel["modules"].as_array().context("no modules")?;
        let found: BTreeSet<String> = found.iter().filter_map(|name| name.as_str()).map(str::to_owned).collect();
        ensure!(found.len() > 1000 && found == expected, "{release}: {} modules, dpkg {}", found.len(), expected.len());
        kernels += 1;
    }
    ensure!(kernels == 1, "{kernels} kernels in the release");
    Ok(())
}
