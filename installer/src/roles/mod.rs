//! Which steps a host of some roles goes through, in order. A role is one file here and one line in [`steps`].
//!
//! The order is that of DESIGN §6: what every host needs, then etcd, then the control plane, then the node. Roles that are
//! combined on one host share steps; each step runs once, at its first place.

mod etcd;
mod master;
mod worker;

use bundle::component::Role;

use crate::config::Roles;
use crate::step::Step;
use crate::steps::{health, host_settings, kernel, os_packages, pki, preflight};

/// The step that runs before the bundle's components are unpacked into the store.
pub fn preflight() -> Box<dyn Step> {
    Box::new(preflight::Preflight)
}

/// All steps that follow the store, for a host with these roles.
pub fn steps(roles: &Roles) -> Vec<Box<dyn Step>> {
    let mut steps: Vec<Box<dyn Step>> = vec![
        // First: what a join file holds is then on the host, and the run can be resumed without it.
        Box::new(pki::Pki),
        Box::new(os_packages::OsPackages),
        Box::new(kernel::Kernel),
        Box::new(host_settings::HostSettings),
    ];
    for role in [Role::Etcd, Role::Master, Role::Worker] {
        if !roles.contains(role) {
            continue;
        }
        let of_role = match role {
            Role::Etcd => etcd::steps(),
            Role::Master => master::steps(),
            Role::Worker => worker::steps(),
        };
        for step in of_role {
            if steps.iter().all(|present| present.name() != step.name()) {
                steps.push(step);
            }
        }
    }
    steps.push(Box::new(health::Health));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(roles: &[Role]) -> Vec<&'static str> {
        steps(&Roles::new(roles.iter().copied())).iter().map(|step| step.name()).collect()
    }

    #[test]
    fn a_master_starts_its_parts_in_the_order_they_need_each_other() {
        let names = names(&[Role::Master]);
        let at = |name: &str| names.iter().position(|found| *found == name).unwrap();
        for pair in [
            "pki etcd",
            "etcd kube-apiserver",
            "kube-apiserver bootstrap",
            "bootstrap approver",
            "approver kubelet",
            "containerd images",
            "images kubelet",
            "proxy kubelet",
            "kubelet network",
            "network health",
        ] {
            let (first, second) = pair.split_once(' ').unwrap();
            assert!(at(first) < at(second), "{pair} in {names:?}");
        }
    }

    #[test]
    fn a_worker_reaches_the_cluster_before_its_node_is_started() {
        let every = ["pki", "os-packages", "kernel", "host-settings"];
        let node = ["containerd", "images", "command-line", "join", "proxy", "kubelet", "kube-proxy", "network"];
        let worker: Vec<&str> = every.into_iter().chain(node).chain(["health"]).collect();
        assert_eq!(names(&[Role::Worker]), worker);
        let member: Vec<&str> = every.into_iter().chain(["etcd", "health"]).collect();
        assert_eq!(names(&[Role::Etcd]), member);
        let both = names(&[Role::Etcd, Role::Worker]);
        assert_eq!(both, every.into_iter().chain(["etcd"]).chain(node).chain(["health"]).collect::<Vec<_>>());
    }

    #[test]
    fn combined_roles_run_each_step_once() {
        let combined = names(&[Role::Master, Role::Worker, Role::Etcd]);
        let unique: std::collections::BTreeSet<_> = combined.iter().collect();
        assert_eq!(combined.len(), unique.len());
        assert!(!names(&[Role::Worker]).contains(&"kube-apiserver"));
        assert!(!names(&[Role::Etcd]).contains(&"kubelet"));
    }
}
