//! Who founds a cluster, and which join files a host takes: preflight, before anything is touched.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::commands::found;
use crate::fixture::cluster_toml;
use crate::join::Join;

const TWO: &str = cluster_toml!(
    "test",
    "m1" "192.0.2.1" ["master"],
    "m2" "192.0.2.2" ["master"],
    "w1" "192.0.2.3" ["worker"],
);

fn bed(config: &str, node: &str) -> Bed {
    let mut bed = Bed::new();
    bed.config = ClusterConfig::parse(config, Path::new("cluster.toml")).unwrap();
    // On loopback here, so that nobody answers there unless a test does.
    bed.config.nodes[1].address = "127.0.0.9".parse().unwrap();
    bed.node = bed.config.nodes.iter().find(|candidate| candidate.name == node).unwrap().clone();
    bed.roles = bed.node.roles.clone();
    bed
}

fn joins(config: &str, bed: &Bed) -> Vec<Join> {
    let parsed = ClusterConfig::parse(config, Path::new("cluster.toml")).unwrap();
    found(&parsed, config, bed.host.now(), bed.host.now() + Duration::from_secs(3600)).unwrap()
}

/// What preflight says of secrets and founding with this join file, in one text; empty when it is content.
fn refused(bed: &Bed, join: Option<&Join>, init: bool) -> String {
    let context = Context { join, init, ..bed.context() };
    match Preflight.check(&context) {
        Ok(_) => String::new(),
        Err(error) => {
            assert_eq!(exit_of(&error), Exit::Preflight);
            let text = format!("{error:#}");
            let ours = |line: &&str| ["secrets", "founding", "join file"].iter().any(|word| line.contains(word));
            text.lines().filter(ours).collect::<Vec<_>>().join("\n")
        }
    }
}

#[test]
fn only_the_first_master_founds_a_cluster_or_the_one_that_is_told_to() {
    assert_eq!(refused(&bed(TWO, "m1"), None, false), "");
    let text = refused(&bed(TWO, "m2"), None, false);
    assert!(text.contains("found none") && text.contains("installer join-file --node m2"), "{text}");
    assert_eq!(refused(&bed(TWO, "m2"), None, true), "", "--init");
    for init in [false, true] {
        let text = refused(&bed(TWO, "w1"), None, init);
        assert!(text.contains("installer join-file --node w1"), "{text}");
    }
}

#[test]
fn a_cluster_with_etcd_nodes_of_its_own_needs_its_secrets_made_beforehand() {
    let dedicated = TWO.replace("[\"worker\"]", "[\"worker\", \"etcd\"]");
    for (node, word) in [("m1", "for all nodes with"), ("w1", "for all nodes with"), ("m2", "join-file --node m2")] {
        let text = refused(&bed(&dedicated, node), None, false);
        assert!(text.contains("installer secrets create") && text.contains(word), "{text}");
    }
}

#[test]
fn nobody_founds_a_second_cluster_while_another_master_answers() {
    let mut bed = bed(TWO, "m1");
    // An address of its own: the other tests run at the same time.
    bed.config.nodes[1].address = "127.0.0.10".parse().unwrap();
    assert_eq!(refused(&bed, None, false), "");
    for port in [6443, 2379] {
        let listener = TcpListener::bind(("127.0.0.10", port)).unwrap();
        let text = refused(&bed, None, false);
        assert!(text.contains(&format!("answers already: 127.0.0.10:{port}")), "{text}");
        assert!(text.contains("installer join-file --node m1"), "{text}");
        drop(listener);
    }
}

#[test]
fn a_run_that_began_with_a_join_file_founds_nothing_when_it_goes_on_without() {
    let bed = bed(TWO, "m1");
    for init in [false, true] {
        let context = Context { joined: true, init, ..bed.context() };
        let text = format!("{:#}", Preflight.check(&context).expect_err("preflight lets it found a cluster"));
        assert!(text.contains("it was given a join file") && text.contains("with `--join FILE` again"), "{text}");
        assert!(Pki.check(&context).is_err(), "the pki step would found a cluster");
        assert!(Pki.apply(&context).is_err() && !bed.host.exists(Path::new("/etc/sealift/pki/ca.crt")).unwrap());
    }
    // With its file it goes on; and what it has taken in it needs no more.
    let join = joins(TWO, &bed).into_iter().find(|join| join.node == "m1").unwrap();
    let context = Context { join: Some(&join), joined: true, ..bed.context() };
    Preflight.check(&context).unwrap();
    Pki.apply(&context).unwrap();
    let context = Context { joined: true, ..bed.context() };
    Preflight.check(&context).unwrap();
    assert_eq!(Pki.check(&context).unwrap(), Check::Done);
}

#[test]
fn a_host_that_has_its_secrets_needs_no_file_and_founds_nothing_else() {
    let bed = bed(TWO, "w1");
    let join = joins(TWO, &bed).into_iter().find(|join| join.node == "w1").unwrap();
    bed.put(founding::PATH, join.founding.write().unwrap().expose());
    assert_eq!(refused(&bed, None, false), "");
    assert!(refused(&bed, None, true).contains("leave `--init` out"));
}

#[test]
fn a_join_file_of_another_node_role_or_cluster_is_refused() {
    let bed = bed(TWO, "w1");
    let all = joins(TWO, &bed);
    let of = |node: &str, all: &[Join]| all.iter().find(|join| join.node == node).unwrap().clone();
    let own = of("w1", &all);
    assert_eq!(refused(&bed, Some(&own), false), "");
    let text = refused(&bed, Some(&of("m2", &all)), false);
    assert!(text.contains("found one for node `m2`; needed: one for `w1`"), "{text}");

    let changed = TWO.replace("[\"worker\"]", "[\"worker\", \"etcd\"]");
    let text = refused(&bed, Some(&of("w1", &joins(&changed, &bed))), false);
    assert!(text.contains("found one for the roles worker,etcd; needed: one for worker"), "{text}");
    let changed = TWO.replace("name = \"test\"", "name = \"other\"");
    let text = refused(&bed, Some(&of("w1", &joins(&changed, &bed))), false);
    assert!(text.contains("found one of cluster `other`; needed: one of cluster `test`"), "{text}");

    // Of another founding of the very same config.
    bed.put(founding::PATH, own.founding.write().unwrap().expose());
    assert_eq!(refused(&bed, Some(&own), false), "");
    let text = refused(&bed, Some(&of("w1", &joins(TWO, &bed))), false);
    assert!(text.contains("of another cluster than this host belongs to"), "{text}");
    assert!(text.contains("installer reset"), "{text}");

    bed.put("/etc/sealift/pki/ca.crt", "another authority");
    let text = refused(&bed, Some(&own), false);
    assert!(text.contains("`/etc/sealift/pki/ca.crt` is not the one of the join file"), "{text}");
    assert!(text.contains("leave `--join` out"), "{text}");
}

#[test]
fn the_pki_step_takes_a_join_file_in_once() {
    let bed = bed(TWO, "w1");
    let join = joins(TWO, &bed).into_iter().find(|join| join.node == "w1").unwrap();
    let context = Context { join: Some(&join), ..bed.context() };
    let Check::Needed(changes) = Pki.check(&context).unwrap() else { panic!("nothing to do on a fresh host") };
    assert_eq!(changes.len(), 5, "{changes:?}");
    assert!(Pki.touches(&context).unwrap().len() == 5);
    Pki.apply(&context).unwrap();
    assert_eq!(Pki.check(&context).unwrap(), Check::Done);
    assert_eq!(Pki.check(&bed.context()).unwrap(), Check::Done, "and needs it no more");
}
