//! The nodes: what the API says of each, and whether its kubelet shows a certificate of the cluster and refuses strangers.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Result, anyhow, ensure};
use serde_json::Value;

use super::dial::for_all;
use super::table::Table;
use super::{Question, api};
use crate::config::Node;
use crate::kubeapi::{Client, Credentials, Error};
use crate::pki::AuthorityName;
use crate::pki::files::key_path;

/// The kubelet's default, which its config names too.
pub(super) const KUBELET_PORT: u16 = 10250;

/// One row a node.
pub(super) fn look(question: &Question<'_>, client: &Client<'_>, table: &mut Table) {
    let mut found: BTreeMap<String, Result<(), String>> = BTreeMap::new();
    let listed = client.pages("/api/v1/nodes", |page| found.extend(page.iter().filter_map(state)));
    if let Err(error) = listed {
        return table.failed("nodes", format!("{error:#}"));
    }
    let wanted: Vec<&Node> =
        question.config.nodes.iter().filter(|node| node.roles.master() || node.roles.worker()).collect();
    let kubelets = for_all(&wanted, |node| kubelet(question, node));
    for (node, kubelet) in wanted.iter().zip(kubelets) {
        let subject = format!("node {} ({})", node.name, node.address);
        match (found.remove(&node.name), kubelet) {
            (None, _) => table.failed(subject, "in the cluster's config, but it has not joined"),
            (Some(Err(reason)), _) => table.failed(subject, reason),
            (Some(Ok(())), Err(error)) => table.failed(subject, format!("ready, but its kubelet: {error:#}")),
            (Some(Ok(())), Ok(skew)) => {
                api::clock(table, &subject, "ready, its kubelet refuses strangers", skew);
            }
        }
    }
    rights(question, client, &wanted, table);
    for name in found.into_keys() {
        table.warning(format!("node {name}"), "in the API, but not in the cluster's config");
    }
}

/// Whether the kubelets give what only API servers may have to nobody else, and give it to those.
fn rights(question: &Question<'_>, client: &Client<'_>, wanted: &[&Node], table: &mut Table) {
    if question.node.is_some() {
        let refused = for_all(wanted, |node| refuses_nodes(question, node));
        verdict(table, "kubelets refuse what a node has no right to", wanted, refused);
    } else {
        table.unchecked("kubelets refuse what a node has no right to", "this host has no certificate of a node");
    }
    if question.host.exists(&key_path(AuthorityName::Cluster.stem())).unwrap_or_default() {
        let reached = for_all(wanted, |node| {
            let answer = client.ask(&format!("/api/v1/nodes/{}/proxy/healthz", node.name))?;
            expect(answer.code, 200)
        });
        verdict(table, "kubelets answer the API server", wanted, reached);
    }
}

/// One row for all nodes, and one for each that fails.
fn verdict(table: &mut Table, subject: &str, nodes: &[&Node], results: Vec<Result<()>>) {
    let (mut good, all) = (0, results.len());
    for (node, result) in nodes.iter().zip(results) {
        match result {
            Ok(()) => good += 1,
            Err(error) => table.failed(format!("{subject}: {}", node.name), format!("{error:#}")),
        }
    }
    if good == all {
        table.good(subject, format!("{all} of {all}"));
    }
}

/// Asks a kubelet for its pods with this node's own certificate; a node has no right to them.
fn refuses_nodes(question: &Question<'_>, node: &Node) -> Result<()> {
    let address = SocketAddr::new(node.address, question.kubelet_port);
    let client = Client::new(address, question.authority()?, question.as_node()?)?.with_limits(question.limits());
    expect(client.ask("/pods")?.code, 403)
}

fn expect(found: u16, wanted: u16) -> Result<()> {
    ensure!(found == wanted, "it answers {found}, not {wanted}");
    Ok(())
}

/// Name and readiness of a node object.
fn state(node: &Value) -> Option<(String, Result<(), String>)> {
    let name = node.pointer("/metadata/name")?.as_str()?.to_owned();
    let conditions =
        node.pointer("/status/conditions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
    let state = match ready {
        Some(ready) if ready["status"] == "True" => Ok(()),
        Some(ready) => Err(format!("not ready: {}", ready["message"].as_str().unwrap_or("no reason given"))),
        None => Err("it has no status yet".to_owned()),
    };
    Some((name, state))
}

/// Asks a kubelet without any certificate; it has to answer 401, with a certificate for its address by the cluster's
/// authority. Gives the difference of the clocks.
fn kubelet(question: &Question<'_>, node: &Node) -> Result<Option<f64>> {
    let address = SocketAddr::new(node.address, question.kubelet_port);
    let client = Client::new(address, question.authority()?, Credentials::Anonymous)?.with_limits(question.limits());
    let before = question.host.now();
    let answer = client.ask("/pods").map_err(|error| match error {
        // The client only knows API servers.
        Error::Connect(address, reason) => anyhow!("no answer at {address}: {reason}"),
        other => other.into(),
    })?;
    let after = question.host.now();
    ensure!(answer.code == 401, "it answers {} to somebody without a certificate, not 401", answer.code);
    Ok(answer.time.map(|theirs| api::skew(before, after, theirs)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::super::table::{Row, State};
    use super::*;
    use crate::config::ClusterConfig;
    use crate::fixture::cluster_toml;
    use crate::host::Host;
    use crate::kubeapi::fake;
    use crate::kubeapi::tests::{Server, answer, authority, leaf};
    use crate::pki::{Authority, KUBELET_CLIENT, Usage};
    use jiff::Timestamp;
    use serde_json::json;

    const CONFIG: &str = cluster_toml!("x", "m1" "192.0.2.1" ["master"], "w1" "192.0.2.2" ["worker"]);

    /// A kubelet that gives these answers one after the other.
    fn kubelet_at(authority: &Authority, address: &str, port: u16, answers: [&str; 2]) -> Server {
        let pair = authority.issue(&leaf(Usage::Server, address), Timestamp::now()).unwrap();
        let socket = SocketAddr::new(address.parse().unwrap(), port);
        Server::start_at(socket, authority, &pair, answers.map(|code| answer(code, "{}")).into())
    }

    /// The rows about two kubelets: what each says to somebody without a certificate, then to a node.
    fn rows(first: [&str; 2], second: [&str; 2]) -> Vec<Row> {
        let (directory, authority, api) = (tempfile::tempdir().unwrap(), authority(), fake::Server::start());
        let host = Host::under(directory.path());
        let node = authority.issue(&leaf(Usage::Client, "127.0.0.1"), Timestamp::now()).unwrap();
        let pair = format!("{}{}", node.certificate, node.key.expose());
        host.create_dir(Path::new(KUBELET_CLIENT).parent().unwrap(), 0o700).unwrap();
        host.write(Path::new(KUBELET_CLIENT), pair.as_bytes(), 0o600).unwrap();
        for name in ["m1", "w1", "x1"] {
            let status = json!({ "conditions": [{ "type": "Ready", "status": "True" }] });
            api.put(&format!("/api/v1/nodes/{name}"), json!({ "metadata": { "name": name }, "status": status }));
        }
        let m1 = kubelet_at(&authority, "127.0.0.1", 0, first);
        let w1 = kubelet_at(&authority, "127.0.0.2", m1.address.port(), second);
        let mut config = ClusterConfig::parse(CONFIG, Path::new("x")).unwrap();
        for (node, kubelet) in config.nodes.iter_mut().zip([&m1, &w1]) {
            node.address = kubelet.address.ip();
        }
        let question = Question {
            host: &host,
            config: &config,
            node: Some("m1".to_owned()),
            authority: Some(authority.pair().certificate.clone()),
            timeout: Duration::from_secs(5),
            kubelet_port: m1.address.port(),
        };
        let mut table = Table::default();
        look(&question, &api.client(), &mut table);
        assert_eq!((m1.stop().len(), w1.stop().len()), (2, 2));
        table.0
    }

    #[test]
    fn a_kubelet_that_lets_somebody_in_is_named() {
        let good = ["401 Unauthorized", "403 Forbidden"];
        let states = |rows: &[Row]| rows.iter().map(|row| row.state).collect::<Vec<_>>();
        let found = rows(good, good);
        assert_eq!(states(&found), [State::Good, State::Good, State::Good, State::Warning], "{found:?}");
        assert_eq!((found[2].detail.as_str(), found[3].subject.as_str()), ("2 of 2", "node x1"));

        let found = rows(good, ["200 OK", "403 Forbidden"]);
        assert_eq!(states(&found)[..2], [State::Good, State::Failed], "{found:?}");
        assert!(found[1].subject.contains("w1") && found[1].detail.contains("answers 200"), "{found:?}");

        let found = rows(["401 Unauthorized", "200 OK"], good);
        assert_eq!(states(&found)[..3], [State::Good, State::Good, State::Failed], "{found:?}");
        assert_eq!(found[2].subject, "kubelets refuse what a node has no right to: m1");
    }

    #[test]
    fn a_node_object_says_whether_it_is_ready() {
        let node = |status: &str| {
            json!({"metadata": {"name": "w1"}, "status": {"conditions": [
                {"type": "MemoryPressure", "status": "False"},
                {"type": "Ready", "status": status, "message": "Kubelet stopped posting node status."},
            ]}})
        };
        assert_eq!(state(&node("True")), Some(("w1".to_owned(), Ok(()))));
        let (_, reason) = state(&node("Unknown")).unwrap();
        assert_eq!(reason, Err("not ready: Kubelet stopped posting node status.".to_owned()));
        assert!(state(&json!({"metadata": {"name": "w1"}})).unwrap().1.is_err());
        assert_eq!(state(&json!({})), None);
    }

    #[test]
    fn another_answer_than_the_wanted_one_is_said() {
        assert!(expect(403, 403).is_ok());
        let error = expect(200, 403).unwrap_err();
        assert_eq!(error.to_string(), "it answers 200, not 403");
    }
}
