//! What each role gets, keeps, renews and refuses, with and without a join file.

use std::path::Path;

use super::*;
use crate::commands::found;
use crate::config::ClusterConfig;
use crate::fixture::cluster_toml;
use crate::join::Join;
use crate::join::contents::Source;
use crate::report::render;

const STACKED: &str = cluster_toml!(
    "demo",
    "m1" "192.0.2.1" ["master"],
    "w1" "192.0.2.3" ["worker"],
);

const DEDICATED: &str = cluster_toml!(
    "demo",
    "m1" "192.0.2.1" ["master"],
    "e1" "192.0.2.2" ["etcd"],
    "e2" "192.0.2.3" ["etcd", "worker"],
);

const STARTED: &str = "/run/sealift/started";

/// A node and its join file.
struct Bed {
    _directory: tempfile::TempDir,
    host: Host,
    wanted: files::Wanted,
    join: Join,
}

impl Bed {
    fn new(config: &str, node: &str) -> Self {
        let parsed = ClusterConfig::parse(config, Path::new("cluster.toml")).unwrap();
        let joins = found(&parsed, config, now(), now() + 72 * HOUR).unwrap();
        Self::of(&parsed, joins.into_iter().find(|join| join.node == node).unwrap())
    }

    fn of(config: &ClusterConfig, join: Join) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::under(directory.path());
        host.fake().set_now(now());
        let node = config.nodes.iter().find(|node| node.name == join.node).unwrap();
        Self { host, wanted: files::Wanted::of(config, node), join, _directory: directory }
    }

    fn joining(&self, join: &Join, at: Timestamp) -> anyhow::Result<Vec<files::Write>> {
        files::plan(&self.host, &self.wanted, Origin::Join(join), at)
    }

    fn plan(&self, at: Timestamp) -> anyhow::Result<Vec<files::Write>> {
        files::plan(&self.host, &self.wanted, Origin::Host, at)
    }

    fn take_in(&self) -> Vec<String> {
        let writes = self.joining(&self.join, now()).unwrap();
        files::write(&self.host, &writes).unwrap();
        paths(&writes)
    }

    /// What is below `/etc/sealift`, sorted.
    fn found(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut left = vec!["/etc/sealift".to_owned()];
        while let Some(directory) = left.pop() {
            for name in self.host.list(Path::new(&directory)).unwrap() {
                let path = format!("{directory}/{name}");
                match self.host.entry(Path::new(&path)).unwrap().unwrap() {
                    entry if entry.kind == crate::host::FileKind::Directory => left.push(path),
                    _ => found.push(path["/etc/sealift/".len()..].to_owned()),
                }
            }
        }
        found.sort();
        found
    }

    fn read(&self, path: &str) -> String {
        self.host.read_text(Path::new(path)).unwrap().unwrap()
    }
}

fn said(result: anyhow::Result<Vec<files::Write>>) -> String {
    render(&result.unwrap_err())
}

/// REQUIREMENTS B7: what is on each host at last.
#[test]
fn a_host_has_at_last_what_its_roles_need_and_nothing_else() {
    let worker = ["kubeconfig/bootstrap-kubelet.conf", "kubeconfig/kube-proxy.conf", "pki/ca.crt"];
    let secrets = ["secrets/founding.json", "secrets/tokens.json"];
    let etcd = ["ca.crt", "ca.key", "admin.crt", "admin.key", "peer.crt", "peer.key", "server.crt", "server.key"]
        .map(|name| format!("pki/etcd/{name}"));
    let master = [
        "admin.conf",
        "kubeconfig/controller-manager.conf",
        "kubeconfig/scheduler.conf",
        "pki/apiserver.crt",
        "pki/apiserver.key",
        "pki/apiserver-etcd-client.crt",
        "pki/apiserver-etcd-client.key",
        "pki/apiserver-kubelet-client.crt",
        "pki/apiserver-kubelet-client.key",
        "pki/approver.crt",
        "pki/approver.key",
        "pki/ca.key",
        "pki/front-proxy-ca.crt",
        "pki/front-proxy-ca.key",
        "pki/front-proxy-client.crt",
        "pki/front-proxy-client.key",
        "pki/service-account.key",
        "pki/service-account.pub",
        "secrets/encryption.json",
    ];
    let all = |lists: &[&[&str]]| {
        let mut all: Vec<String> = lists.iter().flat_map(|list| list.iter().map(ToString::to_string)).collect();
        all.sort();
        all
    };
    let etcd: Vec<&str> = etcd.iter().map(String::as_str).collect();
    for (config, node, expected) in [
        (STACKED, "m1", all(&[&worker, &secrets, &etcd, &master])),
        (STACKED, "w1", all(&[&worker, &secrets])),
        (DEDICATED, "m1", all(&[&worker, &secrets, &master, &["pki/etcd/ca.crt"]])),
        (DEDICATED, "e1", all(&[&etcd, &secrets[..1]])),
        (DEDICATED, "e2", all(&[&worker, &secrets, &etcd])),
    ] {
        let bed = Bed::new(config, node);
        bed.take_in();
        assert_eq!(bed.found(), expected, "{node}");
        for path in &expected {
            let mode = bed.host.entry(Path::new(&format!("/etc/sealift/{path}"))).unwrap().unwrap().mode & 0o7777;
            let public = Path::new(path).extension().is_some_and(|end| end == "crt" || end == "pub");
            assert_eq!(mode, if public { 0o644 } else { 0o600 }, "{node} {path}");
        }
        // Once more, with and without the file: nothing to do.
        assert_eq!(paths(&bed.joining(&bed.join, now()).unwrap()), Vec::<String>::new(), "{node}");
        assert_eq!(paths(&bed.plan(now()).unwrap()), Vec::<String>::new(), "{node}");
    }
}

#[test]
fn a_host_without_secrets_makes_none_unless_it_founds() {
    for (config, node) in [(STACKED, "w1"), (STACKED, "m1"), (DEDICATED, "m1"), (DEDICATED, "e1")] {
        let said = said(Bed::new(config, node).plan(now()));
        assert!(said.contains("has no secrets of the cluster"), "{said}");
        assert!(said.contains(&format!("`installer join-file --node {node}`")), "{said}");
    }
}

#[test]
fn a_crash_after_any_write_of_a_join_is_completed_with_the_file_and_noticed_without() {
    for (config, node) in [(STACKED, "m1"), (DEDICATED, "m1"), (DEDICATED, "e1"), (STACKED, "w1")] {
        let parsed = ClusterConfig::parse(config, Path::new("cluster.toml")).unwrap();
        let join = Bed::new(config, node).join;
        let full = Bed::of(&parsed, join.clone()).joining(&join, now()).unwrap().len();
        for survived in 0..full {
            let bed = Bed::of(&parsed, join.clone());
            let writes = bed.joining(&join, now()).unwrap();
            files::write(&bed.host, &writes[..survived]).unwrap();
            assert!(bed.plan(now()).is_err(), "{node} {survived}: nothing is made up");
            // The founding comes last, so this is no founding either.
            assert!(files::plan(&bed.host, &bed.wanted, Origin::Found, now()).is_err() || survived == 0, "{survived}");
            bed.take_in();
            assert_eq!(paths(&bed.plan(now()).unwrap()), Vec::<String>::new(), "{node} {survived}");
        }
    }
}

#[test]
fn a_join_file_never_replaces_what_the_host_has() {
    let (bed, other) = (Bed::new(STACKED, "m1"), Bed::new(STACKED, "m1"));
    bed.take_in();
    let before = bed.found().iter().map(|path| bed.read(&format!("/etc/sealift/{path}"))).collect::<Vec<_>>();
    assert!(said(bed.joining(&other.join, now())).contains("belongs to another cluster"));
    let mut same = other.join.clone();
    same.founding = bed.join.founding.clone();
    let text = said(bed.joining(&same, now()));
    assert!(text.contains("`/etc/sealift/pki/ca.crt` is not the one of the join file"), "{text}");
    assert!(text.contains("leave `--join` out"), "{text}");
    for path in bed.join.files.keys().filter(|path| *path != files::TOKENS) {
        let mut one = bed.join.clone();
        one.files.insert(path.clone(), other.join.files[path].clone());
        let text = said(bed.joining(&one, now()));
        assert!(text.contains(&format!("`{path}` is not the one of the join file")), "{text}");
    }
    let mut foreign = bed.join.clone();
    foreign.node = "w1".to_owned();
    assert!(said(bed.joining(&foreign, now())).contains("is for node `w1`, this host is `m1`"));
    let after = bed.found().iter().map(|path| bed.read(&format!("/etc/sealift/{path}"))).collect::<Vec<_>>();
    assert_eq!(before, after);
}

#[test]
fn a_host_that_founded_its_own_cluster_does_not_slip_into_another() {
    let bed = Bed::new(STACKED, "m1");
    files::write(&bed.host, &files::plan(&bed.host, &bed.wanted, Origin::Found, now()).unwrap()).unwrap();
    assert!(Founding::read(&bed.host).unwrap().unwrap().made_here);
    assert!(said(bed.joining(&bed.join, now())).contains("belongs to another cluster"));
}

#[test]
fn what_is_lost_is_never_made_a_second_time() {
    for (config, node, lost) in [
        (STACKED, "w1", "pki/ca.crt"),
        (STACKED, "m1", "pki/ca.key"),
        (STACKED, "m1", "pki/etcd/ca.crt"),
        (STACKED, "m1", "secrets/encryption.json"),
        (STACKED, "m1", "secrets/founding.json"),
        (DEDICATED, "e1", "pki/etcd/ca.key"),
        (DEDICATED, "m1", "pki/apiserver-etcd-client.key"),
    ] {
        let bed = Bed::new(config, node);
        bed.take_in();
        bed.host.remove(Path::new(&format!("/etc/sealift/{lost}"))).unwrap();
        for origin in [Origin::Host, Origin::Found] {
            assert!(files::plan(&bed.host, &bed.wanted, origin, now()).is_err(), "{node} {lost}");
        }
        // The join file brings it back.
        assert_eq!(bed.take_in(), [format!("/etc/sealift/{lost}")], "{node}");
    }
}

#[test]
fn a_new_token_takes_the_place_of_an_old_one_until_the_node_has_joined() {
    let bed = Bed::new(STACKED, "w1");
    bed.take_in();
    let late = now() + 73 * HOUR;
    let text = said(bed.plan(late));
    assert!(text.contains("no bootstrap token that is still valid") && text.contains("join-file --node w1"), "{text}");
    let mut again = bed.join.clone();
    let mut tokens = Tokens::default();
    tokens.insert("w1", Token::create(late, HOUR / 2).unwrap());
    again.files.insert(files::TOKENS.to_owned(), tokens.write().unwrap());
    let writes = bed.joining(&again, late).unwrap();
    assert_eq!(paths(&writes), ["/etc/sealift/secrets/tokens.json", "/etc/sealift/kubeconfig/bootstrap-kubelet.conf"]);
    files::write(&bed.host, &writes).unwrap();
    assert!(bed.plan(late).unwrap().is_empty());
}

/// A master's controller-manager and scheduler read their kubeconfigs once; a changed address must not touch them.
#[test]
fn a_renewed_kubeconfig_has_its_unit_started_again_and_an_address_change_renews_only_what_names_it() {
    let mut bed = Bed::new(STACKED, "m1");
    bed.take_in();
    let units = ["kube-controller-manager.service", "kube-scheduler.service", "kubelet.service", "etcd.service"];
    let stamp = |unit: &str| Path::new(STARTED).join(unit);
    for unit in units {
        bed.host.write(&stamp(unit), b"x", 0o644).unwrap();
    }
    let started = |bed: &Bed| units.map(|unit| bed.host.exists(&stamp(unit)).unwrap());

    bed.wanted.subject.address = "192.0.2.77".parse().unwrap();
    let writes = bed.plan(now()).unwrap();
    let names = ["etcd/server", "etcd/peer", "apiserver"].map(|stem| format!("/etc/sealift/pki/{stem}"));
    let expected: Vec<String> = names.iter().flat_map(|stem| [format!("{stem}.key"), format!("{stem}.crt")]).collect();
    assert_eq!(paths(&writes), expected);
    files::write(&bed.host, &writes).unwrap();
    assert_eq!(started(&bed), [true; 4]);
    for name in ["controller-manager.conf", "scheduler.conf"] {
        assert!(bed.read(&format!("/etc/sealift/kubeconfig/{name}")).contains("https://127.0.0.1:6443"));
    }

    let later = now() + 300 * 24 * HOUR;
    files::write(&bed.host, &bed.plan(later).unwrap()).unwrap();
    assert_eq!(started(&bed), [false, false, false, true], "kubelet: its bootstrap token was made anew");
}

#[test]
fn a_master_without_etcd_says_when_its_etcd_certificate_ends_and_takes_a_new_one() {
    let parsed = ClusterConfig::parse(DEDICATED, Path::new("cluster.toml")).unwrap();
    let joins = found(&parsed, DEDICATED, now(), now() + 72 * HOUR).unwrap();
    let of = |node: &str| Bed::of(&parsed, joins.iter().find(|join| join.node == node).unwrap().clone());
    let (master, etcd) = (of("m1"), of("e1"));
    master.take_in();
    etcd.take_in();
    assert!(master.plan(now() + 300 * 24 * HOUR).is_ok(), "it still works: `status` warns");
    let ended = now() + 366 * 24 * HOUR;
    let text = said(master.plan(ended));
    assert!(text.contains("apiserver-etcd-client.crt` cannot be used: it expired"), "{text}");
    assert!(text.contains("on one of them run `installer join-file --node m1`"), "{text}");

    let renewal = |bed: &Bed| Source::of_host(&bed.host).unwrap().etcd_client(&master.wanted.subject, ended);
    assert!(renewal(&master).is_err(), "a master has no key of that authority");
    let renewal = Join { files: renewal(&etcd).unwrap(), ..master.join.clone() };
    Join::parse(renewal.write().unwrap().expose()).unwrap();
    // Also when it is cut short after the first of the two files.
    let writes = master.joining(&renewal, ended).unwrap();
    files::write(&master.host, &writes[..1]).unwrap();
    let writes = master.joining(&renewal, ended).unwrap();
    files::write(&master.host, &writes).unwrap();
    assert!(master.plan(ended).unwrap().is_empty());
    // An older one does not come back.
    assert!(said(master.joining(&master.join, ended)).contains("is not the one of the join file"));
}
