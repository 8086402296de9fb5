//! What of Sealift is on this host. Reads only.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::finish::{RUN, is_trust};
use super::units;
use crate::agent::RECORD;
use crate::cluster::Record;
use crate::config::{ClusterConfig, Node};
use crate::context::{ETC, HOME, STATE};
use crate::facts::Facts;
use crate::host::Host;
use crate::journal::Journal;
use crate::step::Target;

/// The cluster config that this host knows.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its text.
    pub text: String,
    /// What it says.
    pub config: ClusterConfig,
    /// This host in it.
    pub node: Option<Node>,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Our units.
    pub units: Vec<String>,
    /// Directories of our own.
    pub directories: Vec<PathBuf>,
    /// Directories that our programs filled.
    pub data: Vec<PathBuf>,
    /// Files and settings that were changed, as the journal knows.
    pub settings: Vec<String>,
    /// The cluster, if this host knows one.
    pub config: Option<Known>,
}

impl Survey {
    /// Looks at the host. A damaged journal is no hindrance here.
    pub fn of(host: &Host) -> Result<Self> {
        let journal = Journal::read(host).ok();
        let (units, config) = (units::ours(host, journal.as_ref())?, known(host, journal.as_ref()));
        let mut survey = Self { units, config, ..Self::default() };
        for path in [HOME, STATE, RUN] {
            if host.exists(Path::new(path))? {
                survey.directories.push(path.into());
            }
        }
        if host.list(Path::new(ETC))?.iter().any(|name| !is_trust(name)) {
            survey.directories.push(ETC.into());
        }
        let text = survey.config.as_ref().map_or("", |known| known.text.as_str());
        for place in super::places::of(text) {
            let attempted = journal.as_ref().is_some_and(|journal| journal.attempted(place.step));
            let target = Target::File(place.path.clone());
            let before = journal.as_ref().and_then(|journal| journal.before(&target));
            if attempted && !place.content(host, before)?.is_empty() {
                survey.data.push(place.path);
            }
        }
        for (target, image) in journal.iter().flat_map(Journal::images) {
            let shown = match target {
                Target::File(path) => {
                    ![HOME, ETC, STATE].iter().any(|home| path.starts_with(home)) && !survey.data.contains(path)
                }
                // Our own are listed as services.
                Target::Unit(name) => !survey.units.contains(name),
                _ => true,
            };
            if shown && image.differs(host, target) {
                survey.settings.push(target.to_string());
            }
        }
        survey.settings.reverse();
        Ok(survey)
    }

    /// Whether there is nothing to take away.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty() && self.directories.is_empty()
    }

    /// This host's name in its cluster, when others are in it too.
    pub fn node_among_others(&self) -> Option<&str> {
        let known = self.config.as_ref()?;
        let node = known.node.as_ref()?;
        (known.config.nodes.len() > 1).then_some(node.name.as_str())
    }

    /// As people read it before they agree.
    pub fn lines(&self) -> Vec<String> {
        let paths = |paths: &[PathBuf]| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        [
            ("services, stopped and removed", self.units.clone()),
            ("data, deleted", paths(&self.data)),
            ("directories, deleted", paths(&self.directories)),
            ("put back as it was", self.settings.clone()),
        ]
        .into_iter()
        .filter(|(_, what)| !what.is_empty())
        .map(|(title, what)| format!("{title}: {}", what.join(", ")))
        .collect()
    }
}

/// The newest config that can be read: the agent's copy of the record, else that of the last run, else the seed.
fn known(host: &Host, journal: Option<&Journal<'_>>) -> Option<Known> {
    let cached = || Record::cached(host, Path::new(RECORD)).ok().flatten().map(|record| record.text().to_owned());
    let journalled = || journal.and_then(Journal::config).map(str::to_owned);
    let seed = || host.read_text(&Path::new(ETC).join("cluster.toml")).ok().flatten();
    let parse = |text: String| Some((ClusterConfig::parse(&text, Path::new("cluster.toml")).ok()?, text));
    let (config, text) =
        cached().and_then(parse).or_else(|| journalled().and_then(parse)).or_else(|| seed().and_then(parse))?;
    let addresses = Facts::gather(host).map(|facts| facts.addresses()).unwrap_or_default();
    let node = config.node_at(&addresses).cloned();
    Some(Known { text, config, node })
}
