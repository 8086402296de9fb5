use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::fixture::cluster_toml;
use crate::kubeapi::fake::Server;
use crate::pki::tokens::{Token, Tokens};

const RECORD: &str = "/api/v1/namespaces/kube-system/configmaps/sealift-cluster";
const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";
const ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/roles/sealift:spent-tokens";

const CONFIG: &str = cluster_toml!(
    "demo",
    "m1" "10.9.0.1" ["master"],
);

#[test]
fn no_binding_lets_a_token_holder_become_any_node() {
    let objects = rbac::objects(&["abcdef".to_owned()]);
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
    let nodes = roles_of("system:nodes");
    assert!(!nodes.iter().any(|role| role.contains("nodeclient")), "the approver renews, for nodes of the config only");
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

const SECOND: &str = "\n[[node]]\nname = \"w7\"\naddress = \"10.9.0.7\"\nroles = [\"worker\"]\n";

fn token(id: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(id.to_owned(), "m1".to_owned())])
}

fn first() -> Record {
    Record::next(None, CONFIG, token("aaaaaa")).unwrap().unwrap()
}

#[test]
fn a_record_changes_only_when_it_must() {
    let first = first();
    assert_eq!(first.generation, 1);
    assert_eq!(Record::next(Some(&first), CONFIG, token("aaaaaa")).unwrap(), None);
    let second = Record::next(Some(&first), CONFIG, token("bbbbbb")).unwrap().unwrap();
    assert_eq!((second.generation, second.tokens.len()), (1, 2));
    let commented = format!("# Written by hand.\n{CONFIG}");
    assert_eq!(Record::next(Some(&first), &commented, BTreeMap::new()).unwrap(), None, "a comment is no change");
    for added in [SECOND, "\n[certificates]\nleaf_hours = 100\n"] {
        let next = Record::next(Some(&first), &format!("{CONFIG}{added}"), BTreeMap::new()).unwrap().unwrap();
        assert_eq!(next.generation, 2, "{added}");
        assert_eq!(next.tokens, first.tokens, "tokens of others stay");
    }
}

#[test]
fn what_never_changes_and_what_only_commands_change_is_refused() {
    let grown = Record::new(&format!("{CONFIG}{SECOND}"), 4, BTreeMap::new()).unwrap();
    for (from, to, words, hint) in [
        ("\"demo\"", "\"other\"", "has name `demo`", "another cluster"),
        ("\"demo\"", "\"demo\"\ndomain = \"x.y\"", "has domain `cluster.local`", "can never change"),
        ("\"demo\"", "\"demo\"\npod_cidr = \"10.200.0.0/16\"", "pod_cidr `10.244.0.0/16`", "can never change"),
        ("10.9.0.7", "10.9.0.8", "node `w7` has the address 10.9.0.7", "node set-address w7 10.9.0.8"),
        ("\"worker\"", "\"worker\", \"etcd\"", "node `w7` has the roles worker", "installer node remove w7"),
        (SECOND, "", "lacks node `w7`", "installer node remove w7"),
    ] {
        let text = format!("{CONFIG}{SECOND}").replacen(from, to, 1);
        let error = Record::next(Some(&grown), &text, BTreeMap::new()).unwrap_err();
        let rendered = crate::report::render(&error);
        assert!(rendered.contains(words) && rendered.contains(hint), "{rendered}");
    }
}

#[test]
fn an_older_config_is_refused_even_if_it_would_only_change_settings() {
    let mut record = first();
    record.set_config(&format!("{CONFIG}\n[certificates]\nleaf_hours = 100\n")).unwrap();
    let error = Record::next(Some(&record), CONFIG, BTreeMap::new()).unwrap_err();
    assert!(crate::report::render(&error).contains("installer config show"), "{error:#}");
    // Going back with a command (an address that is changed back) makes it the present one again.
    record.set_config(CONFIG).unwrap();
    assert_eq!(record.generation, 3);
    assert_eq!(Record::next(Some(&record), CONFIG, BTreeMap::new()).unwrap(), None);
}

#[test]
fn a_copy_from_before_there_was_a_history_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::under(directory.path());
    let path = Path::new("/var/lib/sealift/agent/cluster.json");
    first().keep(&host, path).unwrap();
    let mut stored: Value = serde_json::from_str(&host.read_text(path).unwrap().unwrap()).unwrap();
    stored.as_object_mut().unwrap().retain(|key, _| key != "history" && key != "revoked");
    host.write(path, stored.to_string().as_bytes(), 0o600).unwrap();
    assert_eq!(Record::cached(&host, path).unwrap(), Some(first()));
}

#[test]
fn a_revoked_token_does_not_come_back_with_a_host_that_still_has_it() {
    let mut record = first();
    record.revoke("aaaaaa");
    assert_eq!(Record::next(Some(&record), CONFIG, token("aaaaaa")).unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Several writers at once, and an API server that now and then refuses a write or loses its answer.
    #[test]
    fn no_update_is_ever_lost(writers in 1_u64..6, edits in 1_u64..5, every in 2_usize..7) {
        let server = Server::start();
        server.put(RECORD, first().object().unwrap());
        let mut count = 0;
        server.fault(move |request| {
            count += usize::from(request.starts_with("PUT "));
            (request.starts_with("PUT ") && count % every == 0).then(|| (409, json!({"reason": "Conflict"})))
        });
        std::thread::scope(|scope| {
            for writer in 0..writers {
                let client = server.client();
                scope.spawn(move || {
                    for edit in 0..edits {
                        Record::change(&client, |record| {
                            record.tokens.insert(format!("{writer}-{edit}"), "m1".to_owned());
                            let text = format!("{}# {writer}-{edit}\n", record.text());
                            record.set_config(&text)
                        }).unwrap();
                    }
                });
            }
        });
        let held = Record::read(&server.client()).unwrap().unwrap();
        prop_assert_eq!(held.generation, 1 + writers * edits);
        prop_assert_eq!(held.tokens.len() as u64, 1 + writers * edits);
        for (writer, edit) in (0..writers).flat_map(|writer| (0..edits).map(move |edit| (writer, edit))) {
            let line = format!("# {writer}-{edit}\n");
            prop_assert!(held.text().contains(&line));
        }
    }
}

#[test]
fn a_record_that_is_always_changed_by_others_ends_in_an_error_and_an_unchanged_one_is_not_written() {
    let server = Server::start();
    server.put(RECORD, first().object().unwrap());
    Record::change(&server.client(), |_| Ok(())).unwrap();
    assert_eq!(server.changes(), [""; 0]);
    server.fault(|request| request.starts_with("PUT ").then(|| (409, json!({}))));
    let error = Record::change(&server.client(), |record| {
        record.generation += 1;
        Ok(())
    });
    assert!(error.unwrap_err().to_string().contains("by others"));
}

/// A master that knows some tokens, all of them made by the first.
fn master(directory: &Path, tokens: &Tokens) -> (Host, files::Wanted) {
    let host = Host::under(directory);
    let config = crate::config::ClusterConfig::parse(CONFIG, Path::new("cluster.toml")).unwrap();
    let wanted = files::Wanted::of(&config, &config.nodes[0]);
    for path in files::DIRECTORIES {
        host.create_dir(Path::new(path), 0o700).unwrap();
    }
    let authority = Authority::create(AuthorityName::Cluster, "demo", host.now()).unwrap();
    let write = |path: &Path, text: &str| host.write(path, text.as_bytes(), 0o600).unwrap();
    write(&files::certificate_path("ca"), &authority.pair().certificate);
    write(&files::key_path("ca"), authority.pair().key.expose());
    write(Path::new(files::TOKENS), tokens.write().unwrap().expose());
    (host, wanted)
}

fn tokens(now: Timestamp, nodes: &[(&str, u64)]) -> Tokens {
    let mut tokens = Tokens::default();
    for (node, seconds) in nodes {
        tokens.insert(node, Token::create(now, Duration::from_secs(*seconds)).unwrap());
    }
    tokens
}

#[test]
fn masters_that_bootstrap_at_the_same_time_agree() {
    let server = Server::start();
    let directories: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let now = Host::under(directories[0].path()).now();
    let contributions: Vec<_> = directories
        .iter()
        .enumerate()
        .map(|(index, directory)| {
            let nodes = [("m1", 9000), (["w1", "w2", "w3"][index], 9000), ("old", 0)];
            let (host, wanted) = master(directory.path(), &tokens(now, &nodes));
            Contribution::of(&host, &wanted, CONFIG).unwrap()
        })
        .collect();
    std::thread::scope(|scope| {
        for contribution in &contributions {
            let client = server.client();
            scope.spawn(move || contribution.make(&client).unwrap());
        }
    });
    // Whoever comes later finds nothing to do: they do not undo each other.
    let before = server.changes().len();
    for contribution in &contributions {
        assert_eq!(contribution.differences(&server.client()).unwrap(), []);
        contribution.make(&server.client()).unwrap();
    }
    assert_eq!(server.changes().len(), before);
    let held = Record::read(&server.client()).unwrap().unwrap();
    assert_eq!((held.generation, held.tokens.len()), (1, 6), "expired ones are not registered");
    let role = server.object(ROLE).unwrap();
    assert_eq!(role["rules"][0]["resourceNames"].as_array().unwrap().len(), 6);
}

#[test]
fn a_spent_or_revoked_token_is_not_made_again_by_a_host_that_still_has_it() {
    let (server, directory) = (Server::start(), tempfile::tempdir().unwrap());
    let known = tokens(Host::under(directory.path()).now(), &[("m1", 9000), ("w1", 9000)]);
    let (host, wanted) = master(directory.path(), &known);
    let contribution = Contribution::of(&host, &wanted, CONFIG).unwrap();
    contribution.make(&server.client()).unwrap();
    let secret = |node: &str| format!("{SECRETS}/{}", known.get(node).unwrap().object_name());
    assert!(server.object(&secret("m1")).is_some() && server.object(&secret("w1")).is_some());
    for node in ["m1", "w1"] {
        server.client().delete(&secret(node)).unwrap();
    }
    contribution.make(&server.client()).unwrap();
    assert!(server.object(&secret("w1")).is_none(), "w1 has used it");
    assert!(server.object(&secret("m1")).is_some(), "this host has not joined");

    Record::change(&server.client(), |record| {
        record.revoke(&known.get("m1").unwrap().id);
        Ok(())
    })
    .unwrap();
    server.client().delete(&secret("m1")).unwrap();
    contribution.make(&server.client()).unwrap();
    assert!(server.object(&secret("m1")).is_none(), "revoked");

    let authority = Authority::load(
        &read(&host, &files::certificate_path("ca")),
        &Secret::new(read(&host, &files::key_path("ca"))),
    )
    .unwrap();
    let mut leaf = wanted.subject.admin();
    leaf.common_name = "system:node:m1".to_owned();
    let kubelet = authority.issue(&leaf, host.now()).unwrap();
    host.create_dir(Path::new("/var/lib/kubelet/pki"), 0o700).unwrap();
    host.write(Path::new(pki::KUBELET_CLIENT), kubelet.certificate.as_bytes(), 0o600).unwrap();
    let joined = Contribution::of(&host, &wanted, CONFIG).unwrap();
    assert_eq!(joined.secrets(None).len(), 1, "only w1's: this host has joined");
}

/// The record does not grow for ever; what could still be made valid again is remembered.
#[test]
fn tokens_that_ended_long_ago_are_forgotten_when_the_record_is_written_anyway() {
    let now: Timestamp = "2026-01-10T00:00:00Z".parse().unwrap();
    let days_ago = |days: i64| now - jiff::SignedDuration::from_hours(24 * days);
    let mut record = Record::new(
        CONFIG,
        1,
        ["spent1", "gone22", "fresh3", "older4"].map(|id| (id.to_owned(), "m1".to_owned())).into(),
    )
    .unwrap();
    record.note_ends(
        [
            ("spent1", days_ago(3)),
            ("gone22", days_ago(2)),
            ("fresh3", now - jiff::SignedDuration::from_hours(20)),
            ("alien5", now),
        ]
        .map(|(id, end)| (id.to_owned(), end)),
    );
    record.revoke("gone22");
    let server = Server::start();
    server.put(RECORD, record.object().unwrap());
    let stored = Record::read(&server.client()).unwrap().unwrap();
    assert_eq!(stored, record, "it survives the cluster");
    let mut after = stored;
    after.forget_ended(now);
    // Nobody said when the fourth ends.
    assert_eq!(after.tokens.keys().collect::<Vec<_>>(), ["fresh3", "older4"]);
    assert!(after.revoked.is_empty() && record.revoked.contains("gone22"));
    after.forget_ended(now + jiff::SignedDuration::from_hours(25));
    assert_eq!(after.tokens.keys().collect::<Vec<_>>(), ["older4"]);
}

#[test]
fn a_master_forgets_them_too_but_does_not_write_the_record_for_that() {
    let directory = tempfile::tempdir().unwrap();
    let known = tokens(Host::under(directory.path()).now(), &[("m1", 9000)]);
    let (host, wanted) = master(directory.path(), &known);
    let contribution = Contribution::of(&host, &wanted, CONFIG).unwrap();
    let mut found = contribution.register(None).unwrap().unwrap();
    found.tokens.insert("spent1".to_owned(), "m1".to_owned());
    found.note_ends([("spent1".to_owned(), host.now() - jiff::SignedDuration::from_hours(48))]);
    assert_eq!(contribution.register(Some(&found)).unwrap(), None);
    found.tokens.remove(&known.get("m1").unwrap().id);
    let next = contribution.register(Some(&found)).unwrap().unwrap();
    assert_eq!(next.tokens, known.nodes_by_id());
}

#[test]
fn the_only_member_tells_of_its_own_move_and_nobody_else_may_by_editing() {
    let (server, directory) = (Server::start(), tempfile::tempdir().unwrap());
    let (host, wanted) = master(directory.path(), &Tokens::default());
    Contribution::of(&host, &wanted, CONFIG).unwrap().make(&server.client()).unwrap();
    let moved = CONFIG.replace("10.9.0.1", "10.9.0.99");
    let edited = Contribution::of(&host, &wanted, &moved).unwrap();
    assert!(edited.make(&server.client()).unwrap_err().to_string().contains("has the address 10.9.0.1"));
    known::Moved { node: "m1".to_owned(), address: "10.9.0.99".parse().unwrap(), generation: 2 }.write(&host).unwrap();
    let noted = Contribution::of(&host, &wanted, &moved).unwrap();
    noted.make(&server.client()).unwrap();
    let held = Record::read(&server.client()).unwrap().unwrap();
    assert_eq!((held.generation, held.text(), held.moving.len()), (2, moved.as_str(), 0));
    assert_eq!(noted.differences(&server.client()).unwrap(), []);
}

#[test]
fn a_master_that_was_announced_is_known_to_have_arrived_when_it_bootstraps() {
    let (server, directory) = (Server::start(), tempfile::tempdir().unwrap());
    let (host, wanted) = master(directory.path(), &Tokens::default());
    Contribution::of(&host, &wanted, CONFIG).unwrap().make(&server.client()).unwrap();
    let told =
        Record::change(&server.client(), |record| record.move_node("m1", "10.9.0.99".parse().unwrap()).map(drop))
            .unwrap();
    assert_eq!(told.moving.len(), 1);
    Contribution::of(&host, &wanted, told.text()).unwrap().make(&server.client()).unwrap();
    let held = Record::read(&server.client()).unwrap().unwrap();
    assert_eq!((held.generation, held.moving.len()), (2, 0));
}

fn read(host: &Host, path: &Path) -> String {
    host.read_text(path).unwrap().unwrap()
}
