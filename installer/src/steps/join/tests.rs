//! A worker that asks two masters; each is a scripted TLS server, or nobody.

use std::path::Path;
use std::time::Duration;

use bundle::component::Role;
use jiff::Timestamp;

use super::super::tests::Bed;
use super::*;
use crate::kubeapi::tests::{Server, answer, authority, leaf};
use crate::pki::tokens::{Token, Tokens};
use crate::pki::{Authority, KUBELET_CLIENT, Usage};
use crate::report::{Exit, exit_of, render};

const M1: &str = "127.0.0.1";
const M2: &str = "127.0.0.2";

struct Cluster {
    bed: Bed,
    authority: Authority,
    step: Join,
    servers: Vec<Server>,
}

impl Cluster {
    fn new() -> Self {
        let mut bed = Bed::new();
        bed.become_member(&[Role::Worker]);
        bed.config.nodes[0].address = M1.parse().unwrap();
        let mut second = bed.config.nodes[0].clone();
        (second.name, second.address) = ("m2".to_owned(), M2.parse().unwrap());
        bed.config.nodes.push(second);
        let cluster = Self { bed, authority: authority(), step: Join::default(), servers: Vec::new() };
        cluster.bed.put("/etc/sealift/pki/ca.crt", &cluster.authority.pair().certificate);
        cluster.token(Duration::from_secs(3600));
        cluster
    }

    /// Gives this host a token that ends so long from now.
    fn token(&self, lifetime: Duration) {
        let mut tokens = Tokens::default();
        tokens.insert("n2", Token::create(self.bed.host.now(), lifetime).unwrap());
        self.bed.put("/etc/sealift/secrets/tokens.json", tokens.write().unwrap().expose());
    }

    /// A master with a certificate of `authority` made at that time. The first one decides the port of all.
    fn master_of(&mut self, address: &str, authority: &Authority, made: Timestamp, answers: &[String]) {
        let pair = authority.issue(&leaf(Usage::Server, address), made).unwrap();
        let port = self.servers.first().map_or(0, |first| first.address.port());
        let socket = SocketAddr::new(address.parse().unwrap(), port);
        let server = Server::start_at(socket, authority, &pair, answers.to_vec());
        self.step.port = server.address.port();
        self.servers.push(server);
    }

    /// A master of this cluster.
    fn master(&mut self, address: &str, answers: &[String]) {
        let authority = Authority::load(&self.authority.pair().certificate, &self.authority.pair().key).unwrap();
        self.master_of(address, &authority, Timestamp::now(), answers);
    }

    /// Somebody who calls himself a master.
    fn stranger(&mut self, address: &str) {
        self.master_of(address, &authority(), Timestamp::now(), &[welcome()]);
    }

    fn check(&self) -> Result<Check> {
        self.step.check(&self.bed.context())
    }

    fn waits_for(&self) -> String {
        match self.check().unwrap() {
            Check::Waiting(reason) => reason,
            other => panic!("does not wait: {other:?}"),
        }
    }

    fn refusal(&self) -> String {
        render(&self.check().unwrap_err())
    }

    /// What needs another join file; the run in the background does not try again after that.
    fn needs_a_person(&self) -> String {
        let error = self.check().unwrap_err();
        assert_eq!(exit_of(&error), Exit::Usage);
        render(&error)
    }

    /// What the masters were sent.
    fn requests(self) -> Vec<String> {
        self.servers.into_iter().flat_map(Server::stop).map(|(request, _)| request).collect()
    }
}

fn welcome() -> String {
    answer("200 OK", r#"{"items":[]}"#)
}

fn unknown() -> String {
    answer("401 Unauthorized", "{}")
}

#[test]
fn the_first_good_answer_is_enough_and_it_was_asked_with_the_token() {
    let mut cluster = Cluster::new();
    cluster.master(M2, &[welcome()]);
    assert_eq!(cluster.check().unwrap(), Check::Done);
    let requests = cluster.requests();
    assert!(requests[0].contains("\r\nAuthorization: Bearer "), "{requests:?}");
}

#[test]
fn nobody_there_is_waited_for_and_each_master_has_its_reason() {
    let mut cluster = Cluster::new();
    cluster.master(M1, &[answer("403 Forbidden", "{}")]);
    let reason = cluster.waits_for();
    assert!(reason.contains("m1 (127.0.0.1): not ready: it has not been given its roles yet"), "{reason}");
    assert!(reason.contains("m2 (127.0.0.2): no answer"), "{reason}");
}

#[test]
fn strangers_alone_are_refused_and_are_told_nothing() {
    let mut cluster = Cluster::new();
    cluster.stranger(M1);
    let text = cluster.refusal();
    for part in ["no master that answers belongs to this cluster", "m1 (127.0.0.1)", "installer join-file --node n2"] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    assert_eq!(cluster.requests(), Vec::<String>::new());
}

#[test]
fn a_stranger_beside_a_master_is_a_warning_and_beside_a_starting_one_a_wait() {
    let mut cluster = Cluster::new();
    cluster.stranger(M1);
    cluster.master(M2, &[answer("503 Service Unavailable", "{}")]);
    let reason = cluster.waits_for();
    assert!(reason.contains("m1 (127.0.0.1): a certificate of another authority"), "{reason}");

    let cluster = Cluster::new();
    let stranger = |said| Master { name: "m1".to_owned(), address: "192.0.2.1:6443".parse().unwrap(), said };
    let masters = [stranger(Said::Stranger("BadSignature".to_owned())), stranger(Said::Welcome)];
    assert_eq!(cluster.step.judge(&cluster.bed.context(), &masters, None).unwrap(), Check::Done);
    let events = format!("{:?}", cluster.bed.events.events());
    assert!(events.contains("Warning") && events.contains("not a master of this cluster"), "{events}");
}

#[test]
fn a_token_that_stays_unknown_is_refused_after_a_while() {
    let mut cluster = Cluster::new();
    cluster.master(M1, &[unknown(), unknown()]);
    assert!(cluster.waits_for().contains("the cluster to know this node's token"));
    cluster.bed.host.pause(UNKNOWN_FOR);
    let text = cluster.needs_a_person();
    assert!(text.contains("it ended or was revoked") && text.contains("join-file --node n2"), "{text}");
}

#[test]
fn one_master_that_never_gets_ready_does_not_hold_up_what_another_says_of_the_token() {
    let mut cluster = Cluster::new();
    let starting = answer("503 Service Unavailable", "{}");
    cluster.master(M1, &[unknown(), unknown()]);
    cluster.master(M2, &[starting.clone(), starting]);
    let reason = cluster.waits_for();
    assert!(reason.contains("m2 (127.0.0.2): not ready"), "{reason}");
    cluster.bed.host.pause(UNKNOWN_FOR);
    let text = cluster.refusal();
    assert!(text.contains("it ended or was revoked") && text.contains("join-file --node n2"), "{text}");
}

#[test]
fn the_while_begins_anew_when_a_master_says_something_else() {
    let mut cluster = Cluster::new();
    cluster.master(M1, &[unknown(), answer("403 Forbidden", "{}"), unknown()]);
    cluster.waits_for();
    cluster.bed.host.pause(UNKNOWN_FOR);
    cluster.waits_for();
    assert!(cluster.waits_for().contains("know this node's token"));
}

#[test]
fn a_token_that_has_ended_is_refused_at_once() {
    let mut cluster = Cluster::new();
    cluster.token(Duration::from_secs(60));
    cluster.bed.host.pause(Duration::from_secs(61));
    cluster.master(M1, &[unknown()]);
    let text = cluster.needs_a_person();
    assert!(text.contains("the bootstrap token of node `n2` ended on 20"), "{text}");
}

#[test]
fn clocks_that_differ_are_refused() {
    for (date, side) in [("Sat, 21 Nov 2026 00:06:00 GMT", "behind"), ("Fri, 20 Nov 2026 23:54:00 GMT", "ahead of")] {
        let mut cluster = Cluster::new();
        cluster.bed.host.fake().set_now("2026-11-21T00:00:00Z".parse().unwrap());
        cluster.token(Duration::from_secs(3600));
        let answer = format!("HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: 2\r\n\r\n{{}}");
        cluster.master(M1, &[answer]);
        let text = cluster.refusal();
        assert!(text.contains(side) && text.contains("that of master `m1`"), "{text}");
    }
}

#[test]
fn certificates_that_are_not_valid_now_speak_of_the_clock() {
    let mut cluster = Cluster::new();
    let authority = Authority::load(&cluster.authority.pair().certificate, &cluster.authority.pair().key).unwrap();
    cluster.master_of(M1, &authority, Timestamp::now() - Duration::from_secs(7200), &[welcome()]);
    let text = cluster.refusal();
    assert!(text.contains("valid at this host's time") && text.contains("clock"), "{text}");
    assert_eq!(cluster.requests(), Vec::<String>::new());
}

#[test]
fn a_node_that_has_its_certificate_asks_nobody() {
    let cluster = Cluster::new();
    let mut leaf = leaf(Usage::Client, "127.0.0.1");
    leaf.common_name = "system:node:n2".to_owned();
    let pair = cluster.authority.issue(&leaf, cluster.bed.host.now()).unwrap();
    cluster.bed.put(KUBELET_CLIENT, &pair.certificate);
    assert_eq!(cluster.check().unwrap(), Check::Done);
}

#[test]
fn a_plan_on_a_bare_host_and_a_host_without_token_do_not_ask() {
    let cluster = Cluster::new();
    cluster.bed.host.remove(Path::new("/etc/sealift/secrets/tokens.json")).unwrap();
    assert!(cluster.refusal().contains("this host has no bootstrap token for node `n2`"));
    cluster.bed.host.remove(Path::new("/etc/sealift/pki/ca.crt")).unwrap();
    assert_eq!(cluster.check().unwrap(), Check::Needed(Vec::new()));
}
