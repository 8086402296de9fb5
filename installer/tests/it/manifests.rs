//! The components as they lie in `manifests/components`, rendered for a version set and a kind of host.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bundle::component::{Component, Kind, Role, Template, TemplateKind};
use bundle::{Architecture, Digest, Image};
use installer::config::{ClusterConfig, role_name};
use installer::context::variables;
use installer::facts::{Cgroup, Facts, Modules};
use installer::generation::Generation;
use installer::share::Share;
use serde::Deserialize;
use serde_json::json;

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
    /// As written in `cluster.toml`.
    pub(crate) roles: &'static [Role],
    pub(crate) cgroup: Cgroup,
    /// Tools and modules for kube-proxy.
    pub(crate) packets: Packets,
    /// A container: limits are capped, sysctls belong to somebody else.
    pub(crate) container: bool,
    /// As written in `cluster.toml`.
    pub(crate) plugin: &'static str,
}

/// What a host can do for services.
#[derive(Clone, Copy)]
pub(crate) enum Packets {
    Iptables,
    Ipvs,
    Nftables,
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
fn components(set: Set) -> Vec<Component> {
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
        distribution: None,
        host_programs: BTreeMap::new(),
        images: vec![],
    }
}

/// All components as images of a bundle, blobs left out.
fn images(set: Set) -> Vec<Image> {
    let nothing = json!({"mediaType": "application/octet-stream", "digest": Digest::of(b""), "size": 0});
    let image = |component: Component| {
        let reference = (component.kind == Kind::Container)
            .then(|| format!("registry.example/{}:{}", component.name, component.version));
        let image = json!({
            "component": component, "files": [], "reference": reference, "root": nothing, "manifest": Digest::of(b""),
            "config": nothing, "layers": [], "blobs": [], "diff_id": Digest::of(b""),
        });
        serde_json::from_value(image).unwrap()
    };
    components(set).into_iter().map(image).collect()
}

fn facts(shape: Shape) -> Facts {
    let mut modules = Modules { can_load: !shape.container, ..Modules::default() };
    let mut tools = BTreeMap::new();
    match shape.packets {
        Packets::Iptables => {}
        Packets::Ipvs => {
            modules.loadable = ["ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_sh"].map(ToOwned::to_owned).into();
            tools.insert("ipset".to_owned(), "7.17".to_owned());
        }
        Packets::Nftables => {
            modules.present = ["nf_tables".to_owned()].into();
            tools.insert("nft".to_owned(), "1.0.6".to_owned());
        }
    }
    let sysctls: &[&str] = if shape.container { &[] } else { &["net.netfilter.nf_conntrack_max"] };
    Facts {
        architecture: Some(Architecture::Amd64),
        kernel: "6.1.0".to_owned(),
        container: shape.container.then(|| "systemd-nspawn".to_owned()),
        systemd: true,
        cgroup: shape.cgroup,
        cpus: 4,
        memory_mib: 8192,
        modules,
        oom_score_adj: !shape.container,
        nofile: if shape.container { 20_000 } else { 1 << 20 },
        shared_sysctls: shape.container,
        writable_sysctls: sysctls.iter().map(|name| (*name).to_owned()).collect(),
        tools,
        resolv_conf: "/etc/resolv.conf".into(),
        nameserver: true,
        ..Facts::default()
    }
}

fn config(shape: Shape) -> ClusterConfig {
    let wal = if shape.container { "wal_dir = \"/srv/wal\"" } else { "" };
    let roles: Vec<&str> = shape.roles.iter().map(|role| role_name(*role)).collect();
    let text = format!(
        "[cluster]\nname = \"example\"\n[etcd]\n{wal}\n[network]\nplugin = \"{}\"\n\
         [[node]]\nname = \"m1\"\naddress = \"192.0.2.1\"\nroles = [\"master\"]\n\
         [[node]]\nname = \"n1\"\naddress = \"192.0.2.2\"\nroles = {roles:?}\n",
        shape.plugin
    );
    ClusterConfig::parse(&text, Path::new("cluster.toml")).unwrap()
}

/// Everything a host gets, as the installer renders it.
pub(crate) fn render(set: Set, shape: Shape) -> Vec<Rendered> {
    let (images, config) = (images(set), config(shape));
    let node = &config.nodes[1];
    let variables = variables(&config, node, &facts(shape), &images);
    let concerns = Share { roles: &node.roles, distribution: "debian-12" };
    let generation = Generation::render(Digest::of(b"index"), &images, concerns, &variables)
        .map_err(|error| format!("{error:#}"))
        .unwrap();
    let mut rendered = Vec::new();
    for component in images.iter().map(|image| &image.component).filter(|component| concerns.has(component)) {
        for template in &component.templates {
            let name = template.name.as_str();
            let text = match template.kind {
                TemplateKind::Unit => generation.unit(name),
                TemplateKind::Config => generation.config(component.name.as_str(), name),
            };
            rendered.push(Rendered {
                component: component.name.to_string(),
                version: component.version.to_string(),
                name: name.to_owned(),
                text: String::from_utf8(text.unwrap().to_vec()).unwrap(),
            });
        }
    }
    rendered
}
