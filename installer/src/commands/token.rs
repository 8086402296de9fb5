//! `installer token …`: bootstrap tokens, listed and revoked.

use anyhow::{Result, bail};

use crate::cli::joining::Token;
use crate::host::Host;
use crate::output::Output;
use crate::report::Exit;

/// Runs the command.
pub fn token(_host: &Host, _arguments: &Token, _output: &Output) -> Result<Exit> {
    bail!("not there yet")
}
