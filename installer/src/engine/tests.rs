//! The engine with steps that do as a test says.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use bundle::Digest;

use super::*;
use crate::config::{ClusterConfig, Roles};
use crate::event::Recorded;
use crate::facts::tests::debian;
use crate::generation::Generation;
use crate::host::Host;
use crate::report::exit_of;
use crate::step::Target;

const CLUSTER: &str =
    "[cluster]\nname = \"t\"\n[[node]]\nname = \"m1\"\naddress = \"192.0.2.1\"\nroles = [\"master\"]\n";

/// Answers checks from a list, the last one for ever.
struct Scripted {
    name: &'static str,
    checks: Vec<Check>,
    asked: Cell<usize>,
}

impl Scripted {
    fn boxed(name: &'static str, checks: impl IntoIterator<Item = Check>) -> Box<dyn Step> {
        Box::new(Self { name, checks: checks.into_iter().collect(), asked: Cell::new(0) })
    }
}

impl Step for Scripted {
    fn name(&self) -> &'static str {
        self.name
    }

    fn title(&self) -> &'static str {
        "A step of a test"
    }

    fn touches(&self, _: &Context<'_>) -> Result<Vec<Target>> {
        Ok(vec![Target::File(PathBuf::from("/etc/step").join(self.name))])
    }

    fn check(&self, _: &Context<'_>) -> Result<Check> {
        let asked = self.asked.replace(self.asked.get() + 1);
        Ok(self.checks[asked.min(self.checks.len() - 1)].clone())
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        context.host.write(&Path::new("/etc/step").join(self.name), b"applied", 0o644)
    }
}

fn needed() -> Check {
    Check::Needed(vec![Change::new("write it")])
}

/// Runs steps with a journal on a host that is a directory, and lets a test look.
fn with(steps: &[Box<dyn Step>], look: impl FnOnce(&Host, &Context<'_>, Result<Summary>, &[Event])) {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::under(dir.path());
    let config = ClusterConfig::parse(CLUSTER, Path::new("x")).unwrap();
    let (facts, roles, desired, events) =
        (debian(), config.nodes[0].roles.clone(), Generation::default(), Recorded::default());
    let context = Context {
        host: &host,
        events: &events,
        config: &config,
        node: &config.nodes[0],
        roles: &Roles::new(roles.iter()),
        facts: &facts,
        components: &[],
        images: &[],
        desired: &desired,
        installer: Digest::of(b"x"),
        join: None,
        joined: false,
        init: false,
        ignored: &std::collections::BTreeSet::new(),
        created: None,
        reboot: crate::restart::Mode::Never,
        retry_kernel: None,
        patience: std::time::Duration::from_secs(5),
        step: "",
    };
    let log = Log::new(&host);
    let digest = Digest::of(b"x");
    let inputs = Inputs {
        index: digest,
        config: digest,
        roles: "master".to_owned(),
        installer: digest,
        joined: false,
        ignored: std::collections::BTreeSet::new(),
        reboot: crate::restart::Mode::default(),
        retry_kernel: None,
    };
    let mut record = Record { journal: Journal::read(&host).unwrap(), inputs, config: CLUSTER.to_owned(), log: &log };
    let mut summary = Summary::default();
    let numbering = Numbering { before: 0, total: steps.len() };
    let result = run(steps, &context, Some(&mut record), numbering, &mut summary).map(|()| summary);
    look(&host, &context, result, &events.events());
}

#[test]
fn a_run_without_changes_leaves_no_trace() {
    let steps = [
        Scripted::boxed("a", [Check::Done]),
        Scripted::boxed("b", [Check::Kept("it is good".to_owned())]),
        Scripted::boxed("c", [Check::Skipped("not here".to_owned())]),
    ];
    with(&steps, |host, _, result, events| {
        assert_eq!(result.unwrap().changes, 0);
        assert_eq!(host.fake().operations(), Vec::<String>::new());
        assert_eq!(events.len(), 6, "{events:?}");
    });
}

#[test]
fn a_step_is_done_only_when_its_check_says_so_afterwards() {
    with(&[Scripted::boxed("a", [needed()]), Scripted::boxed("b", [Check::Done])], |host, _, result, _| {
        let error = format!("{:#}", result.unwrap_err());
        assert_eq!(error, "step `a` failed: was applied, and still needed afterwards: write it");
        let pending = Journal::read(host).unwrap().pending().unwrap();
        assert_eq!(pending.interrupted.as_deref(), Some("a"));
    });
}

#[test]
fn waiting_stops_the_run_without_failing_it() {
    let steps = [
        Scripted::boxed("a", [needed(), Check::Done]),
        Scripted::boxed("etcd", [needed(), Check::Waiting("a second member".to_owned())]),
        Scripted::boxed("kubelet", [needed(), Check::Done]),
    ];
    with(&steps, |host, _, result, events| {
        let summary = result.unwrap();
        assert_eq!(summary.waiting.as_deref(), Some("step `etcd`: a second member"));
        assert_eq!(summary.changes, 2);
        assert!(!host.exists(Path::new("/etc/step/kubelet")).unwrap());
        assert!(matches!(events.last(), Some(Event::StepFinished { outcome: Outcome::Waiting, .. })));
        assert_eq!(Journal::read(host).unwrap().pending().unwrap().applied, ["a"]);
    });
}

/// Is refused by another host so often, then done.
struct Refused(Cell<usize>);

impl Step for Refused {
    fn name(&self) -> &'static str {
        "etcd"
    }
    fn title(&self) -> &'static str {
        "Join the others"
    }
    fn check(&self, _: &Context<'_>) -> Result<Check> {
        Ok(if self.0.get() == 0 { Check::Done } else { needed() })
    }
    fn apply(&self, _: &Context<'_>) -> Result<()> {
        self.0.set(self.0.get() - 1);
        if self.0.get() == 0 { Ok(()) } else { Err(anyhow!("m2 is away")).exit(Exit::Waiting) }
    }
}

#[test]
fn what_another_host_refuses_is_tried_again_while_patience_lasts() {
    for (refusals, waiting) in [(3, None), (30, Some("step `etcd`: m2 is away"))] {
        with(&[Box::new(Refused(Cell::new(refusals)))], |host, _, result, _| {
            assert_eq!(result.unwrap().waiting.as_deref(), waiting);
            assert!(Journal::read(host).unwrap().pending().is_some(), "there is something to resume");
        });
    }
}

#[test]
fn a_step_is_asked_again_while_it_waits_and_may_then_need_more() {
    let wait = || Check::Waiting("m1 to promote this member".to_owned());
    let steps = [Scripted::boxed("etcd", [needed(), wait(), wait(), needed(), Check::Done])];
    with(&steps, |host, _, result, events| {
        let summary = result.unwrap();
        assert_eq!((summary.waiting, summary.changes), (None, 2));
        assert_eq!(host.monotonic(), 2 * LOOK_AGAIN);
        let notes = events.iter().filter(|event| matches!(event, Event::Note { .. })).count();
        assert_eq!(notes, 1, "the same reason is said once: {events:?}");
        assert_eq!(waiting::Waiting::read(host).unwrap(), None);
    });
}

#[test]
fn a_step_that_only_has_to_get_ready_is_applied_again_and_not_for_ever() {
    let unready = || Check::Needed(Vec::new());
    let steps = [Scripted::boxed("kubelet", [needed(), unready(), unready(), Check::Done])];
    with(&steps, |_, _, result, _| assert_eq!(result.unwrap().changes, 1));
    with(&[Scripted::boxed("kubelet", [(); 10].map(|()| unready()))], |_, _, result, _| {
        assert!(format!("{:#}", result.unwrap_err()).ends_with("still needed afterwards: it is not ready"));
    });
}

#[test]
fn other_changes_may_follow_and_not_for_ever() {
    let other = |line: &str| Check::Needed(vec![Change::new(line)]);
    with(&[Scripted::boxed("etcd", [needed(), other("promote it"), Check::Done])], |_, _, result, _| {
        assert_eq!(result.unwrap().changes, 2);
    });
    let lines = ["a", "b", "a", "b", "a", "b", "a", "b", "a", "b"];
    with(&[Scripted::boxed("etcd", lines.map(other))], |_, _, result, _| {
        assert!(format!("{:#}", result.unwrap_err()).contains("still needed afterwards"));
    });
}

#[test]
fn what_a_run_waits_for_stays_on_record_when_its_patience_ends() {
    let steps = [Scripted::boxed("join", [Check::Waiting("an API server".to_owned())])];
    with(&steps, |host, context, result, _| {
        assert_eq!(result.unwrap().waiting.as_deref(), Some("step `join`: an API server"));
        let found = waiting::Waiting::read(host).unwrap().unwrap();
        assert_eq!((found.step.as_str(), found.reason.as_str()), ("join", "an API server"));
        assert_eq!(host.now().duration_since(found.since), jiff::SignedDuration::try_from(context.patience).unwrap());
        assert!(Journal::read(host).unwrap().pending().is_some(), "there is nothing to resume");
    });
}

#[test]
fn preflight_has_its_own_exit_code() {
    struct Refuses;
    impl Step for Refuses {
        fn name(&self) -> &'static str {
            "preflight"
        }
        fn title(&self) -> &'static str {
            "Look at the host"
        }
        fn check(&self, _: &Context<'_>) -> Result<Check> {
            bail!("no systemd")
        }
        fn apply(&self, _: &Context<'_>) -> Result<()> {
            Ok(())
        }
    }
    with(&[Box::new(Refuses)], |host, _, result, _| {
        assert_eq!(exit_of(&result.unwrap_err()), Exit::Preflight);
        assert_eq!(host.fake().operations(), Vec::<String>::new());
    });
}

#[test]
fn undo_puts_back_what_the_steps_touched() {
    let steps = [Scripted::boxed("a", [needed(), Check::Done]), Scripted::boxed("b", [needed(), Check::Done])];
    with(&steps, |host, context, result, _| {
        result.unwrap();
        assert!(host.exists(Path::new("/etc/step/a")).unwrap() && host.exists(Path::new("/etc/step/b")).unwrap());
        let mut journal = Journal::read(host).unwrap();
        assert_eq!(undo(&steps, context, &mut journal).unwrap(), Vec::<String>::new());
        assert_eq!(host.list(Path::new("/etc/step")).unwrap(), Vec::<String>::new());
        let operations = host.fake().operations();
        let removed: Vec<&String> = operations.iter().filter(|operation| operation.starts_with("remove")).collect();
        let expected = ["remove /etc/step/b", "remove /etc/step/a", "remove /etc/step"];
        assert_eq!(removed, expected, "last first, then the directory that was made for them");
    });
}

#[test]
fn readers_keep_going_over_events_they_do_not_know() {
    let event: Event = serde_json::from_str(r#"{"event":"of-next-year","x":1}"#).unwrap();
    assert_eq!(event, Event::Unknown);
    let known = Event::Progress { step: "store".to_owned(), done: 1, total: 2, unit: "bytes".to_owned() };
    assert_eq!(serde_json::from_str::<Event>(&serde_json::to_string(&known).unwrap()).unwrap(), known);
}
