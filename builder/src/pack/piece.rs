//! What completeness wants to know of a packed component.

use bundle::Component;

use super::parts::Part;
use crate::completeness::Piece;
use crate::layer_cache::CachedLayer;

/// The component, and what is known of its files.
pub(super) fn piece(part: &Part<'_>, component: Component, layer: Option<&CachedLayer>) -> anyhow::Result<Piece> {
    Ok(Piece {
        component,
        files: layer.map(|layer| layer.layer.files.clone()).unwrap_or_default(),
        elf: layer.map(|layer| layer.elf.clone()).unwrap_or_default(),
        reference: part.reference()?,
        modules_on_demand: part.recipe.text.modules_on_demand.clone(),
    })
}
