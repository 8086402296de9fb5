//! One component described, and its image made.

use anyhow::Context as _;
use bundle::component::{Entry, Package, Relations, Upstream};
use bundle::layer::Source as Content;
use bundle::layout::ImageSource;
use bundle::{Architecture, Component, Execution, LayerPath};

use super::parts::{Ingredient, Part};
use crate::debian_package;
use crate::failure::Failure;
use crate::layer_cache::CachedLayer;
use crate::lock::Resolved;
use crate::session::Session;
use crate::source::registry::Image as Pulled;

/// Describes the component and makes its image, out of its layer, of what was pulled from a registry, or of its packages.
pub(super) fn image(
    part: &Part<'_>,
    layer: Option<&CachedLayer>,
    pulled: Option<Pulled>,
    architecture: Architecture,
    session: &Session,
) -> anyhow::Result<(Component, ImageSource)> {
    let text = &part.recipe.text;
    let upstream = |ingredient: &Ingredient| {
        let Resolved { url, size, sha256, sha512, licence, proof, .. } = ingredient.locked.clone();
        Upstream { url, size, sha256, sha512, proof, licence }
    };
    let mut component = Component {
        name: part.name.clone(),
        version: part.places.version.clone(),
        kind: text.kind,
        roles: text.roles.clone(),
        licence: text.licence.clone(),
        upstream: part.artifacts.iter().map(upstream).collect(),
        programs: Vec::new(),
        modules: text.modules.clone(),
        templates: part.recipe.templates.clone(),
        packages: Vec::new(),
        distribution: part.distribution.map(ToString::to_string),
        host_programs: part.host.iter().map(|(name, host)| (name.to_string(), host.programs.clone())).collect(),
        images: part.addon.map(|(_, images)| images.to_vec()).unwrap_or_default(),
    };
    if let Some(Pulled { reference, root, metadata, blobs }) = pulled {
        let image = ImageSource::container(component.clone(), reference, root, metadata, blobs);
        return Ok((component, image));
    }
    let Some(layer) = layer else {
        let packages = part.artifacts.iter().map(|ingredient| package(ingredient, session));
        component.packages = packages.collect::<anyhow::Result<_>>()?;
        let sources = part
            .artifacts
            .iter()
            .map(|ingredient| Content::File(session.cache.path(&ingredient.locked.sha256)))
            .collect();
        let image = ImageSource::packages(component.clone(), architecture, sources)?;
        return Ok((component, image));
    };
    let has = |path: &LayerPath| {
        layer.layer.files.iter().any(|file| file.path == *path && !matches!(file.entry, Entry::Directory))
    };
    let from_packages = |program: &LayerPath| {
        !part.host.is_empty() && part.host.iter().all(|(_, host)| host.programs.contains_key(program))
    };
    if let Some(program) = text.programs.iter().find(|program| !has(program) && !from_packages(program)) {
        let there: Vec<&str> = layer.layer.files.iter().map(|file| file.path.as_str()).collect();
        return Err(Failure::usage(format!("`{program}` is promised by its component.toml, but no file map makes it"))
            .hint(format!("there are: {}", there.join(", ")))
            .into());
    }
    let content = Content::File(layer.path.clone());
    let Some(container) = &text.container else {
        component.programs =
            text.programs.iter().chain(&text.optional_programs).filter(|program| has(program)).cloned().collect();
        let image = ImageSource::program(component.clone(), architecture, &layer.layer, content)?;
        return Ok((component, image));
    };
    if let Some(entrypoint) =
        container.entrypoint.first().filter(|path| !path.trim_start_matches('/').parse().is_ok_and(|path| has(&path)))
    {
        return Err(Failure::usage(format!("the entrypoint `{entrypoint}` is not in the image"))
            .hint("add it to `files` in the manifest, or to `links` in component.toml")
            .into());
    }
    let execution = Execution {
        user: container.user.clone(),
        env: container.environment.clone(),
        entrypoint: container.entrypoint.clone(),
        cmd: container.command.clone(),
        working_dir: None,
    };
    let reference = part.places.expand(&container.reference)?;
    let image =
        ImageSource::packed_container(component.clone(), reference, architecture, execution, &layer.layer, content)?;
    Ok((component, image))
}

/// Name and version of a package: from the lock for apt and rpm-md, else from its file name (`NAME_VERSION_ARCH.deb`,
/// `NAME-VERSION-RELEASE.ARCH.rpm`); what it says of others from the package itself.
fn package(ingredient: &Ingredient, session: &Session) -> anyhow::Result<Package> {
    let Resolved { url, size, sha256, .. } = &ingredient.locked;
    let file = ingredient.file_name();
    let locked = url.strip_prefix("apt:").or_else(|| url.strip_prefix("rpm:"));
    let named = match (locked, file.strip_suffix(".rpm")) {
        (Some(rest), _) => rest.split_once('='),
        (None, Some(stem)) => {
            let stem = stem.rsplit_once('.').map(|(stem, _)| stem);
            let dash = stem.and_then(|stem| stem[..stem.rfind('-')?].rfind('-'));
            stem.zip(dash).map(|(stem, dash)| (&stem[..dash], &stem[dash + 1..]))
        }
        (None, None) => file
            .strip_suffix(".deb")
            .and_then(|name| name.split_once('_'))
            .and_then(|(name, rest)| Some((name, rest.split_once('_')?.0))),
    };
    let (name, version) =
        named.ok_or_else(|| Failure::usage(format!("`{file}` does not name a package and its version")))?;
    let (architecture, relations) = match file.strip_suffix(".rpm") {
        Some(stem) => {
            (stem.rsplit_once('.').map_or("", |(_, architecture)| architecture).to_owned(), Relations::default())
        }
        None => debian_package::relations(&session.cache.path(sha256))
            .with_context(|| Failure::new(format!("reading `{file}`")))?,
    };
    Ok(Package {
        name: name.to_owned(),
        version: version.to_owned(),
        file: file.to_owned(),
        sha256: *sha256,
        size: *size,
        architecture,
        relations,
    })
}
