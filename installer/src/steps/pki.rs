//! Certificates, keys, kubeconfigs and founding secrets of this host: made once, renewed when they run out.

use anyhow::Result;

use crate::context::Context;
use crate::pki::files::{self, Wanted, Write};
use crate::step::{Change, Check, Step, Target};

/// The step.
#[derive(Clone, Copy, Debug)]
pub struct Pki;

fn plan(context: &Context<'_>) -> Result<Vec<Write>> {
    files::plan(context.host, &Wanted::of(context.config, context.node), context.host.now())
}

impl Step for Pki {
    fn name(&self) -> &'static str {
        "pki"
    }

    fn title(&self) -> &'static str {
        "Make certificates, keys and kubeconfigs"
    }

    fn touches(&self, context: &Context<'_>) -> Result<Vec<Target>> {
        // Only what is new: undo removes it again. Copies of keys that exist do not belong into the journal.
        let mut targets = Vec::new();
        for write in plan(context)? {
            if !context.host.exists(&write.path)? {
                targets.push(Target::File(write.path));
            }
        }
        Ok(targets)
    }

    fn check(&self, context: &Context<'_>) -> Result<Check> {
        let changes: Vec<Change> = plan(context)?
            .iter()
            .map(|write| Change::new(format!("write {} ({})", write.path.display(), write.reason)))
            .collect();
        Ok(if changes.is_empty() { Check::Done } else { Check::Needed(changes) })
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        files::write(context.host, &plan(context)?)
    }
}
