//! Archives behind the sources: addresses that serve the same one stand in for each other.

use std::path::Path;

use super::release::{self, Release};
use super::sources::AptSource;
use crate::http::Unreachable;
use crate::session::Session;

/// One archive, its newest Release that was found, and where to find what that lists.
#[derive(Debug)]
pub struct Archive {
    /// Those that serve it, the one that the Release came from first.
    pub sources: Vec<AptSource>,
    /// The Release.
    pub release: Release,
}

impl Archive {
    /// What its suite is called in proofs: as configured; without suites after what the Release calls itself.
    pub fn name(&self) -> String {
        let suite = self.sources.first().map_or("", |source| &source.suite);
        if !suite.ends_with('/') {
            return suite.to_owned();
        }
        let [origin, label, suite, codename] = &self.release.identity;
        let name = [label, origin, codename, suite].into_iter().find(|name| !name.is_empty());
        let plain = |c: char| if c.is_ascii_alphanumeric() || "+-._".contains(c) { c } else { '-' };
        format!("{FLAT}{}", name.map_or("archive", |name| name).chars().map(plain).collect::<String>())
    }
}

/// How the names of archives without suites begin.
pub(super) const FLAT: &str = "flat:";

/// Fetches and checks the Release of every source. An address that cannot be reached is passed over while another one that
/// serves the same archive can; a Release that is refused is an error always.
pub(super) fn open(sources: &[AptSource], session: &Session, scratch: &Path) -> anyhow::Result<Vec<Archive>> {
    let mut archives: Vec<Archive> = Vec::new();
    let mut unreachable: Vec<(&AptSource, anyhow::Error)> = Vec::new();
    for source in sources {
        let bytes = match release::fetch(source, session) {
            Ok(bytes) => bytes,
            Err(error) if error.is::<Unreachable>() => {
                unreachable.push((source, error));
                continue;
            }
            Err(error) => return Err(error),
        };
        let release = release::check(source, &bytes, scratch)?;
        let same = |archive: &&mut Archive| {
            archive.release.identity == release.identity && archive.sources.iter().any(|other| other.is_like(source))
        };
        match archives.iter_mut().find(same) {
            // A mirror may be behind: the newest Release counts.
            Some(archive) if release.age() > archive.release.age() => {
                archive.sources.insert(0, source.clone());
                archive.release = release;
            }
            Some(archive) => archive.sources.push(source.clone()),
            None => archives.push(Archive { sources: vec![source.clone()], release }),
        }
    }
    for (source, error) in unreachable {
        let Some(archive) = archives.iter_mut().find(|archive| archive.sources[0].is_like(source)) else {
            return Err(error);
        };
        session.output.warning(&format!("{error:#}; another address of `{}` is used", source.suite));
        archive.sources.push(source.clone());
    }
    for archive in &archives {
        let Archive { release, sources } = archive;
        if sources[0].expires {
            release.check_not_expired(&crate::clock::release_date()?)?;
        }
        let text = format!("{} of {} signed by {}", archive.name(), release.date, release.key);
        session.output.event("checked", &text);
    }
    Ok(archives)
}
