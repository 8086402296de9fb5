//! An etcd cluster of a few lines for tests: it answers `etcdctl` in the words recorded from etcd and etcdctl 3.4.23.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};

use super::members::{host_of, quorum};
use super::{CLIENT_PORT, PEER_PORT, client_url, peer_url};
use crate::host::{Command, Host, Reply};

/// One member, and what its host does.
#[derive(Clone, Debug)]
pub(crate) struct Simulated {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) peer_urls: Vec<String>,
    pub(crate) client_urls: Vec<String>,
    pub(crate) learner: bool,
    pub(crate) running: bool,
}

/// The cluster as all its members see it.
#[derive(Clone, Debug)]
pub(crate) struct Cluster(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    members: Vec<Simulated>,
    /// What 127.0.0.1 stands for.
    here: IpAddr,
    next: u64,
    /// How many changes are still refused because members are not connected for long enough.
    unsettled: u32,
    /// How often a learner is still behind.
    behind: u32,
}

impl Cluster {
    /// No members yet; commands on `host` ask it.
    pub(crate) fn on(host: &Host, here: &str) -> Self {
        let state = State {
            members: Vec::new(),
            here: here.parse().unwrap(),
            // Ids do not fit into a double: a reader that takes them for one finds another member.
            next: 16_278_448_137_378_900_604,
            unsettled: 0,
            behind: 0,
        };
        let cluster = Self(Arc::new(Mutex::new(state)));
        let answering = cluster.clone();
        host.fake().answer("/opt/sealift/current/etcd/bin/etcdctl ", move |command| answering.answer(command));
        let listening = cluster.clone();
        host.fake().on_connect(move |address| listening.state().listens(address));
        cluster
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Adds a member that has voted for years; `running` now or not.
    pub(crate) fn member(&self, name: &str, address: &str, running: bool) {
        let address: IpAddr = address.parse().unwrap();
        let mut state = self.state();
        let id = state.id();
        state.members.push(Simulated {
            id,
            name: name.to_owned(),
            peer_urls: vec![peer_url(address)],
            client_urls: vec![client_url(address)],
            learner: false,
            running,
        });
    }

    /// All members.
    pub(crate) fn members(&self) -> Vec<Simulated> {
        self.state().members.clone()
    }

    /// Changes a member by name.
    pub(crate) fn edit(&self, name: &str, edit: impl FnOnce(&mut Simulated)) {
        let mut state = self.state();
        edit(state.members.iter_mut().find(|member| member.name == name).unwrap());
    }

    /// Forgets a member by name.
    pub(crate) fn forget(&self, name: &str) {
        let mut state = self.state();
        state.members.retain(|member| member.name != name);
    }

    /// The next changes are refused, and the next promotions, so often.
    pub(crate) fn refuse(&self, changes: u32, promotions: u32) {
        let mut state = self.state();
        (state.unsettled, state.behind) = (changes, promotions);
    }

    /// Starts etcd on this host: with the members of its environment file when it has no data, as etcd does.
    pub(crate) fn start(&self, name: &str, environment: Option<&str>) {
        let mut state = self.state();
        if let Some(environment) = environment {
            let value = |key: &str| {
                let line = environment.lines().find_map(|line| line.strip_prefix(&format!("{key}=")));
                line.unwrap_or_else(|| panic!("no {key} in {environment}")).to_owned()
            };
            let cluster = value("ETCD_INITIAL_CLUSTER");
            let pairs: Vec<(&str, &str)> = cluster.split(',').map(|pair| pair.split_once('=').unwrap()).collect();
            assert!(pairs.iter().any(|(member, _)| *member == name), "not among them: {environment}");
            if value("ETCD_INITIAL_CLUSTER_STATE") == "new" {
                if state.members.is_empty() {
                    for (member, url) in pairs {
                        let (id, peer_urls, client_urls) = (state.id(), vec![url.to_owned()], vec![]);
                        let name = member.to_owned();
                        state.members.push(Simulated {
                            id,
                            name,
                            peer_urls,
                            client_urls,
                            learner: false,
                            running: false,
                        });
                    }
                }
            } else {
                let wanted: BTreeSet<&str> = pairs.iter().map(|(_, url)| *url).collect();
                let listed: BTreeSet<&str> =
                    state.members.iter().flat_map(|member| member.peer_urls.iter().map(String::as_str)).collect();
                assert_eq!(wanted, listed, "etcd would end: the members do not match");
            }
        }
        let own = peer_url(state.here);
        let named = state.members.iter().position(|member| member.name == name);
        let index = named.or_else(|| state.members.iter().position(|member| member.peer_urls.contains(&own)));
        let here = state.here;
        let member = &mut state.members[index.expect("etcd would end: it is no member")];
        member.name = name.to_owned();
        member.running = true;
        member.client_urls = vec![client_url(here)];
    }

    fn answer(&self, command: &Command) -> Reply {
        let line = command.line();
        let arguments: Vec<&str> = line.split(' ').collect();
        let endpoints = arguments.iter().find_map(|argument| argument.strip_prefix("--endpoints=")).unwrap();
        let words: Vec<&str> = arguments[1..].iter().filter(|argument| !argument.starts_with("--")).copied().collect();
        let mut state = self.state();
        if words == ["endpoint", "health"] {
            return state.health(endpoints);
        }
        let Some(asked) = state.at(endpoints).cloned() else { return deadline() };
        match words.as_slice() {
            ["endpoint", "status"] => state.status(&asked),
            _ if asked.learner => failed("etcdserver: rpc not supported for learner"),
            // A 3.4 member lists what it last knew, with a majority or without.
            ["member", "list"] => Reply::ok(state.list().to_string()),
            _ if !state.agrees() => deadline(),
            ["member", "add", _] => {
                let url = arguments.iter().find_map(|argument| argument.strip_prefix("--peer-urls=")).unwrap();
                assert!(arguments.contains(&"--learner"));
                state.add(url)
            }
            ["member", "promote", id] => state.promote(number(id)),
            ["member", "remove", id] => state.remove(number(id)),
            ["member", "update", id] => {
                let url = arguments.iter().find_map(|argument| argument.strip_prefix("--peer-urls=")).unwrap();
                let found = state.members.iter_mut().find(|member| member.id == number(id)).unwrap();
                found.peer_urls = vec![url.to_owned()];
                Reply::ok("")
            }
            other => panic!("not simulated: {other:?}"),
        }
    }
}

impl State {
    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn listens(&self, at: SocketAddr) -> bool {
        let address = if at.ip().is_loopback() { self.here } else { at.ip() };
        // Where it is now, which the list of members may not know yet.
        let now = |member: &Simulated| host_of(member.client_urls.first().unwrap_or(&member.peer_urls[0]));
        let ours = [CLIENT_PORT, PEER_PORT].contains(&at.port());
        ours && self.members.iter().any(|member| member.running && now(member) == Some(address))
    }

    /// The running member behind a client URL.
    fn at(&self, url: &str) -> Option<&Simulated> {
        let address = host_of(url).filter(|address| !address.is_loopback()).unwrap_or(self.here);
        let url = client_url(address);
        self.members.iter().find(|member| member.running && member.client_urls.contains(&url))
    }

    fn agrees(&self) -> bool {
        let voters: Vec<&Simulated> = self.members.iter().filter(|member| !member.learner).collect();
        voters.iter().filter(|member| member.running).count() >= quorum(voters.len())
    }

    fn list(&self) -> Value {
        let members = self.members.iter().map(|member| {
            let mut listed = json!({"ID": member.id, "peerURLs": member.peer_urls});
            // Absent, not empty, until it has started; false is absent too.
            if !member.client_urls.is_empty() {
                listed["name"] = json!(member.name);
                listed["clientURLs"] = json!(member.client_urls);
            }
            if member.learner {
                listed["isLearner"] = json!(true);
            }
            listed
        });
        let header = json!({"cluster_id": 9_815_050_765_695_711_865_u64, "member_id": 1, "raft_term": 2});
        json!({"header": header, "members": members.collect::<Vec<_>>()})
    }

    fn status(&self, asked: &Simulated) -> Reply {
        let header = json!({"cluster_id": 9_815_050_765_695_711_865_u64, "member_id": asked.id, "raft_term": 2});
        let mut status = json!({"header": header, "version": "3.4.23", "dbSize": 20480, "raftIndex": 12});
        if self.agrees() {
            let leads = |member: &&Simulated| member.running && !member.learner;
            status["leader"] = json!(self.members.iter().find(leads).unwrap().id);
        } else {
            status["errors"] = json!(["etcdserver: no leader"]);
        }
        if asked.learner {
            status["isLearner"] = json!(true);
        }
        Reply::ok(json!([{"Endpoint": asked.client_urls[0], "Status": status}]).to_string())
    }

    fn health(&self, endpoints: &str) -> Reply {
        let rows: Vec<Value> = endpoints
            .split(',')
            .map(|url| match self.at(url) {
                Some(found) if found.learner => {
                    json!({"endpoint": url, "health": false, "took": "2.5s", "error": "etcdserver: rpc not supported for learner"})
                }
                Some(_) if self.agrees() => json!({"endpoint": url, "health": true, "took": "1.190285ms"}),
                _ => json!({"endpoint": url, "health": false, "took": "3s", "error": "context deadline exceeded"}),
            })
            .collect();
        let good = rows.iter().all(|row| row["health"] == true);
        let reply = if good { Reply::ok("") } else { Reply::fail(1, "Error: unhealthy cluster") };
        reply.stdout(json!(rows).to_string())
    }

    fn add(&mut self, url: &str) -> Reply {
        if self.members.iter().any(|member| member.peer_urls.iter().any(|known| known == url)) {
            return failed("etcdserver: Peer URLs already exists");
        }
        if self.members.iter().any(|member| member.learner) {
            return failed("etcdserver: too many learner members in cluster");
        }
        if self.unsettled > 0 || self.members.iter().any(|member| !member.running) {
            self.unsettled = self.unsettled.saturating_sub(1);
            return failed("etcdserver: unhealthy cluster");
        }
        let (id, peer_urls) = (self.id(), vec![url.to_owned()]);
        let (name, client_urls) = (String::new(), vec![]);
        self.members.push(Simulated { id, name, peer_urls, client_urls, learner: true, running: false });
        Reply::ok("Member e1e8aa558316aa7c added to cluster 883610ab45b7fa79\n")
    }

    fn promote(&mut self, id: u64) -> Reply {
        let behind = self.behind > 0;
        self.behind = self.behind.saturating_sub(1);
        let Some(found) = self.members.iter_mut().find(|member| member.id == id) else {
            return failed("etcdserver: member not found");
        };
        if !found.learner {
            return failed("etcdserver: can only promote a learner member");
        }
        if behind || !found.running {
            return failed("etcdserver: can only promote a learner member which is in sync with leader");
        }
        found.learner = false;
        Reply::ok("Member e1e8aa558316aa7c promoted in cluster 883610ab45b7fa79\n")
    }

    fn remove(&mut self, id: u64) -> Reply {
        let Some(index) = self.members.iter().position(|member| member.id == id) else {
            return failed("etcdserver: member not found");
        };
        self.members.remove(index);
        Reply::ok("")
    }
}

fn number(hex: &str) -> u64 {
    u64::from_str_radix(hex, 16).unwrap()
}

/// As etcdctl 3.4 says it: a log line, then the error.
fn failed(message: &str) -> Reply {
    let log = format!(
        r#"{{"level":"warn","ts":"2026-11-21T11:37:05.972Z","caller":"clientv3/retry_interceptor.go:62","msg":"retrying of unary invoker failed","target":"endpoint://client-3c73c3ea/192.0.2.1:2379","attempt":0,"error":"rpc error: code = FailedPrecondition desc = {message}"}}"#
    );
    Reply::fail(1, format!("{log}\nError: {message}\n"))
}

fn deadline() -> Reply {
    failed("context deadline exceeded").stdout("[]\n")
}
