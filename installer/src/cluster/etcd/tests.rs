//! Answers of etcdctl 3.4.23 as recorded, and changes of a simulated cluster.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::simulated::Cluster;
use super::{
    Left, answers, change, leave, members, named, quorum, remove_member, replace_member, table, update_address,
};
use crate::host::Host;
use crate::pki::{Authority, AuthorityName, Leaf, Usage};

const LIST: &str = r#"{"header":{"cluster_id":9815050765695711865,"member_id":9337176598445387855,"raft_term":2},"members":[{"ID":2063534633720019511,"peerURLs":["https://192.0.2.3:2380"],"isLearner":true},{"ID":9337176598445387855,"name":"m1","peerURLs":["https://192.0.2.1:2380"],"clientURLs":["https://192.0.2.1:2379"]},{"ID":16278448137378900604,"name":"m2","peerURLs":["https://192.0.2.2:2380"],"clientURLs":["https://192.0.2.2:2379"]}]}"#;
const LEARNER: &str = r#"[{"Endpoint":"http://127.0.0.4:22379","Status":{"header":{"cluster_id":16870999857339718737,"member_id":1721526836712696328,"revision":1,"raft_term":10},"version":"3.4.23","dbSize":20480,"leader":9337176598445387855,"raftIndex":11,"raftTerm":10,"raftAppliedIndex":11,"dbSizeInUse":16384,"isLearner":true}}]"#;
const LEADERLESS: &str = r#"[{"Endpoint":"http://127.0.0.1:22379","Status":{"header":{"cluster_id":9815050765695711865,"member_id":9337176598445387855,"revision":1,"raft_term":2},"version":"3.4.23","dbSize":20480,"raftIndex":12,"raftTerm":2,"raftAppliedIndex":12,"errors":["etcdserver: no leader"],"dbSizeInUse":16384}}]"#;
const HEALTH: &str = r#"[{"endpoint":"http://127.0.0.1:22379","health":true,"took":"1.190285ms"},{"endpoint":"http://127.0.0.2:22379","health":false,"took":"2.583079821s","error":"etcdserver: rpc not supported for learner"}]"#;

#[test]
fn members_are_read_with_their_whole_ids() {
    let members = answers::members(LIST).unwrap();
    assert_eq!(
        members.0.iter().map(members::Member::describe).collect::<Vec<_>>(),
        ["https://192.0.2.3:2380", "m1", "m2"]
    );
    let m2 = members.find("m2", None).unwrap();
    assert_eq!(m2.hex(), "e1e8aa558316aa7c", "as etcdctl's own table says");
    assert!(m2.started() && !m2.learner && m2.at_address([192, 0, 2, 2].into()));
    let learner = members.at("https://192.0.2.3:2380").unwrap();
    assert!(learner.learner && !learner.started());
    assert_eq!(members.find("m3", Some("https://192.0.2.3:2380")), Some(learner));
    assert_eq!(members.find("m3", Some("https://192.0.2.2:2380")), None, "that is another's");
    assert!(answers::members("").is_err());
}

#[test]
fn a_member_says_whether_it_learns_and_whom_it_follows() {
    let status = answers::status(LEARNER).unwrap();
    assert!(status.learner && status.leader == Some(9_337_176_598_445_387_855));
    assert_eq!(format!("{:x}", status.id), "17e41789758fea08");
    assert_eq!(answers::status(LEADERLESS).unwrap().leader, None);
    assert!(answers::status("[]").is_err(), "did not answer");
    assert_eq!(answers::health(HEALTH).unwrap()[1].error, "etcdserver: rpc not supported for learner");
}

#[test]
fn complaints_are_told_apart() {
    let log = r#"{"level":"warn","msg":"retrying of unary invoker failed","error":"rpc error: code = DeadlineExceeded desc = refused"}"#;
    let complaint = |error: &str| answers::complaint(&format!("{log}\nError: {error}\n"));
    assert_eq!(complaint("etcdserver: unhealthy cluster"), "etcdserver: unhealthy cluster");
    assert_eq!(
        complaint("unhealthy cluster"),
        "rpc error: code = DeadlineExceeded desc = refused",
        "of `endpoint health`"
    );
    assert_eq!(answers::complaint(""), "etcdctl gave no reason");
    for (message, passes) in [
        ("etcdserver: too many learner members in cluster", true),
        ("etcdserver: re-configuration failed due to not enough started members", true),
        ("etcdserver: unhealthy cluster", true),
        ("etcdserver: can only promote a learner member which is in sync with leader", true),
        ("etcdserver: can only promote a learner member", false),
        ("etcdserver: Peer URLs already exists", false),
        ("etcdserver: member not found", false),
        ("context deadline exceeded", true),
    ] {
        assert_eq!(answers::passes(message), passes, "{message}");
    }
}

#[test]
fn majorities_and_names() {
    assert_eq!([1, 2, 3, 4, 5].map(quorum), [1, 2, 2, 3, 3]);
    assert_eq!(named(&["a"]), "a");
    assert_eq!(named(&["a", "b", "c"]), "a, b and c");
}

#[test]
fn what_is_lost_with_a_member() {
    let cluster = |count: u64| {
        let member = |id: u64| members::Member {
            id,
            name: format!("m{id}"),
            peer_urls: vec![],
            client_urls: vec!["x".to_owned()],
            learner: false,
        };
        members::Members((1..=count).map(member).collect())
    };
    // Members, working ones, the one that leaves, what is said.
    for (count, healthy, leaving, said) in [
        (4, vec![1, 2, 3, 4], 4, None),
        (3, vec![1, 2, 3], 3, Some("no member to spare")),
        (3, vec![1, 2], 3, None),
        (3, vec![1, 2], 2, Some("would stop it: 1 of 2 members would work, 2 must")),
        (2, vec![1, 2], 2, None),
        (2, vec![1], 1, Some("would stop it")),
        (5, vec![1, 2, 3, 4], 4, Some("would leave no member")),
        (1, vec![1], 1, Some("only member")),
    ] {
        let members = cluster(count);
        let healthy: BTreeSet<u64> = healthy.into_iter().collect();
        let leaving = members.0.iter().find(|member| member.id == leaving).unwrap();
        let found = change::loss(&members, &healthy, leaving);
        let good = match said {
            None => found.is_none(),
            Some(part) => found.as_ref().is_some_and(|text| text.contains(part)),
        };
        assert!(good, "{count} {healthy:?}: {found:?}");
    }
}

/// Master `m1` of a cluster of four, seen by commands.
fn master() -> (TempDir, Host, Cluster) {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::under(directory.path());
    let node =
        |number: u8| format!("[[node]]\nname = \"m{number}\"\naddress = \"192.0.2.{number}\"\nroles = [\"master\"]\n");
    let text = format!("[cluster]\nname = \"test\"\n{}", (1..=4).map(node).collect::<String>());
    host.write(Path::new("/etc/sealift/cluster.toml"), text.as_bytes(), 0o644).unwrap();
    host.write(Path::new("/etc/sealift/pki/etcd/admin.crt"), b"x", 0o644).unwrap();
    let cluster = Cluster::on(&host, "192.0.2.1");
    for number in 1..=3 {
        cluster.member(&format!("m{number}"), &format!("192.0.2.{number}"), true);
    }
    (directory, host, cluster)
}

fn names(cluster: &Cluster) -> Vec<String> {
    cluster.members().into_iter().map(|member| member.name).collect()
}

#[test]
fn a_member_is_removed_when_that_loses_nothing_or_by_force() {
    let (_directory, host, cluster) = master();
    let text = crate::report::render(&remove_member(&host, "m3", false).unwrap_err());
    assert!(text.contains("no member to spare") && text.contains("--force"), "{text}");
    assert_eq!(names(&cluster).len(), 3);
    remove_member(&host, "m3", true).unwrap();
    remove_member(&host, "m3", false).unwrap();
    assert_eq!(names(&cluster), ["m1", "m2"]);
    remove_member(&host, "m2", false).unwrap();
    let text = crate::report::render(&remove_member(&host, "m1", true).unwrap_err());
    assert!(text.contains("only member"), "{text}");
}

#[test]
fn only_a_dead_member_is_replaced() {
    let (_directory, host, cluster) = master();
    let text = format!("{:#}", replace_member(&host, "m2").unwrap_err());
    assert!(text.contains("`m2` works"), "{text}");
    cluster.edit("m2", |m2| m2.running = false);
    replace_member(&host, "m2").unwrap();
    replace_member(&host, "m2").unwrap();
    assert_eq!(names(&cluster), ["m1", "m3"]);
    cluster.edit("m3", |m3| m3.running = false);
    let text = crate::report::render(&replace_member(&host, "m3").unwrap_err());
    assert!(text.contains("no etcd member that has a leader answers"), "{text}");
}

#[test]
fn an_address_is_told_once_and_never_anothers() {
    let (_directory, host, cluster) = master();
    update_address(&host, "m2", [192, 0, 2, 22].into()).unwrap();
    update_address(&host, "m2", [192, 0, 2, 22].into()).unwrap();
    assert_eq!(cluster.members()[1].peer_urls, ["https://192.0.2.22:2380"]);
    let updates = host.fake().commands().into_iter().filter(|line| line.contains("member update")).count();
    assert_eq!(updates, 1);
    let text = format!("{:#}", update_address(&host, "m3", [192, 0, 2, 1].into()).unwrap_err());
    assert!(text.contains("`m1` is already at"), "{text}");
    update_address(&host, "w1", [192, 0, 2, 99].into()).unwrap();
}

#[test]
fn a_host_leaves_through_another_member() {
    let (_directory, host, cluster) = master();
    let own = [[192, 0, 2, 1].into()];
    assert_eq!(leave(&host, &own).unwrap(), Left::NoMember, "it has no server certificate");
    let leaf = Leaf {
        authority: AuthorityName::Etcd,
        common_name: "m1".to_owned(),
        organization: None,
        usage: Usage::ServerAndClient,
        names: BTreeSet::new(),
        addresses: BTreeSet::new(),
        lifetime: Duration::from_secs(3600),
    };
    let authority = Authority::create(AuthorityName::Etcd, "test", host.now()).unwrap();
    let pair = authority.issue(&leaf, host.now()).unwrap();
    host.write(Path::new("/etc/sealift/pki/etcd/server.crt"), pair.certificate.as_bytes(), 0o644).unwrap();
    let replaced = leave(&host, &[[192, 0, 2, 99].into()]).unwrap();
    assert_eq!(replaced, Left::NoMember, "another host is `m1` now");
    assert_eq!(names(&cluster), ["m1", "m2", "m3"]);
    assert_eq!(leave(&host, &own).unwrap(), Left::Out);
    assert_eq!(names(&cluster), ["m2", "m3"]);
    let line = host.fake().commands().into_iter().find(|line| line.contains("member remove")).unwrap();
    assert!(line.contains("--endpoints=https://192.0.2.2:2379"), "{line}");
    assert_eq!(leave(&host, &own).unwrap(), Left::NoMember);
    for name in ["m2", "m3"] {
        cluster.edit(name, |member| member.running = false);
    }
    assert!(leave(&host, &own).is_err(), "others are configured and none answers");
}

#[test]
fn the_table_says_who_leads_who_learns_and_who_is_away() {
    let (_directory, host, cluster) = master();
    cluster.edit("m2", |m2| m2.running = false);
    cluster.member("m4", "192.0.2.4", false);
    cluster.edit("m4", |m4| (m4.learner, m4.client_urls) = (true, vec![]));
    let rows = table(&host);
    let row = |name: &str| rows.iter().find(|row| row.name == name).unwrap();
    assert!(row("m1").leader && row("m1").healthy && row("m3").healthy && !row("m3").leader);
    assert_eq!(row("m2").error, "context deadline exceeded");
    assert!(row("m4").learner && row("m4").error == "it has never started", "{:?}", row("m4"));
    cluster.edit("m3", |m3| m3.running = false);
    let rows = table(&host);
    assert_eq!(
        rows.iter().map(|row| row.error.as_str()).collect::<Vec<_>>(),
        ["runs, but has no leader", "does not answer", "does not answer", "does not answer",]
    );
}
