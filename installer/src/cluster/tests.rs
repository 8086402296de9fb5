use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::pki::tokens::{Token, Tokens};

const CONFIG: &str = r#"
[cluster]
name = "demo"

[[node]]
name = "m1"
address = "10.9.0.1"
roles = ["master"]
"#;

#[test]
fn no_binding_lets_a_token_holder_become_any_node() {
    let mut tokens = Tokens::default();
    tokens.insert("m1", Token::create("2026-11-21T12:00:00Z".parse().unwrap(), Duration::from_secs(60)).unwrap());
    let objects = rbac::objects(&tokens);
    let roles_of = |subject: &str| -> Vec<&str> {
        objects
            .iter()
            .filter(|object| object["subjects"].as_array().is_some_and(|all| all.iter().any(|s| s["name"] == subject)))
            .filter_map(|object| object["roleRef"]["name"].as_str())
            .collect()
    };
    assert_eq!(roles_of("system:bootstrappers:sealift"), ["system:node-bootstrapper"]);
    assert_eq!(
        roles_of("sealift:csr-approver"),
        ["sealift:csr-approver", "sealift:cluster-record", "sealift:spent-tokens"]
    );
    assert!(!Value::from(objects.clone()).to_string().contains(r#""*""#), "no wildcard");
    assert_eq!(roles_of("system:masters"), Vec::<&str>::new());
}

#[test]
fn fields_that_are_not_ours_do_not_count_as_different() {
    let wanted = json!({ "rules": [{ "verbs": ["get"] }], "metadata": { "name": "x" } });
    let found = json!({ "rules": [{ "verbs": ["get"], "extra": 1 }], "metadata": { "name": "x", "uid": "1" } });
    assert!(ensure::holds(&found, &wanted));
    for different in [
        json!({ "rules": [], "metadata": { "name": "x" } }),
        json!({ "rules": [{ "verbs": ["get", "list"] }], "metadata": { "name": "x" } }),
        json!({ "metadata": { "name": "x" } }),
    ] {
        assert!(!ensure::holds(&different, &wanted), "{different}");
    }
}

#[test]
fn a_record_survives_the_disk_and_a_damaged_copy_is_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::under(directory.path());
    let path = Path::new("/var/lib/sealift/agent/cluster.json");
    assert_eq!(Record::cached(&host, path).unwrap(), None);
    let tokens = BTreeMap::from([("abcdef".to_owned(), "m1".to_owned())]);
    let record = Record::new(CONFIG, 3, tokens).unwrap();
    record.keep(&host, path).unwrap();
    assert_eq!(Record::cached(&host, path).unwrap(), Some(record));
    let text = host.read_text(path).unwrap().unwrap();
    host.write(path, text.replace("10.9.0.1", "10.9.0.2").as_bytes(), 0o600).unwrap();
    assert!(Record::cached(&host, path).unwrap_err().to_string().contains("digest"));
}

#[test]
fn a_record_changes_only_when_it_must_and_never_to_another_cluster() {
    let token = |id: &str| BTreeMap::from([(id.to_owned(), "m1".to_owned())]);
    let first = Record::next(None, CONFIG, token("aaaaaa")).unwrap().unwrap();
    assert_eq!(first.generation, 1);
    assert_eq!(Record::next(Some(&first), CONFIG, token("aaaaaa")).unwrap(), None);
    let second = Record::next(Some(&first), CONFIG, token("bbbbbb")).unwrap().unwrap();
    assert_eq!((second.generation, second.tokens.len()), (1, 2));
    let text = format!("{CONFIG}\n[certificates]\nleaf_hours = 100\n");
    assert_eq!(Record::next(Some(&first), &text, BTreeMap::new()).unwrap().unwrap().generation, 2);
    assert!(Record::next(Some(&first), &CONFIG.replace("demo", "other"), BTreeMap::new()).is_err());
}

#[test]
fn a_comment_is_no_change_of_the_record() {
    let first = Record::next(None, CONFIG, BTreeMap::new()).unwrap().unwrap();
    let commented = format!("# Written by hand.\n{CONFIG}");
    assert_eq!(Record::next(Some(&first), &commented, BTreeMap::new()).unwrap(), None);
}

#[test]
fn an_old_config_does_not_make_the_cluster_forget_nodes() {
    let second = "\n[[node]]\nname = \"w7\"\naddress = \"10.9.0.7\"\nroles = [\"worker\"]\n";
    let grown = Record::next(None, &format!("{CONFIG}{second}"), BTreeMap::new()).unwrap().unwrap();
    let error = Record::next(Some(&grown), CONFIG, BTreeMap::new()).unwrap_err();
    assert!(error.to_string().contains("w7"), "{error:#}");
    let first = Record::next(None, CONFIG, BTreeMap::new()).unwrap().unwrap();
    assert_eq!(
        Record::next(Some(&first), &format!("{CONFIG}{second}"), BTreeMap::new()).unwrap().unwrap().generation,
        2
    );
}

#[test]
fn a_spent_token_is_not_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::under(directory.path());
    let config = crate::config::ClusterConfig::parse(CONFIG, Path::new("cluster.toml")).unwrap();
    let wanted = files::Wanted::of(&config, &config.nodes[0]);
    files::write(&host, &files::plan(&host, &wanted, host.now()).unwrap()).unwrap();
    let kinds = |objects: &[Value]| objects.iter().filter(|object| object["kind"] == "Secret").count();
    assert_eq!(kinds(&wanted_objects(&host, &wanted, CONFIG, None).unwrap()), 1);
    let read = |path: &Path| host.read_text(path).unwrap().unwrap();
    let authority =
        Authority::load(&read(&files::certificate_path("ca")), &Secret::new(read(&files::key_path("ca")))).unwrap();
    let mut leaf = wanted.subject.admin();
    leaf.common_name = "system:node:m1".to_owned();
    let kubelet = authority.issue(&leaf, host.now()).unwrap();
    host.create_dir(Path::new("/var/lib/kubelet/pki"), 0o700).unwrap();
    host.write(Path::new(pki::KUBELET_CLIENT), kubelet.certificate.as_bytes(), 0o600).unwrap();
    assert_eq!(kinds(&wanted_objects(&host, &wanted, CONFIG, None).unwrap()), 0);
}
