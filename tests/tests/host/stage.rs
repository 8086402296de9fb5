//! What the scenarios share: one bundle, one bed, one host; each made when first asked for, and gone when the last scenario is over.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use e2e::master::{Install, Master};
use e2e::product::{Product, Programs, Yard};
use e2e::{Bed, Host, Route};

use super::packages;

/// One scenario.
pub(crate) type Scenario = fn(&Stage) -> Result<()>;

/// Kubelet certificates this short are rotated while the tests watch. The controller-manager of 1.20 backdates what it signs by five
/// minutes and counts the time from there: five minutes are left, and the kubelet renews after two to four.
pub(crate) const SHORT_LIVED: &str = "[certificates]\nkubelet_minutes = 10\n";

/// Made at most once; its failure is every user's failure.
type Shared<T> = OnceLock<Result<T, String>>;

/// The shared things.
#[derive(Default)]
pub(crate) struct Stage {
    // Dropped in this order: the host before its bed, the files last.
    install: Shared<Install>,
    master: Shared<Master>,
    bed: Shared<Arc<Bed>>,
    product: Shared<(Yard, Product)>,
    packages: Shared<Product>,
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

    /// The bundle of the Debian manifest, and the yard that made it.
    pub(crate) fn product(&self) -> Result<&(Yard, Product)> {
        once(&self.product, || {
            let yard = Yard::lay(&Programs::build()?, &self.directory()?.join("yard"), None)?;
            let product = yard.make()?;
            Ok((yard, product))
        })
    }

    /// The bundle with packages of two releases of Debian.
    pub(crate) fn packages(&self) -> Result<&Product> {
        once(&self.packages, || packages::product(&self.path("packages")?))
    }

    /// The bed of all hosts.
    pub(crate) fn bed(&self) -> Result<&Arc<Bed>> {
        once(&self.bed, Bed::new)
    }

    /// The host without a route, everything carried to it, nothing installed by this call.
    pub(crate) fn bare(&self) -> Result<&Master> {
        once(&self.master, || {
            let (_, product) = self.product()?;
            Master::prepare(Host::boot(self.bed()?, "master-1", 11, Route::None)?, product, SHORT_LIVED)
        })
    }

    /// The same host after `installer --role master`.
    pub(crate) fn master(&self) -> Result<&Master> {
        let master = self.bare()?;
        self.install()?;
        Ok(master)
    }

    /// The run that installed it.
    pub(crate) fn install(&self) -> Result<&Install> {
        let master = self.bare()?;
        once(&self.install, || {
            let install = master.install()?;
            master.ready(Duration::from_secs(60))?;
            Ok(install)
        })
    }

    /// The same host with the test workload running.
    pub(crate) fn workload(&self) -> Result<&Master> {
        let master = self.master()?;
        let running = master.kubectl("get pod web -o jsonpath={.status.phase}").is_ok_and(|phase| phase == "Running");
        if !running {
            master.workload(&self.image("busybox")?)?;
        }
        Ok(master)
    }

    /// The reference under which a container component of the bundle is known to containerd.
    pub(crate) fn image(&self, component: &str) -> Result<String> {
        let (yard, product) = self.product()?;
        e2e::product::reference(&product.inspect(&yard.programs)?, component)
    }

    /// A file in the stage's directory.
    pub(crate) fn path(&self, name: &str) -> Result<PathBuf> {
        Ok(self.directory()?.join(name))
    }
}
