use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Result, bail};
use bundle::component::Role;
use serde_json::{Value, json};

use super::list::rows;
use super::members::Members;
use super::nodes::Change;
use super::signs::lease;
use crate::agent::RECORD;
use crate::cluster::Record;
use crate::cluster::known::{Known, Moved};
use crate::config::{self, Roles};
use crate::host::Host;
use crate::kubeapi::Client;
use crate::kubeapi::fake::Server;

const CONFIGMAP: &str = "/api/v1/namespaces/kube-system/configmaps/sealift-cluster";
const CONFIG: &str = "[cluster]\nname = \"site\"\n";

/// Three masters and a worker: 192.0.2.1 to .3 and .7.
fn config() -> String {
    let node = |name: &str, last: u8, role: &str| {
        format!("\n[[node]]\nname = \"{name}\"\naddress = \"192.0.2.{last}\"\nroles = [\"{role}\"]\n")
    };
    let nodes = [("m1", 1, "master"), ("m2", 2, "master"), ("m3", 3, "master"), ("w1", 7, "worker")];
    nodes.iter().fold(CONFIG.to_owned(), |text, (name, last, role)| text + &node(name, *last, role))
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn node(name: &str, ready: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "status": {
            "conditions": [{ "type": "MemoryPressure", "status": "False" }, { "type": "Ready", "status": ready }],
            "nodeInfo": { "kubeletVersion": "v1.20.2" },
        },
    })
}

/// A cluster whose m3 and w1 are dead; m3 and w1 have bootstrap tokens.
fn cluster() -> Server {
    let server = Server::start();
    let tokens = [("aaaaaa", "m3"), ("bbbbbb", "w1"), ("cccccc", "m3")];
    let tokens = tokens.iter().map(|(id, node)| ((*id).to_owned(), (*node).to_owned())).collect();
    server.put(CONFIGMAP, Record::new(&config(), 1, tokens).unwrap().object().unwrap());
    for id in ["aaaaaa", "bbbbbb", "cccccc"] {
        server.put(&format!("/api/v1/namespaces/kube-system/secrets/bootstrap-token-{id}"), json!({}));
    }
    for (name, ready) in [("m1", "True"), ("m2", "True"), ("m3", "Unknown"), ("w1", "False")] {
        server.put(&format!("/api/v1/nodes/{name}"), node(name, ready));
    }
    let mut renewed = 0;
    server.fault(move |request| {
        // Kubelets that live: each look at a lease finds it renewed.
        renewed += 1;
        (request == format!("GET {}", lease("m2")))
            .then(|| (200, json!({ "spec": { "renewTime": renewed.to_string() } })))
    });
    server
}

/// Remembers what etcd was asked, and may refuse.
#[derive(Default)]
struct Asked {
    log: Mutex<Vec<String>>,
    refuses: bool,
    /// What somebody else does while etcd is asked.
    meanwhile: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl Asked {
    fn note(&self, what: String) -> Result<()> {
        self.log.lock().unwrap().push(what);
        if let Some(meanwhile) = &*self.meanwhile.lock().unwrap() {
            meanwhile();
        }
        if self.refuses {
            bail!("taking it out of etcd would stop it");
        }
        Ok(())
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

impl Members for Asked {
    fn remove(&self, name: &str, _force: bool) -> Result<()> {
        self.note(format!("remove {name}"))
    }

    fn replace(&self, name: &str) -> Result<()> {
        self.note(format!("replace {name}"))
    }

    fn update_address(&self, name: &str, address: IpAddr) -> Result<()> {
        self.note(format!("update {name} {address}"))
    }
}

fn on_m1<T>(client: &Client<'_>, members: &Asked, change: impl FnOnce(&Change<'_>) -> Result<T>) -> Result<T> {
    let directory = tempfile::tempdir()?;
    let host = Host::under(directory.path());
    change(&Change { host: &host, client, members, here: &[address(1)], say: &|_| () })
}

fn record(server: &Server) -> Record {
    Record::read(&server.client()).unwrap().unwrap()
}

fn left(server: &Server) -> Vec<bool> {
    [
        "nodes/m3",
        "namespaces/kube-system/secrets/bootstrap-token-aaaaaa",
        "namespaces/kube-system/secrets/bootstrap-token-cccccc",
    ]
    .iter()
    .map(|path| server.object(&format!("/api/v1/{path}")).is_some())
    .collect()
}

#[test]
fn a_removed_node_leaves_etcd_first_and_the_config_last() {
    let (server, members) = (cluster(), Asked::default());
    on_m1(&server.client(), &members, |change| change.remove("m3", false)).unwrap();
    assert_eq!(members.log(), ["remove m3"]);
    assert_eq!(left(&server), [false; 3]);
    assert_eq!(server.changes().last().unwrap(), &format!("PUT {CONFIGMAP}"));
    let record = record(&server);
    assert_eq!((record.generation, record.config.nodes.len()), (2, 3));
    assert_eq!(record.tokens, BTreeMap::from([("bbbbbb".to_owned(), "w1".to_owned())]));
    assert!(record.revoked.contains("aaaaaa") && record.revoked.contains("cccccc"));
    // Again: nothing to do, nothing asked.
    let before = server.changes().len();
    on_m1(&server.client(), &members, |change| change.remove("m3", false)).unwrap();
    assert_eq!((server.changes().len(), members.log().len()), (before, 1));
}

/// Somebody makes another join file for the node while it is being removed.
#[test]
fn a_token_that_came_in_between_goes_as_well() {
    for verb in ["remove", "replace"] {
        let server = Arc::new(cluster());
        let late = "/api/v1/namespaces/kube-system/secrets/bootstrap-token-dddddd";
        let (other, members) = (Arc::clone(&server), Asked::default());
        let mut object = record(&server).object().unwrap();
        object["data"]["tokens"] = json!(r#"{"aaaaaa":"m3","bbbbbb":"w1","cccccc":"m3","dddddd":"m3"}"#);
        server.put(late, json!({}));
        members.meanwhile.lock().unwrap().replace(Box::new(move || other.put(CONFIGMAP, object.clone())));
        on_m1(&server.client(), &members, |change| match verb {
            "remove" => change.remove("m3", false),
            _ => change.replace("m3"),
        })
        .unwrap();
        assert_eq!(left(&server), [false; 3], "{verb}");
        assert!(record(&server).revoked.contains("dddddd"), "{verb}");
        assert!(server.object(late).is_none(), "{verb}: its Secret is left");
    }
}

#[test]
fn a_removal_that_was_cut_off_anywhere_is_finished_by_the_next() {
    for cut in 0..5 {
        let (server, members) = (cluster(), Asked::default());
        let count = Arc::new(Mutex::new(0));
        let seen = Arc::clone(&count);
        server.fault(move |request| {
            let mut count = seen.lock().unwrap();
            *count += usize::from(!request.starts_with("GET "));
            (!request.starts_with("GET ") && *count > cut).then(|| (500, json!({"message": "gone"})))
        });
        let cut_off = on_m1(&server.client(), &members, |change| change.remove("m3", false));
        assert_eq!(cut_off.is_err(), cut < 4, "after {cut} changes");
        server.fault(|_| None);
        on_m1(&server.client(), &members, |change| change.remove("m3", false)).unwrap();
        assert_eq!(left(&server), [false; 3], "after {cut} changes");
        assert!(record(&server).node("m3").is_none() && record(&server).tokens_of("m3").is_empty());
    }
}

#[test]
fn what_must_not_be_removed_is_refused_before_anything_changes() {
    let server = cluster();
    let client = server.client();
    for (name, refuses, words) in
        [("m2", false, "still works"), ("m1", false, "this host"), ("m3", true, "would stop it")]
    {
        let members = Asked { refuses, ..Asked::default() };
        let error = on_m1(&client, &members, |change| change.remove(name, false)).unwrap_err();
        assert!(error.to_string().contains(words), "{error:#}");
        assert_eq!(members.log().len(), usize::from(refuses), "{name}");
    }
    assert_eq!(server.changes(), [""; 0]);
    on_m1(&client, &Asked::default(), |change| change.remove("m2", true)).unwrap();
    on_m1(&client, &Asked::default(), |change| change.remove("m3", true)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (host, members) = (Host::under(directory.path()), Asked::default());
    let on_w1 = Change { host: &host, client: &client, members: &members, here: &[address(7)], say: &|_| () };
    assert!(on_w1.remove("m1", true).unwrap_err().to_string().contains("last master"));
}

/// A host that was switched off a moment ago: the cluster still believes in it.
#[test]
fn a_node_without_a_sign_of_life_is_gone() {
    let (directory, server, members) = (tempfile::tempdir().unwrap(), cluster(), Asked::default());
    let (host, client) = (Host::under(directory.path()), server.client());
    let said = Mutex::new(Vec::new());
    let say = |line: &str| said.lock().unwrap().push(line.to_owned());
    let change = Change { host: &host, client: &client, members: &members, here: &[address(1)], say: &say };
    let silent = |after: usize, then: (u16, Value)| {
        let mut looks = 0;
        server.fault(move |request| {
            looks += usize::from(request == "GET /api/v1/nodes/m2");
            let (node, lease) = (request == "GET /api/v1/nodes/m2", request == format!("GET {}", lease("m2")));
            let lease = lease.then(|| (200, json!({ "spec": { "renewTime": "then" } })));
            if node && looks == after { Some(then.clone()) } else { lease }
        });
    };
    let seconds = || host.monotonic().as_secs();
    // The cluster notices.
    silent(5, (200, node("m2", "Unknown")));
    change.replace("m2").unwrap();
    assert_eq!(seconds(), 8);
    assert!(said.lock().unwrap()[0].contains("looking for a sign of life, up to 45 s"), "{:?}", said.lock().unwrap());
    // It does not, and nobody renews the lease; a time when the API does not answer proves nothing.
    server.put("/api/v1/nodes/m2", node("m2", "True"));
    silent(10, (503, json!({})));
    change.replace("m2").unwrap();
    assert!((66..72).contains(&(seconds() - 8)), "{}", seconds());
    // An API that never answers again proves nothing.
    server.put("/api/v1/nodes/m2", node("m2", "True"));
    let mut looks = 0;
    server.fault(move |request| {
        looks += usize::from(request == "GET /api/v1/nodes/m2");
        (looks > 1 && request.contains("/nodes/m2")).then(|| (503, json!({})))
    });
    assert!(change.replace("m2").unwrap_err().to_string().contains("did not say"));
}

#[test]
fn a_replaced_node_keeps_its_place_and_everybody_is_told() {
    let (server, members) = (cluster(), Asked::default());
    let client = server.client();
    let error = on_m1(&client, &members, |change| change.replace("m2")).unwrap_err();
    assert!(error.to_string().contains("works"), "{error:#}");
    let said = on_m1(&client, &members, |change| change.replace("m3")).unwrap();
    assert_eq!(members.log(), ["replace m3"]);
    assert!(said.iter().any(|line| line.contains("installer join-file --node m3")));
    assert_eq!(left(&server), [false; 3]);
    let after = record(&server);
    assert_eq!((after.generation, after.text()), (2, config().as_str()));
    assert!(after.tokens_of("m3").is_empty());
    // A worker has no member.
    on_m1(&client, &members, |change| change.replace("w1")).unwrap();
    assert_eq!(members.log().len(), 1);
    assert!(on_m1(&client, &members, |change| change.replace("w9")).unwrap_err().to_string().contains("m1, m2"));
}

#[test]
fn an_added_node_is_told_of_once() {
    let (server, members) = (cluster(), Asked::default());
    let added = |name: &str, last, role| config::Node {
        name: name.to_owned(),
        address: address(last),
        interface: None,
        roles: Roles::new([role]),
    };
    for (generation, words) in [(2, "is added"), (2, "is there already")] {
        let said = on_m1(&server.client(), &members, |change| change.add(&added("w2", 8, Role::Worker))).unwrap();
        assert!(said[0].contains(words), "{said:?}");
        assert!(said[1].contains("installer join-file --node w2"));
        assert_eq!(record(&server).generation, generation);
    }
    let error = on_m1(&server.client(), &members, |change| change.add(&added("w3", 8, Role::Worker))).unwrap_err();
    assert!(format!("{error:#}").contains("already the address of `w2`"), "{error:#}");
    let said = on_m1(&server.client(), &members, |change| change.add(&added("m4", 4, Role::Master)));
    assert!(said.unwrap().iter().any(|line| line.contains("4 etcd members survive no more losses than 3")));
}

#[test]
fn etcd_hears_of_an_address_before_the_others_do() {
    let (server, members) = (cluster(), Asked::default());
    let client = server.client();
    assert!(on_m1(&client, &members, |change| change.announce("m3", address(1))).is_err());
    assert_eq!(members.log(), [""; 0], "refused before etcd was told");
    let refusing = Asked { refuses: true, ..Asked::default() };
    assert!(on_m1(&client, &refusing, |change| change.announce("m3", address(33))).is_err());
    assert_eq!(server.changes(), [""; 0]);
    let told = on_m1(&client, &members, |change| change.announce("m3", address(33))).unwrap();
    assert_eq!(members.log(), ["update m3 192.0.2.33"]);
    assert_eq!((told.generation, told.node("m3").unwrap().address), (2, address(33)));
    assert_eq!(told.moving, BTreeMap::from([("m3".to_owned(), address(3))]));
    on_m1(&client, &members, |change| change.announce("w1", address(77))).unwrap();
    assert_eq!(members.log().len(), 1, "a worker has no member");
    assert_eq!(record(&server).moving.len(), 1);
}

#[test]
fn the_list_says_what_the_cluster_says() {
    let config = record(&cluster()).config;
    let moving = BTreeMap::from([("m1".to_owned(), address(99))]);
    let objects = [node("m1", "True"), node("m2", "Unknown"), node("x9", "True")];
    let states = |nodes: Option<&[Value]>| -> Vec<String> {
        rows(&config, &moving, nodes).into_iter().map(|row| format!("{} {}", row.name, row.state)).collect()
    };
    let expected = ["m1 ready", "m2 not ready", "m3 not joined", "w1 not joined", "x9 not in the config"];
    assert_eq!(states(Some(&objects)), expected);
    assert_eq!(states(None)[0], "m1 unknown");
    let first = rows(&config, &moving, Some(&objects)).remove(0);
    assert_eq!((first.leaves, first.kubelet.as_deref()), (Some(address(99)), Some("v1.20.2")));
}

#[test]
fn an_address_that_nobody_could_be_told_of_counts_here_until_the_record_knows_better() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::under(directory.path());
    let mut held = record(&cluster());
    held.keep(&host, Path::new(RECORD)).unwrap();
    Moved { node: "m1".to_owned(), address: address(11), generation: 2 }.write(&host).unwrap();
    let known = |host: &Host| Known::here(host).unwrap().unwrap().record.unwrap().node("m1").unwrap().address;
    assert_eq!(known(&host), address(11));
    held.move_node("m1", address(12)).unwrap();
    held.keep(&host, Path::new(RECORD)).unwrap();
    assert_eq!(known(&host), address(12), "changed since, by somebody who could tell");
}
