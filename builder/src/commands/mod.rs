//! One file a command; each is a short reading of the flow, the work is elsewhere.

mod build;
mod completions;
mod fetch;
mod keygen;
mod lock;
mod man;

use crate::cli::{Cli, Command};
use crate::failure::Failure;
use crate::output::Output;

/// Runs the command.
pub fn run(cli: &Cli, output: &Output) -> anyhow::Result<()> {
    match &cli.command {
        Command::Completions { shell } => completions::run(*shell, output),
        Command::Man => man::run(output),
        Command::Keygen(args) => keygen::run(args, output),
        Command::Lock(args) => lock::run(args, output),
        Command::Build(args) => build::run(args, output),
        Command::Fetch(args) => fetch::run(args, output),
        _ => Err(Failure::new("this command is not built yet").into()),
    }
}
