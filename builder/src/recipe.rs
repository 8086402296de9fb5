//! A component's recipe: `manifests/components/NAME/component.toml` and the templates beside it.
//!
//! It says how the installer treats the component and what the component promises; versions and artifacts are the
//! manifest's business.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use bundle::component::{Kind, Role, Template, TemplateKind};
use bundle::{ComponentName, LayerPath};
use serde::Deserialize;

use crate::failure::Failure;
use crate::manifest::toml_text;

/// A component's data, templates read.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The text of `component.toml`.
    pub text: RecipeText,
    /// Templates in the order of `component.toml`.
    pub templates: Vec<Template>,
}

/// The text of a `component.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeText {
    /// Same as the directory's name.
    pub name: ComponentName,
    /// One line for people.
    pub description: String,
    /// How the installer treats it.
    pub kind: Kind,
    /// Roles that need it.
    pub roles: Vec<Role>,
    /// SPDX expression.
    pub licence: String,
    /// Programs every release of it has.
    #[serde(default)]
    pub programs: Vec<LayerPath>,
    /// Programs that some releases have; promised when they are there.
    #[serde(default)]
    pub optional_programs: Vec<LayerPath>,
    /// Relative symbolic links added to the files it is packed from: path -> target.
    #[serde(default)]
    pub links: BTreeMap<LayerPath, String>,
    /// Kernel modules it needs.
    #[serde(default)]
    pub modules: Vec<String>,
    /// Kernel modules that the kernel loads by itself once they are used: they must be there, and no host loads them in advance.
    #[serde(default)]
    pub modules_on_demand: Vec<String>,
    #[serde(default, rename = "template")]
    templates: Vec<TemplateText>,
    /// For [`Kind::Container`] packed by us.
    pub container: Option<ContainerText>,
}

/// How files become a container image.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerText {
    /// Full reference, `{version}` and `{arch}` expanded.
    pub reference: String,
    /// `ENTRYPOINT`.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// `CMD`.
    #[serde(default)]
    pub command: Vec<String>,
    /// `ENV`, `NAME=VALUE`.
    #[serde(default)]
    pub environment: Vec<String>,
    /// `USER`.
    #[serde(default)]
    pub user: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TemplateText {
    file: LayerPath,
    name: LayerPath,
    kind: TemplateKind,
}

impl Recipe {
    /// For a component that the builder makes itself, of packages, addons and their images.
    pub fn made(name: &ComponentName, kind: Kind, licence: &str) -> Self {
        let roles = match kind {
            Kind::Program | Kind::Addon => vec![Role::Master],
            Kind::Container => vec![Role::Master, Role::Worker],
            Kind::Packages | Kind::Kernel => vec![Role::Master, Role::Worker, Role::Etcd],
        };
        let text = RecipeText {
            name: name.clone(),
            description: String::new(),
            kind,
            roles,
            licence: licence.to_owned(),
            programs: Vec::new(),
            optional_programs: Vec::new(),
            links: BTreeMap::new(),
            modules: Vec::new(),
            modules_on_demand: Vec::new(),
            templates: Vec::new(),
            container: None,
        };
        Self { text, templates: Vec::new() }
    }

    /// Reads `DIRECTORY/NAME/component.toml` and its templates.
    pub fn read(directory: &Path, name: &ComponentName) -> anyhow::Result<Self> {
        let home = directory.join(name.as_str());
        let path = home.join("component.toml");
        let bytes = fs_err::read_to_string(&path).with_context(|| {
            Failure::usage(format!("component `{name}` has no data"))
                .hint(format!("`{}` should describe it; `--components-dir` says where to look", path.display()))
        })?;
        let mut text: RecipeText = toml_text(&bytes, &path)?;
        if text.name != *name {
            return Err(Failure::usage(format!("`{}` is about `{}`, not `{name}`", path.display(), text.name)).into());
        }
        if text.container.is_some() && text.kind != Kind::Container {
            return Err(Failure::usage(format!(
                "`{}`: `[container]` belongs to `kind = \"container\"`",
                path.display()
            ))
            .into());
        }
        text.roles.sort_unstable();
        text.roles.dedup();
        let templates = text
            .templates
            .iter()
            .map(|template| {
                let text = fs_err::read_to_string(home.join(template.file.as_str()))
                    .with_context(|| format!("component `{name}` names a template that cannot be read"))?;
                Ok(Template { name: template.name.clone(), kind: template.kind, text })
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { text, templates })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    #[test]
    fn the_debian_release_reads() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
        let manifest = Manifest::read(&directory.join("debian-12.toml")).unwrap();
        for (name, component) in &manifest.release.components {
            let recipe = Recipe::read(&directory.join("components"), name).unwrap();
            let targets: Vec<_> = component
                .artifacts
                .iter()
                .flat_map(|artifact| &artifact.files)
                .filter_map(|map| if let crate::manifest::Target::File(path) = &map.to { Some(path) } else { None })
                .collect();
            for program in &recipe.text.programs {
                assert!(targets.contains(&program), "{name} promises {program}, which no artifact brings");
            }
        }
    }
}
