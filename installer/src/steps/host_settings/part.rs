//! One setting of a host: what it touches, what it would change, what it cannot.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::context::Context;
use crate::host::Host;
use crate::host::marks::{self, Marks};
use crate::step::{Change, Target};

/// One setting, looked at and made together with the others. The same contract as [`crate::step::Step`].
pub(super) trait Part {
    /// What `apply` may change.
    fn touches(&self, context: &Context<'_>) -> Result<Vec<Target>>;

    /// What it would change, and what it leaves. Changes nothing.
    fn look(&self, context: &Context<'_>) -> Result<Found>;

    /// Makes it so.
    fn apply(&self, context: &Context<'_>) -> Result<()>;
}

/// What a look at a part found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// What `apply` would change.
    pub(super) changes: Vec<Change>,
    /// What is not as it could be, and not changed: one line each, with what to do.
    pub(super) limits: Vec<String>,
}

impl Found {
    pub(super) fn change(&mut self, line: impl Into<String>) {
        self.changes.push(Change::new(line));
    }

    pub(super) fn limit(&mut self, line: impl Into<String>) {
        self.limits.push(line.into());
    }
}

/// The lines of somebody's file, to be looked at: what is not UTF-8 is replaced.
pub(super) fn lossy(host: &Host, path: &Path) -> Result<String> {
    Ok(host.read_lossy(path)?.unwrap_or_default())
}

/// A file of others as it would be without us, to be looked at.
pub(super) fn without_us(host: &Host, path: &Path) -> Result<String> {
    Ok(String::from_utf8_lossy(&marks::without(&host.read(path)?.unwrap_or_default())).into_owned())
}

/// A file of others with our marks in it.
pub(super) struct Edited<'a> {
    pub(super) path: PathBuf,
    pub(super) marks: Marks<'a>,
    /// For `plan`: `the names of 3 nodes`.
    pub(super) what: String,
}

impl Edited<'_> {
    pub(super) fn target(&self) -> Target {
        Target::Marks(self.path.clone())
    }

    /// The wanted text, when it is another than the present one. A file that is not there is made only for a block.
    fn wanted(&self, host: &Host) -> Result<Option<Vec<u8>>> {
        let present = host.read(&self.path)?.unwrap_or_default();
        let wanted = self.marks.apply(&present);
        Ok((wanted != present).then_some(wanted))
    }

    pub(super) fn change(&self, host: &Host) -> Result<Option<Change>> {
        let wanted = self.wanted(host)?;
        Ok(wanted.map(|_| Change::new(format!("edit {}: {}", self.path.display(), self.what))))
    }

    pub(super) fn write(&self, host: &Host) -> Result<bool> {
        let Some(text) = self.wanted(host)? else { return Ok(false) };
        host.edit(&self.path, &text)?;
        Ok(true)
    }
}
