//! Every image that an addon's objects name must be in the bundle.

use bundle::component::Kind;

use super::Piece;
use super::problem::Problem;

pub(super) fn problems(pieces: &[Piece]) -> Vec<Problem> {
    let there = |wanted: &str| {
        let containers = pieces.iter().filter(|piece| piece.component.kind == Kind::Container);
        containers.filter_map(|piece| piece.reference.as_deref()).any(|reference| reference == wanted)
    };
    let addons = pieces.iter().map(|piece| &piece.component);
    let missing = addons.flat_map(|addon| {
        addon.images.iter().filter(|image| !there(image)).map(|image| {
            Problem::content(
                format!("addon `{}`", addon.name),
                format!("the image `{image}`, which is not in the bundle for this architecture"),
                "run `builder lock`, which adds the images of addons; one that is named but never started belongs into its `ignore_images`",
            )
        })
    });
    missing.collect()
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;

    #[test]
    fn images_of_addons_are_there() {
        let mut addon = fake::program("addon-coredns", &[]);
        addon.component.kind = Kind::Addon;
        addon.component.images = vec!["registry.k8s.io/coredns/coredns:v1.14.4".into()];
        let mut image = fake::program("image-coredns", &[]);
        image.component.kind = Kind::Container;
        image.reference = Some("registry.k8s.io/coredns/coredns:v1.14.2".into());
        let found = problems(&[addon.clone(), image.clone()]);
        assert_eq!(found.len(), 1);
        let text = found[0].to_string();
        for part in ["addon `addon-coredns`", "`registry.k8s.io/coredns/coredns:v1.14.4`", "builder lock"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        image.reference = Some("registry.k8s.io/coredns/coredns:v1.14.4".into());
        assert_eq!(problems(&[addon, image]), []);
    }
}
