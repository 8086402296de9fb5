//! One file a command; each reads as the list of what it does.

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;

use crate::agent;
use crate::approver;
use crate::cli::{Cli, Command, Format};
use crate::host::Host;
use crate::output::Output;
use crate::plan::Steps;
use crate::report::Exit;

mod install;
mod plan;
mod prepare;
mod resume;
mod status;
mod verify;

pub use install::install;
pub use plan::plan;
pub use resume::resume;
pub use status::status;
pub use verify::verify;

/// The form of output a command line asks for.
pub fn format(cli: &Cli) -> Format {
    match &cli.command {
        Some(Command::Install(install) | Command::Plan(install)) => Format { json: install.json },
        Some(Command::Verify(verify)) => verify.format,
        Some(Command::Status(format) | Command::Resume(format)) => *format,
        Some(_) => Format { json: false },
        None => cli.install.as_ref().map_or(Format { json: false }, |install| Format { json: install.json }),
    }
}

/// Runs what the command line asks for, on this machine.
pub fn run(cli: Cli, output: &Output) -> Result<Exit> {
    let host = Host::real();
    match (cli.command, cli.install) {
        (Some(Command::Install(arguments)), _) | (None, Some(arguments)) => {
            install(&host, &arguments, output, &Steps::of)
        }
        (Some(Command::Plan(arguments)), _) => plan(&host, &arguments, output, &Steps::of),
        (Some(Command::Verify(arguments)), _) => verify(&host, &arguments, output),
        (Some(Command::Status(_)), _) => status(&host, output),
        (Some(Command::Resume(_)), _) => resume(&host, output, &Steps::of),
        (Some(Command::Agent), _) => agent::run(&host, output).map(|()| Exit::Done),
        (Some(Command::Approver), _) => approver::run(&host, output).map(|()| Exit::Done),
        (Some(Command::Completions { shell }), _) => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "installer", &mut text);
            output.line(String::from_utf8_lossy(&text).trim_end());
            Ok(Exit::Done)
        }
        (Some(Command::Man), _) => {
            let mut text = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut text).context("writing the manual page")?;
            output.line(String::from_utf8_lossy(&text).trim_end());
            Ok(Exit::Done)
        }
        (None, None) => {
            output.line(&Cli::command().render_help().to_string());
            Ok(Exit::Usage)
        }
    }
}
