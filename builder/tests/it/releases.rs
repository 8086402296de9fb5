//! The releases of this repository: manifests and locks that fit each other, pins that agree, and, with small stand-ins for
//! everything they name, bundles that come out the same twice.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use builder::addon;
use builder::fit;
use builder::lock::{AptProof, Lock, LockedArtifact, LockedComponent, RpmProof};
use builder::manifest::{Artifact, Manifest, Placeholders, Source, Target};
use builder::recipe::Recipe;
use builder::source::registry::Reference;
use bundle::component::Kind;
use bundle::{Architecture, ComponentName, Digest};

use crate::forged::Forged;
use crate::rpm_yard::Yard;
use crate::workshop::{Piece, deb, plain, stderr, stdout, tar_gz};

const BOTH: [Architecture; 2] = [Architecture::Amd64, Architecture::Arm64];

/// What belongs together: Kubernetes, etcd, containerd, runc, CNI plugins, pause, crictl.
const SETS: [[&str; 8]; 4] = [
    ["1.31", "1.31.14", "3.5.21", "1.7.34", "1.2.9", "1.6.2", "3.10", "1.31.1"],
    ["1.35", "1.35.7", "3.6.14", "2.2.7", "1.3.6", "1.8.0", "3.10.1", "1.35.0"],
    ["1.36", "1.36.3", "3.6.14", "2.3.4", "1.4.3", "1.9.1", "3.10.2", "1.36.0"],
    ["1.37", "1.37.1", "3.7.1", "2.3.4", "1.5.1", "1.9.1", "3.10.2", "1.36.0"],
];
const KUBERNETES: [&str; 6] =
    ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"];

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

fn release(minor: &str) -> (Manifest, Lock) {
    let manifest = Manifest::read(&manifests().join(format!("kubernetes-{minor}.toml"))).unwrap();
    let (lock, _) = Lock::read(&manifest.lock_path()).unwrap();
    (manifest, lock)
}

/// Every artifact of a manifest's components, placeholders replaced.
fn artifacts(manifest: &Manifest) -> Vec<(String, Architecture, Artifact)> {
    let mut all = Vec::new();
    for (name, text) in &manifest.release.components {
        for architecture in BOTH {
            let places = Placeholders { version: &text.version, architecture };
            let of = |artifact: &Artifact| (name.to_string(), architecture, artifact.expand(&places).unwrap());
            all.extend(text.artifacts.iter().map(of));
        }
    }
    all
}

#[test]
fn every_lock_fits_its_manifest_and_is_stable() {
    for [minor, ..] in SETS {
        let (manifest, lock) = release(minor);
        lock.check_fits(&manifest).unwrap();
        assert_eq!(fit::misfits(&manifest, &lock), BTreeMap::new(), "{minor}");
        let bytes = fs_err::read(manifest.lock_path()).unwrap();
        assert!(lock.to_bytes().unwrap() == bytes, "the lock of {minor} would be written otherwise");
        assert_eq!(manifest.release.architectures, BOTH);
        for distribution in &manifest.release.distributions {
            builder::base::Base::read(&manifests(), distribution.as_str()).unwrap();
            assert!(manifest.release.packages.contains_key(distribution), "{minor} {distribution}");
        }
        for (name, text) in &manifest.release.components {
            let recipe = Recipe::read(&manifests().join("components"), name).unwrap();
            for program in &recipe.text.programs {
                let made =
                    |artifact: &Artifact| artifact.files.iter().any(|map| map.to == Target::File(program.clone()));
                let hosted = || {
                    let all = &manifest.release.distributions;
                    all.iter().all(|one| text.packages.get(one).is_some_and(|host| host.programs.contains_key(program)))
                };
                assert!(text.artifacts.iter().any(made) || hosted(), "{minor}: nothing brings {name}'s {program}");
            }
        }
        let error =
            plain().args(["build", "--installer", "/bin/true"]).arg(&manifest.path).args(["--arch", "arm64"]).assert();
        let error = stderr(&error.code(1));
        assert!(error.contains("kube-apiserver") && error.contains("apt:nginx"), "{error}");
    }
}

#[test]
fn pins_agree_across_releases_and_versions_belong_together() {
    let mut by_url: BTreeMap<String, Digest> = BTreeMap::new();
    let mut by_digest: BTreeMap<Digest, String> = BTreeMap::new();
    for [minor, kubernetes, etcd, containerd, runc, cni, pause, crictl] in SETS {
        let (manifest, _) = release(minor);
        let expected = [
            ("etcd", etcd),
            ("containerd", containerd),
            ("runc", runc),
            ("cni", cni),
            ("pause", pause),
            ("crictl", crictl),
        ];
        for (name, version) in expected.into_iter().chain(KUBERNETES.map(|name| (name, kubernetes))) {
            let name: ComponentName = name.parse().unwrap();
            assert_eq!(manifest.release.components[&name].version.as_str(), version, "{name} of {minor}");
        }
        for (name, architecture, artifact) in artifacts(&manifest) {
            let url = artifact.source.label();
            let digest = match artifact.source {
                Source::Image { digest, .. } => digest,
                _ => artifact.sha256.get(&architecture).copied(),
            };
            let digest = digest.unwrap_or_else(|| panic!("{name} of {minor} has no pin for {architecture}"));
            assert_eq!(*by_url.entry(url.clone()).or_insert(digest), digest, "{url}");
            assert_eq!(*by_digest.entry(digest).or_insert_with(|| url.clone()), url, "one digest, two files");
            let listed = artifact.checksums.as_deref().is_none_or(|list| list.starts_with("https://"));
            assert!(listed && (artifact.checksums.is_some() || url.starts_with("image:")), "{url}");
        }
    }
}

/// Objects that have everything a patch of our manifests changes, and these images.
fn objects(images: &[&str]) -> String {
    let container = |(at, name): (usize, &str)| {
        let image = images[at % images.len()];
        format!(
            "      - name: {name}\n        image: {image}\n        imagePullPolicy: IfNotPresent\n        args: [\"--x\"]\n        env: [{{name: A, value: b}}]\n"
        )
    };
    let workload = |kind: &str, name: &str, containers: &[&str]| {
        let containers: String = containers.iter().copied().enumerate().map(container).collect();
        let volume = |name: &str| format!("      - name: {name}\n        hostPath: {{path: /x}}\n");
        let volumes = ["cni-plugin", "cni", "cni-bin-dir", "cni-net-dir"].map(volume).concat();
        format!(
            "---\napiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: kube-system}}\nspec:\n  template:\n    spec:\n      containers:\n{containers}      volumes:\n{volumes}"
        )
    };
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kube-flannel-cfg, namespace: kube-system}\ndata:\n  net-conf.json: '{\"Network\": \"10.244.0.0/16\"}'\n";
    let filler = ["one", "two", "three"];
    let flannel = workload("DaemonSet", "kube-flannel-ds", &["kube-flannel", "more"]);
    let calico = workload("DaemonSet", "calico-node", &["calico-node", "more"]);
    let dashboard = workload("Deployment", "kubernetes-dashboard", &["kubernetes-dashboard", "more"]);
    format!("{map}{flannel}{calico}{dashboard}{}", workload("Deployment", "filler", &filler))
}

/// What stands in for upstream: files by URL, and everything else in a cache.
struct StandIns<'a> {
    home: &'a Path,
    manifest: &'a Manifest,
    yard: &'a Yard,
}

impl StandIns<'_> {
    fn keep(&self, content: &[u8]) -> (Option<u64>, Option<Digest>) {
        let digest = Digest::of(content);
        let cache = self.home.join("cache/sha256");
        fs_err::create_dir_all(&cache).unwrap();
        fs_err::write(cache.join(digest.hex()), content).unwrap();
        (Some(content.len() as u64), Some(digest))
    }

    fn serve(&self, url: &str, content: &[u8]) -> (Option<u64>, Option<Digest>) {
        let path = self.home.join("upstream").join(url.strip_prefix("https://").unwrap());
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, content).unwrap();
        (Some(content.len() as u64), Some(Digest::of(content)))
    }

    fn program(name: &str, architecture: Architecture) -> Vec<u8> {
        let machine = if architecture == Architecture::Amd64 { 62 } else { 183 };
        let mut bytes = Forged { machine, ..Forged::default() }.bytes();
        bytes.extend(name.bytes());
        bytes
    }

    /// An archive or a bare program with all that the manifest takes from it.
    fn file(&self, name: &ComponentName, at: usize, url: &str, architecture: Architecture) -> Vec<u8> {
        let text = &self.manifest.release.components[name];
        let places = Placeholders { version: &text.version, architecture };
        let files = text.artifacts[at].expand(&places).unwrap().files;
        let contents: Vec<_> =
            files.iter().map(|map| (map.from.clone(), Self::program(&map.from, architecture))).collect();
        if !url.ends_with("gz") {
            return contents[0].1.clone();
        }
        tar_gz(&contents.iter().map(|(path, content)| (path.as_str(), Piece::File(content))).collect::<Vec<_>>())
    }

    /// An image for both architectures; its index.
    fn image(&self, reference: &str) -> (Option<u64>, Option<Digest>) {
        let descriptor = |kind: &str, content: &[u8]| {
            self.keep(content);
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{}","size":{}"#,
                Digest::of(content),
                content.len()
            )
        };
        let children = BOTH.map(|architecture| {
            let config = format!(r#"{{"architecture":"{architecture}","os":"linux","rootfs":{{}},"x":"{reference}"}}"#);
            let config = descriptor("config.v1+json", config.as_bytes());
            let layer = descriptor("layer.v1.tar+gzip", &Self::program(reference, architecture));
            let manifest = format!(r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{config}}},"layers":[{layer}}}]}}"#);
            let manifest = descriptor("manifest.v1+json", manifest.as_bytes());
            format!(r#"{manifest},"platform":{{"architecture":"{architecture}","os":"linux"}}}}"#)
        });
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{}]}}"#,
            children.join(",")
        );
        self.keep(index.as_bytes())
    }

    /// A package that brings what the manifest says packages bring.
    fn package(&self, url: &str, distribution: &str, architecture: Architecture) -> LockedArtifact {
        let (scheme, name) = url.split_once(':').unwrap();
        let hosts = self.manifest.release.components.values().flat_map(|component| &component.packages);
        let hosts = hosts.filter(|(on, host)| {
            on.as_str() == distribution && host.install.first().is_some_and(|first| first == name)
        });
        let paths: Vec<&str> = hosts.flat_map(|(_, host)| host.programs.values().map(String::as_str)).collect();
        let (content, version, path, proof) = if scheme == "apt" {
            let files: Vec<_> = paths.iter().map(|path| (*path, Self::program(path, architecture))).collect();
            let path = format!("pool/{name}_1_{architecture}.deb");
            (deb(name, "9:1", &architecture.to_string(), &files), "9:1", path, format!("apt:x/main/{architecture}"))
        } else {
            let file = format!("{name}-1.0-1.el9.x86_64.rpm");
            let content = fs_err::read(self.yard.workshop.path(&format!("repo/{file}"))).unwrap();
            (content, "1.0-1.el9", file, format!("rpm:baseos/{architecture}"))
        };
        let (size, sha256) = self.keep(&content);
        let (path, proof) = (Some(path), Some(proof));
        LockedArtifact { url: format!("{url}={version}"), path, size, sha256, proof, ..LockedArtifact::default() }
    }

    /// The manifest's text, with the digests of the stand-ins: a lock that says others is refused.
    fn text(&self, shipped: &Lock, lock: &Lock) -> String {
        let mut text = fs_err::read_to_string(&self.manifest.path).unwrap();
        let mut replace = |from: Option<Digest>, to: Option<Digest>| {
            if let (Some(from), Some(to)) = (from, to) {
                text = text.replace(&from.hex(), &to.hex());
            }
        };
        for (name, component) in &shipped.component {
            let made = lock.component[name].artifacts.values().flatten();
            for (from, to) in component.artifacts.values().flatten().zip(made) {
                replace(from.sha256, to.sha256);
            }
        }
        for (image, digest) in self.manifest.release.addons.values().flat_map(|addon| &addon.digests) {
            let url = format!("image:{}", image.parse::<Reference>().unwrap());
            let entry = lock.entries().find(|(_, _, entry)| entry.url == url);
            replace(Some(*digest), entry.and_then(|(_, _, entry)| entry.sha256));
        }
        text
    }

    /// The shipped lock, every entry of it resolved to a stand-in.
    fn lock(&self, shipped: &Lock) -> Lock {
        let mut lock = shipped.clone();
        let mut images: BTreeSet<Reference> = BTreeSet::new();
        for (name, component) in &mut lock.component {
            let distribution = component.distribution.as_ref().map(ToString::to_string).unwrap_or_default();
            let addon = name
                .as_str()
                .strip_prefix("addon-")
                .map(|addon| &self.manifest.release.addons[&addon.parse().unwrap()]);
            let mut needs: Vec<&str> = addon.iter().flat_map(|text| text.digests.keys().map(String::as_str)).collect();
            if needs.is_empty() {
                needs.push("quay.io/example/tool:v1");
            }
            if let Some(text) = addon.filter(|text| matches!(text.artifact.source, Source::Url(_))) {
                images.extend(needs.iter().map(|image| image.parse::<Reference>().unwrap()));
                component.images = needs.iter().map(|image| (*image).to_owned()).collect();
                component.images.sort();
                component.images.dedup();
                assert_eq!(component.made, Some(Kind::Addon), "{}", text.version);
            }
            for (architecture, list) in &mut component.artifacts {
                for (at, entry) in list.iter_mut().enumerate() {
                    let url = entry.url.clone();
                    if let Some(reference) = url.strip_prefix("image:") {
                        let (size, sha256) = self.image(reference);
                        *entry = LockedArtifact { size, sha256, unresolved: None, ..entry.clone() };
                    } else if !distribution.is_empty() {
                        *entry = self.package(&url, &distribution, *architecture);
                    } else if url.starts_with("https://") {
                        let content = match addon {
                            Some(_) if url.ends_with(".tar.gz") => {
                                let top = format!("kube-prometheus-{}/manifests", component.version);
                                let (first, second) = (format!("{top}/setup/a.yaml"), format!("{top}/b.yaml"));
                                let text = objects(&needs);
                                let crd = "apiVersion: v1\nkind: Namespace\nmetadata: {name: monitoring}\n";
                                tar_gz(&[
                                    (&first, Piece::File(crd.as_bytes())),
                                    (&second, Piece::File(text.as_bytes())),
                                ])
                            }
                            Some(_) => objects(&needs).into_bytes(),
                            None => self.file(name, at, &url, *architecture),
                        };
                        let (size, sha256) = self.serve(&url, &content);
                        *entry = LockedArtifact { size, sha256, unresolved: None, ..entry.clone() };
                    }
                    entry.proof.get_or_insert_with(|| "first-use".to_owned());
                }
            }
        }
        for (name, reference) in addon::component_names(&images).unwrap() {
            let (size, sha256) = self.image(&reference.to_string());
            let mut demanded = self.manifest.release.addons.values().flat_map(|addon| addon.digests.keys());
            let is_demanded = demanded.any(|image| image.parse::<Reference>().unwrap() == reference);
            let entry = LockedArtifact {
                url: format!("image:{reference}"),
                size,
                sha256,
                proof: Some(if is_demanded { "manifest" } else { "registry" }.into()),
                ..LockedArtifact::default()
            };
            let mut component = LockedComponent::new(addon::image_version(&reference).unwrap());
            component.made = Some(Kind::Container);
            component.artifacts = BOTH.into_iter().map(|architecture| (architecture, vec![entry.clone()])).collect();
            lock.component.insert(name, component);
        }
        let digest = Digest::of(b"index");
        for architecture in BOTH {
            let apt = AptProof {
                suite: "x".into(),
                codename: "x".into(),
                date: "Sat, 07 Nov 2026 10:00:00 UTC".into(),
                key: "0".repeat(40),
                inrelease: digest,
                packages: digest,
            };
            lock.apt.insert(format!("x/main/{architecture}"), apt);
            lock.rpm.insert(
                format!("baseos/{architecture}"),
                RpmProof { revision: 1, repomd: digest, primary: digest, key: None, package_keys: Vec::default() },
            );
        }
        assert_eq!(lock.unresolved(), Vec::<String>::new());
        lock
    }
}

fn copy(from: &Path, to: &Path) {
    fs_err::create_dir_all(to).unwrap();
    for entry in fs_err::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs_err::copy(entry.path(), target).unwrap();
        }
    }
}

/// Builds in `home` and hands back the bundle.
fn build(home: &Path, manifest: &str, architecture: Architecture, jobs: &str) -> Vec<u8> {
    fs_err::write(home.join("installer.bin"), b"#!/bin/sh\n").unwrap();
    let mut command = plain();
    command.current_dir(home).args(["build", manifest, "--arch", architecture.as_str(), "--jobs", jobs]);
    command.args(["--cache", "cache", "--installer", "installer.bin", "--out", "dist"]);
    command.arg("--mirror").arg(format!("https://=file://{}/upstream/", home.display()));
    command.assert().success();
    let bundle = fs_err::read_dir(home.join("dist")).unwrap().map(|entry| entry.unwrap().path());
    let mut bundle = bundle.filter(|path| path.to_str().unwrap().ends_with(&format!("{architecture}.bundle")));
    fs_err::read(bundle.next().unwrap()).unwrap()
}

#[test]
fn each_shipped_lock_builds_the_same_bundle_twice_for_both_architectures() {
    let yard = Yard::new();
    for [minor, ..] in SETS {
        let (manifest, shipped) = release(minor);
        let rpms: BTreeSet<String> =
            shipped.entries().filter_map(|(_, _, entry)| entry.url.strip_prefix("rpm:").map(str::to_owned)).collect();
        let nginx = [("/usr/sbin/nginx", "x"), ("/usr/lib64/nginx/modules/ngx_stream_module.so", "x")];
        let pieces: Vec<crate::rpm_yard::Piece<'_>> = rpms
            .iter()
            .map(|name| {
                (name.as_str(), "1.0-1.el9", &["License: MIT"][..], if name == "nginx" { &nginx[..] } else { &[] })
            })
            .collect();
        if minor == SETS[0][0] {
            yard.build(&pieces, "w1.zstdio");
        }
        let homes = [tempfile::tempdir().unwrap(), tempfile::Builder::new().prefix("a-longer-name").tempdir().unwrap()];
        for home in &homes {
            copy(&manifests(), &home.path().join("release"));
            let stand_ins = StandIns { home: home.path(), manifest: &manifest, yard: &yard };
            let mut lock = stand_ins.lock(&shipped);
            let text = stand_ins.text(&shipped, &lock);
            lock.manifest = Digest::of(text.as_bytes());
            let path = |end: &str| home.path().join(format!("release/kubernetes-{minor}.{end}"));
            fs_err::write(path("toml"), text).unwrap();
            fs_err::write(path("lock"), lock.to_bytes().unwrap()).unwrap();
        }
        let path = format!("release/kubernetes-{minor}.toml");
        for architecture in BOTH {
            let one = build(homes[0].path(), &path, architecture, "1");
            let two = build(homes[1].path(), &path, architecture, "3");
            assert!(one == two, "bundles of {minor} for {architecture} differ");
        }
        let home = homes[0].path();
        plain().current_dir(home).args(["keygen", "--no-password", "--out", "k"]).assert().success();
        for architecture in BOTH {
            let bundle = format!("dist/kubernetes-{minor}-{}-{architecture}.bundle", manifest.release.version);
            plain().current_dir(home).args(["sign", &bundle, "--key", "k.key"]).assert().success();
            let verified = plain().current_dir(home).args(["verify", &bundle, "--key", "k.pub"]).assert().success();
            assert!(stdout(&verified).contains("components"));
        }
    }
}
