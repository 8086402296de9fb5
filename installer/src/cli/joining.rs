//! Arguments of what brings nodes into a cluster: `secrets`, `join-file`, `token`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Format, lifetime};

/// Lifetime of something given to a node, read from `90m`, `24h`, `3d`.
pub type Lifetime = std::time::Duration;

/// How a join file is sealed. One of them; without any, a passphrase is asked for on the terminal.
#[derive(Clone, Debug, Default, Args)]
pub struct Seal {
    /// Seal with the passphrase in the first line of this file
    #[arg(long, value_name = "FILE", conflicts_with = "recipients")]
    pub passphrase_file: Option<PathBuf>,

    /// Seal for this age public key (`age1…`); may be given several times
    #[arg(long = "recipient", value_name = "KEY")]
    pub recipients: Vec<String>,
}

/// The file that lets a host join, and how to open it.
#[derive(Clone, Debug, Default)]
pub struct JoinSource {
    /// The join file.
    pub join: Option<PathBuf>,
    /// Whose first line is the passphrase.
    pub passphrase_file: Option<PathBuf>,
    /// An age identity file.
    pub identity: Option<PathBuf>,
    /// Digest of the cluster's authority.
    pub ca_pin: Option<String>,
}

/// `installer secrets …`.
#[derive(Clone, Debug, Subcommand)]
pub enum Secrets {
    /// Make a new cluster's secrets and one join file per node of the config, so that all hosts can be installed at once
    Create(SecretsCreate),
}

/// Arguments of `secrets create`.
#[derive(Clone, Debug, Args)]
pub struct SecretsCreate {
    /// The cluster: its networks and nodes
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,

    /// Directory for the files, NODE.join each; created, must be empty
    #[arg(long, short, value_name = "DIRECTORY")]
    pub output: PathBuf,

    /// How long the files can be used
    #[arg(long, value_name = "TIME", default_value = "72h", value_parser = lifetime)]
    pub ttl: Lifetime,

    /// How they are sealed.
    #[command(flatten)]
    pub seal: Seal,
}

/// Arguments of `join-file`.
#[derive(Clone, Debug, Args)]
pub struct JoinFile {
    /// The node of the cluster's config that may join with it
    #[arg(long, value_name = "NAME")]
    pub node: String,

    /// How long it can be used
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = lifetime)]
    pub ttl: Lifetime,

    /// Where to write it (NAME.join here otherwise); an existing file is not overwritten
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// The cluster config to take instead of the one this host knows (on an etcd node without a control plane only: masters
    /// ask the cluster)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Do not seal it (workers only: it holds a token, no key); the host then needs `--ca-pin`
    #[arg(long, conflicts_with_all = ["passphrase_file", "recipients"])]
    pub plain: bool,

    /// How it is sealed.
    #[command(flatten)]
    pub seal: Seal,
}

/// `installer token …`.
#[derive(Clone, Debug, Subcommand)]
pub enum Token {
    /// List the bootstrap tokens of the cluster: node, id, end
    List(Format),
    /// Revoke a bootstrap token at once; `installer join-file` makes another one
    Revoke {
        /// The token's id (six characters), or the name of its node for all of that node
        token: String,
    },
}
