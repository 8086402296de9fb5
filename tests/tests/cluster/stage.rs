//! What the scenarios share: one bundle, one bed, and one cluster at a time. A cluster is made when a scenario first asks for it and goes
//! when one asks for another: two would not fit on a small machine.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use e2e::cluster::{Cluster, How, Outcome, Seat, config};
use e2e::measure::seconds;
use e2e::output::say;
use e2e::product::{Product, Programs, Yard, reference};
use e2e::{Bed, Route};

/// One scenario.
pub(crate) type Scenario = fn(&Stage) -> Result<()>;

/// The cluster that most scenarios use.
pub(crate) const FIVE: [Seat; 5] = [
    Seat::master("m1", 11),
    Seat::master("m2", 12),
    Seat::master("m3", 13),
    Seat::worker("w1", 21),
    Seat::worker("w2", 22),
];
/// Wide: five hosts on two busy cores.
pub(crate) const LONG: Duration = Duration::from_secs(420);
/// For what a running cluster does by itself.
pub(crate) const SETTLED: Duration = Duration::from_secs(180);

/// Made at most once; its failure is every user's failure.
type Shared<T> = OnceLock<Result<T, String>>;

/// A cluster, or why there is none.
type Made = Result<Arc<Cluster>, String>;

/// The clusters there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Five,
    Homes,
    Dedicated,
    Small,
}

/// The shared things.
#[derive(Default)]
pub(crate) struct Stage {
    // Dropped in this order: hosts before their bed, the files last.
    cluster: Mutex<Option<(Kind, Made)>>,
    bed: Shared<Arc<Bed>>,
    product: Shared<(Yard, Product)>,
    directory: OnceLock<tempfile::TempDir>,
    /// A worker's installation alone, with the number of other nodes.
    pub(crate) worker_times: Mutex<Vec<(usize, Duration)>>,
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

    fn product(&self) -> Result<&(Yard, Product)> {
        once(&self.product, || {
            let yard = Yard::lay(&Programs::build()?, &self.directory()?.join("yard"), None)?;
            let product = yard.make()?;
            Ok((yard, product))
        })
    }

    fn bed(&self) -> Result<&Arc<Bed>> {
        once(&self.bed, || {
            let bed = Bed::new()?;
            if std::env::var_os("SEALIFT_KEEP").is_some() {
                bed.keep()?;
                say(format_args!("the hosts stay; remove them with: bed clean {}", bed.run().name()));
            }
            Ok(bed)
        })
    }

    /// The reference under which a container component of the bundle is known to containerd.
    pub(crate) fn image(&self, component: &str) -> Result<String> {
        let (yard, product) = self.product()?;
        reference(&product.inspect(&yard.programs)?, component)
    }

    /// Bare hosts with everything carried to them.
    fn boot(&self, name: &str, seats: &[Seat], route: Route) -> Result<Cluster> {
        let (_, product) = self.product()?;
        let text = config(name, self.bed()?, seats, "");
        Cluster::boot(self.bed()?, product, &self.directory()?.join(name), seats, &text, route)
    }

    fn cluster(&self, kind: Kind, make: impl FnOnce() -> Result<Cluster>) -> Result<Arc<Cluster>> {
        let mut current = self.cluster.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_none_or(|(there, _)| *there != kind) {
            *current = None;
            let cluster = make().map(Arc::new);
            let first = cluster.as_ref().err().map(|error| anyhow!("{error:#}"));
            let later = "the cluster could not be made: see the first scenario that wanted it";
            *current = Some((kind, cluster.map_err(|_| later.to_owned())));
            if let Some(error) = first {
                return Err(error);
            }
        }
        match current.as_ref() {
            Some((_, Ok(cluster))) => Ok(cluster.clone()),
            Some((_, Err(text))) => Err(anyhow!("{text}")),
            None => Err(anyhow!("no cluster")),
        }
    }

    /// Three masters and two workers, secrets made beforehand, all five installed at once.
    pub(crate) fn five(&self) -> Result<Arc<Cluster>> {
        self.cluster(Kind::Five, || {
            let cluster = self.boot("five", &FIVE, Route::None)?;
            cluster.secrets()?;
            report("five at once", &cluster.install_all(&How::JOIN)?);
            cluster.ready(LONG)?;
            cluster.workload(&self.image("busybox")?, LONG)?;
            Ok(cluster)
        })
    }

    /// The same five with a second interface each, bare, their join files beside them.
    pub(crate) fn homes(&self) -> Result<Arc<Cluster>> {
        self.cluster(Kind::Homes, || {
            let cluster = self.boot("homes", &FIVE, Route::Second)?;
            cluster.secrets()?;
            Ok(cluster)
        })
    }

    /// Three hosts for etcd alone, two masters, a worker, all installed at once.
    pub(crate) fn dedicated(&self) -> Result<Arc<Cluster>> {
        const SEATS: [Seat; 6] = [
            Seat::etcd("e1", 31),
            Seat::etcd("e2", 32),
            Seat::etcd("e3", 33),
            Seat::master("m1", 11),
            Seat::master("m2", 12),
            Seat::worker("w1", 21),
        ];
        self.cluster(Kind::Dedicated, || {
            let cluster = self.boot("dedicated", &SEATS, Route::None)?;
            cluster.secrets()?;
            report("dedicated etcd at once", &cluster.install_all(&How::JOIN)?);
            cluster.ready(LONG)?;
            cluster.workload(&self.image("busybox")?, LONG)?;
            Ok(cluster)
        })
    }

    /// One master and one worker, bare, without any secrets.
    pub(crate) fn small(&self) -> Result<Arc<Cluster>> {
        self.cluster(Kind::Small, || self.boot("small", &[Seat::master("m1", 11), Seat::worker("w1", 21)], Route::None))
    }

    /// Notes a worker's installation alone.
    pub(crate) fn worker_took(&self, others: usize, outcome: &Outcome) {
        self.worker_times.lock().unwrap_or_else(PoisonError::into_inner).push((others, outcome.took));
        say(format_args!(
            "figure: a worker alone, {others} other nodes: {}; {}",
            seconds(outcome.took),
            outcome.steps()
        ));
    }
}

/// Prints what installations took.
pub(crate) fn report(what: &str, outcomes: &[Outcome]) {
    for outcome in outcomes {
        say(format_args!("figure: {what}: {} {}; {}", outcome.name, seconds(outcome.took), outcome.steps()));
    }
}
