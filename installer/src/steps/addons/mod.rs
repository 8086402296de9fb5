//! The addons of the bundle that the cluster config asks for: their objects, patched for this cluster, are made in the API.
//!
//! Nothing here waits for pods: whether an addon works is for `installer check` to say. Objects of an addon that left the
//! config or the bundle stay in the cluster.

mod values;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, anyhow};
use bundle::addon::{self, OBJECTS, PATCHES, Patch};
use bundle::component::Kind;
use bundle::{Component, Image};
use serde_json::Value;

use self::values::Values;
use super::api;
use crate::cluster::apply::Applier;
use crate::cluster::ensure::Difference;
use crate::config::ClusterConfig;
use crate::context::Context;
use crate::kubeapi::Client;
use crate::report::Explain as _;
use crate::step::{Change, Check, Step};
use crate::store;

/// Components of addons are called `addon-NAME`.
const PREFIX: &str = "addon-";
/// Addons that connect pods: at most the one that `[network]` names is installed.
const NETWORKS: [&str; 2] = ["flannel", "calico"];

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

    fn check(&self, context: &Context<'_>) -> Result<Check> {
        let chosen = chosen(context.config, context.images)?;
        if chosen.is_empty() {
            return Ok(Check::Done);
        }
        let server = api::own_apiserver(context).and_then(|client| {
            client.healthy("/readyz")?;
            Ok(client)
        });
        // Before the apiserver runs there is nothing to compare with: everything will be made.
        let Ok(client) = server else {
            let changes = chosen.iter().map(|image| Change::new(format!("apply addon {}", title(&image.component))));
            return Ok(Check::Needed(changes.collect()));
        };
        let changes: Vec<Change> =
            missing(context, &client)?.iter().map(|difference| Change::new(difference.to_string())).collect();
        Ok(if changes.is_empty() { Check::Done } else { Check::Needed(changes) })
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        apply(context, &api::own_apiserver(context)?)
    }
}

/// What [`apply`] would change.
fn missing(context: &Context<'_>, client: &Client<'_>) -> Result<Vec<Difference>> {
    let values = Values::read(context, client)?;
    let mut differences: Vec<Difference> = values.difference().into_iter().collect();
    for image in chosen(context.config, context.images)? {
        let missing =
            objects(context, image, &values).and_then(|objects| Applier::new(context.host, client).missing(&objects));
        differences.extend(missing.with_context(|| about(image)).hint(other_addon(image))?);
    }
    Ok(differences)
}

fn apply(context: &Context<'_>, client: &Client<'_>) -> Result<()> {
    let chosen = chosen(context.config, context.images)?;
    if chosen.is_empty() {
        return Ok(());
    }
    let values = Values::decide(context, client)?;
    for image in chosen {
        let applied =
            objects(context, image, &values).and_then(|objects| Applier::new(context.host, client).apply(&objects));
        applied.with_context(|| about(image)).hint(other_addon(image))?;
    }
    Ok(())
}

/// The addons to install, sorted by name; the network plugin first, because all other pods need it.
pub fn chosen<'a>(config: &ClusterConfig, images: &'a [Image]) -> Result<Vec<&'a Image>> {
    let offered: Vec<&Image> = images.iter().filter(|image| image.component.kind == Kind::Addon).collect();
    let names: BTreeSet<&str> = offered.iter().map(|image| name(&image.component)).collect();
    let network = config.network.plugin.addon();
    let mut wanted: BTreeSet<&str> = match &config.addons.install {
        Some(install) => install.iter().map(String::as_str).collect(),
        None => names.iter().copied().filter(|name| !NETWORKS.contains(name)).collect(),
    };
    if let Some(other) = wanted.iter().find(|name| NETWORKS.contains(name) && network != Some(name)) {
        return Err(anyhow!("the addon `{other}` is a network plugin, but `[network] plugin` names another"))
            .hint(format!("set `plugin = \"{other}\"` in `[network]`, and leave it out of `[addons] install`"));
    }
    wanted.extend(network);
    if let Some(absent) = wanted.iter().find(|name| !names.contains(*name)) {
        let there = if names.is_empty() { "none".to_owned() } else { names.into_iter().collect::<Vec<_>>().join(", ") };
        return Err(anyhow!("the cluster config asks for the addon `{absent}`, and the bundle has {there}"))
            .hint("take a bundle with that addon, or change `[addons] install` or `[network] plugin`");
    }
    let mut chosen: Vec<&Image> = offered.into_iter().filter(|image| wanted.contains(name(&image.component))).collect();
    chosen.sort_by_key(|image| (Some(name(&image.component)) != network, name(&image.component).to_owned()));
    Ok(chosen)
}

/// The name in the manifest: `coredns` of the component `addon-coredns`.
fn name(component: &Component) -> &str {
    component.name.as_str().strip_prefix(PREFIX).unwrap_or(component.name.as_str())
}

fn title(component: &Component) -> String {
    format!("{} {}", name(component), component.version)
}

fn about(image: &Image) -> String {
    format!("installing addon {}", title(&image.component))
}

fn other_addon(image: &Image) -> String {
    format!(
        "`[addons] install` without `{}` leaves it out; a bundle for this Kubernetes version has one that fits",
        name(&image.component)
    )
}

/// The objects of an addon as this cluster needs them.
fn objects(context: &Context<'_>, image: &Image, values: &Values) -> Result<Vec<Value>> {
    let directory = store::entry_path(image);
    let read = |file: &str| {
        let path = directory.join(file);
        context.host.read(&path)?.with_context(|| format!("`{}` does not exist", path.display()))
    };
    let mut objects: Vec<Value> = serde_json::from_slice(&read(OBJECTS)?).context("reading the addon's objects")?;
    let patches: Vec<Patch> = serde_json::from_slice(&read(PATCHES)?).context("reading the addon's patches")?;
    addon::apply(&mut objects, &patches, |variable| values.get(context, variable))?;
    Ok(objects)
}

#[cfg(test)]
mod tests;
