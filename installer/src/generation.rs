//! The desired state of one host as data: links into the store and rendered files, computed purely from the bundle's
//! signed components and the template context.

use std::collections::BTreeMap;

use bundle::{ComponentName, Digest};

/// Everything `/opt/sealift/generations/N` holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Generation {
    /// Component → name of its directory in the store.
    pub(crate) links: BTreeMap<ComponentName, String>,
    /// `etc/COMPONENT/NAME` and `units/NAME` → bytes.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Unit name → the component it belongs to.
    pub(crate) units: BTreeMap<String, ComponentName>,
    /// Component → digest over its store link and its rendered files.
    pub(crate) digests: BTreeMap<ComponentName, Digest>,
}

impl Generation {
    /// The text of a rendered unit.
    pub fn unit(&self, name: &str) -> Option<&[u8]> {
        self.files.get(&format!("units/{name}")).map(Vec::as_slice)
    }

    /// Names of all rendered units and the components they belong to.
    pub fn units(&self) -> impl Iterator<Item = (&str, &ComponentName)> {
        self.units.iter().map(|(unit, component)| (unit.as_str(), component))
    }

    /// The bytes of a rendered config file.
    pub fn config(&self, component: &str, name: &str) -> Option<&[u8]> {
        self.files.get(&format!("etc/{component}/{name}")).map(Vec::as_slice)
    }

    /// What `/run/sealift/started/UNIT` holds when the unit runs what this generation wants: the bytes of the
    /// component's `digest` file.
    pub fn stamp(&self, component: &str) -> Option<&[u8]> {
        self.config(component, "digest")
    }

    /// Whether the component is part of this generation.
    pub fn has(&self, component: &str) -> bool {
        self.links.keys().any(|name| name.as_str() == component)
    }
}
