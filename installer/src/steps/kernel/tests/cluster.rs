//! A node that works for a cluster: closed and emptied before the reboot, opened again whatever comes of it.

use super::machine::{Fate, Machine, NEW, OLD};
use super::*;
use crate::steps::kernel::state::Stage;
use serde_json::json;

/// The API no longer knows the pod, so it has left.
fn let_pods_go(machine: &Machine) {
    machine.server.as_ref().unwrap().fault(|request| {
        let gone = json!({ "reason": "NotFound", "message": "not found" });
        (request == "GET /api/v1/namespaces/default/pods/web").then_some((404, gone))
    });
}

#[test]
fn a_node_is_closed_drained_armed_rebooted_accepted_and_opened_in_this_order() {
    let mut machine = Machine::in_cluster("exact = \"bundle\"");
    let server = machine.server.clone().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (log, root) = (Arc::clone(&seen), machine.bed.host.real_path(Path::new("/")));
    server.fault(move |request| {
        let record = fs_err::read_to_string(root.join(&state::PATH[1..])).unwrap_or_default();
        let state: State = serde_json::from_str(&record).unwrap();
        let trial = state.trial.map(|trial| trial.stage);
        let known = (state.closed.is_some(), trial, state.accepted.is_some());
        match request {
            "PATCH /api/v1/nodes/m1" => log.lock().unwrap().push(("patch", known)),
            "GET /api/v1/namespaces/default/pods/web" => {
                log.lock().unwrap().push(("drain", known));
                return Some((404, json!({ "reason": "NotFound", "message": "gone" })));
            }
            _ => {}
        }
        None
    });
    assert!(machine.run().unwrap().is_some());
    assert!(machine.is_closed(), "between arming and the reboot");
    let lines = shown(&machine.bed.host).unwrap().lines().join("\n");
    assert!(lines.contains("node m1 is closed for new pods: until the trial is over"), "{lines}");
    assert_eq!(machine.boot(), NEW);
    assert!(machine.is_closed());
    assert_eq!(machine.run().unwrap(), None);
    assert!(!machine.is_closed());
    let order = [("patch", (true, None, false)), ("drain", (true, None, false)), ("patch", (true, None, true))];
    assert_eq!(*seen.lock().unwrap(), order, "closed on record first; armed after the drain; opened after acceptance");
    assert_eq!(machine.state().closed, None);
    machine.require_clean();
}

#[test]
fn a_drain_that_takes_too_long_opens_the_node_again() {
    let machine = Machine::in_cluster("exact = \"bundle\"");
    let server = machine.server.clone().unwrap();
    server.put("/api/v1/namespaces/default/pods/web", json!({ "metadata": { "uid": "web" } }));
    server.fault(|request| {
        let refused = json!({ "reason": "TooManyRequests", "message": "disruption budget" });
        request.ends_with("/eviction").then_some((429, refused))
    });
    let error = machine.run().unwrap_err();
    // The run in the background does not go on with that by itself: it would close and empty the node again and again.
    assert_eq!(exit_of(&error), Exit::Preflight);
    let error = format!("{error:#}");
    assert!(error.contains("disruption budget"), "{error}");
    assert!(!machine.is_closed());
    assert_eq!((machine.state().closed, machine.state().trial), (None, None));
    let made = |machine: &Machine| {
        machine.bed.host.fake().commands().iter().any(|command| command.starts_with("update-initramfs"))
    };
    assert!(!made(&machine), "it is tried by the next run");
    // They can go now.
    let_pods_go(&machine);
    assert!(machine.run().unwrap().is_some());
    assert!(machine.is_closed());
}

#[test]
fn a_drain_that_takes_too_long_opens_the_node_again_also_after_an_interrupted_arming() {
    let machine = Machine::in_cluster("exact = \"bundle\"");
    let_pods_go(&machine);
    machine.run().unwrap().unwrap();
    let mut state = machine.state();
    state.trial.as_mut().unwrap().stage = Stage::Arming;
    state.write(&machine.bed.host).unwrap();
    machine
        .server
        .as_ref()
        .unwrap()
        .put("/api/v1/namespaces/default/pods/web", json!({ "metadata": { "uid": "web" } }));
    machine.server.as_ref().unwrap().fault(|request| {
        let refused = json!({ "reason": "TooManyRequests", "message": "disruption budget" });
        request.ends_with("/eviction").then_some((429, refused))
    });
    assert_eq!(exit_of(&machine.run().unwrap_err()), Exit::Preflight);
    assert!(!machine.is_closed() && machine.state().trial.is_some());
}

#[test]
fn a_kernel_that_fails_leaves_the_node_open_and_an_operators_own_cordon_stays() {
    for cordoned in [false, true] {
        let mut machine = Machine::in_cluster("exact = \"bundle\"");
        machine.fate = Fate::Dies;
        let spec = if cordoned { json!({ "unschedulable": true }) } else { json!({}) };
        machine.server.as_ref().unwrap().put("/api/v1/nodes/m1", json!({ "spec": spec }));
        let_pods_go(&machine);
        machine.go().unwrap();
        assert_eq!(machine.bed.facts.kernel, OLD);
        assert_eq!(machine.is_closed(), cordoned);
        assert_eq!(machine.state().closed, None);
    }
}

#[test]
fn a_cluster_that_does_not_answer_keeps_no_run_from_ending_and_the_next_one_opens_the_node() {
    let mut machine = Machine::in_cluster("exact = \"bundle\"");
    let_pods_go(&machine);
    machine.run().unwrap().unwrap();
    machine.boot();
    machine
        .server
        .as_ref()
        .unwrap()
        .fault(|_| Some((503, json!({ "reason": "ServiceUnavailable", "message": "down" }))));
    assert_eq!(machine.run().unwrap(), None, "the kernel is good, whatever the cluster does");
    assert_eq!(machine.state().closed.as_deref(), Some("m1"));
    assert_eq!(tidy(&machine.context()).as_deref(), Some("m1"), "a run in the background comes back for it");
    let Check::Kept(text) = machine.check().unwrap() else { panic!() };
    assert!(text.contains("node m1 is closed") && text.contains("kubectl uncordon m1"), "{text}");
    let lines = shown(&machine.bed.host).unwrap().lines().join("\n");
    assert!(lines.contains("still to do: node m1 is closed"), "{lines}");
    // Without the permission: a refusal is not waited for either.
    machine.server.as_ref().unwrap().fault(|_| Some((403, json!({ "reason": "Forbidden", "message": "no" }))));
    let before = machine.bed.host.monotonic();
    assert_eq!(machine.run().unwrap(), None);
    assert_eq!(machine.bed.host.monotonic(), before);
    machine.server.as_ref().unwrap().fault(|_| None);
    assert_eq!(tidy(&machine.context()), None);
    assert!(!machine.is_closed());
    assert_eq!(machine.state().closed, None);
}

#[test]
fn death_at_every_operation_leaves_no_node_closed() {
    for fate in [Fate::Good, Fate::Dies] {
        for n in 0.. {
            let mut machine = Machine::in_cluster("exact = \"bundle\"");
            machine.fate = fate;
            let_pods_go(&machine);
            let died = died_at(&mut machine, n, false);
            machine.go().unwrap();
            assert!(!machine.is_closed(), "operation {n}");
            if !died {
                assert!(n > 40, "{n} operations in all");
                break;
            }
        }
    }
}

#[test]
fn reset_says_that_the_node_is_closed() {
    let machine = Machine::in_cluster("exact = \"bundle\"");
    let_pods_go(&machine);
    machine.run().unwrap().unwrap();
    let (_, left) = forget(&machine.bed.host).unwrap();
    assert!(left.iter().any(|line| line.contains("kubectl uncordon m1")), "{left:?}");
}
