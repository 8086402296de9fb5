use std::collections::BTreeSet;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, PKCS_ECDSA_P256_SHA256, SanType,
};
use serde_json::{Value, json};

use super::csr::{Csr, Request, State};
use super::decide::{CLIENT_SIGNER, ClusterView, Decision, SERVING_SIGNER, decide};
use super::node::{Workloads, patch};
use super::*;
use crate::event::Quiet;
use crate::kubeapi::fake::Server;

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn view() -> ClusterView {
    let address = |text: &str| BTreeSet::from([text.parse::<IpAddr>().unwrap()]);
    ClusterView {
        nodes: [("n1".to_owned(), address("10.9.0.1")), ("n2".to_owned(), address("10.9.0.2"))].into(),
        tokens: [("aaaaaa".to_owned(), "n1".to_owned()), ("bbbbbb".to_owned(), "n2".to_owned())].into(),
    }
}

fn request(names: &[&str], addresses: &[&str]) -> Request {
    Request {
        common_name: "system:node:n1".to_owned(),
        organization: "system:nodes".to_owned(),
        names: set(names),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        other_names: false,
    }
}

fn csr(signer: &str, user: &str, groups: &[&str], usages: &[&str], request: Request) -> Csr {
    Csr {
        name: "csr-1".to_owned(),
        created: String::new(),
        signer: signer.to_owned(),
        user: user.to_owned(),
        groups: set(groups),
        usages: set(usages),
        request: Ok(request),
        state: State::Undecided,
    }
}

fn first() -> Csr {
    let groups = ["system:bootstrappers", "system:bootstrappers:sealift", "system:authenticated"];
    csr(CLIENT_SIGNER, "system:bootstrap:aaaaaa", &groups, &["digital signature", "client auth"], request(&[], &[]))
}

fn renewal() -> Csr {
    let groups = ["system:nodes", "system:authenticated"];
    let usages = ["digital signature", "key encipherment", "client auth"];
    csr(CLIENT_SIGNER, "system:node:n1", &groups, &usages, request(&[], &[]))
}

fn serving() -> Csr {
    let groups = ["system:nodes", "system:authenticated"];
    let usages = ["digital signature", "key encipherment", "server auth"];
    csr(SERVING_SIGNER, "system:node:n1", &groups, &usages, request(&["n1"], &["10.9.0.1"]))
}

#[test]
fn what_an_honest_kubelet_asks_for_is_approved() {
    let mut address_only = serving();
    address_only.request = Ok(request(&[], &["10.9.0.1"]));
    let mut bare = serving();
    bare.usages = set(&["digital signature", "server auth"]);
    for csr in [first(), renewal(), serving(), address_only, bare] {
        assert_eq!(decide(&csr, &view()), Decision::Approve, "{csr:?}");
    }
}

/// A change to an honest request, and words of the reason why it must then stay pending.
type Variant = (fn() -> Csr, fn(&mut Csr), &'static str);

fn asked(csr: &mut Csr) -> &mut Request {
    csr.request.as_mut().unwrap()
}

#[test]
fn everything_else_stays_pending_with_a_reason() {
    let variants: &[Variant] = &[
        (first, |csr| csr.user = "system:bootstrap:bbbbbb".into(), "made for node `n2`"),
        (first, |csr| csr.user = "system:bootstrap:cccccc".into(), "not made for a node"),
        (first, |csr| csr.user = "system:bootstrap:".into(), "not made for a node"),
        (first, |csr| csr.user = "system:node:n2".into(), "asks for `system:node:n1`"),
        (first, |csr| csr.user = "kubernetes-admin".into(), "asks for"),
        (first, |csr| csr.groups = set(&["system:bootstrappers"]), "not in group"),
        (first, |csr| asked(csr).common_name = "system:node:n2".into(), "made for node `n1`, not `n2`"),
        (first, |csr| asked(csr).common_name = "system:node:n3".into(), "not in the cluster's config"),
        (first, |csr| asked(csr).common_name = "system:node:".into(), "not in the cluster's config"),
        (first, |csr| asked(csr).common_name = "system:node:N1".into(), "not in the cluster's config"),
        (first, |csr| asked(csr).common_name = "admin".into(), "not a node's"),
        (first, |csr| asked(csr).organization = "system:masters".into(), "organization"),
        (first, |csr| asked(csr).names = set(&["n1"]), "no names or addresses"),
        (first, |csr| asked(csr).addresses = ["10.9.0.1".parse().unwrap()].into(), "no names or addresses"),
        (first, |csr| asked(csr).other_names = true, "unusual name"),
        (first, |csr| csr.signer = SERVING_SIGNER.into(), "lack"),
        (first, |csr| csr.signer = "kubernetes.io/kube-apiserver-client".into(), "not decided by Sealift"),
        (first, |csr| csr.signer = "kubernetes.io/legacy-unknown".into(), "not decided by Sealift"),
        (first, |csr| csr.usages = set(&["client auth"]), "lack"),
        (first, |csr| csr.usages.extend(["server auth".into()]), "usage `server auth`"),
        (first, |csr| csr.usages.extend(["cert sign".into()]), "usage `cert sign`"),
        (first, |csr| csr.request = Err("the request is not PEM".into()), "not PEM"),
        (renewal, |csr| csr.user = "system:node:n2".into(), "asks for"),
        (renewal, |csr| csr.groups = set(&["system:authenticated"]), "not in group"),
        (renewal, |csr| asked(csr).organization = "system:masters".into(), "organization"),
        (serving, |csr| csr.user = "system:node:n2".into(), "asks for"),
        (serving, |csr| csr.user = "system:bootstrap:aaaaaa".into(), "asks for"),
        (serving, |csr| csr.groups = set(&["system:bootstrappers:sealift"]), "not in group"),
        (serving, |csr| asked(csr).names = set(&["n1", "kubernetes"]), "DNS name `kubernetes`"),
        (serving, |csr| asked(csr).names = set(&["*"]), "DNS name `*`"),
        (serving, |csr| asked(csr).names = set(&["N1"]), "DNS name `N1`"),
        (serving, |csr| asked(csr).addresses.extend("10.9.0.2".parse::<IpAddr>()), "10.9.0.2 is not configured"),
        (serving, |csr| asked(csr).addresses.extend("127.0.0.1".parse::<IpAddr>()), "127.0.0.1 is not"),
        (serving, |csr| asked(csr).addresses = ["::ffff:10.9.0.1".parse().unwrap()].into(), "is not configured"),
        (serving, |csr| *asked(csr) = request(&[], &[]), "no name and no address"),
        (serving, |csr| asked(csr).other_names = true, "unusual name"),
        (serving, |csr| csr.usages.extend(["client auth".into()]), "usage `client auth`"),
        (serving, |csr| csr.signer = CLIENT_SIGNER.into(), "lack"),
    ];
    for (index, (honest, change, words)) in variants.iter().enumerate() {
        let mut csr = honest();
        change(&mut csr);
        match decide(&csr, &view()) {
            Decision::Pending(reason) => assert!(reason.contains(words), "variant {index}: {reason:?} lacks {words:?}"),
            Decision::Approve => panic!("variant {index} ({words}) was approved"),
        }
    }
}

fn params(names: &[(DnType, &str)], alternatives: Vec<SanType>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, name) in names {
        params.distinguished_name.push(kind.clone(), *name);
    }
    params.subject_alt_names = alternatives;
    params
}

fn pem(params: &CertificateParams) -> String {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

const NODE: [(DnType, &str); 2] = [(DnType::OrganizationName, "system:nodes"), (DnType::CommonName, "system:node:n1")];

#[test]
fn a_request_is_read_whole_or_not_at_all() {
    let name = |text: &str| SanType::DnsName(text.try_into().unwrap());
    let good = pem(&params(&NODE, vec![name("n1"), SanType::IpAddress("10.9.0.1".parse().unwrap())]));
    assert_eq!(Request::of_pem(good.as_bytes()), Ok(request(&["n1"], &["10.9.0.1"])));
    assert_eq!(Request::of_pem(pem(&params(&NODE, vec![])).as_bytes()), Ok(request(&[], &[])));

    let odd = pem(&params(&NODE, vec![name("n1"), SanType::Rfc822Name("a@b.c".try_into().unwrap())]));
    assert!(Request::of_pem(odd.as_bytes()).unwrap().other_names);

    let mut usage = params(&NODE, vec![]);
    usage.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let unit = [&NODE[..], &[(DnType::OrganizationalUnitName, "x")]].concat();
    let half = good.len() / 2;
    let flipped = good.replace(&good[half..=half], if &good[half..=half] == "A" { "B" } else { "A" });
    for (text, words) in [
        (pem(&usage), "extension"),
        (pem(&params(&unit, vec![])), "subject"),
        (pem(&params(&NODE[1..], vec![])), "subject"),
        (good.clone() + &good, "one PEM block"),
        (good.replace("CERTIFICATE REQUEST", "CERTIFICATE"), "one PEM block"),
        (format!("x{good}"), "one PEM block"),
        (good[..half].to_owned(), "one PEM block"),
        (flipped, ""),
        (String::new(), "one PEM block"),
    ] {
        let reason = Request::of_pem(text.as_bytes()).unwrap_err();
        assert!(reason.contains(words), "{reason:?} lacks {words:?}");
    }
}

#[test]
fn a_request_signed_by_another_key_is_refused() {
    let good = pem(&params(&NODE, vec![]));
    let body: String = good.lines().filter(|line| !line.starts_with("-----")).collect();
    let mut der = STANDARD.decode(body).unwrap();
    let text = |der: &[u8]| {
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n", STANDARD.encode(der))
    };
    assert!(Request::of_pem(text(&der).as_bytes()).is_ok());
    *der.last_mut().unwrap() ^= 1;
    assert!(Request::of_pem(text(&der).as_bytes()).unwrap_err().contains("not signed by its own key"));
    *der.last_mut().unwrap() ^= 1;
    der.push(0);
    assert!(Request::of_pem(text(&der).as_bytes()).unwrap_err().contains("followed"));
}

fn object(name: &str, signer: &str, user: &str, status: &Value) -> Value {
    let request = STANDARD.encode(pem(&params(&NODE, vec![])));
    json!({
        "metadata": { "name": name, "creationTimestamp": "2026-11-21T12:00:00Z" },
        "spec": { "request": request, "signerName": signer, "username": user, "usages": ["digital signature"] },
        "status": status,
    })
}

#[test]
fn the_state_of_a_request_is_read_from_its_status() {
    let state = |status: Value| Csr::of_object(&object("x", CLIENT_SIGNER, "u", &status)).unwrap().state;
    assert_eq!(state(json!({})), State::Undecided);
    assert_eq!(state(json!({ "conditions": [{ "type": "Approved" }] })), State::Approved);
    assert_eq!(state(json!({ "conditions": [{ "type": "Approved" }], "certificate": "LS0=" })), State::Issued);
    assert_eq!(state(json!({ "conditions": [{ "type": "Denied" }] })), State::Refused);
    assert_eq!(state(json!({ "conditions": [{ "type": "Approved" }, { "type": "Failed" }] })), State::Refused);
}

#[test]
fn a_token_is_spent_when_its_node_serves_with_a_certificate_asked_for_after_it() {
    let issued = json!({ "conditions": [{ "type": "Approved" }], "certificate": "LS0=" });
    let approved = json!({ "conditions": [{ "type": "Approved" }] });
    let at = |minute: u32, mut object: Value| {
        object["metadata"]["creationTimestamp"] = json!(format!("2026-11-21T12:{minute:02}:00Z"));
        object
    };
    let requests = [
        at(0, object("a", CLIENT_SIGNER, "system:bootstrap:aaaaaa", &issued)),
        at(1, object("b", SERVING_SIGNER, "system:node:n1", &issued)),
        at(0, object("c", CLIENT_SIGNER, "system:bootstrap:bbbbbb", &issued)),
        at(1, object("d", SERVING_SIGNER, "system:node:n2", &approved)),
    ];
    assert_eq!(spent_tokens(&requests, &view()), set(&["aaaaaa"]));
    assert!(spent_tokens(&requests[1..], &view()).is_empty(), "nobody used the token");

    // The node is installed again within the hour: its old requests are still listed.
    let mut again = view();
    again.tokens.insert("cccccc".to_owned(), "n1".to_owned());
    let mut requests = requests.to_vec();
    assert_eq!(spent_tokens(&requests, &again), set(&["aaaaaa"]));
    requests.push(at(30, object("e", CLIENT_SIGNER, "system:bootstrap:cccccc", &issued)));
    assert_eq!(spent_tokens(&requests, &again), set(&["aaaaaa"]), "it has no new serving certificate yet");
    requests.push(at(31, object("f", SERVING_SIGNER, "system:node:n1", &issued)));
    assert_eq!(spent_tokens(&requests, &again), set(&["aaaaaa", "cccccc"]));
}

fn node(version: &str, labels: &Value, taints: &Value) -> Value {
    json!({
        "metadata": { "resourceVersion": "7", "labels": labels },
        "spec": { "taints": taints },
        "status": { "nodeInfo": { "kubeletVersion": version } },
    })
}

#[test]
fn masters_are_marked_as_their_version_expects() {
    let keys = |patch: &Value| -> Vec<String> {
        patch["spec"]["taints"].as_array().unwrap().iter().map(|t| t["key"].as_str().unwrap().to_owned()).collect()
    };
    let (master, control_plane) = ("node-role.kubernetes.io/master", "node-role.kubernetes.io/control-plane");
    for (version, labels, taints) in [
        ("v1.20.2", vec![master, control_plane], vec![master]),
        ("v1.24.0-rc.1", vec![master, control_plane], vec![master, control_plane]),
        ("v1.25.0", vec![control_plane], vec![control_plane]),
        ("v1.37.1", vec![control_plane], vec![control_plane]),
    ] {
        let fresh = node(version, &json!({}), &json!([{ "key": "other", "effect": "NoExecute" }]));
        let patch = super::node::patch(&fresh, Workloads::KeptOut).unwrap();
        let found: BTreeSet<&str> =
            patch["metadata"]["labels"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(found, labels.into_iter().collect(), "{version}");
        assert_eq!(keys(&patch)[1..], taints, "{version}");
        assert_eq!(keys(&patch)[0], "other", "the taints of others stay");
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
    }
    let both = json!({ master: "", control_plane: "" });
    assert_eq!(patch(&node("v1.20.2", &both, &json!([])), Workloads::KeptOut), None, "a removed taint stays away");
    let upgraded = node("v1.25.0", &both, &json!([{ "key": master, "effect": "NoSchedule" }]));
    let patch_25 = patch(&upgraded, Workloads::KeptOut).unwrap();
    assert_eq!(patch_25["metadata"]["labels"], json!({ master: null }));
    assert_eq!(keys(&patch_25), [control_plane]);
    let worker = patch(&node("v1.20.2", &json!({}), &Value::Null), Workloads::Run).unwrap();
    assert!(keys(&worker).is_empty());
    assert_eq!(patch(&json!({}), Workloads::Run), None);
}

const CONFIG: &str = r#"
[cluster]
name = "demo"

[[node]]
name = "m1"
address = "10.9.0.9"
roles = ["master"]

[[node]]
name = "n1"
address = "10.9.0.1"
roles = ["worker"]
"#;
const CONFIG_MAP: &str = "/api/v1/namespaces/kube-system/configmaps/sealift-cluster";

/// A cluster with the record of [`CONFIG`] and token `aaaaaa` for `n1`.
fn cluster(config: &str) -> Server {
    let server = Server::start();
    put_record(&server, config);
    server
}

fn put_record(server: &Server, config: &str) {
    let tokens = [("aaaaaa".to_owned(), "n1".to_owned())].into();
    server.put(CONFIG_MAP, Record::new(config, 1, tokens).unwrap().object().unwrap());
}

/// A request for `n1`'s client certificate, as the apiserver keeps it.
fn put_request(server: &Server, name: &str, user: &str, status: &Value) {
    let mut request = object(name, CLIENT_SIGNER, user, status);
    let groups = if user.starts_with("system:node:") { "system:nodes" } else { tokens::GROUP };
    request["spec"]["groups"] = json!([groups]);
    request["spec"]["usages"] = json!(["digital signature", "client auth"]);
    request["spec"]["request"] = json!(STANDARD.encode(pem(&params(&NODE, vec![]))));
    server.put(&format!("{REQUESTS}/{name}"), request);
}

fn round(host: &Host, server: &Server) -> Result<Vec<Pending>> {
    let mut approver = Approver { host, events: &Quiet, spent: BTreeSet::new(), said: BTreeMap::new() };
    approver.work(&server.client())?;
    pending(host)
}

/// What was sent to approve requests.
fn approvals(server: &Server) -> Vec<String> {
    server.changes().iter().filter_map(|change| change.strip_suffix("/approval")).map(str::to_owned).collect()
}

#[test]
fn a_removed_node_is_nobody_from_the_next_round_on() {
    let (directory, server) = (tempfile::tempdir().unwrap(), cluster(CONFIG));
    let host = Host::under(directory.path());
    put_request(&server, "a", "system:node:n1", &json!({}));
    assert!(round(&host, &server).unwrap().is_empty());
    assert_eq!(approvals(&server).len(), 1, "its renewal was approved");

    let without = CONFIG.rsplit_once("[[node]]").unwrap().0;
    put_record(&server, without);
    let left = round(&host, &server).unwrap();
    assert_eq!(approvals(&server).len(), 1);
    assert!(left[0].reason.contains("node `n1` is not in the cluster's config"), "{left:?}");
}

#[test]
fn a_request_that_cannot_be_approved_does_not_keep_the_others_waiting() {
    let (directory, server) = (tempfile::tempdir().unwrap(), cluster(CONFIG));
    let host = Host::under(directory.path());
    for name in ["a", "b", "c"] {
        put_request(&server, name, "system:bootstrap:aaaaaa", &json!({}));
    }
    let status = |reason: &str| json!({ "kind": "Status", "reason": reason, "message": reason });
    server.fault(move |request| match request.rsplit('/').nth(1) {
        Some("a") => Some((422, status("Invalid"))),
        // Another master's approver was faster.
        Some("b") => Some((409, status("Conflict"))),
        Some("c") => Some((200, json!({}))),
        _ => None,
    });
    let left = round(&host, &server).unwrap();
    assert_eq!(approvals(&server).len(), 3);
    assert_eq!(left.len(), 1);
    assert!(left[0].name == "a" && left[0].reason.contains("approving it failed"), "{left:?}");

    server.fault(move |request| request.starts_with("PUT").then(|| (503, status("ServiceUnavailable"))));
    assert!(round(&host, &server).is_err(), "what passes by itself is tried again as a whole");
}

#[test]
fn a_token_that_may_not_be_deleted_yet_does_not_keep_masters_from_being_marked() {
    let (directory, server) = (tempfile::tempdir().unwrap(), cluster(CONFIG));
    let host = Host::under(directory.path());
    let issued = json!({ "conditions": [{ "type": "Approved" }], "certificate": "LS0=" });
    put_request(&server, "a", "system:bootstrap:aaaaaa", &issued);
    server.put(&format!("{REQUESTS}/b"), object("b", SERVING_SIGNER, "system:node:n1", &issued));
    server.put("/api/v1/nodes/m1", node("v1.20.2", &json!({}), &json!([])));
    server.fault(|request| match request.split(' ').next() {
        Some("DELETE") => Some((403, json!({ "kind": "Status", "reason": "Forbidden", "message": "not yet" }))),
        Some("PATCH") => Some((200, json!({}))),
        _ => None,
    });
    round(&host, &server).unwrap();
    let token = "DELETE /api/v1/namespaces/kube-system/secrets/bootstrap-token-aaaaaa";
    assert_eq!(server.changes(), [token, "PATCH /api/v1/nodes/m1"]);
}
