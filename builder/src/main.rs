//! The program `builder`.

use std::process::ExitCode;

use builder::{cli::Cli, commands, failure, interrupt, output::Output};
use clap::Parser as _;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.json);
    match interrupt::watch(&output).and_then(|()| commands::run(&cli, &output)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(failure::report(&error, &output) as u8),
    }
}
