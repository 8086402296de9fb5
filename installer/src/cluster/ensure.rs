//! Making the cluster hold objects: created when missing, replaced when different, left alone otherwise.
//!
//! "Different" means that a field we name has another value; fields that we do not name (defaults, status, what others
//! added) are kept.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::kubeapi::Client;

/// Each conflict means that somebody else's write succeeded.
const TRIES: usize = 20;

/// What [`ensure`] did or [`missing`] would do with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// `create` or `update`.
    pub verb: &'static str,
    /// Kind and name, `ClusterRoleBinding sealift:agent`.
    pub object: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.verb, self.object)
    }
}

/// Says which objects the cluster does not hold as wanted.
pub fn missing(client: &Client<'_>, objects: &[Value]) -> Result<Vec<Difference>> {
    let mut differences = Vec::new();
    for object in objects {
        let place = Place::of(object)?;
        match client.find(&place.path()).with_context(|| place.to_string())? {
            None => differences.push(place.difference("create")),
            Some(found) if !holds(&found, object) => differences.push(place.difference("update")),
            Some(_) => {}
        }
    }
    Ok(differences)
}

/// Makes the cluster hold the objects, in their order. Says what changed.
pub fn ensure(client: &Client<'_>, objects: &[Value]) -> Result<Vec<Difference>> {
    let mut differences = Vec::new();
    for object in objects {
        let place = Place::of(object)?;
        if let Some(verb) = ensure_one(client, &place, object).with_context(|| place.to_string())? {
            differences.push(place.difference(verb));
        }
    }
    Ok(differences)
}

fn ensure_one(client: &Client<'_>, place: &Place, object: &Value) -> Result<Option<&'static str>> {
    for _ in 0..TRIES {
        let written = match client.find(&place.path())? {
            None => client.post(&place.collection, object).map(|_| "create"),
            Some(found) if holds(&found, object) => return Ok(None),
            // A binding's role cannot be changed; neither can the type of a Secret.
            Some(found) if fixed_differs(&found, object) => {
                client.delete(&place.path())?;
                client.post(&place.collection, object).map(|_| "update")
            }
            Some(mut found) => {
                // The resourceVersion stays in it: only what was looked at is replaced.
                merge(&mut found, object);
                client.put(&place.path(), &found).map(|_| "update")
            }
        };
        match written {
            Ok(verb) => return Ok(Some(verb)),
            // Somebody else (another master, the apiserver itself) was faster, or it was deleted: look again.
            Err(error) if error.code() == Some(409) || (error.code() == Some(404) && error.is_of("PUT")) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bail!("it was changed by others {TRIES} times in a row")
}

fn fixed_differs(found: &Value, wanted: &Value) -> bool {
    ["roleRef", "type"]
        .iter()
        .any(|key| matches!((wanted.get(key), found.get(key)), (Some(wanted), Some(found)) if !holds(found, wanted)))
}

/// Whether every field of `wanted` has that value in `found`. Lists must be equal in length and order.
pub(crate) fn holds(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| found.get(key).is_some_and(|found| holds(found, value)))
        }
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| holds(found, wanted))
        }
        (found, wanted) => found == wanted,
    }
}

pub(crate) fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// Where an object lives in the API.
struct Place {
    kind: String,
    name: String,
    collection: String,
}

impl Place {
    fn of(object: &Value) -> Result<Self> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let version = text("/apiVersion").context("an object without apiVersion")?;
        let kind = text("/kind").context("an object without kind")?;
        let name = text("/metadata/name").context("an object without name")?;
        let root = if version.contains('/') { "/apis" } else { "/api" };
        let namespace = text("/metadata/namespace").map(|name| format!("/namespaces/{name}")).unwrap_or_default();
        // The plural of every kind used here is regular.
        let collection = format!("{root}/{version}{namespace}/{}s", kind.to_ascii_lowercase());
        Ok(Self { kind: kind.to_owned(), name: name.to_owned(), collection })
    }

    fn path(&self) -> String {
        format!("{}/{}", self.collection, self.name)
    }

    fn difference(&self, verb: &'static str) -> Difference {
        Difference { verb, object: self.to_string() }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}
