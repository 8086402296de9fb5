//! Kernel packages that are bad on purpose: Debian's own, repacked, with what goes wrong inside.
//!
//! Name and release stay those of the original, its version becomes a higher one; drivers that no machine of these tests has are left
//! out, which spares minutes of unpacking on an emulated processor. What goes wrong looks at `uname -r` first, as the initramfs of other
//! kernels gets the same scripts.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::process::Process;

/// What is wrong with a repacked kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Its initramfs makes it panic.
    Panics,
    /// Its initramfs never ends: systemd is not reached.
    Hangs,
    /// A unit before `sysinit.target` never ends: nothing that a host is for starts.
    Stalls,
    /// It boots, but a module that every node needs is of another kernel. (A kernel that lacks it gets into no bundle.)
    ForeignModule,
}

/// The module that [`Fault::ForeignModule`] spoils: pods on a bridge are not filtered without it.
const SPOILT: &str = "br_netfilter";

/// The unit of [`Fault::Stalls`].
const STALL: &str = "bed-stall.service";

/// Below `kernel/`: what servers in a test do not have.
const NEEDLESS: [&str; 16] = [
    "sound",
    "drivers/gpu",
    "drivers/media",
    "drivers/net/wireless",
    "drivers/net/ethernet",
    "drivers/net/usb",
    "drivers/infiniband",
    "drivers/iio",
    "drivers/staging",
    "drivers/usb",
    "drivers/input",
    "drivers/hid",
    "drivers/scsi",
    "drivers/mtd",
    "drivers/isdn",
    "drivers/platform",
];

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::None => "good",
            Self::Panics => "panics",
            Self::Hangs => "hangs",
            Self::Stalls => "stalls",
            Self::ForeignModule => "foreign",
        }
    }

    /// What its initramfs does, early, when it is this kernel's.
    fn script(self) -> Option<&'static str> {
        match self {
            Self::None | Self::Stalls | Self::ForeignModule => None,
            // How long it waits until it reboots is said, and then cut short: it counts by turning in circles, which an emulator does slowly.
            Self::Panics => Some(
                "echo \"this kernel panics, to reboot after $(cat /proc/sys/kernel/panic) s\"\n\
                 echo 1 >/proc/sys/kernel/panic\necho c >/proc/sysrq-trigger",
            ),
            Self::Hangs => Some("echo 'this kernel hangs'\nwhile :; do sleep 1000; done"),
        }
    }
}

/// Repacks a kernel package; the new package lies in `directory`.
pub fn repack(package: &Path, fault: Fault, directory: &Path) -> Result<PathBuf> {
    let tree = directory.join(format!("tree-{}", fault.name()));
    fs_err::create_dir_all(directory)?;
    Process::new("dpkg-deb").arg("-R").arg(package).arg(&tree).run().context("unpacking a kernel package")?;
    let release = release(package)?;
    let modules = tree.join("lib/modules").join(&release).join("kernel");
    ensure!(modules.exists(), "{} is no kernel package: no {}", package.display(), modules.display());
    for part in NEEDLESS {
        if modules.join(part).exists() {
            fs_err::remove_dir_all(modules.join(part))?;
        }
    }
    if fault == Fault::ForeignModule {
        let path = Process::new("find").arg(&modules).args(["-name", &format!("{SPOILT}.ko")]).text()?;
        ensure!(!path.is_empty(), "the kernel has no {SPOILT}.ko");
        spoil(Path::new(&path))?;
    }
    if fault == Fault::Stalls {
        stall(&tree, &release)?;
    }
    if let Some(script) = fault.script() {
        let path = tree.join("usr/share/initramfs-tools/scripts/init-premount");
        fs_err::create_dir_all(&path)?;
        let path = path.join(format!("bed-{}", fault.name()));
        let text = format!(
            "#!/bin/sh\ncase $1 in prereqs) exit 0 ;; esac\n[ \"$(uname -r)\" = {release} ] || exit 0\n{script}\n"
        );
        fs_err::write(&path, text)?;
        Process::new("chmod").arg("755").arg(&path).run()?;
    }
    let control = tree.join("DEBIAN/control");
    let text = fs_err::read_to_string(&control)?;
    let version = text.lines().find_map(|line| line.strip_prefix("Version: ")).context("a package has a version")?;
    let text = text.replace(&format!("Version: {version}\n"), &format!("Version: {version}+bed1\n"));
    fs_err::write(&control, text)?;
    let sums = tree.join("DEBIAN/md5sums");
    if sums.exists() {
        fs_err::remove_file(sums)?;
    }
    let out = directory.join(format!("linux-image-{release}_{}.deb", fault.name()));
    Process::new("dpkg-deb").args(["--root-owner-group", "-Zgzip", "-z1", "-b"]).arg(&tree).arg(&out).run()?;
    fs_err::remove_dir_all(&tree)?;
    Ok(out)
}

/// Makes a module's magic another one: the kernel that it is for says "Exec format error".
fn spoil(module: &Path) -> Result<()> {
    const MAGIC: &[u8] = b" mod_unload modversions ";
    let mut bytes = fs_err::read(module)?;
    let at = bytes.windows(MAGIC.len()).position(|window| window == MAGIC);
    let at = at.with_context(|| format!("{} has no magic", module.display()))?;
    bytes[at + 1] = b'n';
    Ok(fs_err::write(module, bytes)?)
}

/// Puts a unit into a kernel package's tree that holds up the boot of this release for ever.
fn stall(tree: &Path, release: &str) -> Result<()> {
    let units = tree.join("lib/systemd/system");
    fs_err::create_dir_all(units.join("sysinit.target.wants"))?;
    let unit = format!(
        "[Unit]\nDescription=This kernel stalls\nDefaultDependencies=no\nBefore=sysinit.target\n\
         ConditionKernelVersion={release}\n\n[Service]\nType=oneshot\nTimeoutStartSec=infinity\nExecStart=sleep infinity\n"
    );
    fs_err::write(units.join(STALL), unit)?;
    fs_err::os::unix::fs::symlink(format!("../{STALL}"), units.join("sysinit.target.wants").join(STALL))?;
    Ok(())
}

/// `uname -r` of the kernel in a package, by the package's name.
pub fn release(package: &Path) -> Result<String> {
    let name = Process::new("dpkg-deb").arg("-f").arg(package).arg("Package").text()?;
    let release = name.strip_prefix("linux-image-").with_context(|| format!("{name} is no kernel package"))?;
    Ok(release.trim_end_matches("-unsigned").to_owned())
}
