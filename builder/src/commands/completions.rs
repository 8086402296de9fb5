//! `builder completions SHELL`.

use clap::CommandFactory as _;

use crate::cli::Cli;
use crate::output::Output;

/// Prints a completion script.
#[expect(clippy::unnecessary_wraps, reason = "all commands have one shape")]
pub(super) fn run(shell: clap_complete::Shell, output: &Output) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "builder", &mut script);
    output.raw(&script);
    Ok(())
}
