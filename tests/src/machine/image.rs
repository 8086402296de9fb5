//! The base image: a release of Debian with an older kernel than its archive's newest, made once and cached by its recipe.
//!
//! mmdebstrap makes the tree, `mkfs.ext4 -d` the disk; nothing is mounted and nothing booted for it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};

use super::archive::Archive;
use super::furniture;
use super::{ADDRESS, NAME, disk, grub};
use crate::measure::seconds;
use crate::output::say;
use crate::process::Process;
use crate::root::{self, Debian};
use crate::run::lock;

/// What the nspawn hosts have, and what makes a machine of it.
fn packages(release: Debian) -> String {
    format!(
        "systemd,systemd-sysv,dbus,udev,iproute2,iptables,nftables,conntrack,ethtool,socat,kmod,procps,ca-certificates,\
         util-linux,mount,libseccomp2,{},libpcre2-8-0,libcrypt1,zlib1g,iputils-ping,\
         initramfs-tools,grub-pc,grub-efi-amd64-bin,e2fsprogs,zstd,strace",
        release.libssl()
    )
}
/// A sparse file; less than 15 % free makes a kubelet evict its pods.
const BYTES: u64 = 12 << 30;
/// Raised when the making changes.
const RECIPE: u32 = 2;

/// The base disk (raw) and the package that its kernel came from.
#[derive(Debug, Clone)]
pub struct Image {
    /// Nobody writes to it: machines have layers above it.
    pub disk: PathBuf,
    /// A second disk for machines that boot by UEFI: the EFI system partition.
    pub esp: PathBuf,
    /// Beside the disk: the release of its kernel (`uname -r`).
    pub kernel: String,
}

impl Image {
    /// The image for the archive's older kernel, made now when this recipe was never made here.
    pub fn base(archive: &Archive) -> Result<Self> {
        let kernel = archive.older_kernel()?;
        let (release, packages) = (archive.release, packages(archive.release));
        let suite = release.suite();
        let recipe = format!("{suite} {packages} {kernel} {BYTES} {RECIPE} {NAME} {ADDRESS} {}", furniture::key());
        let key = bundle::Digest::of(recipe.as_bytes()).short();
        let directory = root::cache()?.join(format!("machine-{suite}-{key}"));
        let _lock = lock(&root::cache()?.join("machine.lock"))?;
        if !directory.exists() {
            remove_others(suite)?;
            let unfinished = directory.with_extension("unfinished");
            make(&unfinished, release, &format!("{packages},{kernel}"))?;
            fs_err::rename(&unfinished, &directory)?;
        }
        let kernel = fs_err::read_to_string(directory.join("kernel"))?.trim().to_owned();
        Ok(Self { disk: directory.join("disk.raw"), esp: directory.join("esp.raw"), kernel })
    }
}

/// A release's images of other recipes and of other kernels are of no use any more, and large.
fn remove_others(suite: &str) -> Result<()> {
    let prefix = format!("machine-{suite}-");
    for entry in fs_err::read_dir(root::cache()?)? {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)) {
            fs_err::remove_dir_all(path)?;
        }
    }
    Ok(())
}

fn make(directory: &Path, release: Debian, packages: &str) -> Result<()> {
    let start = Instant::now();
    fs_err::create_dir_all(directory)?;
    let tree = directory.join("tree");
    // The settings for the initramfs must be there before the kernel comes; manuals and the like cost only space.
    let before = furniture::FILES
        .iter()
        .filter(|(path, ..)| path.starts_with("etc/initramfs-tools/"))
        .map(|(path, content, _)| {
            format!("mkdir -p \"$1/$(dirname {path})\"; printf '{}' >\"$1/{path}\"", content.replace('\n', "\\n"))
        })
        .collect::<Vec<_>>()
        .join("; ");
    // What it mounts goes with it, however it ends.
    Process::new("unshare")
        .args(["--mount", "mmdebstrap", "--quiet", "--variant=minbase"])
        .arg(format!("--include={packages}"))
        .args(["man", "locale", "doc"].map(|part| format!("--dpkgopt=path-exclude=/usr/share/{part}/*")))
        .arg(format!("--essential-hook={before}"))
        .arg(release.suite())
        .arg(&tree)
        .arg(release.sources()?)
        .run()
        .context("making the tree of the test machine (scripts/prerequisites.sh installs mmdebstrap)")?;
    furniture::furnish(&tree)?;
    let kernel = only(&tree.join("boot"), "vmlinuz-")?;
    fs_err::write(directory.join("kernel"), format!("{kernel}\n"))?;
    let made = start.elapsed();
    let raw = directory.join("disk.raw");
    grub::prepare(&tree)?;
    disk::root_disk(&tree, &raw, BYTES)?;
    grub::install(&tree, &raw)?;
    grub::esp(&tree, &directory.join("esp.raw"))?;
    fs_err::remove_dir_all(&tree)?;
    let (tree, all) = (seconds(made), seconds(start.elapsed()));
    say(format_args!("figure: the image of a machine with Linux {kernel}: {all}, of that its tree {tree}"));
    Ok(())
}

/// The rest of the name of the one file whose name starts so.
fn only(directory: &Path, prefix: &str) -> Result<String> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(rest) = name.strip_prefix(prefix) {
            found.push(rest.to_owned());
        }
    }
    anyhow::ensure!(found.len() == 1, "{} holds {} files {prefix}*, not one", directory.display(), found.len());
    found.pop().context("one was found")
}
