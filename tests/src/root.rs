//! The base root: a plain Debian 12 with systemd, made once by mmdebstrap and cached by its recipe.
//!
//! It stands for the bare host that an operator has: what the installer expects of a host and does not bring is listed here.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process::Process;
use crate::run::lock;

const SUITE: &str = "bookworm";
/// A minimal server: init, network and packet-filter tools, the libraries that every Debian server has.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,iptables,nftables,conntrack,ethtool,socat,kmod,procps,ca-certificates,\
                        util-linux,mount,libseccomp2,libssl3,libpcre2-8-0,libcrypt1,zlib1g,iputils-ping";
/// What `manifests/bases/debian-12.toml` states that every target has, beside what is essential.
const MINIMAL: &str = "systemd,systemd-sysv,dbus,udev,kmod,iproute2,procps,util-linux,mount,ca-certificates";
/// Raised when [`settle`] changes.
const RECIPE: u32 = 1;

/// Where expensive things are kept between runs: `$SEALIFT_TEST_CACHE`, else `sealift-test` in the user's cache directory.
pub fn cache() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("SEALIFT_TEST_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|path| path.join("sealift-test")))
        .or_else(|| variable("HOME").map(|path| path.join(".cache/sealift-test")))
        .context("none of SEALIFT_TEST_CACHE, XDG_CACHE_HOME, HOME is set")?;
    fs_err::create_dir_all(&cache)?;
    Ok(cache)
}

/// The base root's directory, made now (about 20 seconds) when this recipe was never made here.
pub fn base() -> Result<PathBuf> {
    made(PACKAGES)
}

/// The root that the shipped base of Debian 12 is a statement of: nothing in it that a minimal server would lack.
pub fn minimal() -> Result<PathBuf> {
    made(MINIMAL)
}

fn made(packages: &str) -> Result<PathBuf> {
    let key = bundle::Digest::of(format!("{SUITE} {packages} {RECIPE}").as_bytes()).short();
    let root = cache()?.join(format!("root-{SUITE}-{key}"));
    let _lock = lock(&cache()?.join("root.lock"))?;
    if root.exists() {
        return Ok(root);
    }
    let unfinished = root.with_extension("unfinished");
    if unfinished.exists() {
        fs_err::remove_dir_all(&unfinished)?;
    }
    Process::new("mmdebstrap")
        .args(["--quiet", "--variant=minbase"])
        .arg(format!("--include={packages}"))
        .arg(SUITE)
        .arg(&unfinished)
        .arg(sources()?)
        .run()
        .context("making the base root of the test hosts (scripts/prerequisites.sh installs mmdebstrap)")?;
    settle(&unfinished)?;
    fs_err::rename(&unfinished, &root)?;
    Ok(root)
}

/// The machine's own Debian sources: no mirror is named in this repository.
pub fn sources() -> Result<PathBuf> {
    let known = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"].map(PathBuf::from);
    known.into_iter().find(|path| path.exists()).context("this machine has no Debian apt sources")
}

/// Removes what the making machine left in the root: archive addresses, resolver, identity.
fn settle(root: &Path) -> Result<()> {
    for directory in ["etc/apt/sources.list.d", "etc/apt/apt.conf.d"] {
        for entry in fs_err::read_dir(root.join(directory))? {
            fs_err::remove_file(entry?.path())?;
        }
    }
    for name in ["etc/apt/sources.list", "etc/machine-id", "etc/hostname", "etc/resolv.conf"] {
        fs_err::write(root.join(name), "")?;
    }
    if !root.join("usr/lib/systemd/systemd").exists() {
        bail!("the new root has no systemd");
    }
    Ok(())
}
