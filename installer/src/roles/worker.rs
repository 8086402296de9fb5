//! A node: container runtime, apiserver proxy, kubelet, kube-proxy, pod network. Masters are nodes too.

use crate::step::Step;
use crate::steps::{command_line, containerd, images, join, kube_proxy, kubelet, network, proxy};

/// Its steps.
pub(super) fn steps() -> Vec<Box<dyn Step>> {
    vec![
        Box::new(containerd::Containerd),
        Box::new(images::Images),
        Box::new(command_line::CommandLine),
        Box::new(join::Join::default()),
        Box::new(proxy::Proxy),
        Box::new(kubelet::step()),
        Box::new(kube_proxy::step()),
        Box::new(network::step()),
    ]
}
