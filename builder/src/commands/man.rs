//! `builder man`: one page with all commands.

use clap::CommandFactory as _;

use crate::cli::Cli;
use crate::output::Output;

/// Prints the manual page, commands one after another.
pub(super) fn run(output: &Output) -> anyhow::Result<()> {
    let mut page = Vec::new();
    let mut command = Cli::command();
    command.build();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    for sub in command.get_subcommands() {
        clap_mangen::Man::new(sub.clone()).render(&mut page)?;
    }
    output.raw(&page);
    Ok(())
}
