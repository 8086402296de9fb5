//! A dedicated etcd member.

use crate::step::Step;
use crate::steps::etcd;

/// Its own steps.
pub(super) fn steps() -> Vec<Box<dyn Step>> {
    vec![Box::new(etcd::Etcd)]
}
