//! Status of hosts that are directories: a waiting worker, a dedicated etcd member, a host with nothing.

use std::time::Duration;

use bundle::Digest;

use super::*;
use crate::host::Reply;
use crate::journal::Inputs;
use crate::pki::tokens::{Token, Tokens};

const CONFIG: &str = "[cluster]\nname = \"demo\"\n\n[[node]]\nname = \"m1\"\naddress = \"192.0.2.1\"\nroles = [\"master\"]\n\n\
    [[node]]\nname = \"w1\"\naddress = \"192.0.2.2\"\nroles = [\"worker\"]\n";

fn host(roles: &str) -> (tempfile::TempDir, Host) {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::under(directory.path());
    host.fake().on("systemctl", Reply::ok("active\n"));
    host.fake().on("systemctl show", Reply::ok("ActiveState=activating\nSubState=auto-restart\n"));
    host.write(Path::new("/etc/sealift/cluster.toml"), CONFIG.as_bytes(), 0o644).unwrap();
    host.symlink(Path::new(CURRENT), Path::new("generations/1")).unwrap();
    let digest = Digest::of(b"x");
    let inputs = Inputs {
        index: digest,
        config: digest,
        roles: roles.to_owned(),
        installer: digest,
        joined: false,
        ignored: ["swap".to_owned()].into(),
        reboot: crate::restart::Mode::default(),
        retry_kernel: None,
    };
    Journal::read(&host).unwrap().begin(&inputs, CONFIG).unwrap();
    (directory, host)
}

fn gather(host: &Host) -> Status {
    super::gather(host).unwrap()
}

fn text(host: &Host) -> String {
    show::text(&gather(host)).join("\n")
}

#[test]
fn a_worker_that_waits_says_for_what_and_since_when() {
    let (_directory, host) = host("worker");
    let since = host.now();
    crate::waiting::record(&host, "join", "an API server of the cluster: m1 (192.0.2.1): no answer");
    let mut tokens = Tokens::default();
    tokens.insert("w1", Token::create(since, Duration::from_secs(60)).unwrap());
    host.write(Path::new("/etc/sealift/secrets/tokens.json"), tokens.write().unwrap().expose().as_bytes(), 0o600)
        .unwrap();
    host.pause(Duration::from_secs(30));
    let text = text(&host);
    for part in [
        "cluster: demo, config of `/etc/sealift/cluster.toml`, 2 nodes",
        "this host: worker, not joined yet",
        &format!("waiting in step `join` since {since}: an API server of the cluster: m1 (192.0.2.1): no answer"),
        "sealift-resume.service is activating (auto-restart)",
        "of node w1: valid, ends on",
        "preflight ignored: swap",
    ] {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
    let json = serde_json::to_value(gather(&host)).unwrap();
    assert_eq!(json["waiting"]["step"], "join");
    assert_eq!(json["waiting"]["since"], since.to_string());
    assert_eq!(json["node"]["state"], "not-yet");
    assert_eq!((&json["cluster"]["nodes"], &json["cluster"]["generation"]), (&2.into(), &serde_json::Value::Null));
    let secret = tokens.get("w1").unwrap().text().expose().to_owned();
    assert!(!json.to_string().contains(&secret) && !text.contains(&secret), "shows the token's secret");
}

#[test]
fn a_failure_in_the_background_is_shown_and_a_run_that_ended_waits_no_longer() {
    let (_directory, host) = host("etcd");
    crate::waiting::failed(&host, "the token was revoked");
    let shown = text(&host);
    assert!(shown.contains("FAILED in step") && shown.contains("the token was revoked"), "{shown}");
    assert!(shown.contains("this host: etcd, no node of Kubernetes"), "{shown}");
    Journal::read(&host).unwrap().end().unwrap();
    let shown = text(&host);
    assert!(!shown.contains("FAILED") && !shown.contains("pending"), "{shown}");
}

#[test]
fn units_that_this_host_does_not_run_are_left_out_when_its_run_has_ended() {
    let (_directory, host) = host("master");
    for unit in ["etcd.service", "kubelet.service"] {
        host.write(&Path::new("/opt/sealift/generations/1/units").join(unit), b"[Unit]\n", 0o644).unwrap();
    }
    host.write(&unit_path("kubelet.service"), b"[Unit]\n", 0o644).unwrap();
    let units = |host: &Host| gather(host).services.into_iter().map(|service| service.unit).collect::<Vec<_>>();
    assert_eq!(units(&host), ["etcd.service", "kubelet.service"]);
    Journal::read(&host).unwrap().end().unwrap();
    assert_eq!(units(&host), ["kubelet.service"]);
}
