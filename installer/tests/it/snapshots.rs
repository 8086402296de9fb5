//! The rendered files of the oldest and the newest release as whole texts, so that a review sees what a change of a template
//! means on a host.

use std::collections::BTreeMap;

use crate::manifests::{self, SETS, Shape};

fn texts(set: manifests::Set, shape: Shape) -> BTreeMap<String, String> {
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for file in manifests::render(set, shape) {
        let text = texts.entry(file.component).or_default();
        *text += &format!("##### {}\n{}", file.name, file.text);
    }
    texts
}

#[test]
fn kubernetes_1_20_on_a_container_with_cgroups_v1() {
    let shape = Shape { master: true, worker: false, cgroup: "v1", mode: "iptables", container: true };
    for (component, text) in texts(SETS[0], shape) {
        insta::assert_snapshot!(format!("1.20-{component}"), text);
    }
}

#[test]
fn kubernetes_1_37_on_a_machine_with_cgroups_v2() {
    let shape = Shape { master: true, worker: false, cgroup: "v2", mode: "nftables", container: false };
    for (component, text) in texts(SETS[5], shape) {
        insta::assert_snapshot!(format!("1.37-{component}"), text);
    }
}
