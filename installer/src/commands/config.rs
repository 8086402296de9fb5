//! `installer config …`: begin, check and show a cluster config.

use anyhow::{Result, bail};

use crate::cli::cluster::Config;
use crate::host::Host;
use crate::output::Output;
use crate::report::Exit;

/// Runs the command.
pub fn config(_host: &Host, _arguments: &Config, _output: &Output) -> Result<Exit> {
    bail!("not there yet")
}
