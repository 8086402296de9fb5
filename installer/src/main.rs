//! The installer program: parses the command line and calls one command.

use std::process::ExitCode;

use clap::Parser as _;
use installer::cli::{Cli, Format};
use installer::commands;
use installer::output::{Output, Wanted};
use installer::report;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors to clap, on stdout and with exit code 0.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(report::Exit::Usage.code()));
        }
    };
    let Format { json } = commands::format(&cli);
    let output = Output::new(if json { Wanted::Json } else { Wanted::Text });
    match commands::run(cli, &output) {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(error) => {
            output.error(&report::render(&error));
            ExitCode::from(report::exit_of(&error).code())
        }
    }
}
