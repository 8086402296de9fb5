//! `installer refresh`: this host as the cluster's present config wants it, from what it already has: no bundle needed.

use anyhow::{Result, bail};

use crate::cli::cluster::Refresh;
use crate::host::Host;
use crate::output::Output;
use crate::plan::StepsOf;
use crate::report::Exit;

/// Renders the present config and runs all steps.
pub fn refresh(_host: &Host, _arguments: &Refresh, _output: &Output, _steps: StepsOf) -> Result<Exit> {
    bail!("not there yet")
}
