//! One file a command; each reads as the list of what it does.

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;

use crate::agent;
use crate::approver;
use crate::cli::cluster::{Config, Node};
use crate::cli::joining::Token;
use crate::cli::{Cli, Command, Format};
use crate::host::Host;
use crate::output::Output;
use crate::plan::Steps;
use crate::report::Exit;

mod again;
mod check;
mod config;
mod facts;
mod install;
mod join_file;
mod kubeconfig;
mod node;
mod plan;
mod prepare;
mod refresh;
mod reset;
mod resume;
mod secrets;
mod status;
mod token;
mod verify;

pub use check::check;
pub use config::config;
pub use facts::facts;
pub use install::install;
pub use join_file::join_file;
pub use kubeconfig::kubeconfig;
pub use node::node;
pub use plan::plan;
pub use refresh::refresh;
pub use reset::reset;
pub use resume::resume;
#[cfg(test)]
pub(crate) use secrets::found;
pub use secrets::secrets;
pub use status::status;
pub use token::token;
pub use verify::verify;

/// The form of output a command line asks for.
pub fn format(cli: &Cli) -> Format {
    match &cli.command {
        Some(Command::Install(install) | Command::Plan(install)) => Format { json: install.json },
        Some(Command::Verify(verify)) => verify.format,
        Some(Command::Resume(resume)) => resume.refresh.format,
        Some(Command::Refresh(refresh)) => refresh.format,
        Some(Command::Check(check)) => check.format,
        Some(Command::Reset(reset)) => reset.format,
        Some(
            Command::Status(format)
            | Command::Facts(format)
            | Command::Token(Token::List(format))
            | Command::Node(Node::List(format))
            | Command::Config(Config::Check { format, .. } | Config::Show(format)),
        ) => *format,
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
        (Some(Command::Facts(_)), _) => facts(&host, output),
        (Some(Command::Resume(arguments)), _) => resume(&host, &arguments, output, &Steps::of),
        (Some(Command::Refresh(arguments)), _) => refresh(&host, &arguments, output, &Steps::of),
        (Some(Command::Secrets(arguments)), _) => secrets(&host, &arguments, output),
        (Some(Command::JoinFile(arguments)), _) => join_file(&host, &arguments, output),
        (Some(Command::Token(arguments)), _) => token(&host, &arguments, output),
        (Some(Command::Node(arguments)), _) => node(&host, &arguments, output, &Steps::of),
        (Some(Command::Config(arguments)), _) => config(&host, &arguments, output),
        (Some(Command::Check(arguments)), _) => check(&host, &arguments, output),
        (Some(Command::Kubeconfig(arguments)), _) => kubeconfig(&host, &arguments, output),
        (Some(Command::Reset(arguments)), _) => reset(&host, &arguments, output),
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
