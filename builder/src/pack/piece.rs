//! What completeness wants to know of a packed component.

use bundle::Component;

use super::parts::Part;
use crate::completeness::Piece;
use crate::layer_cache::CachedLayer;

/// The component, and what is known of its files.
pub(super) fn piece(part: &Part<'_>, component: Component, layer: Option<&CachedLayer>) -> anyhow::Result<Piece> {
    let reference = match &part.recipe.text.container {
        Some(container) => Some(part.places.expand(&container.reference)?),
        None => part.artifacts.iter().find_map(|image| image.locked.url.strip_prefix("image:")).map(str::to_owned),
    };
    Ok(Piece {
        component,
        files: layer.map(|layer| layer.layer.files.clone()).unwrap_or_default(),
        elf: layer.map(|layer| layer.elf.clone()).unwrap_or_default(),
        reference,
        modules_on_demand: part.recipe.text.modules_on_demand.clone(),
    })
}
