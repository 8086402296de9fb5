//! Arguments of what changes or shows the cluster as a whole: `node`, `config`, `refresh`, `check`, `kubeconfig`, `reset`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use bundle::component::Role;
use clap::{Args, Subcommand};

use super::joining::Lifetime;
use super::{Format, lifetime, role};
use crate::restart::Mode;

/// `installer node …`: on any master; no other host is edited by hand.
#[derive(Clone, Debug, Subcommand)]
pub enum Node {
    /// List the nodes of the cluster's config and what the cluster says of each
    List(Format),
    /// Add a node to the cluster's config; `installer join-file --node NAME` then makes its join file
    Add {
        /// Node name, RFC 1123, lower case
        name: String,
        /// Its numeric address
        #[arg(long)]
        address: IpAddr,
        /// What it is for: master, worker, etcd; several separated by commas
        #[arg(long = "role", value_name = "ROLE", value_delimiter = ',', required = true, value_parser = role)]
        roles: Vec<Role>,
        /// The interface that carries the address, on hosts with several
        #[arg(long)]
        interface: Option<String>,
    },
    /// Take a node out of the cluster: its etcd member, its node object, its tokens, its place in the config
    Remove {
        /// Node name
        name: String,
        /// Also when etcd would be left with a bare majority, or the node still answers
        #[arg(long)]
        force: bool,
    },
    /// Forget what a dead host was, so that a new one can take its name and address (then: `installer join-file`)
    Replace {
        /// Node name
        name: String,
    },
    /// Tell the cluster a node's other address, before it is changed or after
    SetAddress {
        /// Node name
        name: String,
        /// The other address
        address: IpAddr,
    },
}

/// `installer config …`.
#[derive(Clone, Debug, Subcommand)]
pub enum Config {
    /// Write a commented cluster.toml to begin with, this host as its first master
    Init {
        /// Where to write it (stdout otherwise); an existing file is not overwritten
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        /// The cluster's name
        #[arg(long, default_value = "cluster")]
        name: String,
    },
    /// Read a cluster.toml as a whole: errors with their lines, warnings, and which node this host would be
    Check {
        /// The file
        file: PathBuf,
        /// Form of the output.
        #[command(flatten)]
        format: Format,
    },
    /// Show the config that the cluster holds, and its generation
    Show(Format),
}

/// How long to wait for other hosts.
#[derive(Clone, Copy, Debug, Args)]
pub struct Patience {
    /// How long to wait for other hosts before ending with exit code 6; this host then goes on by itself in the background
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = lifetime)]
    pub wait: Duration,
}

/// Arguments of `resume`.
#[derive(Clone, Copy, Debug, Args)]
pub struct Resume {
    /// Those of `refresh`.
    #[command(flatten)]
    pub refresh: Refresh,

    /// Whether to reboot when a kernel needs it (as the run that this goes on with was told otherwise)
    #[arg(long, value_name = "WHEN")]
    pub reboot: Option<Mode>,

    /// Try a kernel again that was tried on this host and failed
    #[arg(long)]
    pub retry_kernel: bool,
}

/// Arguments of `refresh`.
#[derive(Clone, Copy, Debug, Args)]
pub struct Refresh {
    /// Patience with other hosts.
    #[command(flatten)]
    pub patience: Patience,

    /// Ask the master at this address first: for hosts that no longer know any address of a master
    #[arg(long, value_name = "ADDRESS")]
    pub from: Option<IpAddr>,

    /// Form of the output.
    #[command(flatten)]
    pub format: Format,
}

/// Arguments of `check`.
#[derive(Clone, Copy, Debug, Args)]
pub struct CheckCluster {
    /// Form of the output.
    #[command(flatten)]
    pub format: Format,

    /// How long each single probe may take
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = lifetime)]
    pub timeout: Duration,
}

/// Arguments of `kubeconfig`.
#[derive(Clone, Debug, Args)]
pub struct Kubeconfig {
    /// The user's name, as RBAC and the audit log will know it
    #[arg(long, value_name = "NAME")]
    pub user: String,

    /// The user's group. `sealift:cluster-admins` may do everything; any other has the rights that RBAC gives it
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,

    /// How long it can be used, at most 30d; it cannot be revoked earlier
    #[arg(long, value_name = "TIME", default_value = "8h", value_parser = lifetime)]
    pub ttl: Lifetime,

    /// URL of the API in it; otherwise the config's first `api_names` or `api_addresses`, or this master's
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,

    /// Where to write it, private (stdout otherwise); an existing file is not overwritten
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Arguments of `reset`.
#[derive(Clone, Copy, Debug, Args)]
pub struct Reset {
    /// Move workloads away first (where this host may: on a master that reaches the API)
    #[arg(long)]
    pub drain: bool,

    /// How long that may take; nothing is removed when pods are still there then
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = lifetime, requires = "drain")]
    pub drain_timeout: Duration,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,

    /// Go on although this host cannot leave etcd in order, pods that nothing makes anew would end, the journal is damaged, or
    /// rules and settings cannot be put back
    #[arg(long)]
    pub force: bool,

    /// Form of the output.
    #[command(flatten)]
    pub format: Format,
}
