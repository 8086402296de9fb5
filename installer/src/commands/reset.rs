//! `installer reset`: takes Sealift and everything it put here off this host.

use anyhow::{Result, bail};

use crate::cli::cluster::Reset;
use crate::host::Host;
use crate::output::Output;
use crate::report::Exit;

/// Runs the command.
pub fn reset(_host: &Host, _arguments: &Reset, _output: &Output) -> Result<Exit> {
    bail!("not there yet")
}
