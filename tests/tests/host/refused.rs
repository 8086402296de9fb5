//! Bundles that must not be installed: exit code 4, and not a file of the host is different.

use anyhow::Result;

use super::stage::Stage;

pub(crate) fn hostile_bundles_change_nothing(stage: &Stage) -> Result<()> {
    stage.bare()?;
    anyhow::bail!("waits for bundle::fake")
}

pub(crate) fn older_and_other_bundles_are_refused(stage: &Stage) -> Result<()> {
    stage.master()?;
    anyhow::bail!("waits for bundle::fake")
}
