//! A master: the control plane (with etcd, unless the cluster has dedicated members) on a node of the cluster.

use crate::step::Step;
use crate::steps::{
    addons, approver, bootstrap, command_line, containerd, etcd, images, kube_apiserver, kube_controller_manager,
    kube_scheduler,
};

/// Its own steps, then those of every node.
pub(super) fn steps() -> Vec<Box<dyn Step>> {
    let mut steps: Vec<Box<dyn Step>> = vec![
        Box::new(containerd::Containerd),
        Box::new(images::Images),
        Box::new(etcd::Etcd),
        Box::new(kube_apiserver::step()),
        Box::new(kube_controller_manager::step()),
        Box::new(kube_scheduler::step()),
        Box::new(bootstrap::Bootstrap),
        Box::new(approver::step()),
        Box::new(command_line::CommandLine),
    ];
    steps.extend(super::worker::steps());
    steps.push(Box::new(addons::Addons));
    steps
}
