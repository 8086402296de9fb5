//! The objects that the cluster itself must hold before nodes can join: bootstrap RBAC, the record of the cluster, and this
//! node's bootstrap token. Created when missing, put right when changed.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::api;
use crate::cluster::{self, Record, ensure};
use crate::context::{Context, ETC};
use crate::kubeapi::Client;
use crate::pki::files::Wanted;
use crate::step::{Change, Check, Step};

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
        let changes: Vec<Change> = ensure::missing(&client, &wanted(context, &client)?)?
            .iter()
            .map(|difference| Change::new(difference.to_string()))
            .collect();
        Ok(if changes.is_empty() { Check::Done } else { Check::Needed(changes) })
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        let client = api::own_apiserver(context)?;
        ensure::ensure(&client, &wanted(context, &client)?)?;
        Ok(())
    }
}

fn wanted(context: &Context<'_>, client: &Client<'_>) -> Result<Vec<Value>> {
    let path = Path::new(ETC).join("cluster.toml");
    let config = context.host.read_text(&path)?.with_context(|| format!("`{}` does not exist", path.display()))?;
    let found = Record::read(client)?;
    cluster::wanted_objects(context.host, &Wanted::of(context.config, context.node), &config, found.as_ref())
}
