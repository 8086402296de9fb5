//! `installer check`: whether the cluster works, asked from this host with this host's own rights. Changes nothing.
//!
//! Everything is really tried: API servers, etcd, every node's kubelet, every pod, service and node port, the cluster's DNS,
//! clocks, certificates. What cannot be asked from here is a row that says so, never a crash. Lists are read page by page and
//! probed a bounded number at a time, so that neither memory nor sockets grow with the cluster.

mod api;
mod dial;
mod dns;
mod here;
mod nodes;
mod pods;
mod services;
mod table;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use self::table::Table;
use crate::cli::cluster::CheckCluster;
use crate::cluster::{Known, Record, administrator_anywhere};
use crate::config::ClusterConfig;
use crate::host::Host;
use crate::kubeapi::{Client, Credentials, Limits};
use crate::output::Output;
use crate::pki::files::{certificate_path, key_path};
use crate::pki::{AuthorityName, Inspection, KUBELET_CLIENT};
use crate::report::{Exit, Explain as _};

/// Time for a list: it comes in pages, but the first page of a large cluster takes the apiserver a while.
const LIST: Limits = Limits { connect: Duration::from_secs(3), total: Duration::from_secs(30), body: 32 << 20 };

/// What every part of the check needs.
struct Question<'a> {
    host: &'a Host,
    config: &'a ClusterConfig,
    /// The name of this node, if its kubelet has a certificate.
    node: Option<String>,
    /// The cluster's authority; `None` on a host that has none (a dedicated etcd member).
    authority: Option<String>,
    /// How long one probe may take.
    timeout: Duration,
    /// Where kubelets listen.
    kubelet_port: u16,
}

impl<'a> Question<'a> {
    fn new(host: &'a Host, config: &'a ClusterConfig, timeout: Duration) -> Result<Self> {
        let authority = host.read_text(&certificate_path(AuthorityName::Cluster.stem()))?;
        let node = match host.read_text(Path::new(KUBELET_CLIENT))? {
            Some(text) => Inspection::of_pem(&text)?.common_name.strip_prefix("system:node:").map(str::to_owned),
            None => None,
        };
        Ok(Self { host, config, node, authority, timeout, kubelet_port: nodes::KUBELET_PORT })
    }

    fn limits(&self) -> Limits {
        Limits { connect: self.timeout, total: self.timeout, ..Limits::default() }
    }

    /// This node, by the kubelet's certificate.
    fn as_node(&self) -> Result<Credentials<'a>> {
        self.node.as_ref().context("this host has no certificate for the API")?;
        Ok(Credentials::Files { host: self.host, certificate: KUBELET_CLIENT.into(), key: KUBELET_CLIENT.into() })
    }

    fn authority(&self) -> Result<&str> {
        self.authority.as_deref().context("this host does not have the cluster's authority")
    }

    /// A client for lists: a master may read everything, another node what nodes may, through its proxy.
    fn lists(&self) -> Result<Client<'a>> {
        if self.host.exists(&key_path(AuthorityName::Cluster.stem()))? {
            return Ok(administrator_anywhere(self.host)?.with_limits(LIST));
        }
        Ok(Client::new(api::PROXY, self.authority()?, self.as_node()?)?.with_limits(LIST))
    }
}

/// Runs the command.
pub fn check(host: &Host, arguments: &CheckCluster, output: &Output) -> Result<Exit> {
    let known = Known::here(host)?.ok_or_else(|| {
        anyhow!("nothing of a cluster is installed on this host").exit(Exit::Usage).hint("run it on a node")
    })?;
    let mut table = Table::default();
    let question = Question::new(host, &known.config, arguments.timeout)?;
    here::certificates(&question, &mut table);
    here::etcd(&question, &mut table);
    match question.lists() {
        // A dedicated etcd member knows no more.
        Err(error) if question.authority.is_none() => {
            table.unchecked("the API and everything in it", format!("{error:#}"));
        }
        Err(error) => {
            api::servers(&question, &mut table);
            table.failed("the cluster's lists", format!("{error:#}"));
        }
        Ok(client) => {
            let record = here::record(&client, known.record.as_ref(), &mut table);
            let config = record.as_ref().map_or(&known.config, |record: &Record| &record.config);
            let question = Question { config, ..question };
            api::servers(&question, &mut table);
            nodes::look(&question, &client, &mut table);
            pods::look(&question, &client, &mut table);
            services::look(&question, &client, &mut table);
        }
    }
    table.show(output);
    Ok(if table.is_good() { Exit::Done } else { Exit::Failed })
}
