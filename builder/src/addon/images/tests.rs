use serde_json::json;

use super::*;
use crate::addon::objects;

const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn of(yaml: &str) -> Vec<Value> {
    objects::parse("x", yaml.as_bytes()).unwrap()
}

fn found(yaml: &str) -> Vec<String> {
    images(&of(yaml), &[], &[]).unwrap().iter().map(ToString::to_string).collect()
}

fn said(objects: &[Value], extra: &[&str], ignore: &[&str]) -> String {
    let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    format!("{:#}", images(objects, &own(extra), &own(ignore)).unwrap_err())
}

fn object(kind: &str, rest: &str) -> String {
    format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: a}}\n{rest}")
}

fn pod_spec(kind: &str) -> &'static str {
    match kind {
        "Pod" => "/spec",
        "CronJob" => "/spec/jobTemplate/spec/template/spec",
        "PodTemplate" => "/template/spec",
        _ => "/spec/template/spec",
    }
}

#[test]
fn containers_of_every_kind_of_workload() {
    let kinds = [
        "Pod",
        "PodTemplate",
        "ReplicationController",
        "ReplicaSet",
        "Deployment",
        "StatefulSet",
        "DaemonSet",
        "Job",
        "CronJob",
    ];
    for kind in kinds {
        let spec = json!({
            "initContainers": [{"name": "i", "image": "i:1"}],
            "containers": [{"name": "a", "image": "quay.io/a/a:1"}, {"name": "b", "image": format!("b@sha256:{HEX}")}],
            "ephemeralContainers": [{"name": "e", "image": "e:1"}],
            "volumes": [{"name": "v", "image": {"reference": "quay.io/v/v:1", "pullPolicy": "IfNotPresent"}}],
        });
        let whole =
            pod_spec(kind).rsplit('/').filter(|part| !part.is_empty()).fold(spec, |inner, part| json!({part: inner}));
        let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "a"}});
        object.as_object_mut().unwrap().extend(whole.as_object().unwrap().clone());
        let all = images(&[object.clone()], &[], &[]).unwrap();
        let all: Vec<String> = all.iter().map(ToString::to_string).collect();
        let b = format!("docker.io/library/b@sha256:{HEX}");
        let expected = [b.as_str(), "docker.io/library/e:1", "docker.io/library/i:1", "quay.io/a/a:1", "quay.io/v/v:1"];
        assert_eq!(all, expected, "{kind}");
        for image in ["quay.io/a/a:1", "i:1", "e:1", "quay.io/v/v:1"] {
            assert!(said(&[object.clone()], &[], &[image]).contains("but a container runs it"), "{kind}: {image}");
        }
    }
}

#[test]
fn fields_of_custom_resources() {
    let yaml = object(
        "Prometheus",
        r#"spec:
  image: quay.io/prometheus/prometheus:v3.1.0
  thanos: {baseImage: quay.io/thanos/thanos, version: v0.37.0}
  old: {image: quay.io/old/old, tag: v1}
  more:
    - image: {repository: coredns/coredns, tag: 1.12.0, pullPolicy: IfNotPresent}
    - sidecar: {registry: ghcr.io, repository: a/b, tag: "2", digest: ""}
    - image: {registry: ghcr.io, repository: c/d, digest: "sha256:HEX"}
    - image: {repository: e/f, tag: 1.36}
"#,
    )
    .replace("HEX", HEX);
    assert_eq!(
        found(&yaml),
        [
            "docker.io/coredns/coredns:1.12.0",
            "docker.io/e/f:1.36",
            "ghcr.io/a/b:2",
            &format!("ghcr.io/c/d@sha256:{HEX}"),
            "quay.io/old/old:v1",
            "quay.io/prometheus/prometheus:v3.1.0",
            "quay.io/thanos/thanos:v0.37.0",
        ]
    );
}

#[test]
fn references_in_arguments_environment_and_texts() {
    let yaml = object(
        "Deployment",
        r#"spec:
  template:
    metadata:
      annotations: {sidecar/proxyImage: "quay.io/note/note:1"}
    spec:
      containers:
      - image: quay.io/a/operator:1
        command: [run, --prometheus-config-reloader=quay.io/a/reloader:v0.8, --sidecar-image=busybox:1.36, -helper-image, alpine:3.20]
        args: ["--listen=0.0.0.0:8080", "--upstream=https://quay.io/a/b:v1", "--selector=app.kubernetes.io/name=x"]
        env:
        - {name: RELATED_IMAGE_NODE, value: calico/node:v3}
        - {name: RELATED_IMAGE_CNI, value: "quay.io/calico/cni:v3"}
        - {name: IMAGE_PULL_SECRET, value: nothing}
        - {name: ENDPOINT, value: "busybox:1.35"}
"#,
    ) + "---\n"
        + &object(
            "ConfigMap",
            r#"data:
  a: |
    # the image is quay.io/c/sentence:1.
    containers: [{"image":"quay.io/c/json:1", 'x': 'localhost:5000/c/port:2'}]
    see https://quay.io/c/url:1 or app.kubernetes.io/name: x; example.org/path:
"#,
        )
        + "---\n"
        + &object("Secret", "data: {x: cXVheS5pby9zL3NlY3JldDox}\nstringData: {y: 'image=quay.io/s/plain:1'}\n");
    assert_eq!(
        found(&yaml),
        [
            "docker.io/calico/node:v3",
            "docker.io/library/alpine:3.20",
            "docker.io/library/busybox:1.36",
            "localhost:5000/c/port:2",
            "quay.io/a/operator:1",
            "quay.io/a/reloader:v0.8",
            "quay.io/c/json:1",
            "quay.io/c/sentence:1",
            "quay.io/calico/cni:v3",
            "quay.io/note/note:1",
            "quay.io/s/plain:1",
            "quay.io/s/secret:1",
        ]
    );
}

#[test]
fn a_schema_speaks_of_images_without_needing_them() {
    let yaml = object(
        "CustomResourceDefinition",
        r#"spec:
  versions:
  - schema:
      openAPIV3Schema:
        properties:
          image: {type: string, description: "for example quay.io/x/description:v1", default: "quay.io/x/default:v1"}
          imagePullPolicy: {type: string, enum: [Always]}
          containers:
            items: {properties: {image: {type: string}}}
"#,
    );
    assert_eq!(found(&yaml), ["quay.io/x/default:v1"]);
}

#[test]
fn what_was_applied_last_is_not_needed() {
    let yaml = "apiVersion: v1\nkind: A\nmetadata:\n  name: a\n  annotations:\n    kubectl.kubernetes.io/last-applied-configuration: 'quay.io/old/old:1'\n";
    assert!(found(yaml).is_empty());
}

#[test]
fn images_without_a_version_and_pull_policies_that_need_a_registry_are_refused() {
    let pod = |container: &str| of(&object("Pod", &format!("spec: {{containers: [{container}]}}")));
    for (container, says) in [
        (
            "{image: nginx}",
            "`nginx` has no version: a tag other than `latest`, or a digest, is needed: Pod a /spec/containers/0/image",
        ),
        ("{image: 'quay.io/a/b:latest'}", "has no version"),
        ("{image: 'localhost:5000/a'}", "has no version"),
        (
            "{image: 'nginx:1', imagePullPolicy: Always}",
            "cannot be pulled behind the gap: Pod a /spec/containers/0/imagePullPolicy",
        ),
        ("{image: 'Nginx:1'}", "`Nginx:1` is not an image reference: Pod a /spec/containers/0/image"),
        ("{image: '{{ .Values.image }}'}", "not an image reference"),
    ] {
        assert!(said(&pod(container), &[], &[]).contains(says), "{container}: {}", said(&pod(container), &[], &[]));
    }
    let volume = of(&object("Pod", "spec: {volumes: [{name: v, image: {reference: 'a:1', pullPolicy: Always}}]}"));
    assert!(said(&volume, &[], &[]).contains("/spec/volumes/0/image/pullPolicy"));
    let policy = of(&object("Prometheus", "spec: {imagePullPolicy: Always}"));
    assert!(said(&policy, &[], &[]).contains("/spec/imagePullPolicy"));
    assert!(images(&pod("{image: 'nginx:1', imagePullPolicy: IfNotPresent}"), &[], &[]).is_ok());
    let digest = format!("{{image: 'nginx:latest@sha256:{HEX}'}}");
    assert!(images(&pod(&digest), &[], &[]).is_ok(), "a digest is a version");
}

#[test]
fn needless_images_are_named_and_extra_ones_added() {
    let objects = of(&object("ConfigMap", "data: {a: 'quay.io/a/b:1 quay.io/c/d:latest', image: Ubuntu 22}"));
    let all = said(&objects, &[], &[]);
    assert!(
        all.contains("quay.io/c/d:latest")
            && all.contains("`Ubuntu 22` is not")
            && all.contains("name it in `ignore_images`"),
        "{all}"
    );
    let ignore = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let found = images(&objects, &["busybox:1".to_owned()], &ignore(&["quay.io/c/d:latest", "Ubuntu 22"])).unwrap();
    assert_eq!(
        found.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["docker.io/library/busybox:1", "quay.io/a/b:1"]
    );
    let none = images(&objects, &[], &ignore(&["quay.io/*/*:*", "Ubuntu 22"])).unwrap();
    assert!(none.is_empty());
    assert!(said(&objects, &[], &["quay.io/**", "Ubuntu 22", "stale:1"]).contains("names `stale:1`, which is nowhere"));
    assert!(said(&objects, &["busybox"], &["quay.io/**", "Ubuntu 22"]).contains("`busybox` has no version"));
    assert!(said(&objects, &["Bad:1"], &["quay.io/**", "Ubuntu 22"]).contains("`Bad:1` is not an image reference"));
}

#[test]
fn all_problems_are_reported_together() {
    let objects = of(&object("Pod", "spec: {containers: [{image: a}, {image: b, imagePullPolicy: Always}]}"));
    assert_eq!(said(&objects, &[], &["x:1"]).lines().count(), 4);
}
