//! The installation itself: configuration, secrets, programs, state; the journal after them, the installer's copy last.

use std::path::Path;

use anyhow::Result;

use super::Reset;
use super::mounts::Mounts;
use crate::context::{ETC, HOME, STATE};
use crate::host::Host;
use crate::journal;
use crate::lock;
use crate::step::Target;
use crate::steps::kernel;
use crate::trust;

/// State that is lost at a reboot anyway.
pub(super) const RUN: &str = "/run/sealift";
/// What of the installation makes a second try possible.
const INSTALLER: [&str; 2] = ["bin", "installer"];

impl Reset<'_> {
    pub(super) fn finish(&mut self) -> Result<Vec<String>> {
        let host = self.host;
        let mut done = Vec::new();
        let before = self.journal.as_ref().and_then(|journal| journal.before(&Target::File(ETC.into())));
        let found = before.is_some_and(|image| !image.is_absent());
        for path in [RUN, ETC, HOME, STATE] {
            if host.exists(Path::new(path))? {
                done.push(format!("delete {path}"));
            }
        }
        let mounts = Mounts::read(host)?;
        for path in [RUN, ETC, HOME, STATE] {
            mounts.require_none_below(host, Path::new(path))?;
        }
        whole(host, RUN)?;
        all_but(host, ETC, is_trust)?;
        if !found && host.list(Path::new(ETC))?.is_empty() {
            host.remove(Path::new(ETC))?;
        }
        all_but(host, HOME, |name| INSTALLER.contains(&name))?;
        all_but(host, STATE, |kept| [journal::PATH, lock::PATH, kernel::RECORD].map(name).contains(&kept))?;
        host.remove(Path::new(journal::PATH))?;
        whole(host, HOME)?;
        if kernel::is_held(host)? {
            all_but(host, STATE, |kept| kept == name(kernel::RECORD))?;
        } else {
            whole(host, STATE)?;
        }
        Ok(done)
    }
}

/// What the operator put there: whose bundles this host accepts.
pub(super) fn is_trust(entry: &str) -> bool {
    [trust::KEYS, trust::SETTINGS].map(name).contains(&entry)
}

fn name(path: &'static str) -> &'static str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A directory, and the link by which the operator put it on another disk.
fn whole(host: &Host, directory: &str) -> Result<()> {
    host.remove_tree(&host.resolve(Path::new(directory))?)?;
    host.remove(Path::new(directory))
}

fn all_but(host: &Host, directory: &str, kept: impl Fn(&str) -> bool) -> Result<()> {
    for name in host.list(Path::new(directory))? {
        if !kept(&name) {
            host.remove_tree(&Path::new(directory).join(name))?;
        }
    }
    Ok(())
}
