//! `installer kubeconfig --user NAME`: a short-lived kubeconfig for a person.

use anyhow::{Result, bail};

use crate::cli::cluster::Kubeconfig;
use crate::host::Host;
use crate::output::Output;
use crate::report::Exit;

/// Runs the command.
pub fn kubeconfig(_host: &Host, _arguments: &Kubeconfig, _output: &Output) -> Result<Exit> {
    bail!("not there yet")
}
