//! Addons, from the YAML and a registry to the bundle: nothing that the objects need is missing, and nothing is guessed.

use bundle::Digest;

use crate::registry::{Shelf, honest};
use crate::server::Server;
use crate::workshop::{Piece, Workshop, stderr, stdout, tar_gz};

const DNS: &str = r#"apiVersion: v1
kind: ConfigMap
metadata: {name: dns, namespace: kube-system}
data:
  Corefile: |
    .:53 { kubernetes cluster.local }
  net.json: '{"Network": "10.0.0.0/8", "Mode": 0644}'
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: dns, namespace: kube-system}
spec:
  template:
    spec:
      initContainers:
      - {name: init, image: "registry.invalid/team/init:v1"}
      containers:
      - name: dns
        image: registry.invalid/team/dns:v1
        args: [--sidecar=registry.invalid/team/sidecar:v2, --volume-mode, 0644]
"#;

const TABLE: &str = r#"
[addon.dns]
version = "1.0"
url = "https://upstream.invalid/v{version}/dns.yaml"
sha256 = "DIGEST"
[[addon.dns.patch]]
kind = "ConfigMap"
name = "dns"
path = "/data/Corefile"
replace = "cluster.local"
value = "{{ cluster.domain }}"
"#;

/// The workshop's release with addons; their YAML lies where the mirror of `upstream.invalid` leads.
fn with_addons(tables: &str, yaml: &str) -> Workshop {
    let shop = Workshop::new(1000);
    shop.write("release/dns.yaml", yaml.as_bytes());
    let manifest = fs_err::read_to_string(shop.path("release/demo.toml")).unwrap();
    let tables = tables.replace("DIGEST", &Digest::of(yaml.as_bytes()).hex());
    shop.write("release/demo.toml", format!("{manifest}\n{tables}").as_bytes());
    shop
}

fn shelf() -> Shelf {
    let mut shelf = Shelf::default();
    for (seed, image) in ["init:v1", "dns:v1", "sidecar:v2", "web:v3"].into_iter().enumerate() {
        let (name, tag) = image.split_once(':').unwrap();
        shelf.index(&format!("team/{name}"), tag, 10 * (u32::try_from(seed).unwrap() + 1));
    }
    shelf
}

fn lock(shop: &Workshop, registry: &Server) -> assert_cmd::assert::Assert {
    let mirror = format!("https://registry.invalid/={}/", registry.url);
    shop.builder("lock").arg("--mirror").arg(mirror).arg("release/demo.toml").assert()
}

fn lock_text(shop: &Workshop) -> String {
    fs_err::read_to_string(shop.path("release/demo.lock")).unwrap()
}

/// Builds from the cache alone: what is not in the lock cannot get in.
fn fetch_and_build(shop: &Workshop, registry: &Server, out: &str) -> String {
    let mirror = format!("https://registry.invalid/={}/", registry.url);
    shop.builder("fetch").arg("--mirror").arg(mirror).arg("release/demo.toml").assert().success();
    stdout(&shop.build(out).arg("--offline").assert().success())
}

#[test]
fn the_objects_and_every_image_they_name_are_in_the_bundle() {
    let web = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: a, image: 'registry.invalid/team/web:v3'}, {name: b, image: 'registry.invalid/team/dns:v1'}]}\n";
    let config = r#"{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}]}"#;
    let archive = tar_gz(&[
        ("./web-1.0/manifests/b.yaml", Piece::File(web.as_bytes())),
        ("./web-1.0/manifests/a.yaml", Piece::File(b"# nothing\n")),
        ("./web-1.0/manifests/setup/z.json", Piece::File(config.as_bytes())),
        ("./web-1.0/examples/x.yaml", Piece::File(b"not: an object\n")),
    ]);
    let more = format!(
        "{TABLE}\n[addon.web]\nversion = \"1.0\"\nurl = \"https://upstream.invalid/v1.0/web.tar.gz\"\nsha256 = \"{}\"\n\
         files = [\"web-{{version}}/manifests/setup/*\", \"web-{{version}}/manifests/*.yaml\"]\n\
         [component.init]\nversion = \"v1\"\n[[component.init.artifact]]\nimage = \"registry.invalid/team/init:{{version}}\"\n",
        Digest::of(&archive).hex()
    );
    let shop = with_addons(&more, DNS);
    shop.write("release/web.tar.gz", &archive);
    let recipe =
        "name = \"init\"\ndescription = \"x\"\nkind = \"container\"\nroles = [\"master\"]\nlicence = \"MIT\"\n";
    shop.write("release/components/init/component.toml", recipe.as_bytes());
    let registry = honest(shelf());
    lock(&shop, &registry).success();
    let text = lock_text(&shop);
    let count = |what: &str| text.matches(what).count();
    for image in ["init:v1", "dns:v1", "sidecar:v2", "web:v3"] {
        assert_eq!(count(&format!("url = \"image:registry.invalid/team/{image}\"")), 1, "{image}: {text}");
    }
    for line in [
        "[component.addon-dns]",
        "[component.image-team-dns-v1]",
        "[component.image-team-sidecar-v2]",
        "[component.image-team-web-v3]",
        "images = [\"registry.invalid/team/dns:v1\", \"registry.invalid/team/web:v3\"]",
        "made = \"addon\"",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains("image-team-init"), "a component of the manifest brings it: {text}");
    lock(&shop, &registry).success();
    assert_eq!(lock_text(&shop), text, "the same input gives the same lock");

    assert!(fetch_and_build(&shop, &registry, "one").contains("5 packed anew"));
    assert!(fetch_and_build(&shop, &registry, "two").contains("0 packed anew"));
    assert_eq!(fs_err::read(shop.bundle("one")).unwrap(), fs_err::read(shop.bundle("two")).unwrap());

    // The signed list of files stands in the bundle as text.
    let bundle = fs_err::read(shop.bundle("one")).unwrap();
    let signed = String::from_utf8_lossy(&bundle);
    let objects = r#"[{"apiVersion":"v1","data":{"Corefile":".:53 { kubernetes cluster.local }\n","net.json":"{\"Network\": \"10.0.0.0/8\", \"Mode\": 0644}"},"kind":"ConfigMap","metadata":{"name":"dns","namespace":"kube-system"}},{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"dns","namespace":"kube-system"},"spec":{"template":{"spec":{"containers":[{"args":["--sidecar=registry.invalid/team/sidecar:v2","--volume-mode",420],"image":"registry.invalid/team/dns:v1","name":"dns"}],"initContainers":[{"image":"registry.invalid/team/init:v1","name":"init"}]}}}}]"#;
    let patches = r#"[{"object":0,"path":"/data/Corefile","replace":"cluster.local","value":"{{ cluster.domain }}"}]"#;
    let web = r#"[{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"}},{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"spec":{"containers":[{"image":"registry.invalid/team/web:v3","name":"a"},{"image":"registry.invalid/team/dns:v1","name":"b"}]}}]"#;
    for file in [objects, patches, web, "[]"] {
        assert!(signed.contains(&Digest::of(file.as_bytes()).hex()), "{file}");
    }
}

#[test]
fn what_cannot_work_behind_the_gap_is_refused_when_the_lock_is_made() {
    let registry = honest(shelf());
    for (from, to, says) in [
        ("team/dns:v1", "team/dns", "`registry.invalid/team/dns` has no version"),
        ("team/dns:v1\n", "team/dns:v1\n        imagePullPolicy: Always\n", "cannot be pulled behind the gap"),
        ("kubernetes cluster.local", "kubernetes example.org", "0 times in the text at `/data/Corefile`"),
        ("kind: ConfigMap", "kind: Secret", "a patch matches nothing: ConfigMap dns"),
        ("team/sidecar:v2", "team/absent:v2", "registry.invalid/team/absent:v2"),
        ("name: dns, namespace: kube-system}\nspec", "name: '{{ .Release }}'}\nspec", "helm template"),
    ] {
        assert!(DNS.contains(from), "{from}");
        let shop = with_addons(TABLE, &DNS.replacen(from, to, 1));
        let text = stderr(&lock(&shop, &registry).failure());
        assert!(text.contains(says), "{to}: {text}");
        assert!(!shop.path("release/demo.lock").exists());
    }
    let ignored = TABLE.replacen("\n[[", "\nignore_images = [\"registry.invalid/team/absent:v2\"]\n[[", 1);
    let shop = with_addons(&ignored, &DNS.replace("team/sidecar:v2", "team/absent:v2"));
    lock(&shop, &registry).success();
    assert!(!lock_text(&shop).contains("absent"));
}

#[test]
fn digests_of_the_manifest_are_held_against_the_registry() {
    let mut images = shelf();
    let right = images.index("team/dns", "v1", 20);
    let registry = honest(images);
    let table = |image: &str, digest: &Digest| {
        TABLE.replacen("\n[[", &format!("\ndigests = {{ \"{image}\" = \"{digest}\" }}\n[["), 1)
    };
    let wrong = Digest::of(b"wrong");
    let text = stderr(&lock(&with_addons(&table("registry.invalid/team/dns:v1", &wrong), DNS), &registry).failure());
    assert!(text.contains(&right.to_string()) && text.contains(&wrong.to_string()), "{text}");
    let text = stderr(&lock(&with_addons(&table("registry.invalid/team/dns:v2", &right), DNS), &registry).failure());
    assert!(text.contains("`digests` names `registry.invalid/team/dns:v2`, which the addon does not need"), "{text}");
    let shop = with_addons(&table("registry.invalid/team/dns:v1", &right), DNS);
    lock(&shop, &registry).success();
    assert_eq!(lock_text(&shop).matches("proof = \"registry\"").count(), 3, "{}", lock_text(&shop));
}

#[test]
fn yaml_that_is_not_known_or_not_reached_stays_unresolved() {
    let registry = honest(shelf());
    let unknown = with_addons(&TABLE.replace("sha256 = \"DIGEST\"\n", ""), DNS);
    let text = stderr(&lock(&unknown, &registry).success());
    assert!(
        text.contains("addon-dns (amd64): https://upstream.invalid/v1.0/dns.yaml: no sha256 in the manifest"),
        "{text}"
    );
    assert!(stderr(&unknown.build("out").assert().failure()).contains("`addon-dns`: https://upstream.invalid"));

    let shop = with_addons(TABLE, DNS);
    lock(&shop, &registry).success();
    let complete = lock_text(&shop);
    fs_err::remove_dir_all(shop.path("cache")).unwrap();
    fs_err::rename(shop.path("release/dns.yaml"), shop.path("gone.yaml")).unwrap();
    let text = stderr(&shop.builder("lock").args(["--offline", "release/demo.toml"]).assert().success());
    assert!(text.contains("addon-dns (amd64)") && text.contains("its images are not known"), "{text}");
    assert!(!lock_text(&shop).contains("image-team"));
    fs_err::rename(shop.path("gone.yaml"), shop.path("release/dns.yaml")).unwrap();
    lock(&shop, &registry).success();
    assert_eq!(lock_text(&shop), complete);
}

#[test]
fn the_layer_follows_yaml_patches_and_images_and_nothing_else() {
    let registry = honest(shelf());
    let shop = with_addons(TABLE, DNS);
    lock(&shop, &registry).success();
    fetch_and_build(&shop, &registry, "one");
    shop.edit("release/demo.toml", "sequence = 3", "sequence = 4");
    lock(&shop, &registry).success();
    assert!(fetch_and_build(&shop, &registry, "two").contains(" 0 packed anew"));
    shop.edit("release/demo.toml", "{{ cluster.domain }}", "{{ cluster.name }}");
    lock(&shop, &registry).success();
    assert!(fetch_and_build(&shop, &registry, "three").contains(" 1 packed anew"));
    // A lock that somebody shortened or lengthened by hand.
    let (good, image) = (lock_text(&shop), "\"registry.invalid/team/init:v1\", ");
    let more = format!("\"registry.invalid/team/extra:v1\", {image}");
    for (changed, says) in [
        ("", "image-team-init-v1 is `image:registry.invalid/team/init:v1`, which no addon needs"),
        (&more[..], "the lock and the addon's objects differ in `registry.invalid/team/extra:v1`"),
    ] {
        shop.write("release/demo.lock", good.replace(image, changed).as_bytes());
        let text = stderr(&shop.build("four").arg("--offline").assert().failure());
        assert!(text.contains(says), "{text}");
    }
}
