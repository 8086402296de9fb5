//! The components as they lie in `manifests/components`, rendered for a version set and a kind of host.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bundle::component::{Component, Kind, Role, Template, TemplateKind};
use installer::render::Renderer;
use serde::Deserialize;
use serde_json::{Value, json};

/// `manifests/` of the repository.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

/// Versions that go together, oldest first.
pub(crate) const SETS: [Set; 6] = [
    Set { kubernetes: "1.20.2", etcd: "3.4.23", containerd: "1.6.20~ds1", nginx: "1.22.1", pause: "3.2" },
    Set { kubernetes: "1.24.17", etcd: "3.5.3", containerd: "1.6.33", nginx: "1.24.0", pause: "3.7" },
    Set { kubernetes: "1.27.16", etcd: "3.5.7", containerd: "1.7.34", nginx: "1.26.3", pause: "3.9" },
    Set { kubernetes: "1.31.14", etcd: "3.5.33", containerd: "2.0.11", nginx: "1.28.3", pause: "3.10" },
    Set { kubernetes: "1.35.7", etcd: "3.6.14", containerd: "2.2.7", nginx: "1.28.3", pause: "3.10.1" },
    Set { kubernetes: "1.37.1", etcd: "3.7.1", containerd: "2.3.4", nginx: "1.30.5", pause: "3.10.2" },
];

/// Versions that go together.
#[derive(Clone, Copy)]
pub(crate) struct Set {
    pub(crate) kubernetes: &'static str,
    pub(crate) etcd: &'static str,
    pub(crate) containerd: &'static str,
    pub(crate) nginx: &'static str,
    pub(crate) pause: &'static str,
}

impl Set {
    fn version(self, component: &str) -> &'static str {
        match component {
            "etcd" => self.etcd,
            "containerd" => self.containerd,
            "nginx" => self.nginx,
            "pause" => self.pause,
            name if name.starts_with("kube") => self.kubernetes,
            _ => "1.0.0",
        }
    }
}

/// What differs between hosts as far as templates care.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) master: bool,
    pub(crate) worker: bool,
    pub(crate) cgroup: &'static str,
    pub(crate) mode: &'static str,
    pub(crate) container: bool,
}

/// One rendered file.
pub(crate) struct Rendered {
    pub(crate) component: String,
    pub(crate) version: String,
    pub(crate) name: String,
    pub(crate) text: String,
}

#[derive(Deserialize)]
struct Recipe {
    name: String,
    kind: Kind,
    roles: Vec<Role>,
    licence: String,
    #[serde(default)]
    programs: Vec<String>,
    #[serde(default)]
    optional_programs: Vec<String>,
    #[serde(default)]
    modules: Vec<String>,
    #[serde(default)]
    template: Vec<RecipeTemplate>,
}

#[derive(Deserialize)]
struct RecipeTemplate {
    file: String,
    name: String,
    kind: TemplateKind,
}

/// All components in one version set.
pub(crate) fn components(set: Set) -> Vec<Component> {
    let mut paths: Vec<PathBuf> =
        fs_err::read_dir(directory().join("components")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| component(path, set)).collect()
}

fn component(path: &Path, set: Set) -> Component {
    let recipe: Recipe = toml::from_str(&fs_err::read_to_string(path.join("component.toml")).unwrap()).unwrap();
    assert_eq!(path.file_name().unwrap().to_str().unwrap(), recipe.name, "directory and name differ");
    let templates = recipe.template.iter().map(|template| Template {
        name: template.name.parse().unwrap(),
        kind: template.kind,
        text: fs_err::read_to_string(path.join(&template.file)).unwrap(),
    });
    Component {
        version: set.version(&recipe.name).parse().unwrap(),
        name: recipe.name.parse().unwrap(),
        kind: recipe.kind,
        roles: recipe.roles,
        licence: recipe.licence,
        upstream: vec![],
        programs: recipe.programs.iter().chain(&recipe.optional_programs).map(|path| path.parse().unwrap()).collect(),
        modules: recipe.modules,
        templates: templates.collect(),
        packages: vec![],
    }
}

/// The context of a host, as `installer` makes it.
pub(crate) fn context(set: Set, shape: Shape) -> Value {
    let versions: BTreeMap<String, &str> = components(set)
        .iter()
        .map(|component| (component.name.as_str().replace('-', "_"), set.version(component.name.as_str())))
        .chain([("kubernetes".to_owned(), set.kubernetes)])
        .collect();
    json!({
        "versions": versions,
        "cluster": {
            "name": "example", "domain": "cluster.local", "service_cidr": "10.96.0.0/16", "pod_cidr": "10.244.0.0/16",
            "node_cidr_mask": 24, "api_service_ip": "10.96.0.1", "dns_ip": "10.96.0.10", "id": "0123456789ab",
        },
        "node": {
            "name": "m1", "address": "192.0.2.1", "roles": [], "master": shape.master, "worker": shape.worker,
            "cpus": 4, "memory_mib": 8192,
        },
        "masters": [{"name": "m1", "address": "192.0.2.1"}],
        "etcd_members": [{"name": "m1", "address": "192.0.2.1"}],
        "etcd": {
            "name": "m1", "initial_cluster": "m1=https://192.0.2.1:2380", "initial_cluster_state": "new",
            "initial_cluster_token": "example-0123456789ab", "endpoints": "https://192.0.2.1:2379",
            "data_dir": "/var/lib/etcd", "wal_dir": if shape.container { json!("/srv/wal") } else { Value::Null },
            "heartbeat_ms": 100, "election_ms": 1000, "quota_bytes": 2_147_483_648_u64,
        },
        "certificates": {"kubelet_minutes": 525_600},
        "proxy": {"address": "127.0.0.1", "port": 8443},
        "apiserver": {"port": 6443, "bind": "0.0.0.0"},
        "pki": "/etc/sealift/pki",
        "kubeconfig": "/etc/sealift/kubeconfig",
        "secrets": "/etc/sealift/secrets",
        "images": {"pause": format!("registry.example/pause:{}", set.pause)},
        "host": {
            "cgroup": shape.cgroup, "kernel": "6.1.0", "ip_vs": true, "nft": true, "nftables_ok": true,
            "oom_score_adj": !shape.container, "nofile": if shape.container { 20_000 } else { 1_048_576 },
            "resolv_conf": "/etc/resolv.conf", "modules_loadable": !shape.container, "conntrack_writable": !shape.container,
        },
        "kube_proxy": {"mode": shape.mode},
    })
}

/// Everything the components for a host render to.
pub(crate) fn render(set: Set, shape: Shape) -> Vec<Rendered> {
    let components = components(set);
    let renderer = Renderer::new(&context(set, shape), &components).unwrap();
    let mut rendered = Vec::new();
    for component in &components {
        for template in &component.templates {
            rendered.push(Rendered {
                component: component.name.to_string(),
                version: component.version.to_string(),
                name: template.name.to_string(),
                text: renderer.render(component, template).map_err(|error| format!("{error:#}")).unwrap(),
            });
        }
    }
    rendered
}
