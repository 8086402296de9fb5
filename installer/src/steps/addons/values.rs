//! Values that patches of addons may name. All come from the cluster config but one: the resolvers, which only hosts know.
//!
//! Hosts may differ in that. So that masters do not overwrite each other's, the first one to install an addon writes down
//! what holds for the cluster: ConfigMap `kube-system/sealift-addons`, which people may edit.

use std::net::IpAddr;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::super::{api, cni_programs};
use crate::cluster::ensure::Difference;
use crate::config::ClusterConfig;
use crate::context::Context;
use crate::kubeapi::Client;

/// Where an addon that is a network plugin puts its network for containerd.
const CNI_CONF: &str = "/etc/cni/net.d";
const COLLECTION: &str = "/api/v1/namespaces/kube-system/configmaps";
const NAME: &str = "sealift-addons";

/// What holds for the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Values {
    resolvers: String,
    recorded: bool,
}

impl Values {
    /// What the cluster has written down, or what this host would write. Changes nothing.
    pub(super) fn read(context: &Context<'_>, client: &Client<'_>) -> Result<Self> {
        Ok(match client.find(&format!("{COLLECTION}/{NAME}"))? {
            Some(found) => Self::of(&found)?,
            None => Self { resolvers: own_resolvers(context)?, recorded: false },
        })
    }

    /// As [`Values::read`], and writes it down when nobody has; the first one's holds.
    pub(super) fn decide(context: &Context<'_>, client: &Client<'_>) -> Result<Self> {
        let values = Self::read(context, client)?;
        if values.recorded {
            return Ok(values);
        }
        match client.post(COLLECTION, &values.object()) {
            Ok(_) => Ok(Self { recorded: true, ..values }),
            Err(error) if error.code() == Some(409) => Self::read(context, client),
            Err(error) => Err(error.into()),
        }
    }

    /// What it will take to write them down.
    pub(super) fn difference(&self) -> Option<Difference> {
        let object = format!("ConfigMap kube-system/{NAME}");
        (!self.recorded).then_some(Difference { verb: "create", object })
    }

    fn of(object: &Value) -> Result<Self> {
        let resolvers = object.pointer("/data/resolvers").and_then(Value::as_str).unwrap_or_default();
        // People write this, and it ends up in a file of CoreDNS: addresses and nothing else.
        let mut resolvers_given = resolvers.split_whitespace();
        if let Some(wrong) = resolvers_given.find(|resolver| resolver.parse::<IpAddr>().is_err()) {
            bail!("ConfigMap kube-system/{NAME} names the resolver `{wrong}`: expected numeric addresses");
        }
        Ok(Self { resolvers: resolvers.to_owned(), recorded: true })
    }

    fn object(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": NAME, "namespace": "kube-system" },
            "data": { "resolvers": self.resolvers },
        })
    }

    /// The value of a variable (`bundle::addon::VARIABLES`); `None` when there is no such variable.
    pub(super) fn get(&self, context: &Context<'_>, variable: &str) -> Option<String> {
        let config = context.config;
        let cluster = &config.cluster;
        Some(match variable {
            "cluster.name" => cluster.name.clone(),
            "cluster.domain" => cluster.domain.clone(),
            "cluster.pod_cidr" => cluster.pod_cidr.to_string(),
            "cluster.service_cidr" => cluster.service_cidr.to_string(),
            "cluster.node_cidr_mask" => ClusterConfig::NODE_CIDR_MASK.to_string(),
            "cluster.api_service_ip" => config.api_service_ip().to_string(),
            "cluster.dns_ip" => config.dns_ip().to_string(),
            "cluster.interface" => config.common_interface().unwrap_or_default().to_owned(),
            "cluster.resolvers" => self.resolvers.clone(),
            "cni.bin_dir" => cni_programs::DIRECTORY.to_owned(),
            "cni.conf_dir" => CNI_CONF.to_owned(),
            "proxy.address" => "127.0.0.1".to_owned(),
            "proxy.port" => api::PROXY_PORT.to_string(),
            _ => return None,
        })
    }
}

/// The nameservers of this host that a pod can reach.
fn own_resolvers(context: &Context<'_>) -> Result<String> {
    if !context.facts.nameserver {
        return Ok(String::new());
    }
    let text = context.host.read_text(&context.facts.resolv_conf)?.unwrap_or_default();
    let named = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok());
    let reached: Vec<String> = named
        .filter(|server| !server.is_loopback() && !server.is_unspecified())
        .map(|server| server.to_string())
        .collect();
    Ok(reached.join(" "))
}
