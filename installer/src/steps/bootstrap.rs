//! The objects that the cluster itself must hold before nodes can join: bootstrap RBAC, the record of the cluster, and the
//! bootstrap tokens that this host knows. Created when missing, put right when changed.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use super::{api, peers};
use crate::agent::RECORD;
use crate::cluster::known::Moved;
use crate::cluster::{Contribution, Record};
use crate::context::{Context, ETC};
use crate::pki::files::Wanted;
use crate::report::Explain as _;
use crate::step::{Change, Check, Step};

/// How long several masters that bootstrap at the same moment may take to agree.
const AGREEMENT: Duration = Duration::from_secs(30);

/// The step.
#[derive(Clone, Copy, Debug)]
pub struct Bootstrap;

impl Step for Bootstrap {
    fn name(&self) -> &'static str {
        "bootstrap"
    }

    fn title(&self) -> &'static str {
        "Give nodes the rights to join, and record the cluster"
    }

    fn check(&self, context: &Context<'_>) -> Result<Check> {
        let server = api::own_apiserver(context).and_then(|client| {
            client.healthy("/readyz")?;
            Ok(client)
        });
        // Before the apiserver runs there is nothing to compare with: everything will be made.
        let Ok(client) = server else {
            return Ok(Check::Needed(vec![Change::new("create roles, bindings and the record of the cluster")]));
        };
        let changes = wanted(context)?.differences(&client)?;
        one_cluster(context)?;
        let mut changes = changes.iter().map(|difference| Change::new(difference.to_string())).collect::<Vec<_>>();
        if context.host.exists(Path::new(Moved::PATH))? {
            changes.push(Change::new(format!("remove {}: the cluster knows it", Moved::PATH)));
        }
        Ok(if changes.is_empty() { Check::Done } else { Check::Needed(changes) })
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        let (client, wanted) = (api::own_apiserver(context)?, wanted(context)?);
        wanted.make(&client)?;
        // Masters that do the same at this moment may overtake each other; whoever wrote last puts it right at once.
        context.host.wait_for("agreement with the other masters", AGREEMENT, Duration::from_millis(200), || {
            let left = wanted.differences(&client)?;
            if left.is_empty() {
                return Ok(Ok(()));
            }
            wanted.make(&client)?;
            Ok(Err(left.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")))
        })?;
        // The agent goes by this copy until it has read the record itself.
        Record::read(&client)?.context("the record is gone")?.keep(context.host, Path::new(RECORD))?;
        context.host.remove(Path::new(Moved::PATH))
    }
}

/// Refuses when another master belongs to a cluster of its own.
fn one_cluster(context: &Context<'_>) -> Result<()> {
    let strangers = peers::strangers(context.host, context.config)?;
    if strangers.is_empty() {
        return Ok(());
    }
    Err(anyhow!("another cluster was founded from this config: {} shows another authority", peers::named(&strangers)))
        .hint(peers::HINT)
}

fn wanted(context: &Context<'_>) -> Result<Contribution> {
    let path = Path::new(ETC).join("cluster.toml");
    let config = context.host.read_text(&path)?.with_context(|| format!("`{}` does not exist", path.display()))?;
    Contribution::of(context.host, &Wanted::of(context.config, context.node), &config)
}
