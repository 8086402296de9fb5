//! What containerd is given: images out of the store, programs of network plugins.

use std::path::Path;
use std::sync::{Arc, Mutex};

use super::*;
use crate::steps::containerd::Containerd;
use crate::steps::images::{self, Images};

/// A container image of three blobs, which lie in the bed's store.
pub(super) fn image(bed: &Bed) -> Image {
    let blobs: Vec<serde_json::Value> = [("manifest", "{}"), ("config", "{\"a\":1}"), ("layer", "layer bytes")]
        .into_iter()
        .map(|(kind, content)| {
            let digest = Digest::of(content.as_bytes());
            bed.put(images::blob_path(&digest).to_str().unwrap(), content);
            json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": content.len()})
        })
        .collect();
    serde_json::from_value(json!({
        "component": {
            "name": "pause", "version": "3.2", "kind": "container", "roles": ["master"], "licence": "Apache-2.0", "upstream": [],
        },
        "files": [],
        "reference": "sealift.invalid/pause:3.2",
        "root": blobs[0],
        "manifest": blobs[0]["digest"],
        "config": blobs[1],
        "layers": [blobs[2]],
        "blobs": blobs,
        "diff_id": null,
    }))
    .unwrap()
}

const CTR: &str = "/opt/sealift/current/containerd/bin/ctr --namespace=k8s.io images";

#[test]
fn images_are_streamed_out_of_the_store_and_pinned_once() {
    let mut bed = Bed::new();
    bed.images = vec![image(&bed)];
    let digest = bed.images[0].root.digest;
    let known: Arc<Mutex<Vec<&'static str>>> = Arc::default();
    let fake = bed.host.fake();
    let (seen, imported) = (Arc::clone(&known), Arc::clone(&known));
    fake.answer(&format!("{CTR} list"), move |_| {
        let labels = seen.lock().unwrap().join(",");
        Reply::ok(if labels.is_empty() {
            String::new()
        } else {
            format!("REF TYPE DIGEST SIZE PLATFORMS LABELS\nsealift.invalid/pause:3.2 t {digest} 1 KiB linux/amd64 {labels}\n")
        })
    });
    fake.on(&format!("{CTR} check"), Reply::ok("REF\nsealift.invalid/pause:3.2 t d complete (3/3) 1 KiB/1 KiB true\n"));
    fake.answer(&format!("{CTR} import"), move |_| {
        imported.lock().unwrap().push("managed");
        Reply::ok("")
    });
    fake.answer(&format!("{CTR} label"), move |_| {
        known.lock().unwrap().push("io.cri-containerd.pinned=pinned");
        Reply::ok("")
    });
    assert_eq!(bed.changes(&Images), ["import image sealift.invalid/pause:3.2 (20 B)"]);
    Images.apply(&bed.context()).unwrap();
    assert_eq!(Images.check(&bed.context()).unwrap(), Check::Done);
    let inputs = bed.host.fake().inputs();
    let layout = &inputs.iter().find(|(line, _)| line.contains("import")).unwrap().1;
    for part in ["oci-layout", "io.containerd.image.name", "sealift.invalid/pause:3.2", "layer bytes"] {
        assert!(layout.windows(part.len()).any(|window| window == part.as_bytes()), "`{part}` is not in the layout");
    }
}

#[test]
fn a_blob_that_changed_in_the_store_is_not_imported() {
    let mut bed = Bed::new();
    bed.images = vec![image(&bed)];
    bed.host.fake().on(CTR, Reply::ok(""));
    let layer = bed.images[0].layers[0].digest;
    bed.put(images::blob_path(&layer).to_str().unwrap(), "layer bytez");
    let error = format!("{:#}", Images.apply(&bed.context()).unwrap_err());
    assert!(
        error.contains("sealift.invalid/pause:3.2") && error.contains("does not hold what its name says"),
        "{error}"
    );
    assert!(!bed.host.fake().commands().iter().any(|command| command.contains("label")), "pinned all the same");
}

#[test]
fn an_addon_as_network_finds_the_programs_of_the_bundle_beside_its_own() {
    let mut bed = Bed::new();
    bed.desired = generation("containerd", "containerd.service", UNIT, "digest-1");
    bed.host.fake().on(
        "/opt/sealift/current/containerd/bin/ctr --namespace=k8s.io plugins list",
        Reply::ok("TYPE ID PLATFORMS STATUS\nio.containerd.grpc.v1 cri linux/amd64 ok\n"),
    );
    let cni = bed.components.iter_mut().find(|component| component.name.as_str() == "cni").unwrap();
    cni.programs = ["bin/bridge", "bin/loopback"].map(|path| path.parse().unwrap()).into();
    let links = |bed: &Bed| bed.changes(&Containerd).into_iter().filter(|line| line.contains("/opt/cni")).count();
    assert_eq!(links(&bed), 0, "the built-in bridge needs none");

    bed.put("/opt/cni/bin/loopback", "somebody's");
    // A person's plugin needs them as much as an addon.
    for plugin in [crate::config::Plugin::None, crate::config::Plugin::Flannel] {
        bed.config.network.plugin = plugin;
        assert_eq!(links(&bed), 1, "{plugin:?}");
    }
    let targets = Containerd.touches(&bed.context()).unwrap();
    assert!(targets.contains(&Target::File("/opt/cni/bin/bridge".into())), "{targets:?}");
    Containerd.apply(&bed.context()).unwrap();
    assert_eq!(bed.changes(&Containerd), Vec::<String>::new());
    let target = bed.host.link_target(Path::new("/opt/cni/bin/bridge")).unwrap().unwrap();
    assert_eq!(target, Path::new("/opt/sealift/current/cni/bin/bridge"));
    assert_eq!(bed.host.entry(Path::new("/opt/cni/bin")).unwrap().unwrap().mode, 0o755);
    assert_eq!(bed.host.read_text(Path::new("/opt/cni/bin/loopback")).unwrap().unwrap(), "somebody's");
}
