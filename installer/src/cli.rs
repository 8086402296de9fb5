//! The command line, apart from all logic.

use std::path::PathBuf;

use bundle::component::Role;
use clap::{Args, Parser, Subcommand};

/// Turns this host into a Kubernetes node from one signed bundle.
///
/// `installer --role master --bundle X.bundle --config cluster.toml` is the whole job; `installer plan …` shows what it
/// would do and touches nothing.
#[derive(Debug, Parser)]
#[command(name = "installer", version, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 preflight refused, 4 bundle refused, \
    5 reboot pending, 6 waiting for another host (`installer resume` goes on)")]
pub struct Cli {
    /// What to do; without it: install.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Arguments of the installation.
    #[command(flatten)]
    pub install: Option<Install>,
}

/// Everything else than installing.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Install (the default command)
    Install(Install),
    /// Show what installing would change, step by step, and touch nothing
    Plan(Install),
    /// Check a bundle to its last byte and touch nothing
    Verify(Verify),
    /// Show what runs on this host
    Status(Format),
    /// Go on with an installation that waits or was interrupted
    Resume(Format),
    /// Keep nginx's backends, routes and the CNI configuration right (a service on every node)
    #[command(hide = true)]
    Agent,
    /// Approve certificate requests of nodes by the rules of the cluster (a service on every master)
    #[command(hide = true)]
    Approver,
    /// Write completions for a shell to stdout
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual page to stdout
    #[command(hide = true)]
    Man,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, Args)]
pub struct Format {
    /// Write JSON lines
    #[arg(long)]
    pub json: bool,
}

/// A bundle and whom to believe about it.
#[derive(Clone, Debug, Args)]
pub struct Source {
    /// The bundle; `-` reads it from stdin
    #[arg(long, value_name = "FILE")]
    pub bundle: PathBuf,

    /// Believe this minisign public key instead of those in /etc/sealift/trusted-keys (may be given several times)
    #[arg(long = "key", value_name = "FILE")]
    pub keys: Vec<PathBuf>,
}

/// Arguments of `install` and `plan`. Without nested groups: clap fills an optional group only from its own fields.
#[derive(Clone, Debug, Args)]
pub struct Install {
    /// What this host is for: master, worker, etcd; several separated by commas
    #[arg(long = "role", value_name = "ROLE", value_delimiter = ',', required = true, value_parser = role)]
    pub roles: Vec<Role>,

    /// The bundle; `-` reads it from stdin
    #[arg(long, value_name = "FILE")]
    pub bundle: PathBuf,

    /// Believe this minisign public key instead of those in /etc/sealift/trusted-keys (may be given several times)
    #[arg(long = "key", value_name = "FILE")]
    pub keys: Vec<PathBuf>,

    /// The cluster: its networks and nodes
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,

    /// Accept an older bundle, or one of another release line; the reason is recorded
    #[arg(long, value_name = "REASON")]
    pub allow_downgrade: Option<String>,

    /// Give up a pending run that was started with other inputs
    #[arg(long)]
    pub abandon: bool,

    /// Write JSON lines
    #[arg(long)]
    pub json: bool,
}

impl Install {
    /// The bundle and the keys.
    pub fn source(&self) -> Source {
        Source { bundle: self.bundle.clone(), keys: self.keys.clone() }
    }
}

/// Arguments of `verify`.
#[derive(Clone, Debug, Args)]
pub struct Verify {
    /// The bundle and the keys.
    #[command(flatten)]
    pub source: Source,

    /// Form of the output.
    #[command(flatten)]
    pub format: Format,
}

fn role(text: &str) -> Result<Role, String> {
    match text {
        "master" => Ok(Role::Master),
        "worker" => Ok(Role::Worker),
        "etcd" => Ok(Role::Etcd),
        other => Err(format!("`{other}` is not a role: expected master, worker or etcd")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn install_is_the_default_command() {
        let arguments = ["--role", "master,worker", "--bundle", "x.bundle", "--config", "cluster.toml"];
        let plain = Cli::try_parse_from(std::iter::once("installer").chain(arguments)).unwrap();
        assert!(plain.command.is_none());
        assert_eq!(plain.install.unwrap().roles, [Role::Master, Role::Worker]);
        let named = Cli::try_parse_from(["installer", "install"].into_iter().chain(arguments)).unwrap();
        assert!(matches!(named.command, Some(Command::Install(install)) if install.roles.len() == 2));
        assert!(Cli::try_parse_from(["installer", "--role", "master"]).is_err());
        assert!(Cli::try_parse_from(["installer", "plan"]).is_err());
        assert!(matches!(Cli::try_parse_from(["installer", "status"]).unwrap().command, Some(Command::Status(_))));
    }
}
