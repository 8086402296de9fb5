//! One file a command; each is a short reading of the flow, the work is elsewhere.

mod base;
mod build;
mod completions;
mod fetch;
mod inspect;
mod keygen;
mod lock;
mod man;
mod sign;
mod verify;

use crate::cli::{Cli, Command};
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
        Command::Sign(args) => sign::run(args, output),
        Command::Verify(args) => verify::run(args, output),
        Command::Base(args) => base::run(args, output),
        Command::Inspect(args) => inspect::run(args, output),
    }
}
