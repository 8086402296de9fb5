//! Turns a bare Linux host into a Kubernetes node from one signed bundle.
//!
//! `main.rs` only parses the command line and calls [`commands`]. Data flows one way:
//! bundle + facts + cluster config -> plan -> steps -> journal and events.

pub mod agent;
pub mod approver;
pub mod background;
pub mod checks;
pub mod cli;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod context;
pub mod distro;
pub mod engine;
pub mod event;
pub mod facts;
#[cfg(test)]
mod fixture;
pub mod generation;
pub mod host;
pub mod join;
pub mod journal;
pub mod kubeapi;
pub mod lock;
pub mod output;
pub mod pki;
pub mod plan;
pub mod render;
pub mod report;
pub mod reset;
pub mod restart;
pub mod roles;
pub mod share;
pub mod step;
pub mod steps;
pub mod store;
pub mod trust;
pub mod waiting;
