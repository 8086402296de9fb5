use std::sync::{Arc, Mutex};

use super::*;
use crate::event::Recorded;
use crate::host::Reply;
use crate::journal::Inputs;
use crate::lock::Lock;
use crate::store::Footprint;

/// A host with a pending run, and a systemd that knows one unit.
struct Bed {
    _directory: tempfile::TempDir,
    host: Host,
    events: Recorded,
    active: Arc<Mutex<&'static str>>,
}

impl Bed {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::under(directory.path());
        let digest = Digest::of(b"x");
        let inputs = Inputs {
            index: digest,
            config: digest,
            roles: "worker".to_owned(),
            installer: digest,
            joined: false,
            ignored: std::collections::BTreeSet::new(),
            reboot: crate::restart::Mode::default(),
            retry_kernel: None,
        };
        Journal::read(&host).unwrap().begin(&inputs, "[cluster]").unwrap();
        let active = Arc::new(Mutex::new("inactive"));
        let (shown, stopped, started) = (Arc::clone(&active), Arc::clone(&active), Arc::clone(&active));
        host.fake().on("systemctl", Reply::ok(""));
        host.fake().answer("systemctl show", move |_| {
            Reply::ok(format!("ActiveState={}\nSubState=x\nUnitFileState=\n", shown.lock().unwrap()))
        });
        host.fake().answer("systemctl stop", move |_| {
            *stopped.lock().unwrap() = "inactive";
            Reply::ok("")
        });
        host.fake().answer("systemctl --no-block start", move |_| {
            *started.lock().unwrap() = "active";
            Reply::ok("")
        });
        Self { _directory: directory, host, events: Recorded::default(), active }
    }

    fn active(&self) -> &'static str {
        *self.active.lock().unwrap()
    }
}

#[test]
fn a_run_that_waits_goes_on_in_the_background_and_after_a_reboot_once_the_lock_is_free() {
    let bed = Bed::new();
    {
        let _foreground = Foreground::take_over(&bed.host, &bed.events).unwrap();
        let _lock = Lock::take(&bed.host, &mut Footprint::new(&bed.host)).unwrap();
        prepare(&bed.host, &Digest::of(b"x")).unwrap();
        assert_eq!(bed.active(), "inactive", "it would find the lock taken");
    }
    assert_eq!(bed.active(), "active");
    let text = bed.host.read_text(&unit_path(UNIT)).unwrap().unwrap();
    let program = program_path(&Digest::of(b"x"));
    assert!(text.contains(&format!("ExecStart={} resume --wait 10m\n", program.display())), "{text}");
    assert!(
        text.contains("RestartPreventExitStatus=2 3 4\n"),
        "what a person has to decide is not tried again: {text}"
    );
    assert!(text.contains("WantedBy=multi-user.target") && text.contains("RestartForceExitStatus=6"), "{text}");
    assert!(bed.host.fake().commands().contains(&format!("systemctl enable {UNIT}")));
}

#[test]
fn a_run_in_the_foreground_takes_over_and_gives_back_what_it_has_not_finished() {
    let bed = Bed::new();
    prepare(&bed.host, &Digest::of(b"x")).unwrap();
    for state in ["active", "activating"] {
        *bed.active.lock().unwrap() = state;
        let foreground = Foreground::take_over(&bed.host, &bed.events).unwrap();
        assert_eq!(bed.active(), "inactive");
        drop(foreground);
        assert_eq!(bed.active(), "active");
    }
    assert!(format!("{:?}", bed.events.events()).contains("taking over from the run in the background"));
    let foreground = Foreground::take_over(&bed.host, &bed.events).unwrap();
    Journal::read(&bed.host).unwrap().end().unwrap();
    remove(&bed.host).unwrap();
    drop(foreground);
    assert_eq!(bed.active(), "inactive");
    assert!(!bed.host.exists(&unit_path(UNIT)).unwrap());
    bed.host.fake().clear();
    remove(&bed.host).unwrap();
    assert_eq!(bed.host.fake().operations(), Vec::<String>::new(), "twice is once");
}

#[test]
fn the_run_in_the_background_neither_stops_nor_starts_itself() {
    let bed = Bed::new();
    prepare(&bed.host, &Digest::of(b"x")).unwrap();
    bed.host.write(Path::new("/proc/self/cgroup"), format!("0::/system.slice/{UNIT}\n").as_bytes(), 0o644).unwrap();
    assert!(inside(&bed.host));
    *bed.active.lock().unwrap() = "active";
    bed.host.fake().clear();
    drop(Foreground::take_over(&bed.host, &bed.events).unwrap());
    assert_eq!(bed.host.fake().commands(), Vec::<String>::new());
    bed.host.write(Path::new("/proc/self/cgroup"), b"0::/user.slice/session-1.scope\n", 0o644).unwrap();
    assert!(!inside(&bed.host));
}

#[test]
fn a_host_that_waits_for_nothing_is_not_touched() {
    let bed = Bed::new();
    bed.host.fake().clear();
    drop(Foreground::take_over(&bed.host, &bed.events).unwrap());
    assert_eq!(bed.host.fake().operations(), Vec::<String>::new());
}
