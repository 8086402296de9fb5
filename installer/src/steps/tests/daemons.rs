//! Services of systemd: written, started, asked, restarted; what the proxy and kube-proxy do before they start.

use std::path::Path;

use super::*;
use crate::steps::kube_proxy;
use crate::steps::proxy::{self, Proxy};
use crate::steps::service::{Readiness, Service, UnitText, nothing_before};

fn service(probe: fn(&Context<'_>) -> anyhow::Result<Readiness>) -> Service {
    Service {
        name: "etcd",
        title: "Start etcd",
        unit: "etcd.service",
        text: UnitText::Component("etcd"),
        deadline: std::time::Duration::from_secs(20),
        probe,
        before_start: nothing_before,
        hint: "look at its peers",
    }
}

#[test]
fn a_service_on_a_bare_host_is_written_enabled_and_started_once() {
    let bed = Bed::new();
    let step = service(|_| Ok(Readiness::Ready));
    let unit = format!("write /etc/systemd/system/etcd.service ({} B)", UNIT.len());
    assert_eq!(bed.changes(&step), [unit.as_str(), "enable etcd.service", "start etcd.service"]);
    bed.settles(&step);
    let commands = bed.host.fake().commands();
    assert!(commands.iter().all(|command| command.starts_with("systemctl show")), "{commands:?}");
}

#[test]
fn a_service_is_restarted_when_it_was_started_with_another_configuration() {
    let mut bed = Bed::new();
    let step = service(|_| Ok(Readiness::Ready));
    step.apply(&bed.context()).unwrap();
    bed.desired = generation("etcd", "etcd.service", UNIT, "digest-2");
    bed.script_systemd("digest-2");
    assert_eq!(bed.changes(&step), ["restart etcd.service with its new configuration"]);
    bed.settles(&step);
}

#[test]
fn a_service_that_does_not_get_ready_says_why_and_shows_its_journal() {
    let bed = Bed::new();
    bed.host.fake().on("journalctl --unit etcd.service", Reply::ok("cannot reach peer m2\n"));
    let step = service(|_| anyhow::bail!("no leader"));
    let error = step.apply(&bed.context()).unwrap_err();
    let text = crate::report::render(&error);
    for part in ["etcd.service did not become ready", "cannot reach peer m2", "no leader", "look at its peers"] {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

#[test]
fn a_service_that_runs_but_is_not_ready_is_waited_for_not_restarted() {
    let bed = Bed::new();
    service(|_| Ok(Readiness::Ready)).apply(&bed.context()).unwrap();
    let step = service(|context| {
        let waited = context.host.monotonic() > std::time::Duration::from_secs(5);
        Ok(if waited { Readiness::Ready } else { Readiness::NotYet("no leader yet".to_owned()) })
    });
    assert_eq!(step.check(&bed.context()).unwrap(), Check::Needed(Vec::new()));
    let note = "runs, but is not ready yet: no leader yet";
    assert!(bed.events.events().iter().any(|event| format!("{event:?}").contains(note)));
    bed.host.fake().clear();
    step.apply(&bed.context()).unwrap();
    assert!(bed.host.fake().commands().iter().all(|command| command.starts_with("systemctl show")));
}

#[test]
fn the_proxy_asks_nginx_before_it_is_started_and_never_overwrites_the_agents_list() {
    let mut bed = Bed::new();
    bed.desired = generation("nginx", "sealift-proxy.service", UNIT, "digest-1");
    let nginx = "/opt/sealift/current/nginx/bin/nginx -t";
    bed.host.fake().on(nginx, Reply::fail(1, "unknown directive"));
    let error = format!("{:#}", Proxy.apply(&bed.context()).unwrap_err());
    assert!(error.contains("unknown directive"), "{error}");
    assert!(!bed.host.fake().commands().iter().any(|command| command.contains("restart")), "started all the same");

    let backends = bed.host.read_text(Path::new(proxy::BACKENDS)).unwrap().unwrap();
    assert_eq!(backends, "server 192.0.2.1:6443 max_fails=1 fail_timeout=2s;\n");
    bed.put(proxy::BACKENDS, "server 192.0.2.9:6443 down;\n");
    assert!(bed.changes(&Proxy).iter().all(|change| !change.contains("backends")));
}

#[test]
fn kube_proxys_rules_of_a_former_mode_are_taken_away_once() {
    let bed = Bed::new();
    bed.host.fake().on("/opt/sealift/current/kube-proxy/bin/kube-proxy --cleanup", Reply::ok(""));
    let start = |mode: &str| {
        bed.put("/opt/sealift/current/etc/kube-proxy/config.json", &format!("{{\"mode\":\"{mode}\"}}"));
        bed.host.fake().clear();
        (kube_proxy::step().before_start)(&bed.context()).map(|()| bed.host.fake().commands())
    };
    assert!(start("iptables").unwrap().is_empty(), "nothing to take away on a fresh host");
    assert!(start("iptables").unwrap().is_empty());
    let commands = start("nftables").unwrap();
    assert_eq!(
        commands,
        ["systemctl stop kube-proxy.service", "/opt/sealift/current/kube-proxy/bin/kube-proxy --cleanup"]
    );
    assert!(start("nftables").unwrap().is_empty());
    // Until it succeeds it is tried again.
    bed.host.fake().on("/opt/sealift/current/kube-proxy/bin/kube-proxy --cleanup", Reply::fail(1, "iptables is busy"));
    for _ in 0..2 {
        assert!(format!("{:#}", start("ipvs").unwrap_err()).contains("iptables is busy"));
    }
}
