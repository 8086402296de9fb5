//! Manifests, indexes and configs as registries serve them: read strictly where a lie would matter, kept byte for byte.
//!
//! A document is one thing only: one that could be read as a manifest by one reader and as an index by another, or whose
//! media type is another than announced, is refused (CVE-2021-41190).

use bundle::{Architecture, Descriptor, Digest};
use serde::Deserialize;

use crate::failure::Failure;
use crate::http::ARTIFACT_LIMIT;

/// Largest manifest, index or config, in bytes: as large as a bundle takes them, and as registries must accept them
/// (distribution-spec, "Pushing Manifests").
pub(super) const DOCUMENT_LIMIT: u64 = 4 << 20;

/// Most layers of an image (runtimes take 127) and most manifests of an index for one architecture: each is a request.
const LAYERS_LIMIT: usize = 512;
const MANIFESTS_LIMIT: usize = 64;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// What is asked for, all in one header.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
                                 application/vnd.docker.distribution.manifest.list.v2+json, \
                                 application/vnd.oci.image.manifest.v1+json, \
                                 application/vnd.docker.distribution.manifest.v2+json";
const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
const LAYERS: [&str; 5] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
];

/// A manifest or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Document {
    /// An image for one platform.
    Manifest(Manifest),
    /// Images for several platforms.
    Index(Index),
}

/// An image for one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Its media type.
    pub(super) media_type: String,
    /// Its config.
    pub(super) config: Descriptor,
    /// Its layers, lowest first.
    pub(super) layers: Vec<Descriptor>,
}

/// Images for several platforms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Index {
    /// Its media type.
    pub(super) media_type: String,
    /// Its images; attestations are left out.
    children: Vec<Child>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Child {
    descriptor: Descriptor,
    platform: Option<Platform>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
    #[serde(default)]
    variant: Option<String>,
}

/// Fields of both kinds, and of the old kind that is refused.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<DescriptorText>,
    #[serde(default)]
    layers: Option<Vec<DescriptorText>>,
    #[serde(default)]
    manifests: Option<Vec<DescriptorText>>,
    #[serde(default)]
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescriptorText {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    urls: Vec<String>,
    #[serde(default)]
    platform: Option<Platform>,
}

/// The part of a config that says what it is for.
#[derive(Deserialize)]
struct ConfigText {
    architecture: String,
    os: String,
}

impl Document {
    /// Reads a document; `announced` is the media type that its descriptor or the server named.
    pub(super) fn parse(bytes: &[u8], announced: Option<&str>) -> Result<Self, Failure> {
        let announced = announced.map(|text| text.split(';').next().unwrap_or(text).trim().to_ascii_lowercase());
        if announced.as_deref().is_some_and(|kind| kind.contains("docker.distribution.manifest.v1")) {
            return Err(too_old());
        }
        let text: Text = serde_json::from_slice(bytes)
            .map_err(|error| Failure::new(format!("it is no image manifest: {}", short(&error.to_string()))))?;
        if text.schema_version == 1 || text.fs_layers.is_some() {
            return Err(too_old());
        }
        if text.schema_version != 2 {
            return Err(Failure::new(format!("its schema version is {}, known is 2", text.schema_version)));
        }
        let media_type = text.media_type.unwrap_or_else(|| {
            // OCI's earlier versions leave it out; Docker's have it.
            if text.manifests.is_some() { INDEX.to_owned() } else { MANIFEST.to_owned() }
        });
        if let Some(announced) = announced
            && [INDEX, MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST].contains(&announced.as_str())
            && announced != media_type
        {
            let text = format!("it is `{}`, announced as `{announced}`", short(&media_type));
            return Err(Failure::new(text));
        }
        match (media_type.as_str(), text.manifests, text.config, text.layers) {
            (INDEX | DOCKER_INDEX, Some(children), None, None) => Ok(Self::Index(Index::new(media_type, children)?)),
            (MANIFEST | DOCKER_MANIFEST, None, Some(config), Some(layers)) => {
                Ok(Self::Manifest(Manifest::new(media_type, config, layers)?))
            }
            (INDEX | DOCKER_INDEX | MANIFEST | DOCKER_MANIFEST, ..) => {
                Err(Failure::new(format!("it has not exactly the fields of `{media_type}`")))
            }
            (other, ..) => Err(Failure::new(format!("its media type `{}` is that of no image", short(other)))
                .hint("name a container image: charts and other artifacts cannot be run")),
        }
    }

    /// Its media type.
    pub(super) fn media_type(&self) -> &str {
        match self {
            Self::Manifest(manifest) => &manifest.media_type,
            Self::Index(index) => &index.media_type,
        }
    }
}

impl Manifest {
    fn new(media_type: String, config: DescriptorText, layers: Vec<DescriptorText>) -> Result<Self, Failure> {
        if !CONFIGS.contains(&config.media_type.as_str()) {
            let text = format!("its config is `{}`, which is no container image's", short(&config.media_type));
            return Err(Failure::new(text).hint("name a container image: charts and other artifacts cannot be run"));
        }
        let config = config.descriptor()?;
        if config.size > DOCUMENT_LIMIT {
            let text = format!("its config has {} bytes, at most {DOCUMENT_LIMIT} are taken", config.size);
            return Err(Failure::new(text));
        }
        if layers.len() > LAYERS_LIMIT {
            return Err(Failure::new(format!("it has {} layers, at most {LAYERS_LIMIT} are taken", layers.len())));
        }
        let layers = layers.into_iter().map(DescriptorText::layer).collect::<Result<_, _>>()?;
        Ok(Self { media_type, config, layers })
    }

    /// Everything it names: its config, then its layers, each once.
    pub(super) fn blobs(&self) -> Vec<Descriptor> {
        let mut blobs: Vec<Descriptor> = Vec::new();
        for descriptor in std::iter::once(&self.config).chain(&self.layers) {
            if blobs.iter().all(|blob| blob.digest != descriptor.digest) {
                blobs.push(descriptor.clone());
            }
        }
        blobs
    }
}

impl Index {
    fn new(media_type: String, children: Vec<DescriptorText>) -> Result<Self, Failure> {
        let mut kept = Vec::new();
        for child in children {
            // Provenance and SBOMs lie beside the images, for a platform that does not exist (BuildKit).
            if child
                .platform
                .as_ref()
                .is_some_and(|platform| platform.os == "unknown" || platform.architecture == "unknown")
            {
                continue;
            }
            let platform = child.platform.clone();
            kept.push(Child { descriptor: child.descriptor()?, platform });
        }
        Ok(Self { media_type, children: kept })
    }

    /// The manifests for an architecture, the first being the one that is run: those for it, and those for any platform.
    ///
    /// The reader of a bundle goes by the same rule, so all of them must be in it.
    pub(super) fn manifests(&self, architecture: Architecture) -> Result<Vec<Descriptor>, Failure> {
        let fits = |child: &&Child| {
            let platform = child.platform.as_ref();
            platform.is_none_or(|platform| platform.os == "linux" && platform.architecture == architecture.as_str())
        };
        let ours: Vec<Descriptor> = self.children.iter().filter(fits).map(|child| child.descriptor.clone()).collect();
        if ours.is_empty() {
            let text = format!("it has no image for linux/{architecture}");
            return Err(Failure::new(text).hint(format!("on offer: {}", self.platforms())));
        }
        if ours.len() > MANIFESTS_LIMIT {
            let text = format!("it has {} manifests for linux/{architecture}", ours.len());
            return Err(Failure::new(format!("{text}, at most {MANIFESTS_LIMIT} are taken")));
        }
        for child in &ours {
            if ![MANIFEST, DOCKER_MANIFEST].contains(&child.media_type.as_str()) {
                let text = format!("it names `{}` for linux/{architecture}, not a manifest", short(&child.media_type));
                return Err(Failure::new(text));
            }
            if child.size > DOCUMENT_LIMIT {
                let text = format!("a manifest of {} bytes, at most {DOCUMENT_LIMIT} are taken", child.size);
                return Err(Failure::new(text));
            }
        }
        Ok(ours)
    }

    /// The platforms it has images for, for messages.
    fn platforms(&self) -> String {
        let name = |platform: &Platform| {
            let variant = platform.variant.as_ref().map(|variant| format!("/{variant}")).unwrap_or_default();
            short(&format!("{}/{}{variant}", platform.os, platform.architecture))
        };
        let mut names: Vec<String> =
            self.children.iter().filter_map(|child| child.platform.as_ref()).map(name).collect();
        names.sort();
        names.dedup();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }
}

impl DescriptorText {
    fn descriptor(self) -> Result<Descriptor, Failure> {
        let digest = self.digest.parse::<Digest>().map_err(|_| {
            Failure::new(format!("it names a blob by `{}`, not by a sha256 digest", short(&self.digest)))
        })?;
        Ok(Descriptor { media_type: self.media_type, digest, size: self.size })
    }

    fn layer(self) -> Result<Descriptor, Failure> {
        let kind = short(&self.media_type);
        if kind.contains("foreign") || kind.contains("nondistributable") || !self.urls.is_empty() {
            return Err(Failure::new(format!(
                "its layer {} lies outside the registry (`{kind}`)",
                short(&self.digest)
            ))
            .hint("such layers may not be copied into a bundle; name an image without them"));
        }
        if !LAYERS.contains(&self.media_type.as_str()) {
            return Err(Failure::new(format!("its layer {} is of unknown type `{kind}`", short(&self.digest)))
                .hint(format!("known are {}", LAYERS.join(", "))));
        }
        if self.size > ARTIFACT_LIMIT {
            let text = format!("its layer {} has {} bytes", short(&self.digest), self.size);
            return Err(Failure::new(format!("{text}, at most {ARTIFACT_LIMIT} are taken")));
        }
        self.descriptor()
    }
}

/// The architecture a config is for; an image whose manifest stands alone says so nowhere else.
pub(super) fn check_platform(config: &[u8], architecture: Architecture) -> Result<(), Failure> {
    let text: ConfigText = serde_json::from_slice(config)
        .map_err(|error| Failure::new(format!("its config cannot be read: {}", short(&error.to_string()))))?;
    if text.os == "linux" && text.architecture == architecture.as_str() {
        return Ok(());
    }
    let found = short(&format!("{}/{}", text.os, text.architecture));
    Err(Failure::new(format!("it is for {found} alone, wanted is linux/{architecture}"))
        .hint("name an image for all architectures of the manifest, or limit the artifact with `architectures`"))
}

fn too_old() -> Failure {
    Failure::new("it is a manifest of schema 1, which cannot be verified")
        .hint("have it pushed again with a tool of the last years, or take another image")
}

/// Text of a server, for messages.
fn short(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn descriptor(kind: &str, more: &str) -> String {
        format!(r#"{{"mediaType":"{kind}","digest":"sha256:{HEX}","size":7{more}}}"#)
    }

    fn manifest(media_type: &str, layer: &str) -> String {
        let config = descriptor(CONFIGS[0], "");
        format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{config},"layers":[{layer}]}}"#)
    }

    fn index(children: &[&str]) -> String {
        let children: Vec<String> = children
            .iter()
            .map(|platform| {
                let platform = platform.split_once('/').map_or(String::new(), |(os, architecture)| {
                    format!(r#","platform":{{"os":"{os}","architecture":"{architecture}"}}"#)
                });
                descriptor(MANIFEST, &platform)
            })
            .collect();
        format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, children.join(","))
    }

    fn error(bytes: &str, announced: Option<&str>) -> String {
        format!("{:?}", Document::parse(bytes.as_bytes(), announced).unwrap_err())
    }

    #[test]
    fn manifests_are_read_whatever_their_layers_are_compressed_with() {
        for layer in LAYERS {
            let text = manifest(DOCKER_MANIFEST, &descriptor(layer, ""));
            let Document::Manifest(read) = Document::parse(text.as_bytes(), Some(DOCKER_MANIFEST)).unwrap() else {
                panic!("{text}");
            };
            assert_eq!((read.layers[0].media_type.as_str(), read.blobs().len()), (layer, 1));
        }
        // Without a media type it is OCI's.
        let bare = manifest(MANIFEST, "").replace(&format!(r#""mediaType":"{MANIFEST}","#), "");
        assert!(!bare.contains(MANIFEST));
        let plain = Some("application/octet-stream");
        assert_eq!(Document::parse(bare.as_bytes(), plain).unwrap().media_type(), MANIFEST);
    }

    #[test]
    fn an_index_offers_what_is_for_the_architecture() {
        let text = index(&["linux/amd64", "linux/arm64", "unknown/unknown", "windows/amd64"]);
        let Document::Index(read) = Document::parse(text.as_bytes(), None).unwrap() else { panic!("{text}") };
        assert_eq!(read.manifests(Architecture::Amd64).unwrap().len(), 1);
        let text = index(&["linux/amd64", "unknown/unknown", "windows/amd64", "linux/s390x"]);
        let Document::Index(read) = Document::parse(text.as_bytes(), None).unwrap() else { panic!("{text}") };
        let failure = format!("{:?}", read.manifests(Architecture::Arm64).unwrap_err());
        assert!(failure.contains("linux/amd64, linux/s390x, windows/amd64"), "{failure}");
        let text = index(&["unknown/unknown"]);
        let Document::Index(read) = Document::parse(text.as_bytes(), None).unwrap() else { panic!("{text}") };
        assert!(read.manifests(Architecture::Amd64).is_err());
    }

    #[test]
    fn what_is_no_image_or_two_things_at_once_is_refused() {
        let good = manifest(MANIFEST, "");
        let both = good.replacen('{', r#"{"manifests":[],"#, 1);
        assert!(error(&both, None).contains("not exactly the fields"));
        assert!(error(&index(&[]).replacen('{', r#"{"layers":[],"#, 1), None).contains("not exactly the fields"));
        assert!(error(&good, Some(DOCKER_MANIFEST)).contains("announced as"));
        assert!(error(&good, Some("application/vnd.oci.image.index.v1+json; charset=utf-8")).contains("announced as"));
        assert!(error(r#"{"schemaVersion":1,"fsLayers":[]}"#, None).contains("schema 1"));
        assert!(error(&good, Some("application/vnd.docker.distribution.manifest.v1+prettyjws")).contains("schema 1"));
        assert!(error(&good.replace(":2", ":3"), None).contains("schema version"));
        assert!(error("<html>", None).contains("no image manifest"));
        assert!(error(&good.replace(CONFIGS[0], "application/vnd.cncf.helm.config.v1+json"), None).contains("helm"));
        assert!(
            error(&manifest("application/vnd.oci.artifact.manifest.v1+json", ""), None).contains("that of no image")
        );
        assert!(error(&good.replace("sha256:", "sha512:"), None).contains("not by a sha256 digest"));
    }

    #[test]
    fn layers_that_lie_elsewhere_are_refused() {
        let foreign = descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "");
        let kept_out = descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "");
        let elsewhere = descriptor(LAYERS[1], r#","urls":["https://elsewhere.example/layer"]"#);
        for layer in [foreign, kept_out, elsewhere] {
            assert!(error(&manifest(MANIFEST, &layer), None).contains("outside the registry"), "{layer}");
        }
        let locked = descriptor("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "");
        assert!(error(&manifest(MANIFEST, &locked), None).contains("unknown type"));
    }

    #[test]
    fn no_document_asks_for_more_than_there_is_room_for() {
        let layer = descriptor(LAYERS[1], "");
        let huge = layer.replace("\"size\":7", "\"size\":18446744073709551615");
        assert!(error(&manifest(MANIFEST, &huge), None).contains("at most 8589934592 are taken"));
        let many = |count: usize| manifest(MANIFEST, &vec![layer.as_str(); count].join(","));
        assert!(error(&many(LAYERS_LIMIT + 1), None).contains("513 layers"));
        assert!(Document::parse(many(LAYERS_LIMIT).as_bytes(), None).is_ok());
        let children = |count: usize| {
            let text = index(&vec![""; count]);
            let Document::Index(read) = Document::parse(text.as_bytes(), None).unwrap() else { panic!("{text}") };
            read.manifests(Architecture::Amd64)
        };
        assert!(format!("{:?}", children(MANIFESTS_LIMIT + 1).unwrap_err()).contains("65 manifests"));
        assert_eq!(children(MANIFESTS_LIMIT).unwrap().len(), MANIFESTS_LIMIT);
    }

    #[test]
    fn a_config_says_what_it_is_for() {
        let config = br#"{"architecture":"amd64","os":"linux","config":{}}"#;
        assert!(check_platform(config, Architecture::Amd64).is_ok());
        let error = check_platform(config, Architecture::Arm64).unwrap_err().to_string();
        assert!(error.contains("linux/amd64"), "{error}");
        assert!(check_platform(b"{}", Architecture::Amd64).is_err());
    }
}
