//! `installer secrets create`: the secrets of a new cluster, before its first host: one join file per node.

use anyhow::{Result, bail};

use crate::cli::joining::Secrets;
use crate::host::Host;
use crate::output::Output;
use crate::report::Exit;

/// Runs the command.
pub fn secrets(_host: &Host, _arguments: &Secrets, _output: &Output) -> Result<Exit> {
    bail!("not there yet")
}
