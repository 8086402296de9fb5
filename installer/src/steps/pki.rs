//! Certificates, keys, kubeconfigs and secrets of this host: made or taken over once, renewed when they run out.

use anyhow::Result;

use crate::cluster::founding::{Founding, may_found};
use crate::context::Context;
use crate::pki::files::{self, Origin, Wanted, Write};
use crate::step::{Change, Check, Step, Target};

/// The step.
#[derive(Clone, Copy, Debug)]
pub struct Pki;

fn plan(context: &Context<'_>) -> Result<Vec<Write>> {
    let wanted = Wanted::of(context.config, context.node);
    files::plan(context.host, &wanted, origin(context)?, context.host.now())
}

/// Where the secrets come from. That nobody else has founded the cluster is for preflight to find out.
fn origin<'a>(context: &Context<'a>) -> Result<Origin<'a>> {
    if let Some(join) = context.join {
        return Ok(Origin::Join(join));
    }
    let may = !context.joined && may_found(context.config, context.node, context.init);
    let founds = may && Founding::read(context.host)?.is_none();
    Ok(if founds { Origin::Found } else { Origin::Host })
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
