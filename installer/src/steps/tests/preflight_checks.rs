//! Every check of preflight fires on a host that gives it a reason, and is silent on one that does not.

use std::collections::BTreeSet;
use std::time::Duration;

use super::preflight_reasons::REASONS;
use super::{Bed, disk, preflight_upgrade};
use crate::checks::CheckName;
use crate::context::Context;
use crate::facts::SeLinux;
use crate::report::{Exit, exit_of, render};
use crate::step::{Check, Step};
use crate::steps::preflight::{Finding, Preflight, Verdict, findings};

pub(super) fn look(bed: &Bed) -> Vec<Finding> {
    findings(&Context { created: Some("2026-11-01"), ..bed.context() }).unwrap()
}

#[test]
fn a_host_as_it_should_be_gives_no_reason() {
    let bed = Bed::new();
    let bad: Vec<Finding> = look(&bed).into_iter().filter(|finding| finding.verdict != Verdict::Good).collect();
    assert_eq!(bad, []);
    assert_eq!(bed.host.fake().operations(), Vec::<String>::new(), "looking at a bare host changes nothing");
}

#[test]
fn every_reason_is_found_and_only_that() {
    let mut missed = Vec::new();
    for (name, spoil, verdict, part) in REASONS.iter().chain(preflight_upgrade::REASONS) {
        let mut bed = Bed::new();
        spoil(&mut bed);
        let bad: Vec<Finding> = look(&bed).into_iter().filter(|finding| finding.verdict != Verdict::Good).collect();
        let as_expected = |finding: &Finding| {
            let text = finding.to_string();
            let same = (finding.check, finding.verdict) == (*name, *verdict);
            same && text.contains(part) && text.ends_with(&format!("[{name}]"))
        };
        if !matches!(bad.as_slice(), [finding] if as_expected(finding)) {
            missed.push(format!("{name}, `{part}`: {bad:#?}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn whatever_can_be_ignored_is_a_limit_then_and_the_rest_stays_refused() {
    let all = REASONS.iter().chain(preflight_upgrade::REASONS);
    for (name, spoil, _, _) in all.filter(|(_, _, verdict, _)| *verdict == Verdict::Refused) {
        let mut bed = Bed::new();
        spoil(&mut bed);
        let context = |bed: &Bed| Preflight.check(&Context { created: Some("2026-11-01"), ..bed.context() });
        let error = context(&bed).unwrap_err();
        assert_eq!(exit_of(&error), Exit::Preflight, "{name}");
        assert_eq!(render(&error).contains("--ignore NAME"), name.never_ignored().is_none(), "{name}");
        if name.never_ignored().is_some() {
            continue;
        }
        bed.ignored = BTreeSet::from([*name]);
        assert_eq!(context(&bed).unwrap(), Check::Kept("1 ignored finding".to_owned()), "{name}");
        let lines: Vec<String> = bed.events.events().iter().filter_map(crate::event::Event::line).collect();
        assert!(lines.iter().any(|line| line.starts_with("test: ignored: ")), "{name}: {lines:?}");
    }
}

#[test]
fn what_is_not_good_comes_with_what_to_do() {
    for (name, spoil, ..) in REASONS.iter().chain(preflight_upgrade::REASONS) {
        let mut bed = Bed::new();
        spoil(&mut bed);
        for finding in look(&bed).iter().filter(|finding| finding.verdict != Verdict::Good) {
            assert!(!finding.needed.is_empty() && !finding.advice.is_empty(), "{name}: {finding}");
        }
    }
}

#[test]
fn in_a_container_what_belongs_to_the_machine_is_not_refused() {
    let mut bed = Bed::new();
    bed.facts.container = Some("systemd-nspawn".to_owned());
    bed.facts.security.selinux = SeLinux::Enforcing;
    bed.facts.security.secure_boot = Some(true);
    bed.facts.modules = crate::facts::Modules::default();
    bed.put("/lib/modules/6.1.0-41-amd64/modules.dep", "");
    bed.facts.writable_sysctls.clear();
    bed.facts.clock = crate::facts::Clock::default();
    let refused: Vec<Finding> = look(&bed).into_iter().filter(|finding| finding.verdict == Verdict::Refused).collect();
    assert_eq!(refused, []);
}

#[test]
fn a_member_at_work_is_not_measured_and_needs_less_room() {
    let bed = Bed::new();
    bed.host.fake().set_latencies(vec![Duration::from_millis(50); 10]);
    assert!(look(&bed).iter().any(|finding| finding.check == CheckName::EtcdDisk));
    bed.put("/etc/sealift/pki/ca.crt", "x");
    bed.put("/var/lib/etcd/member/wal/0.wal", "x");
    bed.put("/opt/sealift/current", "x");
    bed.host.fake().set_filesystem("/", disk(300));
    let bad: Vec<Finding> = look(&bed).into_iter().filter(|finding| finding.verdict != Verdict::Good).collect();
    assert_eq!(bad, []);
}

#[test]
fn every_check_is_documented() {
    let text = include_str!("../../../../docs/preflight.md");
    let missing: Vec<&CheckName> =
        CheckName::ALL.iter().filter(|name| !text.contains(&format!("| `{name}` |"))).collect();
    assert!(missing.is_empty(), "docs/preflight.md has no row for {missing:?}");
}
