//! The software bill of materials that every bundle carries: CycloneDX 1.6 (ECMA-424) as JSON.
//!
//! It says what the signed component descriptions say, in a form that other tools read: every component, every upstream
//! artifact once with its digests and what vouched for it, and who is made of what. Bytes depend on release, lock and
//! components alone: the serial number is derived from the lock, the only date is the manifest's.

mod purl;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use bundle::component::{Kind, Upstream};
use bundle::layer::{PackEntry, Source as Content};
use bundle::layout::ImageSource;
use bundle::{Component, Digest, LayerPath, Release};
use serde_json::{Value, json};

use crate::layer_cache::{self, ArtifactInput, LayerInputs};
use crate::lock::Lock;
use crate::session::Session;

/// Name of the component that carries it; no role needs it, so no host unpacks it.
pub const COMPONENT: &str = "sbom";
/// Its file.
pub const FILE: &str = "sbom.cdx.json";
/// Reference of the bundle within the document.
const BUNDLE: &str = "bundle";

/// The document for a release made of these components.
pub fn document(release: &Release, lock: &Lock, components: &[Component]) -> anyhow::Result<Vec<u8>> {
    let mut artifacts: BTreeMap<String, Value> = BTreeMap::new();
    let mut listed = Vec::new();
    let mut depends: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for component in components {
        let reference = component_reference(component);
        depends.entry(BUNDLE.to_owned()).or_default().insert(reference.clone());
        let below = depends.entry(reference.clone()).or_default();
        let carriers = component.images.iter().filter_map(|image| carrier(image, components));
        below.extend(carriers.filter(|other| other.name != component.name).map(component_reference));
        below.extend(component.upstream.iter().map(artifact_reference));
        listed.push(described(component, &reference));
        for upstream in &component.upstream {
            let reference = artifact_reference(upstream);
            depends.entry(reference.clone()).or_default();
            artifacts
                .entry(reference)
                .or_insert_with_key(|reference| artifact(upstream, reference, component, release, lock));
        }
    }
    listed.extend(artifacts.into_values());
    let depends = depends.into_iter().map(|(reference, on)| json!({ "ref": reference, "dependsOn": on }));
    let document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", serial(release)),
        "version": 1,
        "metadata": {
            "timestamp": format!("{}T00:00:00Z", release.created),
            "lifecycles": [{ "phase": "build" }],
            "tools": { "components": [{ "type": "application", "name": "sealift builder" }] },
            "component": {
                "type": "platform", "bom-ref": BUNDLE, "name": release.name, "version": release.version,
                "properties": properties(&[
                    ("architecture", release.architecture.to_string()),
                    ("lock", release.lock.to_string()),
                    ("sequence", release.sequence.to_string()),
                ]),
            },
        },
        "components": listed,
        "dependencies": depends.collect::<Vec<_>>(),
    });
    let mut bytes = serde_json::to_vec_pretty(&document).context("writing the SBOM as JSON")?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The image of the component that carries a document.
pub fn image(document: Vec<u8>, release: &Release, level: i32, session: &Session) -> anyhow::Result<ImageSource> {
    let component = Component {
        name: COMPONENT.parse()?,
        version: release.version.clone(),
        kind: Kind::Program,
        roles: Vec::new(),
        licence: "CC0-1.0".to_owned(),
        upstream: Vec::new(),
        programs: Vec::new(),
        modules: Vec::new(),
        templates: Vec::new(),
        packages: Vec::new(),
        distribution: None,
        host_programs: BTreeMap::new(),
        images: Vec::new(),
    };
    let path: LayerPath = FILE.parse()?;
    let files = vec![(FILE, FILE.to_owned(), 0o644)];
    let input = ArtifactInput { sha256: Digest::of(&document), name: FILE, files };
    let key = LayerInputs { level, artifacts: vec![input], links: &BTreeMap::new(), addon: None }.key()?;
    let layer = if let Some(layer) = layer_cache::find(&session.cache, &key)? {
        layer
    } else {
        let entry = PackEntry::Regular { mode: 0o644, source: Content::Bytes(document) };
        let scratch = session.cache.scratch()?;
        layer_cache::make(&session.cache, &key, BTreeMap::from([(path, entry)]), level, 1, &scratch)?
    };
    let content = Content::File(layer.path);
    Ok(ImageSource::program(component, release.architecture, &layer.layer, content)?)
}

/// A UUID of version 8 (RFC 9562, 5.8): the same for the same lock, architecture and release.
fn serial(release: &Release) -> String {
    let text = format!("sealift sbom {} {}", release.trusted_comment(), release.lock);
    let mut hex: Vec<char> = Digest::of(text.as_bytes()).hex().chars().take(32).collect();
    hex[12] = '8';
    // Variant 10xx.
    hex[16] = match hex[16].to_digit(16).unwrap_or(0) & 3 {
        0 => '8',
        1 => '9',
        2 => 'a',
        _ => 'b',
    };
    let part = |from: usize, to: usize| hex[from..to].iter().collect::<String>();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

fn component_reference(component: &Component) -> String {
    format!("component:{}", component.name)
}

/// The same bytes under two names are two artifacts.
fn artifact_reference(upstream: &Upstream) -> String {
    format!("artifact:{}#{}", upstream.url, upstream.sha256)
}

/// The component that is the image an addon names.
fn carrier<'a>(image: &str, components: &'a [Component]) -> Option<&'a Component> {
    let is_it = |upstream: &Upstream| upstream.url.strip_prefix("image:") == Some(image);
    components.iter().find(|component| component.kind == Kind::Container && component.upstream.iter().any(is_it))
}

fn properties(pairs: &[(&str, String)]) -> Value {
    let pairs = pairs.iter().filter(|(_, value)| !value.is_empty());
    pairs.map(|(name, value)| json!({ "name": format!("sealift:{name}"), "value": value })).collect()
}

fn described(component: &Component, reference: &str) -> Value {
    let kind = match component.kind {
        Kind::Program | Kind::Packages | Kind::Addon => "application",
        Kind::Container => "container",
        Kind::Kernel => "operating-system",
    };
    let roles: Vec<String> = component.roles.iter().map(|role| format!("{role:?}").to_lowercase()).collect();
    let mut value = json!({
        "type": kind, "bom-ref": reference, "name": component.name, "version": component.version,
        "properties": properties(&[
            ("distribution", component.distribution.clone().unwrap_or_default()),
            ("kind", component.kind.as_str().to_owned()),
            ("roles", roles.join(",")),
        ]),
    });
    if component.licence != "NOASSERTION" {
        value["licenses"] = json!([{ "expression": component.licence }]);
    }
    value
}

fn artifact(upstream: &Upstream, reference: &str, user: &Component, release: &Release, lock: &Lock) -> Value {
    let Upstream { url, size, sha256, sha512, proof, licence } = upstream;
    let place = purl::Place { component: user, architecture: release.architecture, lock };
    let artifact = purl::artifact(upstream, &place);
    let mut hashes = vec![json!({ "alg": "SHA-256", "content": sha256.hex() })];
    hashes.extend(sha512.iter().map(|hex| json!({ "alg": "SHA-512", "content": hex })));
    let mut value = json!({
        "type": artifact.kind, "bom-ref": reference, "name": artifact.name, "version": artifact.version,
        "hashes": hashes,
        "properties": properties(&[("proof", proof.clone()), ("size", size.to_string()), ("source", url.clone())]),
    });
    if let Some(purl) = artifact.purl {
        value["purl"] = purl.into();
    }
    // Upstream's own words, which need not be an SPDX expression.
    if let Some(licence) = licence {
        value["licenses"] = json!([{ "license": { "name": licence } }]);
    }
    if url.starts_with("https://") {
        value["externalReferences"] = json!([{ "type": "distribution", "url": url }]);
    }
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Components made of some of a few artifacts, which they may share; the same bytes may have two names.
    fn components() -> impl Strategy<Value = Vec<Component>> {
        let artifact = (0_u8..6, 0_u8..4, prop::bool::ANY).prop_map(|(name, content, published)| Upstream {
            url: match name {
                0 => "image:registry.example/pause:3".to_owned(),
                1 => "apt:etcd=1:3-4".to_owned(),
                2 => "rpm:nginx=1.20-1".to_owned(),
                _ => format!("https://example.com/{name}.tar.gz"),
            },
            size: 7,
            sha256: Digest::of(&[content]),
            sha512: published.then(|| "ab".repeat(64)),
            proof: "manifest".into(),
            licence: published.then(|| "GPLv2+ with exceptions".into()),
        });
        let one = prop::collection::vec(artifact, 0..5);
        prop::collection::vec(one, 0..8).prop_map(|lists| {
            let component = |(at, upstream)| Component {
                name: format!("c{at}").parse().unwrap(),
                version: "1".parse().unwrap(),
                kind: if at == 0 { Kind::Container } else { Kind::Addon },
                roles: vec![],
                licence: if at == 1 { "NOASSERTION".into() } else { "MIT".into() },
                upstream,
                programs: vec![],
                modules: vec![],
                templates: vec![],
                packages: vec![],
                distribution: None,
                host_programs: BTreeMap::new(),
                images: vec!["registry.example/pause:3".into()],
            };
            lists.into_iter().enumerate().map(component).collect()
        })
    }

    fn read(components: &[Component]) -> Value {
        let release = Release {
            name: "demo".parse().unwrap(),
            version: "1-1".parse().unwrap(),
            architecture: bundle::Architecture::Amd64,
            sequence: 1,
            created: "2026-11-21".into(),
            lock: Digest::of(b"lock"),
            installer: Digest::of(b"installer"),
        };
        let lock = Lock {
            format: 1,
            name: "demo".parse().unwrap(),
            version: "1-1".parse().unwrap(),
            manifest: Digest::of(b""),
            level: 1,
            apt: BTreeMap::new(),
            rpm: BTreeMap::new(),
            component: BTreeMap::new(),
        };
        let bytes = document(&release, &lock, components).unwrap();
        assert_eq!(bytes, document(&release, &lock, components).unwrap());
        serde_json::from_slice(&bytes).unwrap()
    }

    proptest! {
        #[test]
        fn every_upstream_of_every_component_is_there_once(components in components()) {
            let document = read(&components);
            let listed = document["components"].as_array().unwrap();
            let references: Vec<&str> = listed.iter().map(|value| value["bom-ref"].as_str().unwrap()).collect();
            let unique: BTreeSet<&str> = references.iter().copied().collect();
            prop_assert_eq!(unique.len(), references.len());
            let depends: BTreeMap<&str, BTreeSet<&str>> = document["dependencies"].as_array().unwrap().iter().map(|entry| {
                let on = entry["dependsOn"].as_array().unwrap().iter().map(|value| value.as_str().unwrap()).collect();
                (entry["ref"].as_str().unwrap(), on)
            }).collect();
            for component in &components {
                let named = component_reference(component);
                prop_assert!(unique.contains(named.as_str()) && depends[BUNDLE].contains(named.as_str()));
                for upstream in &component.upstream {
                    let is_it = |value: &&Value| {
                        value["hashes"][0]["content"] == upstream.sha256.hex()
                            && value["properties"].as_array().unwrap().iter().any(|pair| pair["value"] == upstream.url.as_str())
                    };
                    prop_assert_eq!(listed.iter().filter(is_it).count(), 1);
                    let reference = artifact_reference(upstream);
                    prop_assert!(depends[named.as_str()].contains(reference.as_str()));
                }
            }
            for (reference, on) in &depends {
                prop_assert!(*reference == BUNDLE || unique.contains(reference));
                prop_assert!(on.iter().all(|other| unique.contains(other)) && !on.contains(reference), "{}", reference);
            }
        }
    }
}
