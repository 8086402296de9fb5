//! `installer join-file --node NAME`: the file with which a node joins.

use anyhow::{Result, bail};

use crate::cli::joining::JoinFile;
use crate::host::Host;
use crate::output::Output;
use crate::report::Exit;

/// Runs the command.
pub fn join_file(_host: &Host, _arguments: &JoinFile, _output: &Output) -> Result<Exit> {
    bail!("not there yet")
}
