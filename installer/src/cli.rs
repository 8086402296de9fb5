//! The command line, apart from all logic.

use std::path::PathBuf;
use std::time::Duration;

use bundle::component::Role;
use clap::{Args, Parser, Subcommand};

use crate::checks::CheckName;
use crate::restart::Mode;

pub mod cluster;
pub mod joining;

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
    /// Show everything that is found on this host, for support
    Facts(Format),
    /// Show what runs on this host
    Status(Format),
    /// Go on with an installation that waits or was interrupted
    Resume(cluster::Resume),
    /// Compare this host with the cluster's present config and put right what differs (certificates too); needs no bundle
    Refresh(cluster::Refresh),
    /// Make a new cluster's secrets before its first host
    #[command(subcommand)]
    Secrets(joining::Secrets),
    /// Make the file with which a node joins (on a master)
    JoinFile(joining::JoinFile),
    /// List and revoke bootstrap tokens (on a master)
    #[command(subcommand)]
    Token(joining::Token),
    /// Add, remove, replace nodes, or tell of another address (on a master)
    #[command(subcommand)]
    Node(cluster::Node),
    /// Begin, check and show a cluster config
    #[command(subcommand)]
    Config(cluster::Config),
    /// Ask from this host whether the cluster works: API, etcd, nodes, pods, services, DNS, clocks, certificates
    Check(cluster::CheckCluster),
    /// Make a short-lived kubeconfig for a person (on a master)
    Kubeconfig(cluster::Kubeconfig),
    /// Take Sealift and everything it put here off this host
    Reset(cluster::Reset),
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
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct Install {
    /// What this host is for: master, worker, etcd; several separated by commas (as the cluster config says otherwise)
    #[arg(long = "role", value_name = "ROLE", value_delimiter = ',', value_parser = role)]
    pub roles: Vec<Role>,

    /// The bundle; `-` reads it from stdin
    #[arg(long, value_name = "FILE")]
    pub bundle: PathBuf,

    /// Believe this minisign public key instead of those in /etc/sealift/trusted-keys (may be given several times)
    #[arg(long = "key", value_name = "FILE")]
    pub keys: Vec<PathBuf>,

    /// The cluster: its networks and nodes (from the join file, or as this host knows it, otherwise)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The join file of this host, from `installer secrets create` or `installer join-file` on a master
    #[arg(long, value_name = "FILE")]
    pub join: Option<PathBuf>,

    /// Open the join file with the passphrase in the first line of this file (asked for on the terminal otherwise)
    #[arg(long, value_name = "FILE", requires = "join", conflicts_with = "identity")]
    pub passphrase_file: Option<PathBuf>,

    /// Open the join file with this age identity file (`age-keygen`)
    #[arg(long, value_name = "FILE", requires = "join")]
    pub identity: Option<PathBuf>,

    /// The cluster's authority, `sha256:…` as `join-file --plain` prints it: compulsory with a plain join file
    #[arg(long, value_name = "PIN", requires = "join")]
    pub ca_pin: Option<String>,

    /// Found a new cluster here, although this host is not the first master of the config
    #[arg(long, conflicts_with = "join")]
    pub init: bool,

    /// How long to wait for other hosts before ending with exit code 6; this host then goes on by itself in the background
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = lifetime)]
    pub wait: Duration,

    /// Whether to reboot when a kernel needs it: without asking, after a question on the terminal, or never (exit code 5)
    #[arg(long, value_name = "WHEN", default_value = "ask")]
    pub reboot: Mode,

    /// Try a kernel again that was tried on this host and failed
    #[arg(long)]
    pub retry_kernel: bool,

    /// Accept an older bundle, or one of another release line; the reason is recorded
    #[arg(long, value_name = "REASON")]
    pub allow_downgrade: Option<String>,

    /// Give up a pending run that was started with other inputs
    #[arg(long)]
    pub abandon: bool,

    /// Go on although this check of preflight refuses, and say so (may be given several times; recorded)
    #[arg(long = "ignore", value_name = "NAME", value_delimiter = ',', value_parser = CheckName::to_ignore)]
    pub ignored: Vec<CheckName>,

    /// Write JSON lines
    #[arg(long)]
    pub json: bool,
}

impl Install {
    /// The bundle and the keys.
    pub fn source(&self) -> Source {
        Source { bundle: self.bundle.clone(), keys: self.keys.clone() }
    }

    /// What this host joins with.
    pub fn join_source(&self) -> joining::JoinSource {
        joining::JoinSource {
            join: self.join.clone(),
            passphrase_file: self.passphrase_file.clone(),
            identity: self.identity.clone(),
            ca_pin: self.ca_pin.clone(),
        }
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

/// A time such as `30s`, `90m`, `24h`, `3d`.
pub(crate) fn lifetime(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time: expected a number with s, m, h or d, such as `24h`");
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
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
