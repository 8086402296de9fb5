//! The base root: a plain Debian with systemd, made once by mmdebstrap for each of its releases and cached by its recipe.
//!
//! It stands for the bare host that an operator has: what the installer expects of a host and does not bring is listed here.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::process::Process;
use crate::run::lock;

/// A release of Debian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Debian {
    /// 12: what the machine itself has, and most test hosts.
    Bookworm,
    /// 13.
    Trixie,
}

/// A minimal server: init, network and packet-filter tools, the libraries that every Debian server has.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,iptables,nftables,conntrack,ethtool,socat,kmod,procps,ca-certificates,\
                        util-linux,mount,libseccomp2,libpcre2-8-0,libcrypt1,zlib1g,iputils-ping";
/// What the bases of Debian in `manifests/bases/` state that every target has, beside what is essential.
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

impl Debian {
    /// As bundles name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "debian-12",
            Self::Trixie => "debian-13",
        }
    }

    /// As its archive names it.
    pub fn suite(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }

    /// The suite and what is published for it later.
    pub fn suites(self) -> [String; 3] {
        ["", "-updates", "-security"].map(|part| format!("{}{part}", self.suite()))
    }

    /// The package of OpenSSL's library.
    pub(crate) fn libssl(self) -> &'static str {
        match self {
            Self::Bookworm => "libssl3",
            Self::Trixie => "libssl3t64",
        }
    }

    /// The base root's directory, made now (about 20 seconds) when this recipe was never made here.
    pub fn base(self) -> Result<PathBuf> {
        self.made(&format!("{PACKAGES},{}", self.libssl()))
    }

    /// The root that the shipped base is a statement of: nothing in it that a minimal server would lack.
    pub fn minimal(self) -> Result<PathBuf> {
        self.made(MINIMAL)
    }

    fn made(self, packages: &str) -> Result<PathBuf> {
        let suite = self.suite();
        let key = bundle::Digest::of(format!("{suite} {packages} {RECIPE}").as_bytes()).short();
        let root = cache()?.join(format!("root-{suite}-{key}"));
        let _lock = lock(&cache()?.join("root.lock"))?;
        if root.exists() {
            return Ok(root);
        }
        let unfinished = root.with_extension("unfinished");
        if unfinished.exists() {
            fs_err::remove_dir_all(&unfinished)?;
        }
        // What it mounts goes with it, however it ends.
        Process::new("unshare")
            .args(["--mount", "mmdebstrap", "--quiet", "--variant=minbase"])
            .arg(format!("--include={packages}"))
            .arg(suite)
            .arg(&unfinished)
            .arg(self.sources()?)
            .run()
            .context("making the base root of the test hosts (scripts/prerequisites.sh installs mmdebstrap)")?;
        settle(&unfinished)?;
        fs_err::rename(&unfinished, &root)?;
        Ok(root)
    }

    /// This release in the archives of the machine's own apt sources: no mirror is named in this repository.
    pub fn sources(self) -> Result<PathBuf> {
        let known = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"].map(PathBuf::from);
        let own = known.into_iter().find(|path| path.exists()).context("this machine has no Debian apt sources")?;
        if self == Self::Bookworm {
            return Ok(own);
        }
        let text = fs_err::read_to_string(&own)?;
        let bookworm = Self::Bookworm.suite();
        ensure!(text.contains(bookworm), "{} names no suite `{bookworm}`", own.display());
        let extension = own.extension().unwrap_or_default().to_string_lossy();
        let path = cache()?.join(format!("{}.{extension}", self.name()));
        // Several runs may write it at once, all the same.
        let mut file = tempfile::NamedTempFile::new_in(cache()?)?;
        std::io::Write::write_all(&mut file, text.replace(bookworm, self.suite()).as_bytes())?;
        file.persist(&path)?;
        Ok(path)
    }
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
