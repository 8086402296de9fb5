//! What the scenarios share: apt's lists, the image, one bundle; each made when first asked for.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use e2e::apt_archive::AptArchive;
use e2e::machine::{Archive, Fault, Firmware, Image, Machine, kernel};
use e2e::product::{Product, Programs, Yard, bundle_in};
use e2e::root::Debian;
use e2e::{Bed, machine, wait};

use super::site::{LONG, Site};

/// One scenario.
pub(crate) type Scenario = fn(&Stage) -> Result<()>;

/// The bundle's kernel and no other; a trial that a slow machine passes.
pub(crate) const EXACT: &str = "[kernel]\nexact = \"bundle\"\ntrial = \"20m\"\n";

/// Made at most once; its failure is every user's failure.
type Shared<T> = OnceLock<Result<T, String>>;

/// The shared things.
#[derive(Default)]
pub(crate) struct Stage {
    image: Shared<Image>,
    archive: Shared<Archive>,
    product: Shared<Product>,
    /// The machine that a scenario leaves to the next one.
    kept: Mutex<Option<Site>>,
    directory: OnceLock<tempfile::TempDir>,
}

fn once<T>(shared: &Shared<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    shared.get_or_init(|| make().map_err(|error| format!("{error:#}"))).as_ref().map_err(|text| anyhow!("{text}"))
}

impl Stage {
    /// A directory for files of the whole run.
    pub(crate) fn directory(&self) -> Result<&Path> {
        if self.directory.get().is_none() {
            let _ = self.directory.set(tempfile::tempdir_in("/var/tmp")?);
        }
        Ok(self.directory.get().context("no directory")?.path())
    }

    /// A file in the stage's directory.
    pub(crate) fn path(&self, name: &str) -> Result<PathBuf> {
        Ok(self.directory()?.join(name))
    }

    /// Debian's packages.
    pub(crate) fn archive(&self) -> Result<&Archive> {
        once(&self.archive, || Archive::open(&self.path("apt")?, Debian::Bookworm))
    }

    /// The base image with the older kernel.
    pub(crate) fn image(&self) -> Result<&Image> {
        once(&self.image, || Image::base(self.archive()?))
    }

    /// The bundle of the Debian manifest. `$SEALIFT_PRODUCT` names a directory with one that is there already, `installer` and
    /// `demo.pub` beside it, for work on the scenarios.
    pub(crate) fn product(&self) -> Result<&Product> {
        once(&self.product, || match std::env::var_os("SEALIFT_PRODUCT").map(PathBuf::from) {
            None => Yard::lay(&Programs::build()?, &self.path("yard")?, None)?.make(),
            Some(there) => Ok(Product {
                bundle: bundle_in(&there)?,
                installer: there.join("installer"),
                key: there.join("demo.pub"),
                took: Duration::ZERO,
            }),
        })
    }

    /// The release of the bundle's kernel.
    pub(crate) fn newest(&self) -> Result<String> {
        Ok(self.archive()?.newest_kernel()?.trim_start_matches("linux-image-").to_owned())
    }

    /// A bundle whose kernel is the newest one, repacked.
    pub(crate) fn repacked(&self, fault: Fault) -> Result<Product> {
        let name = format!("{fault:?}").to_lowercase();
        let directory = self.path(&name)?;
        let (archive, kernel) = (self.archive()?, self.archive()?.newest_kernel()?);
        let original = archive.download(&kernel, &directory.join("original"))?;
        let package = kernel::repack(&original, fault, &directory.join("repacked"))?;
        let own = AptArchive::new(&directory.join("archive"))?;
        own.add(&package, "kernel.deb")?;
        own.publish()?;
        let mut yard = Yard::lay(&Programs::build()?, &directory.join("yard"), None)?;
        yard.set_kernel(&kernel, &own)?;
        yard.make()
    }

    /// A booted machine with the bundle of a repacked kernel plugged in.
    pub(crate) fn site(&self, fault: Fault, config: &str) -> Result<Site> {
        // One machine at a time: each takes the memory of three hosts.
        self.take();
        let product = self.repacked(fault)?;
        Site::prepare(self, self.machine()?, &product, config)
    }

    /// Leaves a machine to a later scenario.
    pub(crate) fn keep(&self, site: Site) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(site);
    }

    fn take(&self) -> Option<Site> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The machine that was upgraded.
    pub(crate) fn upgraded(&self) -> Result<Site> {
        self.take().context("the scenario that upgrades a machine has to run before this one")
    }

    /// Works on a machine that goes on from a checkpoint: the real bundle plugged in, nothing done.
    pub(crate) fn fresh(&self, work: impl FnOnce(&Site) -> Result<()>) -> Result<()> {
        let make = || Site::prepare(self, self.machine()?, self.product()?, EXACT);
        self.checkpointed("fresh", make, work)
    }

    /// The same from a checkpoint in which the installer begins with the kernel.
    pub(crate) fn before_the_kernel(&self, work: impl FnOnce(&Site) -> Result<()>) -> Result<()> {
        let make = || {
            let site = self.site(Fault::None, EXACT)?;
            site.start("--reboot=auto")?;
            wait::patiently("the kernel step", LONG, || {
                let begun =
                    site.events()?.iter().any(|event| event["event"] == "step-started" && event["step"] == "kernel");
                ensure!(begun, "not yet");
                Ok(())
            })
            .with_context(|| site.log())?;
            Ok(site)
        };
        self.checkpointed("before-the-kernel", make, work)
    }

    /// Works on the kept machine, if it has the checkpoint, else on a new one, and keeps it whatever comes out.
    fn checkpointed(
        &self,
        name: &'static str,
        make: impl FnOnce() -> Result<Site>,
        work: impl FnOnce(&Site) -> Result<()>,
    ) -> Result<()> {
        let site = match self.take() {
            Some(site) if site.checkpoint == Some(name) => site,
            other => {
                drop(other);
                let mut site = make()?;
                site.machine.checkpoint(name)?;
                site.checkpoint = Some(name);
                site
            }
        };
        site.machine.kill()?;
        site.machine.go_on_from(name)?;
        let result = work(&site);
        self.keep(site);
        result
    }

    /// A machine of its own bed, booted, nothing plugged in.
    pub(crate) fn machine(&self) -> Result<Machine> {
        Machine::boot(&Bed::new()?, self.image()?, Firmware::Bios)
    }

    /// A disk with these files on it.
    pub(crate) fn carrier(&self, name: &str, files: &[(&Path, &str)]) -> Result<PathBuf> {
        let disk = self.path(&format!("{name}.img"))?;
        machine::carrier(&disk, files)?;
        Ok(disk)
    }
}
