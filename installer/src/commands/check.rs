//! `installer check`: whether the cluster works, asked from this host.

use anyhow::{Result, bail};

use crate::cli::cluster::CheckCluster;
use crate::host::Host;
use crate::output::Output;
use crate::report::Exit;

/// Runs the command.
pub fn check(_host: &Host, _arguments: &CheckCluster, _output: &Output) -> Result<Exit> {
    bail!("not there yet")
}
