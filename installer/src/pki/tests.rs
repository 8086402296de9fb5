use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::authority::{AUTHORITY_LIFETIME, BACKDATE};
use super::files::Origin;
use super::kubeconfig::Credential;
use super::tokens::{Token, Tokens};
use super::*;
use crate::cluster::Founding;
use crate::host::Host;
use crate::join::contents::Needs;

mod roles;

const HOUR: Duration = Duration::from_secs(3600);

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn subject() -> Subject {
    Subject {
        cluster: "demo".to_owned(),
        domain: "cluster.local".to_owned(),
        api_service_ip: "10.96.0.1".parse().unwrap(),
        node: "m1".to_owned(),
        address: "10.9.0.1".parse().unwrap(),
        extra_names: BTreeSet::new(),
        extra_addresses: BTreeSet::new(),
        lifetime: 365 * 24 * HOUR,
    }
}

fn authority() -> Authority {
    Authority::create(AuthorityName::Cluster, "demo", now()).unwrap()
}

fn apiserver() -> Leaf {
    subject().master_pairs().into_iter().find(|file| file.stem == "apiserver").unwrap().leaf
}

#[test]
fn a_leaf_says_what_the_table_says() {
    let authority = authority();
    let found = Inspection::of_pem(&authority.issue(&apiserver(), now()).unwrap().certificate).unwrap();
    assert_eq!(found.common_name, "kube-apiserver");
    assert_eq!((found.usage, found.authority), (Some(Usage::Server), false));
    for name in ["localhost", "kubernetes.default.svc.cluster.local"] {
        assert!(found.names.contains(name), "{name}");
    }
    for address in ["127.0.0.1", "::1", "10.96.0.1", "10.9.0.1"] {
        assert!(found.addresses.contains(&address.parse().unwrap()), "{address}");
    }
    assert_eq!(found.not_before, now() - BACKDATE);
    assert_eq!(found.not_after, now() + 365 * 24 * HOUR);
    assert!(found.signed_by(authority.inspection()));
    assert_eq!(authority.inspection().not_after, now() + AUTHORITY_LIFETIME);
}

#[test]
fn a_leaf_is_renewed_when_anything_about_it_is_wrong_and_kept_otherwise() {
    let (authority, leaf) = (authority(), apiserver());
    let pair = authority.issue(&leaf, now()).unwrap();
    let decide = |leaf: &Leaf, pair: &Pair, authority: &Authority, now| {
        inspect::decide(leaf, Some(&pair.certificate), Some(&pair.key), authority.inspection(), now)
    };
    let reason = |decision| match decision {
        Decision::Renew(reason) => reason,
        Decision::Keep => "keep".to_owned(),
    };
    assert_eq!(decide(&leaf, &pair, &authority, now()), Decision::Keep);
    assert_eq!(decide(&leaf, &pair, &authority, now() + 240 * 24 * HOUR), Decision::Keep);
    let other = Authority::create(AuthorityName::Cluster, "demo", now()).unwrap();
    let mut longer = leaf.clone();
    longer.names.insert("api.example".to_owned());
    let mut client = leaf.clone();
    client.usage = Usage::Client;
    let mut admin = leaf.clone();
    admin.organization = Some("system:masters".to_owned());
    let swapped = Pair { key: authority.issue(&leaf, now()).unwrap().key, ..pair.clone() };
    let cut = Pair { certificate: pair.certificate[..200].to_owned(), ..pair.clone() };
    for (decision, words) in [
        (inspect::decide(&leaf, None, Some(&pair.key), authority.inspection(), now()), "does not exist"),
        (inspect::decide(&leaf, Some(&pair.certificate), None, authority.inspection(), now()), "does not exist"),
        (decide(&leaf, &pair, &other, now()), "not signed by"),
        (decide(&longer, &pair, &authority, now()), "names and addresses"),
        (decide(&client, &pair, &authority, now()), "key usage"),
        (decide(&admin, &pair, &authority, now()), "subject"),
        (decide(&leaf, &swapped, &authority, now()), "belong together"),
        (decide(&leaf, &cut, &authority, now()), "cannot be read"),
        (decide(&leaf, &pair, &authority, now() + 250 * 24 * HOUR), "expires on"),
        (decide(&leaf, &pair, &authority, now() + 400 * 24 * HOUR), "expired on"),
        (decide(&leaf, &pair, &authority, now() - 48 * HOUR), "not valid before"),
    ] {
        let reason = reason(decision);
        assert!(reason.contains(words), "{reason:?} should contain {words:?}");
    }
}

#[test]
fn short_leaves_and_leaves_at_the_end_of_their_authority_are_not_renewed_for_ever() {
    let authority = authority();
    let mut leaf = apiserver();
    leaf.lifetime = HOUR;
    let pair = authority.issue(&leaf, now()).unwrap();
    let decide = |now| inspect::decide(&leaf, Some(&pair.certificate), Some(&pair.key), authority.inspection(), now);
    assert_eq!(decide(now()), Decision::Keep);
    assert!(matches!(decide(now() + HOUR * 3 / 4), Decision::Renew(_)));

    let late = now() + AUTHORITY_LIFETIME - HOUR;
    let leaf = apiserver();
    let pair = authority.issue(&leaf, late).unwrap();
    let found = Inspection::of_pem(&pair.certificate).unwrap();
    assert_eq!(found.not_after, authority.inspection().not_after);
    let decision = inspect::decide(&leaf, Some(&pair.certificate), Some(&pair.key), authority.inspection(), late);
    assert_eq!(decision, Decision::Keep);
}

#[test]
fn an_authority_loads_only_with_its_own_key_and_never_from_a_leaf() {
    let (one, two) = (authority(), authority());
    assert!(Authority::load(&one.pair().certificate, &one.pair().key).is_ok());
    assert!(Authority::load(&one.pair().certificate, &two.pair().key).is_err());
    let leaf = one.issue(&apiserver(), now()).unwrap();
    assert!(Authority::load(&leaf.certificate, &leaf.key).is_err());
}

#[test]
fn two_issues_never_share_a_key() {
    let authority = authority();
    let keys: BTreeSet<String> =
        (0..5).map(|_| authority.issue(&apiserver(), now()).unwrap().key.expose().to_owned()).collect();
    assert_eq!(keys.len(), 5);
}

#[test]
fn secrets_do_not_print_themselves() {
    let pair = authority().issue(&apiserver(), now()).unwrap();
    let token = Token::create(now(), HOUR).unwrap();
    let text = format!("{pair:?} {token:?} {:?}", secrets::encryption_config().unwrap());
    assert!(!text.contains("PRIVATE KEY") && !text.contains("secretbox"));
    assert!(!text.contains(token.text().expose().split_once('.').unwrap().1));
}

#[test]
fn kubeconfigs_read_back_what_was_written() {
    let authority = authority();
    let pair = authority.issue(&subject().admin(), now()).unwrap();
    let certificate = &authority.pair().certificate;
    let text = kubeconfig::write("demo", "https://10.9.0.1:6443", certificate, "admin", &Credential::Pair(&pair));
    let parts = kubeconfig::read(text.expose()).unwrap();
    assert_eq!(parts.server, "https://10.9.0.1:6443");
    assert_eq!(&parts.authority, certificate);
    assert_eq!(parts.pair.unwrap().key, pair.key);
    let token = Token::create(now(), HOUR).unwrap().text();
    let text = kubeconfig::write("demo", "https://127.0.0.1:8443", certificate, "kubelet", &Credential::Token(&token));
    assert_eq!(kubeconfig::read(text.expose()).unwrap().token, Some(token));
    assert!(kubeconfig::read("apiVersion: v1\n").is_none());
}

#[test]
fn tokens_survive_their_file_and_are_replaced_before_they_end() {
    let mut tokens = Tokens::default();
    assert!(tokens.needs_new("m1", now()));
    tokens.insert("m1", Token::create(now(), tokens::LIFETIME).unwrap());
    let back = Tokens::parse(tokens.write().unwrap().expose()).unwrap();
    let token = back.get("m1").unwrap();
    assert_eq!(token.text(), tokens.get("m1").unwrap().text());
    assert_eq!(back.nodes_by_id().get(&token.id).map(String::as_str), Some("m1"));
    assert!(!back.needs_new("m1", now()));
    assert!(back.needs_new("m1", now() + tokens::LIFETIME - HOUR / 2));
    assert!(back.needs_new("m2", now()));
    assert!(Tokens::parse(r#"{"m1":{"token":"short.0123456789abcdef","expires":"2026-11-21T12:00:00Z"}}"#).is_err());
}

#[test]
fn an_encryption_config_that_would_not_encrypt_is_noticed() {
    let config = secrets::encryption_config().unwrap();
    assert_eq!(secrets::encryption_config_problem(config.expose()), None);
    let identity = r#"{"resources":[{"resources":["secrets"],"providers":[{"identity":{}}]}]}"#;
    assert!(secrets::encryption_config_problem(identity).unwrap().contains("unencrypted"));
    assert!(secrets::encryption_config_problem("resources:").is_some());
}

fn wanted() -> files::Wanted {
    files::Wanted {
        subject: subject(),
        needs: Needs { master: true, kubelet: true, etcd: true },
        own_apiserver: files::OWN_APISERVER.to_owned(),
        proxy: files::PROXY.to_owned(),
    }
}

/// As the first master: it founds the cluster once and has its secrets from then on.
fn plan(host: &Host, now: Timestamp) -> anyhow::Result<Vec<files::Write>> {
    let founded = Founding::read(host)?.is_some();
    files::plan(host, &wanted(), if founded { Origin::Host } else { Origin::Found }, now)
}

fn paths(writes: &[files::Write]) -> Vec<String> {
    writes.iter().map(|write| write.path.display().to_string()).collect()
}

#[test]
fn a_second_run_writes_nothing_and_secrets_are_private() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::under(directory.path());
    let writes = plan(&host, now()).unwrap();
    for write in &writes {
        let secret = write.text.expose().contains("PRIVATE KEY")
            || write.path.starts_with("/etc/sealift/secrets")
            || write.path.extension().is_some_and(|extension| extension == "conf");
        assert_eq!(write.mode == 0o600, secret, "{}", write.path.display());
    }
    files::write(&host, &writes).unwrap();
    assert_eq!(paths(&plan(&host, now()).unwrap()), Vec::<String>::new());
}

#[test]
fn only_what_is_wrong_is_written_again() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::under(directory.path());
    files::write(&host, &plan(&host, now()).unwrap()).unwrap();
    host.remove(&files::key_path("apiserver")).unwrap();
    host.set_mode(&files::key_path("ca"), 0o644).unwrap();
    let again = plan(&host, now()).unwrap();
    assert_eq!(
        paths(&again),
        ["/etc/sealift/pki/ca.key", "/etc/sealift/pki/apiserver.key", "/etc/sealift/pki/apiserver.crt"]
    );
    files::write(&host, &again).unwrap();
    assert!(plan(&host, now()).unwrap().is_empty());
    let later = plan(&host, now() + 300 * 24 * HOUR).unwrap();
    assert!(later.iter().any(|write| write.path.ends_with("admin.conf") && write.reason.contains("expires on")));
    assert!(later.iter().all(|write| !write.path.ends_with("ca.crt")));
}

#[test]
fn further_names_of_the_api_reach_its_certificate() {
    let text = "[cluster]\nname = \"site\"\napi_names = [\"k8s.example\"]\napi_addresses = [\"10.0.0.9\"]\n\n\
                [[node]]\nname = \"m1\"\naddress = \"192.0.2.1\"\nroles = [\"master\"]\n";
    let config = crate::config::ClusterConfig::parse(text, "cluster.toml".as_ref()).unwrap();
    let subject = files::Wanted::of(&config, &config.nodes[0]).subject;
    let apiserver = subject.master_pairs().into_iter().find(|file| file.stem == "apiserver").unwrap().leaf;
    assert!(apiserver.names.contains("k8s.example"));
    assert!(apiserver.addresses.contains(&"10.0.0.9".parse().unwrap()));
}

#[test]
fn what_cannot_be_made_twice_is_never_replaced() {
    for lost in ["ca.crt", "ca.key", "etcd/ca.crt", "service-account.key", "../secrets/encryption.json"] {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::under(directory.path());
        files::write(&host, &plan(&host, now()).unwrap()).unwrap();
        host.remove(&std::path::Path::new(PKI).join(lost)).unwrap();
        assert!(plan(&host, now()).is_err(), "{lost}");
    }
}

#[test]
fn a_crash_after_any_write_can_be_completed() {
    let full = {
        let directory = tempfile::tempdir().unwrap();
        plan(&Host::under(directory.path()), now()).unwrap().len()
    };
    for survived in 0..full {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::under(directory.path());
        let writes = plan(&host, now()).unwrap();
        files::write(&host, &writes[..survived]).unwrap();
        let rest = plan(&host, now()).unwrap_or_else(|error| panic!("{survived}: {error:#}"));
        files::write(&host, &rest).unwrap();
        assert!(plan(&host, now()).unwrap().is_empty(), "{survived}");
    }
}

#[test]
fn a_node_that_has_joined_keeps_its_spent_token() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::under(directory.path());
    let writes = plan(&host, now()).unwrap();
    files::write(&host, &writes).unwrap();
    let later = now() + 48 * HOUR;
    let renewed = paths(&plan(&host, later).unwrap());
    assert_eq!(renewed, ["/etc/sealift/secrets/tokens.json", "/etc/sealift/kubeconfig/bootstrap-kubelet.conf"]);
    let read = |stem: &str| host.read_text(&files::certificate_path(stem)).unwrap().unwrap();
    let key = Secret::new(host.read_text(&files::key_path("ca")).unwrap().unwrap());
    let mut leaf = subject().admin();
    leaf.common_name = "system:node:m1".to_owned();
    leaf.organization = Some("system:nodes".to_owned());
    let kubelet = Authority::load(&read("ca"), &key).unwrap().issue(&leaf, now()).unwrap();
    host.create_dir("/var/lib/kubelet/pki".as_ref(), 0o700).unwrap();
    host.write(KUBELET_CLIENT.as_ref(), (kubelet.certificate + kubelet.key.expose()).as_bytes(), 0o600).unwrap();
    assert!(plan(&host, later).unwrap().is_empty());
}

#[test]
fn status_lists_every_certificate_and_live_token() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::under(directory.path());
    let now = host.now();
    files::write(&host, &plan(&host, now).unwrap()).unwrap();
    host.write(&files::certificate_path("odd"), b"nonsense", 0o644).unwrap();
    let found = status::certificates(&host).unwrap();
    // 3 authorities, 8 pairs, 2 kubeconfigs, admin.conf, and the one that cannot be read, which comes first.
    assert_eq!(found.len(), 15);
    assert_eq!(found[0].not_after, None);
    assert!(found.iter().any(|expiry| expiry.path.ends_with("admin.conf") && expiry.subject == "sealift:admin:m1"));
    assert_eq!(status::tokens(&host).unwrap().len(), 1);
    let days = |days: u64| now + std::time::Duration::from_secs(days * 24 * 3600);
    let due = |at| found.iter().filter(|expiry| expiry.due(at)).count();
    assert_eq!((due(days(200)), due(days(300))), (0, 11), "authorities are not renewed by a run");
    host.fake().set_now(now + tokens::LIFETIME);
    assert!(status::tokens(&host).unwrap().is_empty());
}
