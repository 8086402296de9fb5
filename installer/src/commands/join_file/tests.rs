use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::super::token::{Listed, State, list, revoke};
use super::*;
use crate::fixture::cluster_toml;
use crate::kubeapi::fake::Server;
use crate::pki::files::{self, Origin, TOKENS};
use crate::report::{exit_of, render};

const CONFIG: &str = cluster_toml!(
    "site",
    "m1" "192.0.2.1" ["master"],
    "m2" "192.0.2.2" ["master"],
    "w1" "192.0.2.3" ["worker"],
);

const HOUR: Duration = Duration::from_secs(3600);

/// The first master of a cluster that runs: its secrets on a host, its record in an API server.
struct Bed {
    _directory: tempfile::TempDir,
    host: Host,
    server: Server,
    founding: Founding,
}

impl Bed {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::under(directory.path());
        let config = ClusterConfig::parse(CONFIG, Path::new("cluster.toml")).unwrap();
        let wanted = Wanted::of(&config, &config.nodes[0]);
        files::write(&host, &files::plan(&host, &wanted, Origin::Found, host.now()).unwrap()).unwrap();
        let server = Server::start();
        Record::update(&server.client(), |_| Record::new(CONFIG, 7, BTreeMap::new()).map(Some)).unwrap();
        let founding = Founding::read(&host).unwrap().unwrap();
        Self { _directory: directory, host, server, founding }
    }

    /// What `join-file` puts into a node's file.
    fn fill(&self, node: &str, tokens: &Tokens) -> Join {
        let record = Record::read(&self.server.client()).unwrap().unwrap();
        let node = node_of(&record.config, node).unwrap();
        let (source, now) = (Source::of_host(&self.host).unwrap(), self.host.now());
        fill(&source, &self.founding, &record, node, tokens, (now, now + HOUR)).unwrap()
    }

    fn tokens(&self, node: &str, lifetime: Duration) -> Tokens {
        let mut tokens = Tokens::default();
        tokens.insert(node, Token::create(self.host.now(), lifetime).unwrap());
        tokens
    }

    fn listed(&self) -> Vec<(String, State)> {
        let listed = list(&self.server.client(), self.host.now()).unwrap();
        listed.into_iter().map(|Listed { node, state, .. }| (node, state)).collect()
    }

    fn secret(&self, tokens: &Tokens) -> bool {
        tokens.iter().all(|(_, token)| self.server.object(&object_path(&token.id)).is_some())
    }
}

#[test]
fn a_master_gives_a_new_node_what_it_needs_and_a_token_that_the_cluster_knows() {
    let bed = Bed::new();
    for (node, lines) in [("w1", 2), ("m2", 10)] {
        let tokens = bed.tokens(node, HOUR);
        let join = bed.fill(node, &tokens);
        let read = Join::parse(join.write().unwrap().expose()).unwrap();
        assert_eq!((read.files.len(), read.generation, read.config.as_str()), (lines, 7, CONFIG), "{node}");
        assert_eq!((&read.founding.id, read.founding.made_here), (&bed.founding.id, false));
        let inside = Tokens::parse(read.files[TOKENS].expose()).unwrap();
        assert_eq!(inside.nodes_by_id(), tokens.nodes_by_id(), "its own token, not those of this host");

        hand_out(&bed.server.client(), &tokens, bed.host.now(), || Ok(())).unwrap();
        assert!(bed.secret(&tokens));
        let record = Record::read(&bed.server.client()).unwrap().unwrap();
        assert!(tokens.iter().all(|(_, token)| record.tokens.get(&token.id).is_some_and(|owner| owner == node)));
        let role =
            bed.server.object("/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/roles/sealift:spent-tokens");
        let names = role.unwrap()["rules"][0]["resourceNames"].to_string();
        assert!(tokens.iter().all(|(_, token)| names.contains(&token.object_name())), "the approver may delete it");
    }
    let record = Record::read(&bed.server.client()).unwrap().unwrap();
    assert_eq!(earlier(&bed.server.client(), &record, "w1").unwrap().len(), 1, "named when another one is made");
    assert_eq!(bed.listed(), [("m2".to_owned(), State::Valid), ("w1".to_owned(), State::Valid)]);
}

#[test]
fn a_file_that_could_not_be_written_leaves_no_valid_token() {
    let bed = Bed::new();
    let tokens = bed.tokens("w1", HOUR);
    let error = hand_out(&bed.server.client(), &tokens, bed.host.now(), || Err(anyhow!("no space left"))).unwrap_err();
    assert!(error.to_string().contains("no space left"));
    assert!(!bed.secret(&tokens));
    assert_eq!(bed.listed(), [(String::new(), State::Revoked)]);
}

#[test]
fn tokens_are_listed_with_what_became_of_them_and_withdrawn_by_id_or_node() {
    let bed = Bed::new();
    let (short, long, other) = (bed.tokens("w1", HOUR), bed.tokens("w1", 5 * HOUR), bed.tokens("m2", 5 * HOUR));
    for tokens in [&short, &long, &other] {
        hand_out(&bed.server.client(), tokens, bed.host.now(), || Ok(())).unwrap();
    }
    bed.host.fake().set_now(bed.host.now() + 2 * HOUR);
    let states = |bed: &Bed| bed.listed().into_iter().map(|(_, state)| state).collect::<Vec<_>>();
    let found = states(&bed);
    assert_eq!(found[0], State::Valid, "m2");
    assert!(found[1..].contains(&State::Valid) && found[1..].contains(&State::Expired), "w1: {found:?}");
    // The approver deletes the Secret of a token that was used.
    let id = other.nodes_by_id().into_keys().next().unwrap();
    bed.server.client().delete(&object_path(&id)).unwrap();
    assert_eq!(states(&bed)[0], State::Used);

    assert_eq!(revoke(&bed.server.client(), "w1").unwrap().len(), 2);
    assert!(!bed.secret(&short) && !bed.secret(&long));
    let error = revoke(&bed.server.client(), "w1").unwrap_err();
    assert!(exit_of(&error) == Exit::Usage && render(&error).contains("installer token list"));
    assert_eq!(revoke(&bed.server.client(), &id).unwrap(), [(id, "m2".to_owned())]);
    assert_eq!(states(&bed), [State::Revoked; 3]);
}

#[test]
fn a_revoked_token_is_withdrawn_from_the_record_before_its_secret_goes() {
    let bed = Bed::new();
    let tokens = bed.tokens("w1", HOUR);
    hand_out(&bed.server.client(), &tokens, bed.host.now(), || Ok(())).unwrap();
    bed.server.fault(|request| request.starts_with("DELETE ").then(|| (500, json!({}))));
    assert!(revoke(&bed.server.client(), "w1").is_err());
    let record = Record::read(&bed.server.client()).unwrap().unwrap();
    assert!(record.tokens.is_empty() && record.revoked.len() == 1, "the approver believes it no more");
}

#[test]
fn unknown_nodes_and_plain_files_with_keys_are_refused() {
    let config = ClusterConfig::parse(CONFIG, Path::new("cluster.toml")).unwrap();
    let error = node_of(&config, "w7").unwrap_err();
    assert!(exit_of(&error) == Exit::Usage && render(&error).contains("installer node add w7"), "{}", render(&error));
    let plain = |name: &str| require_plain_worker(&config, node_of(&config, name).unwrap(), true);
    assert!(plain("w1").is_ok());
    assert!(render(&plain("m2").unwrap_err()).contains("leave `--plain` out"));
}

#[test]
fn another_token_makes_the_cluster_forget_those_that_ended_long_ago() {
    let bed = Bed::new();
    let old = bed.tokens("w1", HOUR);
    hand_out(&bed.server.client(), &old, bed.host.now(), || Ok(())).unwrap();
    bed.host.fake().set_now(bed.host.now() + 26 * HOUR);
    let new = bed.tokens("m2", HOUR);
    hand_out(&bed.server.client(), &new, bed.host.now(), || Ok(())).unwrap();
    let record = Record::read(&bed.server.client()).unwrap().unwrap();
    assert_eq!(record.tokens, new.nodes_by_id());
}
