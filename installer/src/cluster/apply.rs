//! Objects of others (addons): applied as a bundle has them, once, and again only when the bundle or the cluster config has
//! other ones.
//!
//! What was applied is remembered in an annotation of each object, a digest of all that was asked for. So a rerun changes
//! nothing, although the apiserver fills in defaults and writes quantities its own way; what somebody changes in an object
//! afterwards stays until the addon itself changes. Where a kind lives is asked of the API's own lists (discovery).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use bundle::Digest;
use bundle::addon::label;
use serde_json::Value;

use super::ensure::{Difference, merge};
use crate::host::Host;
use crate::kubeapi::Client;
use crate::report::Explain as _;

/// The annotation with the digest.
pub const APPLIED: &str = "sealift.dev/applied";
/// Each conflict means that somebody else's write succeeded.
const TRIES: usize = 20;
/// How long an apiserver may take to serve a new kind.
const ESTABLISHED: Duration = Duration::from_secs(60);

/// Resources of a group and version: kind → plural name, and whether its objects are in namespaces.
type Resources = BTreeMap<String, (String, bool)>;

/// A cluster and what its API offers.
#[derive(Debug)]
pub struct Applier<'a> {
    host: &'a Host,
    client: &'a Client<'a>,
    offered: RefCell<BTreeMap<String, Option<Resources>>>,
}

/// Where an object lives.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    collection: String,
    name: String,
}

impl Place {
    fn path(&self) -> String {
        format!("{}/{}", self.collection, self.name)
    }
}

impl<'a> Applier<'a> {
    /// Asks and changes through this client.
    pub fn new(host: &'a Host, client: &'a Client<'a>) -> Self {
        Self { host, client, offered: RefCell::default() }
    }

    /// What [`Applier::apply`] would do. An object whose kind another object of the list defines counts as missing until the
    /// cluster knows the kind.
    pub fn missing(&self, objects: &[Value]) -> Result<Vec<Difference>> {
        let own = defined(objects);
        let mut differences = Vec::new();
        for object in ordered(objects) {
            let place = match self.place(object)? {
                Some(place) => place,
                None if own.contains(&kind_of(object)?) => {
                    differences.push(difference("create", object));
                    continue;
                }
                None => return Err(self.not_offered(object)),
            };
            let found = self.client.find(&place.path()).with_context(|| label(object))?;
            differences.extend(verb(found.as_ref(), object).map(|verb| difference(verb, object)));
        }
        Ok(differences)
    }

    /// Makes the cluster hold the objects: namespaces and new kinds first, the others in their order. Says what changed.
    pub fn apply(&self, objects: &[Value]) -> Result<Vec<Difference>> {
        let own = defined(objects);
        let mut differences = Vec::new();
        for object in ordered(objects) {
            let place = match self.place(object)? {
                Some(place) => place,
                None if own.contains(&kind_of(object)?) => self.wait_for_kind(object)?,
                None => return Err(self.not_offered(object)),
            };
            let changed = self.one(&place, object).with_context(|| format!("applying {}", label(object)))?;
            differences.extend(changed.map(|verb| difference(verb, object)));
        }
        Ok(differences)
    }

    fn one(&self, place: &Place, object: &Value) -> Result<Option<&'static str>> {
        let wanted = marked(object)?;
        for _ in 0..TRIES {
            let found = self.client.find(&place.path())?;
            let Some(verb) = verb(found.as_ref(), object) else { return Ok(None) };
            let written = match found {
                None => self.client.post(&place.collection, &wanted),
                Some(mut found) => {
                    // The resourceVersion stays in it: only what was looked at is replaced.
                    merge(&mut found, &wanted);
                    self.client.put(&place.path(), &found)
                }
            };
            match written {
                Ok(_) => return Ok(Some(verb)),
                // Another master was faster, or somebody deleted it: look again.
                Err(error) if error.code() == Some(409) || (error.code() == Some(404) && error.is_of("PUT")) => {}
                Err(error) if error.code() == Some(422) => {
                    return Err(error).hint(format!(
                        "what cannot be changed in place has to be deleted first: `kubectl delete {}`, then \
                         `installer refresh`",
                        label(object).to_lowercase()
                    ));
                }
                Err(error) => return Err(error.into()),
            }
        }
        bail!("it was changed by others {TRIES} times in a row")
    }

    /// Where an object lives; `None` when this API does not have its kind.
    fn place(&self, object: &Value) -> Result<Option<Place>> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let (version, kind) = kind_of(object)?;
        let name = text("/metadata/name").with_context(|| format!("{}: no name", label(object)))?;
        let Some((plural, namespaced)) = self.resource(&version, &kind)? else { return Ok(None) };
        let namespace = match text("/metadata/namespace") {
            _ if !namespaced => String::new(),
            namespace => format!("/namespaces/{}", namespace.unwrap_or("default")),
        };
        let collection = format!("{}{namespace}/{plural}", root(&version));
        Ok(Some(Place { collection, name: name.to_owned() }))
    }

    fn resource(&self, version: &str, kind: &str) -> Result<Option<(String, bool)>> {
        if !self.offered.borrow().contains_key(version) {
            let list = self.client.find(&root(version))?;
            self.offered.borrow_mut().insert(version.to_owned(), list.as_ref().map(resources));
        }
        Ok(self.offered.borrow().get(version).and_then(Option::as_ref).and_then(|found| found.get(kind)).cloned())
    }

    /// Waits until the API serves a kind that a CustomResourceDefinition has just defined.
    fn wait_for_kind(&self, object: &Value) -> Result<Place> {
        let (version, kind) = kind_of(object)?;
        let what = format!("the API to serve {kind} of {version}");
        self.host.wait(&what, ESTABLISHED, Duration::from_millis(500), || {
            self.offered.borrow_mut().remove(&version);
            self.place(object)
        })
    }

    fn not_offered(&self, object: &Value) -> anyhow::Error {
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
        let server = self.client.get("/version").ok();
        let server = server.as_ref().and_then(|version| version["gitVersion"].as_str()).unwrap_or("of this cluster");
        anyhow!(
            "{} cannot be made: Kubernetes {server} has no {} in {}",
            label(object),
            text("kind"),
            text("apiVersion")
        )
    }
}

/// `/api/v1`, `/apis/apps/v1`.
fn root(version: &str) -> String {
    format!("{}/{version}", if version.contains('/') { "/apis" } else { "/api" })
}

fn resources(list: &Value) -> Resources {
    let entries = list["resources"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of = |entry: &Value| {
        let (kind, plural) = (entry["kind"].as_str()?, entry["name"].as_str()?);
        // `deployments/status` and the like are parts of another resource.
        let whole = !plural.contains('/');
        whole.then(|| (kind.to_owned(), (plural.to_owned(), entry["namespaced"] == true)))
    };
    entries.iter().filter_map(of).collect()
}

fn kind_of(object: &Value) -> Result<(String, String)> {
    let text = |key: &str| {
        let text = object.get(key).and_then(Value::as_str);
        text.map(str::to_owned).with_context(|| format!("{}: no {key}", label(object)))
    };
    Ok((text("apiVersion")?, text("kind")?))
}

/// The kinds that CustomResourceDefinitions among the objects define.
fn defined(objects: &[Value]) -> BTreeSet<(String, String)> {
    let mut kinds = BTreeSet::new();
    for definition in objects.iter().filter(|object| object["kind"] == "CustomResourceDefinition") {
        let spec = &definition["spec"];
        let (Some(group), Some(kind)) = (spec["group"].as_str(), spec["names"]["kind"].as_str()) else { continue };
        let listed = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let versions = listed.iter().map(|version| &version["name"]).chain([&spec["version"]]);
        kinds.extend(versions.filter_map(Value::as_str).map(|version| (format!("{group}/{version}"), kind.to_owned())));
    }
    kinds
}

/// Namespaces, then definitions of kinds, then the others, each in the order given.
fn ordered(objects: &[Value]) -> Vec<&Value> {
    let mut ordered: Vec<&Value> = objects.iter().collect();
    ordered.sort_by_key(|object| match object["kind"].as_str() {
        Some("Namespace") => 0,
        Some("CustomResourceDefinition") => 1,
        _ => 2,
    });
    ordered
}

fn marked(object: &Value) -> Result<Value> {
    let mut marked = object.clone();
    let metadata = marked.get_mut("metadata").and_then(Value::as_object_mut).context("an object without metadata")?;
    let annotations = metadata.entry("annotations").or_insert_with(|| Value::Object(serde_json::Map::new()));
    annotations
        .as_object_mut()
        .context("annotations that are no map")?
        .insert(APPLIED.to_owned(), digest(object).into());
    Ok(marked)
}

/// Keys of objects are sorted, so equal objects have equal text.
fn digest(object: &Value) -> String {
    Digest::of(object.to_string().as_bytes()).to_string()
}

fn verb(found: Option<&Value>, wanted: &Value) -> Option<&'static str> {
    let Some(found) = found else { return Some("create") };
    let applied = found.pointer("/metadata/annotations").and_then(|annotations| annotations.get(APPLIED));
    (applied.and_then(Value::as_str) != Some(digest(wanted).as_str())).then_some("update")
}

fn difference(verb: &'static str, object: &Value) -> Difference {
    Difference { verb, object: label(object) }
}
