//! A made-up addon against an API that plays along.

use std::path::Path;

use bundle::component::Role;
use bundle::{Digest, Image};
use serde_json::{Value, json};

use super::*;
use crate::kubeapi::fake::Server;
use crate::steps::tests::Bed;

fn image(name: &str) -> Image {
    let component = bundle::fake::component(&format!("{PREFIX}{name}"), "1.0", Kind::Addon, &[Role::Master]).unwrap();
    let digest = Digest::of(name.as_bytes());
    let blob = json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd", "digest": digest, "size": 1 });
    serde_json::from_value(json!({
        "component": component, "files": [], "reference": null, "root": blob, "manifest": digest,
        "config": blob, "layers": [blob], "blobs": [blob], "diff_id": digest,
    }))
    .unwrap()
}

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "widgets.example.org" },
        "spec": { "group": "example.org", "names": { "kind": "Widget", "plural": "widgets" },
                  "versions": [{ "name": "v1" }] },
    })
}

fn addon() -> Vec<Value> {
    let of = |version: &str, kind: &str, namespace: Option<&str>| {
        let mut object = json!({ "apiVersion": version, "kind": kind, "metadata": { "name": "x" } });
        if let Some(namespace) = namespace {
            object["metadata"]["namespace"] = namespace.into();
        }
        object
    };
    let mut config = of("v1", "ConfigMap", Some("made-up"));
    config["data"] = json!({ "net": "0.0.0.0/0", "dns": "# none" });
    let mut space = of("v1", "Namespace", None);
    space["metadata"]["name"] = "made-up".into();
    vec![
        of("example.org/v1", "Widget", Some("made-up")),
        config,
        of("networking.k8s.io/v1", "NetworkPolicy", None),
        // A namespace has no place in the path of a kind without namespaces.
        of("networking.k8s.io/v1", "IngressClass", Some("ignored")),
        definition(),
        space,
    ]
}

fn patches() -> Value {
    json!([
        { "object": 1, "path": "/data/net", "value": "{{ cluster.pod_cidr }}" },
        { "object": 1, "path": "/data/dns", "replace": "# none", "value": "forward . {{ cluster.resolvers }}",
          "when": "cluster.resolvers" },
    ])
}

fn put(bed: &Bed, image: &Image, objects: &[Value]) {
    let directory = store::entry_path(image);
    for (file, value) in [(OBJECTS, Value::from(objects.to_vec())), (PATCHES, patches())] {
        bed.host.write(&directory.join(file), value.to_string().as_bytes(), 0o444).unwrap();
    }
}

fn list(server: &Server, version: &str, resources: &[(&str, &str, bool)]) {
    let root = if version == "v1" { "/api/v1".to_owned() } else { format!("/apis/{version}") };
    let resources: Vec<Value> = resources
        .iter()
        .map(|(name, kind, namespaced)| json!({ "name": name, "kind": kind, "namespaced": namespaced }))
        .collect();
    server.put(&root, json!({ "resources": resources }));
}

/// An API with everything but Widgets.
fn server() -> Server {
    let server = Server::start();
    list(
        &server,
        "v1",
        &[("configmaps", "ConfigMap", true), ("namespaces", "Namespace", false), ("pods/status", "Pod", true)],
    );
    list(
        &server,
        "networking.k8s.io/v1",
        &[("networkpolicies", "NetworkPolicy", true), ("ingressclasses", "IngressClass", false)],
    );
    list(&server, "apiextensions.k8s.io/v1", &[("customresourcedefinitions", "CustomResourceDefinition", false)]);
    server
}

/// Lets the API serve Widgets from the second time on that it is asked after the definition was made.
fn serve_widgets(server: &Server) {
    list(server, "example.org/v1", &[("widgets", "Widget", true)]);
    let mut asked = 0;
    server.fault(move |request| {
        asked += usize::from(request == "GET /apis/example.org/v1");
        let absent = json!({ "reason": "NotFound", "message": "the server could not find it" });
        (request == "GET /apis/example.org/v1" && asked < 3).then_some((404, absent))
    });
}

#[test]
fn an_addon_is_applied_once_and_again_only_when_it_changes() {
    let (mut bed, server) = (Bed::new(), server());
    let (client, image) = (server.client(), image("made-up"));
    bed.host.write(Path::new("/etc/resolv.conf"), b"nameserver 127.0.0.53\nnameserver 192.0.2.53\n", 0o644).unwrap();
    put(&bed, &image, &addon());
    bed.images = vec![image.clone()];
    serve_widgets(&server);

    let planned: Vec<String> = missing(&bed.context(), &client).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(planned.len(), 7, "{planned:?}");
    apply(&bed.context(), &client).unwrap();
    assert_eq!(
        server.changes(),
        [
            "POST /api/v1/namespaces/kube-system/configmaps",
            "POST /api/v1/namespaces",
            "POST /apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            "POST /apis/example.org/v1/namespaces/made-up/widgets",
            "POST /api/v1/namespaces/made-up/configmaps",
            "POST /apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
            "POST /apis/networking.k8s.io/v1/ingressclasses",
        ]
    );
    let path = "/api/v1/namespaces/made-up/configmaps/x";
    let mut made = server.object(path).unwrap();
    assert_eq!(made["data"], json!({ "net": "10.244.0.0/16", "dns": "forward . 192.0.2.53" }));

    // What the server or a person adds or changes is not different; another bundle is.
    made["data"]["net"] = "changed by hand".into();
    made["metadata"]["uid"] = "1".into();
    server.put(path, made);
    assert_eq!(missing(&bed.context(), &client).unwrap(), []);
    apply(&bed.context(), &client).unwrap();
    assert_eq!(server.changes().len(), 7);
    let mut newer = addon();
    newer[1]["data"]["more"] = "x".into();
    put(&bed, &image, &newer);
    apply(&bed.context(), &client).unwrap();
    assert_eq!(server.changes()[7..], [format!("PUT {path}")]);
    let made = server.object(path).unwrap();
    assert_eq!((&made["data"]["more"], &made["data"]["net"]), (&json!("x"), &json!("10.244.0.0/16")));
    assert_eq!(made["metadata"]["uid"], "1", "what others put there stays");
}

#[test]
fn masters_agree_about_the_resolvers_and_do_not_overwrite_each_other() {
    let server = server();
    serve_widgets(&server);
    let image = image("made-up");
    let master = |resolvers: &str| {
        let mut bed = Bed::new();
        bed.host.write(Path::new("/etc/resolv.conf"), resolvers.as_bytes(), 0o644).unwrap();
        bed.facts.nameserver = !resolvers.is_empty();
        put(&bed, &image, &addon());
        bed.images = vec![image.clone()];
        bed
    };
    let beds = [master("nameserver 192.0.2.53\n"), master("nameserver 192.0.2.54\n"), master("")];
    std::thread::scope(|scope| {
        for bed in &beds {
            scope.spawn(|| apply(&bed.context(), &server.client()).unwrap());
        }
    });
    let resolvers = server.object("/api/v1/namespaces/kube-system/configmaps/sealift-addons").unwrap();
    let resolvers = resolvers["data"]["resolvers"].as_str().unwrap().to_owned();
    let made = server.object("/api/v1/namespaces/made-up/configmaps/x").unwrap();
    let wanted = if resolvers.is_empty() { "# none".to_owned() } else { format!("forward . {resolvers}") };
    assert_eq!(made["data"]["dns"], wanted.as_str());
    let before = server.changes().len();
    for bed in &beds {
        apply(&bed.context(), &server.client()).unwrap();
        assert_eq!(missing(&bed.context(), &server.client()).unwrap(), []);
    }
    assert_eq!(server.changes().len(), before);
    assert!(!server.changes().iter().any(|change| change.starts_with("PUT")), "{:?}", server.changes());

    let edited = json!({ "data": { "resolvers": "8.8.8.8; rm" } });
    server.put("/api/v1/namespaces/kube-system/configmaps/sealift-addons", edited);
    let error = format!("{:#}", apply(&beds[0].context(), &server.client()).unwrap_err());
    assert!(error.contains("expected numeric addresses"), "{error}");
}

#[test]
fn an_api_that_this_kubernetes_does_not_have_is_named() {
    let (mut bed, server) = (Bed::new(), server());
    server.put("/version", json!({ "gitVersion": "v1.20.2" }));
    let image = image("made-up");
    put(
        &bed,
        &image,
        &[json!({ "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": "x" } })],
    );
    fs_err::write(bed.host.real_path(&store::entry_path(&image).join(PATCHES)), "[]").unwrap();
    bed.images = vec![image];
    for error in [apply(&bed.context(), &server.client()).err(), missing(&bed.context(), &server.client()).err()] {
        let text = crate::report::render(&error.unwrap());
        let expected =
            "PodDisruptionBudget x cannot be made: Kubernetes v1.20.2 has no PodDisruptionBudget in policy/v1";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("hint: `[addons] install` without `made-up`"), "{text}");
    }
}

#[test]
fn the_config_says_which_addons_there_are() {
    let images = [image("coredns"), image("flannel"), image("calico"), image("metrics-server")];
    let names = |more: &str| -> Result<Vec<String>> {
        let text = format!(
            "[cluster]\nname = \"x\"\n[[node]]\nname = \"m1\"\naddress = \"192.0.2.1\"\nroles = [\"master\"]\n{more}"
        );
        let config = ClusterConfig::parse(&text, Path::new("cluster.toml"))?;
        Ok(chosen(&config, &images)?.into_iter().map(|image| name(&image.component).to_owned()).collect())
    };
    assert_eq!(names("").unwrap(), ["coredns", "metrics-server"]);
    assert_eq!(names("[network]\nplugin = \"flannel\"\n").unwrap(), ["flannel", "coredns", "metrics-server"]);
    assert_eq!(names("[addons]\ninstall = []\n").unwrap(), Vec::<String>::new());
    assert_eq!(names("[addons]\ninstall = [\"coredns\"]\n").unwrap(), ["coredns"]);
    for (more, words) in [
        ("[addons]\ninstall = [\"dashboard\"]\n", "the bundle has calico, coredns, flannel, metrics-server"),
        ("[addons]\ninstall = [\"flannel\"]\n", "is a network plugin"),
        ("[addons]\nadd = []\n", "unknown field"),
    ] {
        let error = format!("{:#}", names(more).unwrap_err());
        assert!(error.contains(words), "{error}");
    }
}
