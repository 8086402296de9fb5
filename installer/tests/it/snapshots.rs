//! The rendered files of the oldest and the newest release as whole texts, so that a review sees what a change of a template
//! means on a host.

use std::collections::BTreeMap;

use bundle::component::Role;
use installer::facts::Cgroup;

use crate::manifests::{self, Packets, SETS, Shape};

fn texts(set: manifests::Set, shape: Shape) -> BTreeMap<String, String> {
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for file in manifests::render(set, shape) {
        let text = texts.entry(file.component).or_default();
        text.extend(["##### ", &file.name, "\n", &file.text]);
    }
    texts
}

#[test]
fn kubernetes_1_20_on_a_container_with_cgroups_v1() {
    let shape = Shape {
        roles: &[Role::Master],
        cgroup: Cgroup::V1,
        packets: Packets::Iptables,
        container: true,
        plugin: "bridge",
    };
    for (component, text) in texts(SETS[0], shape) {
        insta::assert_snapshot!(format!("1.20-{component}"), text);
    }
}

#[test]
fn kubernetes_1_37_on_a_machine_with_cgroups_v2() {
    let shape = Shape {
        roles: &[Role::Master],
        cgroup: Cgroup::V2,
        packets: Packets::Nftables,
        container: false,
        plugin: "bridge",
    };
    for (component, text) in texts(SETS[5], shape) {
        insta::assert_snapshot!(format!("1.37-{component}"), text);
    }
}

#[test]
fn containerd_looks_where_other_plugins_than_the_bridge_put_their_programs() {
    let texts = |set, plugin| {
        let (roles, cgroup, packets) = (&[Role::Worker], Cgroup::V2, Packets::Iptables);
        texts(set, Shape { roles, cgroup, packets, container: false, plugin }).remove("containerd").unwrap()
    };
    for set in SETS {
        for plugin in ["flannel", "calico", "none"] {
            let text = texts(set, plugin);
            let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("bin_dir")).collect();
            assert!(
                matches!(lines[..], [r#"bin_dir = "/opt/cni/bin""# | r#"bin_dirs = ["/opt/cni/bin"]"#]),
                "{lines:?}"
            );
        }
        assert!(texts(set, "bridge").contains("\"/opt/sealift/current/cni/bin\""));
    }
}
