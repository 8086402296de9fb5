//! What templates see: one JSON object, the same for the same bundle, cluster, node and host facts.
//!
//! The names are a contract with the templates that travel in components (docs: templates); `render.rs` adds `component`
//! and the functions.

use std::net::Ipv4Addr;

use bundle::Image;
use serde_json::{Map, Value, json};

use super::proxy_mode;
use crate::cluster::etcd::client_url;
use crate::config::{ClusterConfig, Node, role_name};
use crate::facts::Facts;

/// The variables for one node.
pub fn variables(config: &ClusterConfig, node: &Node, facts: &Facts, images: &[Image]) -> Value {
    let versions = versions(images);
    let kubernetes = versions.get("kubernetes").and_then(Value::as_str).unwrap_or_default().to_owned();
    let members = config.etcd_members();
    let host = |node: &Node| json!({"name": node.name, "address": node.address});
    let cluster = &config.cluster;
    json!({
        "versions": versions,
        "cluster": {
            "name": cluster.name,
            "domain": cluster.domain,
            "service_cidr": cluster.service_cidr,
            "pod_cidr": cluster.pod_cidr,
            "node_cidr_mask": ClusterConfig::NODE_CIDR_MASK,
            "api_service_ip": config.api_service_ip(),
            "dns_ip": config.dns_ip(),
        },
        "node": {
            "name": node.name,
            "address": node.address,
            "roles": node.roles.iter().map(role_name).collect::<Vec<_>>(),
            "master": node.roles.master(),
            "worker": node.roles.worker(),
            "cpus": facts.cpus,
            "memory_mib": facts.memory_mib,
        },
        "network": {"plugin": config.network.plugin.name()},
        "masters": config.masters().map(host).collect::<Vec<_>>(),
        "etcd_members": members.iter().map(|member| host(member)).collect::<Vec<_>>(),
        "etcd": {
            "name": node.name,
            "endpoints": endpoints(config, node),
            "data_dir": config.etcd.data_dir,
            "wal_dir": config.etcd.wal_dir,
            "heartbeat_ms": config.etcd.heartbeat_ms,
            "election_ms": config.etcd.election_ms,
            "quota_bytes": config.etcd.quota_bytes,
        },
        "certificates": {
            "kubelet_minutes": config.certificates.kubelet_minutes.unwrap_or(365 * 24 * 60),
        },
        "proxy": {"address": "127.0.0.1", "port": 8443},
        "apiserver": {"port": 6443, "bind": "0.0.0.0"},
        "pki": "/etc/sealift/pki",
        "kubeconfig": "/etc/sealift/kubeconfig",
        "secrets": "/etc/sealift/secrets",
        "images": references(images),
        "host": {
            "cgroup": facts.cgroup.as_str(),
            "kernel": facts.kernel,
            "ip_vs": facts.modules.available("ip_vs"),
            "nft": facts.tools.contains_key("nft"),
            "nftables_ok": proxy_mode::nftables_ok(facts),
            "oom_score_adj": facts.oom_score_adj,
            "nofile": facts.nofile,
            "resolv_conf": facts.resolv_conf,
            "modules_loadable": facts.modules.can_load,
            "conntrack_writable": conntrack_writable(facts),
        },
        "kube_proxy": {"mode": proxy_mode::chosen(config.network.kube_proxy, &kubernetes, facts).name()},
    })
}

/// The etcd members that this node's apiserver asks: its own where one runs, so that a lost member costs one apiserver and
/// not a part of the requests of all; else all dedicated ones.
fn endpoints(config: &ClusterConfig, node: &Node) -> String {
    if config.runs_etcd(node) {
        return client_url(Ipv4Addr::LOCALHOST.into());
    }
    let urls: Vec<String> = config.etcd_members().iter().map(|member| client_url(member.address)).collect();
    urls.join(",")
}

/// Version of every component, `-` as `_`; `kubernetes` is that of kube-apiserver or kubelet.
fn versions(images: &[Image]) -> Map<String, Value> {
    let mut versions = Map::new();
    for image in images {
        let key = image.component.name.as_str().replace('-', "_");
        versions.insert(key, image.component.version.as_str().into());
    }
    if let Some(version) = versions.get("kube_apiserver").or_else(|| versions.get("kubelet")).cloned() {
        versions.insert("kubernetes".to_owned(), version);
    }
    versions
}

fn references(images: &[Image]) -> Map<String, Value> {
    let named = images.iter().filter_map(|image| {
        let key = image.component.name.as_str().replace('-', "_");
        Some((key, image.reference.clone()?.into()))
    });
    named.collect()
}

/// Whether kube-proxy may set the connection-tracking sysctls. On a fresh machine the key is not there before the run loads
/// the module; what is rendered must not depend on that, or the next run would render something else.
fn conntrack_writable(facts: &Facts) -> bool {
    facts.writable_sysctls.contains("net.netfilter.nf_conntrack_max")
        || (facts.container.is_none() && facts.modules.available("nf_conntrack"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::tests::debian;

    #[test]
    fn connection_tracking_is_the_same_before_and_after_its_module_is_loaded() {
        let mut facts = debian();
        facts.modules.loadable = ["nf_conntrack".to_owned()].into();
        assert!(conntrack_writable(&facts), "fresh");
        facts.modules.present = std::mem::take(&mut facts.modules.loadable);
        facts.writable_sysctls.insert("net.netfilter.nf_conntrack_max".to_owned());
        assert!(conntrack_writable(&facts), "loaded");
        facts.writable_sysctls.clear();
        facts.container = Some("lxc".to_owned());
        assert!(!conntrack_writable(&facts), "the machine's");
    }
}
