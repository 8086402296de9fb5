//! The kernel: compared with the bundle's, kept. A container has none of its own.

use anyhow::Result;
use bundle::component::Kind;

use crate::config::KernelPolicy;
use crate::context::Context;
use crate::step::{Check, Step};

/// The step.
#[derive(Clone, Copy, Debug)]
pub struct Kernel;

impl Step for Kernel {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn title(&self) -> &'static str {
        "Compare the running kernel with the bundle's"
    }

    fn check(&self, context: &Context<'_>) -> Result<Check> {
        let running = &context.facts.kernel;
        if context.facts.container.is_some() {
            return Ok(Check::Skipped(format!("shares the machine's kernel ({running})")));
        }
        let share = context.share();
        let kernels =
            context.components.iter().filter(|component| component.kind == Kind::Kernel && share.has(component));
        let mut packages = kernels.clone().flat_map(|component| &component.packages);
        let KernelPolicy::Keep = context.config.kernel.policy;
        Ok(Check::Kept(match kernels.clone().next() {
            Some(_) if packages.any(|package| package.name.ends_with(running.as_str())) => {
                format!("{running}, the kernel of the bundle")
            }
            Some(kernel) => format!("{running}; the bundle has {} {} (policy \"keep\")", kernel.name, kernel.version),
            None => format!("{running}; the bundle brings no kernel"),
        }))
    }

    fn apply(&self, _: &Context<'_>) -> Result<()> {
        Ok(())
    }
}
