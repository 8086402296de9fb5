//! Whether kube-proxy can work here as the cluster config wants it to. Without a wish it takes what there is.

use super::finding::Finding;
use crate::checks::CheckName;
use crate::config::ProxyMode;
use crate::context::Context;
use crate::context::proxy_mode::{chosen, deprecated, obstacles};

/// All findings of this file.
pub(super) fn look(context: &Context<'_>) -> Vec<Finding> {
    let Some(component) = context.component("kube-proxy").filter(|_| context.roles.run_pods()) else {
        return Vec::new();
    };
    let (wanted, version) = (context.config.network.kube_proxy, component.version.as_str());
    let mode = chosen(wanted, version, context.facts);
    let missing = obstacles(mode, version, context.facts);
    let subject = "kube-proxy mode";
    // A missing tool that every node needs is a finding of its own.
    if wanted != ProxyMode::Auto && !missing.is_empty() {
        let advice = "install what is missing, or leave `kube_proxy` out of `[network]`";
        return vec![Finding::refused(
            CheckName::KubeProxyMode,
            subject,
            format!("`{}` wanted", mode.name()),
            missing.join("; "),
            advice,
        )];
    }
    if deprecated(mode, version) {
        let found = format!("`{}`, as the config wants it", mode.name());
        return vec![Finding::limit(
            CheckName::KubeProxyMode,
            subject,
            found,
            "Kubernetes is about to remove it",
            "`kube_proxy = \"nftables\"` in `[network]`, or leave it out",
        )];
    }
    vec![Finding::good(CheckName::KubeProxyMode, subject, mode.name())]
}
