//! The steps of a host, one file each; `roles` puts them in order.

pub mod addons;
pub mod api;
pub mod approver;
pub mod bootstrap;
pub mod cni_programs;
pub mod command_line;
pub mod containerd;
pub mod etcd;
pub mod file;
pub mod health;
pub mod host_settings;
pub mod images;
pub mod join;
pub mod kernel;
pub mod kube_apiserver;
pub mod kube_controller_manager;
pub mod kube_proxy;
pub mod kube_scheduler;
pub mod kubelet;
pub mod lease;
pub mod long_running;
pub mod loopback;
pub mod network;
pub mod os_packages;
pub mod peers;
pub mod pki;
pub mod preflight;
pub mod proxy;
pub mod service;
#[cfg(test)]
mod tests;
pub mod unit;
