//! One file a command; each is a short reading of the flow, the work is elsewhere.

mod completions;
mod man;

use crate::cli::{Cli, Command};
use crate::failure::Failure;
use crate::output::Output;

/// Runs the command.
pub fn run(cli: Cli, output: &Output) -> anyhow::Result<()> {
    match cli.command {
        Command::Completions { shell } => completions::run(shell, output),
        Command::Man => man::run(output),
        _ => Err(Failure::new("this command is not built yet").into()),
    }
}
