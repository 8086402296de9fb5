//! The desired state of one host as data: links into the store and rendered files, computed purely from the bundle's
//! signed components and the template context.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use bundle::component::TemplateKind;
use bundle::{Component, ComponentName, Digest, Image};
use serde_json::Value;

use crate::render::Renderer;
use crate::share::Share;
use crate::store;

mod switch;

pub use switch::{Switch, current_bundle, current_images};

/// File of a generation that names the bundle it was made from: the digest of its index.
const BUNDLE: &str = "bundle";

/// Everything `/opt/sealift/generations/N` holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Generation {
    /// Component → name of its directory in the store.
    pub(crate) links: BTreeMap<ComponentName, String>,
    /// `etc/COMPONENT/NAME` and `units/NAME` → bytes.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Unit name → the component it belongs to.
    pub(crate) units: BTreeMap<String, ComponentName>,
}

impl Generation {
    /// Renders a host's share of the bundle with this index. Pure: the same arguments give the same
    /// bytes.
    pub fn render(index: Digest, images: &[Image], share: Share<'_>, variables: &Value) -> Result<Self> {
        let components: Vec<&Component> = images.iter().map(|image| &image.component).collect();
        let renderer = Renderer::new(variables, components, share.distribution)?;
        let mut generation = Self::default();
        for image in images.iter().filter(|image| share.has(&image.component)) {
            generation.add(image, &renderer)?;
        }
        // Kept with the generation so that a resumed run, `status` and the agent need no bundle.
        let all = serde_json::to_vec_pretty(images).context("writing `components.json`")?;
        generation.files.insert("components.json".to_owned(), all);
        generation.files.insert(BUNDLE.to_owned(), format!("{index}\n").into_bytes());
        Ok(generation)
    }

    fn add(&mut self, image: &Image, renderer: &Renderer) -> Result<()> {
        let component = &image.component;
        let name = &component.name;
        let mut identity = format!("{name} {} {}\n", component.version, image.manifest);
        if component.kind.has_files() && self.links.insert(name.clone(), store::entry_name(image)).is_some() {
            bail!("the bundle has two components `{name}`");
        }
        for template in &component.templates {
            let text = renderer.render(component, template)?;
            let path = match template.kind {
                TemplateKind::Unit => {
                    let unit = template.name.as_str().to_owned();
                    if let Some(other) = self.units.insert(unit.clone(), name.clone()) {
                        bail!("components `{other}` and `{name}` both bring the unit `{unit}`");
                    }
                    format!("units/{unit}")
                }
                TemplateKind::Config if template.name.as_str() == "digest" => {
                    bail!("component `{name}` has a template called `digest`, which is Sealift's own file")
                }
                TemplateKind::Config => format!("etc/{name}/{}", template.name),
            };
            // Writing to a String cannot fail.
            let _ = writeln!(identity, "{path} {}", Digest::of(text.as_bytes()));
            self.files.insert(path, text.into_bytes());
        }
        let digest = format!("{}\n", Digest::of(identity.as_bytes()).hex());
        self.files.insert(format!("etc/{name}/digest"), digest.into_bytes());
        Ok(())
    }

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
