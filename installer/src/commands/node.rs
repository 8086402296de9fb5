//! `installer node …`: the nodes of the cluster, changed in one place.

use anyhow::{Result, bail};

use crate::cli::cluster::Node;
use crate::host::Host;
use crate::output::Output;
use crate::report::Exit;

/// Runs the command.
pub fn node(_host: &Host, _arguments: &Node, _output: &Output) -> Result<Exit> {
    bail!("not there yet")
}
