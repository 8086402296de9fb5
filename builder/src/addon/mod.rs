//! Addons: Kubernetes objects from pinned YAML, the images they need, and the values in them that each cluster decides.
//!
//! The YAML is upstream's and is not trusted beyond its digest: reading it is bounded and never panics. What is guaranteed: every
//! image that the objects name is in the bundle or was declared needless by name, and every patch has been tried.

pub mod images;
pub mod objects;
pub mod patch;
pub mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bundle::addon::Patch;
use bundle::{ComponentName, Digest, Version};
use serde_json::Value;

pub use self::patch::PatchText;
use crate::failure::Failure;
use crate::lock::Resolved;
use crate::manifest::FileMap;
use crate::pick;
use crate::source::registry::Reference;

/// What an addon's component holds, and what it needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Addon {
    /// The objects as upstream wrote them, in its order.
    pub objects: Vec<Value>,
    /// The changes each cluster makes, in the manifest's order.
    pub patches: Vec<Patch>,
    /// Images that have to be in the bundle, sorted.
    pub images: Vec<Reference>,
}

impl Addon {
    /// Reads the objects from `files` (name and content, in order), tries the patches and finds the images.
    pub fn read<'a>(
        files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        patches: &[PatchText],
        extra_images: &[String],
        ignore_images: &[String],
    ) -> anyhow::Result<Self> {
        let mut objects = Vec::new();
        for (name, content) in files {
            objects.extend(objects::parse(name, content)?);
        }
        if objects.is_empty() {
            return Err(Failure::new("there is no Kubernetes object in the YAML").into());
        }
        objects::check_distinct(&objects)?;
        let (patches, sampled) = patch::compile(&objects, patches)?;
        let images = images::images(&sampled, extra_images, ignore_images)?;
        Ok(Self { objects, patches, images })
    }

    /// The images as the bundle names them: sorted, each once.
    pub fn image_names(&self) -> Vec<String> {
        self.images.iter().map(Reference::image_name).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The digests that the manifest demands, by image; one for an image that is not needed is an error.
    pub fn digests(&self, written: &BTreeMap<String, Digest>) -> anyhow::Result<BTreeMap<Reference, Digest>> {
        let find = |(text, digest): (&String, &Digest)| {
            let reference: Reference = text.parse()?;
            if !self.images.contains(&reference) {
                let images: Vec<String> = self.images.iter().map(ToString::to_string).collect();
                return Err(Failure::usage(format!("`digests` names `{text}`, which the addon does not need"))
                    .hint(format!("it needs {}", images.join(", ")))
                    .into());
            }
            Ok((reference, *digest))
        };
        written.iter().map(find).collect()
    }

    /// The files of its layer: name and content, compact JSON.
    pub fn files(&self) -> anyhow::Result<[(&'static str, Vec<u8>); 2]> {
        Ok([
            (bundle::addon::OBJECTS, serde_json::to_vec(&self.objects)?),
            (bundle::addon::PATCHES, serde_json::to_vec(&self.patches)?),
        ])
    }
}

/// The YAML files that `maps` pick from the addon's artifact at `path`, with their content, in order. `spool` is an empty
/// directory of the caller's.
pub fn files(path: &Path, locked: &Resolved, maps: &[FileMap], spool: &Path) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let artifact = pick::Artifact { path, file_name: locked.file_name(), sha256: &locked.sha256 };
    let picked = pick::pick(&artifact, &maps.iter().collect::<Vec<_>>(), spool)?;
    picked.iter().flatten().map(content).collect()
}

/// Name and content of a picked file.
pub fn content(file: &pick::Picked) -> anyhow::Result<(String, Vec<u8>)> {
    if file.size > yaml::TEXT_LIMIT as u64 {
        return Err(Failure::new(format!(
            "`{}` has {} bytes: at most {} are read",
            file.to,
            file.size,
            yaml::TEXT_LIMIT
        ))
        .into());
    }
    Ok((file.to.file_name().to_owned(), fs_err::read(&file.content)?))
}

/// A component name for each image: `image-` and what people know the image by. The same image has the same name in every
/// release; images that would share a name get a part of a digest.
pub fn component_names(images: &BTreeSet<Reference>) -> anyhow::Result<BTreeMap<ComponentName, Reference>> {
    let mut by_slug: BTreeMap<String, Vec<&Reference>> = BTreeMap::new();
    for image in images {
        by_slug.entry(slug(image)).or_default().push(image);
    }
    let mut names = BTreeMap::new();
    for (slug, images) in by_slug {
        let several = images.len() > 1;
        for image in images {
            let name = if several { with_digest(&slug, image) } else { slug.clone() };
            names.insert(name.parse()?, image.clone());
        }
    }
    Ok(names)
}

/// Longest component name.
const NAME_LIMIT: usize = 64;

/// `image-coredns-coredns-v1.12.0`: repository and tag; text that had to be changed to fit gets a part of a digest.
fn slug(image: &Reference) -> String {
    let version =
        image.tag().map_or_else(|| image.digest().map(|digest| digest.short()).unwrap_or_default(), str::to_owned);
    let text = format!("image-{}-{version}", image.repository().replace('/', "-"));
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '.' || letter == '-';
    let changed: String =
        text.to_ascii_lowercase().chars().map(|letter| if plain(letter) { letter } else { '-' }).collect();
    let changed = changed.trim_end_matches(['-', '.']).replace("..", "-");
    if changed == text && text.len() <= NAME_LIMIT { text } else { with_digest(&changed, image) }
}

fn with_digest(slug: &str, image: &Reference) -> String {
    let digest = Digest::of(image.image_name().as_bytes()).hex();
    let digest = digest.get(..8).unwrap_or(&digest);
    let room = NAME_LIMIT - digest.len() - 1;
    let kept = slug.get(..room).unwrap_or(slug).trim_end_matches(['-', '.']);
    format!("{kept}-{digest}")
}

/// The version of an image's component: its tag, or the beginning of its digest.
pub fn image_version(image: &Reference) -> anyhow::Result<Version> {
    let digest = Digest::of(image.to_string().as_bytes());
    let tag = image.tag().and_then(|tag| tag.parse().ok());
    Ok(tag.map_or_else(|| image.digest().unwrap_or(digest).short().parse(), Ok)?)
}

#[cfg(test)]
mod tests {
    use bundle::addon::{apply, label, sample};

    use super::*;
    use crate::manifest::Manifest;

    fn references(texts: &[&str]) -> BTreeSet<Reference> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn component_names_say_which_image_it_is() {
        let digest = format!("sha256:{}", Digest::of(b"x").hex());
        let long = format!("quay.io/{}/x:v1", "a".repeat(80));
        let images = references(&[
            "registry.k8s.io/coredns/coredns:v1.12.0",
            "quay.io/a/b:v1",
            "ghcr.io/a/b:v1",
            "quay.io/a_b/c:V2_x",
            "quay.io/a-b/c:v2-x",
            &format!("nginx@{digest}"),
            &format!("nginx:1@{digest}"),
            &long,
        ]);
        let names = component_names(&images).unwrap();
        assert_eq!(names.len(), images.len());
        let of = |text: &str| {
            let reference: Reference = text.parse().unwrap();
            names.iter().find(|(_, image)| **image == reference).unwrap().0.to_string()
        };
        assert_eq!(of("registry.k8s.io/coredns/coredns:v1.12.0"), "image-coredns-coredns-v1.12.0");
        assert_eq!(of("quay.io/a-b/c:v2-x"), "image-a-b-c-v2-x");
        assert!(of("quay.io/a/b:v1").starts_with("image-a-b-v1-") && of("ghcr.io/a/b:v1").starts_with("image-a-b-v1-"));
        assert!(of("quay.io/a_b/c:V2_x").starts_with("image-a-b-c-v2-x-"));
        assert_eq!(of(&long).len(), NAME_LIMIT);
        let alone = component_names(&references(&["quay.io/a/b:v1"])).unwrap();
        assert_eq!(alone.keys().next().unwrap().as_str(), "image-a-b-v1");
        let version = |text: &str| image_version(&text.parse().unwrap()).unwrap().to_string();
        assert_eq!((version("a:v1").as_str(), version(&format!("a@{digest}")).len()), ("v1", 12));
        assert_eq!(version("a:_x").len(), 12, "a tag that is no version");
    }

    #[test]
    fn the_cluster_dns_of_every_release_here_is_complete() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
        for release in ["1.31", "1.35", "1.36", "1.37"] {
            let manifest = Manifest::read(&directory.join(format!("kubernetes-{release}.toml"))).unwrap();
            let text = &manifest.release.addons[&"coredns".parse::<ComponentName>().unwrap()];
            let yaml = fs_err::read(directory.join("addons/coredns.yaml")).unwrap();
            assert!(text.artifact.sha256.values().all(|digest| *digest == Digest::of(&yaml)), "{release}");
            let addon =
                Addon::read([("coredns.yaml", yaml.as_slice())], &text.patches, &text.images, &text.ignore_images)
                    .unwrap();
            assert_eq!(addon.digests(&text.digests).unwrap().len(), addon.images.len(), "{release}");
            assert_eq!(addon.images.len(), 1);
            assert_eq!(addon.images[0].tag(), Some(format!("v{}", text.version).as_str()));

            // A cluster without resolvers forwards nothing; one with other names than the samples has them everywhere.
            let mut objects = addon.objects.clone();
            let values = |name: &str| {
                sample(name).map(|value| match name {
                    "cluster.resolvers" => String::new(),
                    "cluster.domain" => "site.example".to_owned(),
                    "cluster.dns_ip" => "10.1.0.10".to_owned(),
                    _ => value,
                })
            };
            apply(&mut objects, &addon.patches, values).unwrap();
            let find = |wanted: &str| objects.iter().find(|object| label(object) == wanted).unwrap();
            assert_eq!(find("Service kube-system/kube-dns")["spec"]["clusterIP"], "10.1.0.10");
            let corefile = find("ConfigMap kube-system/coredns")["data"]["Corefile"].as_str().unwrap();
            assert!(corefile.contains("kubernetes site.example in-addr.arpa ip6.arpa"), "{corefile}");
            assert!(!corefile.contains("forward") && !corefile.contains("cluster.local"), "{corefile}");
            apply(&mut addon.objects.clone(), &addon.patches, sample).unwrap();
        }
    }
}
