//! Throwaway systemd hosts on one machine, and what tests need around them.
//!
//! A [`Bed`] is a network namespace that holds nothing but two bridges; a [`Host`] is a systemd host (systemd-nspawn over an overlay of one
//! cached Debian root) with a leg on the first, or on both. Nothing on a bed can reach the machine's own networks: there is no link between them.
//! A [`Machine`] is a virtual one (QEMU), where kernels and reboots are real, with a leg on the first bridge.
//! Dropping a host, a machine or a bed leaves no process, mount, cgroup, namespace or file behind; remains of a killed run are swept when the
//! next bed is made. Everything here needs root and the packages of `scripts/prerequisites.sh`.

pub mod apt_archive;
pub mod bed;
pub mod bench;
pub mod cgroup;
pub mod cluster;
pub mod deb;
pub mod demo;
pub mod host;
pub mod machine;
pub mod master;
pub mod measure;
pub mod output;
pub mod process;
pub mod product;
pub mod registry;
pub mod root;
pub mod rpm;
pub mod run;
pub mod signer;
pub mod snapshot;
pub mod wait;
pub mod web;

pub use bed::Bed;
pub use host::{Host, Route, Signal, When};
pub use machine::Machine;
pub use process::{Finished, Process};
pub use snapshot::Snapshot;
