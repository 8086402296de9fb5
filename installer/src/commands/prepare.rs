//! From arguments to everything a plan needs: verified bundle, cluster, node, facts, wanted state. Reads only.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use bundle::{Component, Digest, Image, Release, UnverifiedBundle};

use crate::checks::CheckName;
use crate::cli::{Install, Source};
use crate::cluster::known::{self, Known};
use crate::config::{ClusterConfig, Node, Roles};
use crate::context::{Context, variables};
use crate::event::Events;
use crate::facts::Facts;
use crate::generation::Generation;
use crate::host::Host;
use crate::join::{self, Join};
use crate::journal::{Inputs, Journal, Pending};
use crate::report::{Exit, Explain as _};
use crate::restart::Mode;
use crate::share::Share;
use crate::steps::{kernel, os_packages};
use crate::store::{Metered, Stream, classify, running_program};
use crate::trust::{self, Acceptance, Accepted};

/// A bundle whose signatures and metadata are checked.
pub(super) struct Opened {
    pub(super) stream: Stream,
    pub(super) count: Arc<AtomicU64>,
    /// Size of the file; 0 for a pipe.
    pub(super) size: u64,
}

/// Opens a bundle and checks its signatures against the host's trust, then its manifests and configs.
pub(super) fn open(host: &Host, source: &Source) -> Result<Opened> {
    let keys: Vec<PathBuf> = source.keys.iter().map(|key| absolute(key)).collect::<Result<_>>()?;
    let trust = trust::trust(host, &keys)?;
    let (reader, size): (Box<dyn Read + Send>, u64) = if source.bundle == Path::new("-") {
        (Box::new(std::io::stdin()), 0)
    } else {
        let path = absolute(&source.bundle)?;
        let file =
            host.open(&path)?.with_context(|| format!("`{}` does not exist", path.display())).exit(Exit::Usage)?;
        let size = file.metadata()?.len();
        (Box::new(file), size)
    };
    let (reader, count) = Metered::new(reader);
    let stream = UnverifiedBundle::open(reader).and_then(|bundle| bundle.verify(&trust)).map_err(classify)?;
    Ok(Opened { stream, count, size })
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("`{}` is not a path", path.display())).exit(Exit::Usage)
}

/// Everything a plan needs.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) config: ClusterConfig,
    pub(super) config_text: String,
    pub(super) node: Node,
    pub(super) roles: Roles,
    pub(super) facts: Facts,
    pub(super) images: Vec<Image>,
    components: Vec<Component>,
    pub(super) desired: Generation,
    pub(super) installer: Digest,
    join: Option<Join>,
    joined: bool,
    init: bool,
    ignored: BTreeSet<CheckName>,
    patience: Duration,
    reboot: Mode,
    retry_kernel: Option<usize>,
    /// Title of the bundle, for people.
    pub(super) title: String,
    /// Digest of its index.
    index: Digest,
    /// Its day.
    created: Option<String>,
}

/// What a run is asked for, apart from the bundle.
#[derive(Debug)]
pub(super) struct Asked {
    /// The cluster config.
    pub(super) config: ClusterConfig,
    /// Its text.
    pub(super) text: String,
    /// The roles; those that the config gives this node when not named.
    pub(super) roles: Option<Roles>,
    /// The opened join file.
    pub(super) join: Option<Join>,
    /// This run, or the pending one that it goes on with, was given a join file.
    pub(super) joined: bool,
    /// Found a new cluster here.
    pub(super) init: bool,
    /// Checks of preflight to be ignored.
    pub(super) ignored: BTreeSet<CheckName>,
    /// How long to wait for other hosts.
    pub(super) patience: Duration,
    /// Whether to reboot when that is needed.
    pub(super) reboot: Mode,
    /// Try a kernel again that has failed: how many had when that was said.
    pub(super) retry_kernel: Option<usize>,
}

/// Where a wanted state comes from.
#[derive(Debug)]
pub(super) struct Origin {
    /// Title of the bundle, for people.
    pub(super) title: String,
    /// Digest of its index.
    pub(super) index: Digest,
    /// Its day, when the bundle itself is at hand.
    pub(super) created: Option<String>,
}

impl Asked {
    /// From the arguments of `install` and `plan`. The config is the one given, else that of the join file, else what this
    /// host knows of its cluster. One that the cluster has replaced, or would not take, is refused before anything changes.
    fn from_arguments(host: &Host, arguments: &Install) -> Result<Self> {
        let join = join::open(host, &arguments.join_source())?;
        let known = Known::look(host, None)?.map(|(known, _)| known);
        let (text, path) = match (&arguments.config, &join) {
            (Some(path), _) => {
                let path = absolute(path)?;
                let missing = || format!("`{}` does not exist", path.display());
                let text = host.read_text(&path).and_then(|text| text.with_context(missing)).exit(Exit::Usage)?;
                require_present(known.as_ref(), &text).exit(Exit::Preflight)?;
                (text, path)
            }
            (None, Some(join)) => match known.as_ref().and_then(|known| newer(known, join)) {
                Some(text) => (text, PathBuf::from("the cluster's record")),
                None => (join.config.clone(), PathBuf::from("the join file")),
            },
            (None, None) => {
                let known = known.context("there is no cluster config").exit(Exit::Usage);
                let known =
                    known.hint("give it with `--config cluster.toml`, or with `--join FILE`, which has one inside")?;
                (known.text, known.source.path())
            }
        };
        let config = ClusterConfig::parse(&text, &path).exit(Exit::Usage)?;
        let roles = &arguments.roles;
        let roles = (!roles.is_empty()).then(|| Roles::new(roles.iter().copied()));
        // What a pending run was told still counts.
        let journal = if arguments.abandon { None } else { Some(Journal::read(host)?) };
        let retry_kernel = retry_kernel(host, arguments.retry_kernel, journal.as_ref())?;
        let joined = join.is_some() || journal.as_ref().is_some_and(Journal::joined);
        let mut ignored = journal.map(|journal| CheckName::of_record(&journal.ignored())).unwrap_or_default();
        ignored.extend(&arguments.ignored);
        Ok(Self {
            config,
            text,
            roles,
            join,
            joined,
            init: arguments.init,
            ignored,
            patience: arguments.wait,
            reboot: arguments.reboot,
            retry_kernel,
        })
    }
}

/// What counts of `--retry-kernel`: said now, or for the run that has not ended.
pub(super) fn retry_kernel(host: &Host, said: bool, journal: Option<&Journal<'_>>) -> Result<Option<usize>> {
    if said { kernel::failures(host).map(Some) } else { Ok(journal.and_then(Journal::retry_kernel)) }
}

/// Refuses a config that is older than the cluster's, or that the cluster would not take. A copy that may be old itself
/// only knows what it has replaced.
fn require_present(known: Option<&Known>, text: &str) -> Result<()> {
    let Some(Known { record: Some(record), source, .. }) = known else { return Ok(()) };
    if *source == known::Source::Cluster || record.replaced(Digest::of(text.as_bytes())) {
        record.accepts(text)?;
    }
    Ok(())
}

/// The cluster's config, when it has changed since the join file was made.
fn newer(known: &Known, join: &Join) -> Option<String> {
    let record = known.record.as_ref()?;
    record.replaced(Digest::of(join.config.as_bytes())).then(|| record.text().to_owned())
}

impl Prepared {
    /// From the arguments of `install` and `plan`.
    pub(super) fn from_arguments(host: &Host, arguments: &Install) -> Result<(Self, Opened, Acceptance)> {
        let asked = Asked::from_arguments(host, arguments)?;
        let opened = open(host, &arguments.source())?;
        let release = opened.stream.release().clone();
        let accepted = Accepted::read(host)?;
        let acceptance =
            accepted.admit(&release, opened.stream.index_digest(), arguments.allow_downgrade.as_deref())?;

        let facts = Facts::gather(host)?;
        trust::require_architecture(&release, facts.architecture)?;
        let images = opened.stream.images().to_vec();
        let created = Some(release.created.clone());
        let origin = Origin { title: title(&release), index: opened.stream.index_digest(), created };
        let prepared = Self::new(host, asked, facts, images, origin)?;
        Ok((prepared, opened, acceptance))
    }

    /// From what a host already has.
    pub(super) fn new(host: &Host, asked: Asked, mut facts: Facts, images: Vec<Image>, origin: Origin) -> Result<Self> {
        let Asked { config, text: config_text, roles, join, joined, init, ignored, patience, reboot, retry_kernel } =
            asked;
        let Origin { title, index, created } = origin;
        let node = this_node(&config, &facts)?.clone();
        let roles = match roles {
            Some(roles) => fitting(roles, &node)?,
            None => node.roles.clone(),
        };
        let components: Vec<Component> = images.iter().map(|image| image.component.clone()).collect();
        let share = Share { roles: &roles, distribution: &facts.os.distribution };
        os_packages::foresee(host, share, &components, &mut facts.tools)?;
        let desired = Generation::render(index, &images, share, &variables(&config, &node, &facts, &images))
            .context("rendering the configuration of this host")?;
        let installer = running_program(host)?;
        Ok(Self {
            config,
            config_text,
            node,
            roles,
            facts,
            images,
            components,
            desired,
            installer,
            join,
            joined,
            init,
            ignored,
            patience,
            reboot,
            retry_kernel,
            title,
            index,
            created,
        })
    }

    /// The view that steps get.
    pub(super) fn context<'a>(&'a self, host: &'a Host, events: &'a dyn Events) -> Context<'a> {
        Context {
            host,
            events,
            config: &self.config,
            node: &self.node,
            roles: &self.roles,
            facts: &self.facts,
            components: &self.components,
            images: &self.images,
            desired: &self.desired,
            installer: self.installer,
            join: self.join.as_ref(),
            joined: self.joined,
            init: self.init,
            ignored: &self.ignored,
            created: self.created.as_deref(),
            patience: self.patience,
            reboot: self.reboot,
            retry_kernel: self.retry_kernel,
            step: "",
        }
    }

    /// What binds a run.
    pub(super) fn inputs(&self) -> Inputs {
        Inputs {
            index: self.index,
            config: self.config.digest,
            roles: self.roles.to_string(),
            installer: self.installer,
            joined: self.joined,
            ignored: CheckName::to_record(&self.ignored),
            reboot: self.reboot,
            retry_kernel: self.retry_kernel,
        }
    }
}

fn title(release: &Release) -> String {
    format!("{} {} ({})", release.name, release.version, release.architecture)
}

/// This host in the config, by its addresses.
fn this_node<'a>(config: &'a ClusterConfig, facts: &Facts) -> Result<&'a Node> {
    let addresses = facts.addresses();
    let list = |addresses: &mut dyn Iterator<Item = String>| addresses.collect::<Vec<_>>().join(", ");
    config
        .node_at(&addresses)
        .ok_or_else(|| {
            let own = list(&mut addresses.iter().map(ToString::to_string));
            let known = list(&mut config.nodes.iter().map(|node| format!("{} {}", node.name, node.address)));
            anyhow!("no node of the cluster config has an address of this host (it has {own}; the config has {known})")
        })
        .exit(Exit::Preflight)
        .hint("give this host a `[[node]]` with one of its addresses, or the host the address that is written there")
}

/// The roles asked for must be among those of the node.
fn fitting(roles: Roles, node: &Node) -> Result<Roles> {
    if roles.is_subset(&node.roles) {
        return Ok(roles);
    }
    Err(anyhow!("`--role {roles}` does not fit: node `{}` has the roles {}", node.name, node.roles))
        .exit(Exit::Usage)
        .hint("the cluster config says what each host is for; correct it or the command line, or leave `--role` out")
}

/// Refuses to go on with another installer than the one that began.
pub(super) fn require_installer(host: &Host, pending: &Pending) -> Result<()> {
    if running_program(host)? == pending.inputs.installer {
        return Ok(());
    }
    Err(anyhow!("the run that began at {} was another installer's", pending.since))
        .exit(Exit::Usage)
        .hint("`/opt/sealift/bin/installer resume` is the one that began it; or give the whole command again with `--abandon`")
}

/// Refuses to go on with other inputs than those of a pending run, unless it is to be given up.
pub(super) fn require_inputs(journal: &Journal<'_>, inputs: &Inputs, arguments: &Install) -> Result<()> {
    if arguments.abandon { Ok(()) } else { journal.require(inputs) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Known, require_present};
    use crate::cluster::Record;
    use crate::cluster::known::Source;

    const CONFIG: &str =
        "[cluster]\nname = \"site\"\n\n[[node]]\nname = \"m1\"\naddress = \"192.0.2.1\"\nroles = [\"master\"]\n";

    #[test]
    fn an_older_config_is_refused_by_any_copy_and_a_foreign_one_by_the_cluster() {
        let mut record = Record::new(CONFIG, 1, BTreeMap::new()).unwrap();
        record.set_config(&format!("{CONFIG}[certificates]\nleaf_hours = 9\n")).unwrap();
        let other = CONFIG.replace("site", "other");
        for source in [Source::Copy, Source::Cluster] {
            let cluster = source == Source::Cluster;
            let known = Known::of_record(record.clone(), source);
            let refused = |text: &str| require_present(Some(&known), text).is_err();
            assert!(refused(CONFIG), "older");
            assert!(!refused(record.text()) && !refused(&format!("# x\n{}", record.text())), "present");
            assert_eq!(refused(&other), cluster, "a copy may be older than the config given");
        }
        assert!(require_present(None, &other).is_ok());
    }
}
