//! Package URLs (ECMA-427) of upstream artifacts: what scanners look up.

use std::fmt::Write as _;

use bundle::component::Upstream;
use bundle::{Architecture, Component};

use crate::lock::Lock;

/// Codenames of Ubuntu releases: an index names its codename, not its vendor.
const UBUNTU: [&str; 5] = ["bionic", "focal", "jammy", "noble", "resolute"];

/// Where an artifact is used, for what its own name does not say.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) component: &'a Component,
    pub(super) architecture: Architecture,
    pub(super) lock: &'a Lock,
}

/// An artifact as a bill of materials names it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Artifact {
    /// Its type in CycloneDX.
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) purl: Option<String>,
}

/// Names an artifact.
pub(super) fn artifact(upstream: &Upstream, place: &Place<'_>) -> Artifact {
    let url = upstream.url.as_str();
    let package = |rest: &str| rest.split_once('=').map(|(name, version)| (name.to_owned(), version.to_owned()));
    if let Some((name, version)) = url.strip_prefix("apt:").and_then(package) {
        let purl = Some(deb(&name, &version, upstream, place));
        return Artifact { kind: "library", name, version, purl };
    }
    if let Some((name, version)) = url.strip_prefix("rpm:").and_then(package) {
        let purl = Some(rpm(&name, &version, place));
        return Artifact { kind: "library", name, version, purl };
    }
    if let Some(reference) = url.strip_prefix("image:") {
        let (repository, tag) = tagged(reference);
        let name = repository.rsplit('/').next().unwrap_or(repository).to_lowercase();
        let mut qualifiers = vec![("arch", place.architecture.to_string()), ("repository_url", repository.to_owned())];
        qualifiers.extend(tag.map(|tag| ("tag", tag.to_owned())));
        let purl = Some(purl("oci", &[&name], &upstream.sha256.to_string(), &qualifiers));
        let version = tag.map_or_else(|| upstream.sha256.to_string(), str::to_owned);
        return Artifact { kind: "container", name: repository.to_owned(), version, purl };
    }
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let name = path.rsplit(['/', ':']).next().unwrap_or(path).to_owned();
    let version = place.component.version.to_string();
    let mut qualifiers = vec![("checksum", upstream.sha256.to_string())];
    if url.starts_with("https://") {
        qualifiers.push(("download_url", url.to_owned()));
    }
    let purl = Some(purl("generic", &[&name], &version, &qualifiers));
    Artifact { kind: "file", name, version, purl }
}

fn deb(name: &str, version: &str, upstream: &Upstream, place: &Place<'_>) -> String {
    let index = upstream.proof.strip_prefix("apt:").unwrap_or_default();
    let suite = index.split('/').next().unwrap_or_default();
    let codename = place.lock.apt.get(index).map_or(suite, |proof| proof.codename.as_str());
    let distribution = place.component.distribution.as_deref();
    let release = codename.split('-').next().unwrap_or_default();
    let is_ubuntu = distribution.is_some_and(|name| name.starts_with("ubuntu")) || UBUNTU.contains(&release);
    // Which of both an `all` package is, only its file name says; the component's list of packages has it.
    let file = place.component.packages.iter().find(|package| package.sha256 == upstream.sha256);
    let is_all = file.is_some_and(|package| package.file.ends_with("_all.deb"));
    let architecture = if is_all { "all".to_owned() } else { place.architecture.to_string() };
    let mut qualifiers = vec![("arch", architecture)];
    if !codename.is_empty() {
        qualifiers.push(("distro", codename.to_owned()));
    }
    purl("deb", &[if is_ubuntu { "ubuntu" } else { "debian" }, name], version, &qualifiers)
}

fn rpm(name: &str, version: &str, place: &Place<'_>) -> String {
    let (epoch, version) = version.split_once(':').map_or((None, version), |(epoch, rest)| (Some(epoch), rest));
    let machine = match place.architecture {
        Architecture::Amd64 => "x86_64",
        Architecture::Arm64 => "aarch64",
    };
    let is_noarch =
        |package: &&bundle::component::Package| package.name == name && package.file.ends_with(".noarch.rpm");
    let noarch = place.component.packages.iter().find(is_noarch).map(|_| "noarch");
    let mut qualifiers = vec![("arch", noarch.unwrap_or(machine).to_owned())];
    qualifiers.extend(place.component.distribution.iter().map(|name| ("distro", name.clone())));
    qualifiers.extend(epoch.map(|epoch| ("epoch", epoch.to_owned())));
    purl("rpm", &[name], version, &qualifiers)
}

/// Repository and tag of an image reference; a digest is left out.
fn tagged(reference: &str) -> (&str, Option<&str>) {
    let reference = reference.split('@').next().unwrap_or(reference);
    match reference.rsplit_once(':') {
        // A colon before the last slash belongs to a port.
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (reference, None),
    }
}

/// `pkg:TYPE/PART/PART@VERSION?KEY=VALUE&…`; the keys are given in their order.
fn purl(kind: &str, parts: &[&str], version: &str, qualifiers: &[(&str, String)]) -> String {
    let parts: Vec<String> = parts.iter().map(|part| encoded(part)).collect();
    let qualifiers: Vec<String> = qualifiers.iter().map(|(key, value)| format!("{key}={}", encoded(value))).collect();
    format!("pkg:{kind}/{}@{}?{}", parts.join("/"), encoded(version), qualifiers.join("&"))
}

/// Percent-encoded: everything but letters, digits, `.-_~` and the colon (ECMA-427, 5.4).
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bundle::Digest;
    use bundle::component::{Kind, Package};

    use super::*;

    fn named(url: &str, proof: &str, distribution: Option<&str>, file: &str) -> Artifact {
        let sha256 = Digest::of(b"");
        let upstream = Upstream { url: url.into(), size: 0, sha256, sha512: None, proof: proof.into(), licence: None };
        let name = url.split([':', '=']).nth(1).unwrap().to_owned();
        let component = Component {
            name: "x".parse().unwrap(),
            version: "1.2".parse().unwrap(),
            kind: Kind::Packages,
            roles: vec![],
            licence: "MIT".into(),
            upstream: vec![],
            programs: vec![],
            modules: vec![],
            templates: vec![],
            packages: vec![Package {
                name,
                version: "1".into(),
                file: file.into(),
                sha256,
                size: 0,
                architecture: String::new(),
                relations: bundle::component::Relations::default(),
            }],
            distribution: distribution.map(str::to_owned),
            host_programs: BTreeMap::new(),
            images: vec![],
        };
        let lock = Lock {
            format: 1,
            name: "x".parse().unwrap(),
            version: "1".parse().unwrap(),
            manifest: sha256,
            level: 12,
            apt: BTreeMap::new(),
            rpm: BTreeMap::new(),
            component: BTreeMap::new(),
        };
        artifact(&upstream, &Place { component: &component, architecture: Architecture::Amd64, lock: &lock })
    }

    #[test]
    fn purls_are_those_of_the_specification() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let purl =
            |url: &str, proof: &str, distribution, file: &str| named(url, proof, distribution, file).purl.unwrap();
        assert_eq!(
            purl("apt:etcd-server=1:3.4.23+dfsg-4", "apt:bookworm/main/amd64", None, "x_amd64.deb"),
            "pkg:deb/debian/etcd-server@1:3.4.23%2Bdfsg-4?arch=amd64&distro=bookworm"
        );
        assert_eq!(
            purl("apt:tzdata=2024a~1", "apt:jammy-updates/main/amd64", None, "tzdata_2024a_all.deb"),
            "pkg:deb/ubuntu/tzdata@2024a~1?arch=all&distro=jammy-updates"
        );
        assert_eq!(
            purl("rpm:nginx=1:1.20.1-14.el9", "rpm:appstream/x86_64", Some("el9"), "nginx.x86_64.rpm"),
            "pkg:rpm/nginx@1.20.1-14.el9?arch=x86_64&distro=el9&epoch=1"
        );
        assert_eq!(
            purl("image:registry.local:5000/k8s/Pause:3.10", "registry", None, ""),
            format!("pkg:oci/pause@{digest}?arch=amd64&repository_url=registry.local:5000%2Fk8s%2FPause&tag=3.10")
        );
        assert_eq!(
            purl("https://dl.k8s.io/v1/a%20b.tar.gz?x=1", "manifest", None, ""),
            format!(
                "pkg:generic/a%2520b.tar.gz@1.2?checksum={digest}&download_url=https:%2F%2Fdl.k8s.io%2Fv1%2Fa%2520b.tar.gz%3Fx%3D1"
            )
        );
        assert_eq!(purl("file:parts/shell", "first-use", None, ""), format!("pkg:generic/shell@1.2?checksum={digest}"));
    }
}
