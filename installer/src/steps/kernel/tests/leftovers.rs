//! What a trial leaves behind, and how it goes: panic arguments, the countdown, the pin; and `installer reset`.

use super::machine::{Fate, Machine, NEW, OLD};
use super::*;

fn panic_arguments(machine: &Machine) -> bool {
    machine.bed.host.read_text(Path::new("/boot/grub/grub.cfg")).unwrap().unwrap().contains("softlockup_panic")
}

fn sysctls(machine: &Machine) -> [String; 2] {
    ["kernel.panic", "kernel.softlockup_panic"].map(|name| machine.bed.host.sysctl(name).unwrap().unwrap())
}

/// What the kernel makes of its command line.
fn apply_arguments(machine: &Machine) {
    if panic_arguments(machine) {
        machine.bed.put("/proc/sys/kernel/panic", "30\n");
        machine.bed.put("/proc/sys/kernel/softlockup_panic", "1\n");
    }
}

#[test]
fn the_panic_arguments_go_with_the_trial_even_where_the_pin_stays() {
    for fate in [Fate::Good, Fate::Poor] {
        let mut machine = Machine::new("exact = \"bundle\"");
        machine.fate = fate;
        // With this the pin stays after a good kernel, too.
        machine.grub.put("etc/default/grub", "GRUB_DEFAULT=\"1>2\"\n");
        machine.grub.update();
        while machine.run().unwrap().is_some() {
            assert!(panic_arguments(&machine));
            machine.boot();
            apply_arguments(&machine);
        }
        assert!(machine.state().pin.is_some() && machine.exists(pin::SETTINGS));
        assert!(!panic_arguments(&machine));
        assert_eq!(machine.state().watched, None);
        assert_eq!(sysctls(&machine), ["10", "0"], "also of the kernel that runs");
    }
}

#[test]
fn settings_that_were_written_without_the_menu_are_made_good() {
    let machine = Machine::new("exact = \"bundle\"");
    let plan = machine.bed.host.fake();
    machine.run().unwrap().unwrap();
    let update = plan.operations().iter().position(|line| line.contains("run update-grub")).unwrap();
    let mut machine = Machine::new("exact = \"bundle\"");
    // The pin of an earlier failure, and a run that dies between the settings and the menu.
    machine.fate = Fate::Dies;
    machine.go().unwrap();
    assert!(!panic_arguments(&machine));
    machine.say_retry();
    for n in 0..update + 5 {
        machine.bed.host.fake().clear();
        machine.bed.host.fake().die_at(n);
        let _ = machine.run();
        machine.bed.host.fake().revive();
    }
    machine.run().unwrap().unwrap();
    assert!(panic_arguments(&machine));
}

#[test]
fn a_full_boot_does_not_condemn_a_kernel_and_its_countdown_ends_at_every_boot() {
    let mut machine = Machine::new("exact = \"bundle\"");
    machine.run().unwrap().unwrap();
    machine.boot();
    machine.full.store(true, Ordering::Relaxed);
    assert_eq!(machine.run().unwrap(), None);
    assert_eq!(machine.state().accepted.unwrap().kernel.release, NEW);
    assert!(!trial::is_left(&machine.bed.host).unwrap());
    let warned =
        machine.bed.events.events().iter().any(|event| format!("{event:?}").contains("No space left on device"));
    assert!(warned);
    // `boot` asserts that the unit is there which ends the countdown.
    for _ in 0..2 {
        assert_eq!(machine.boot(), NEW);
        assert_eq!(machine.run().unwrap(), None);
    }
    let lines = shown(&machine.bed.host).unwrap().lines().join("\n");
    assert!(lines.contains(&format!("still to do: the initramfs of Linux {NEW} still counts down")), "{lines}");
    let unit = machine.bed.host.read_text(&unit_path(countdown::UNIT)).unwrap().unwrap();
    assert!(unit.contains("ConditionPathExists=!/etc/systemd/system/sealift-trial.timer\n"), "{unit}");
    // rescue.target requires sysinit.target (systemd.special(7)); emergency.target requires nothing.
    assert!(unit.contains("WantedBy=sysinit.target emergency.target\n"), "{unit}");
    machine.full.store(false, Ordering::Relaxed);
    assert_eq!(machine.run().unwrap(), None);
    machine.require_clean();
    machine.boot();
}

#[test]
fn a_kernel_that_failed_is_left_with_the_same_care() {
    let mut machine = Machine::new("exact = \"bundle\"\non_failure = \"stop\"");
    machine.fate = Fate::Poor;
    machine.run().unwrap().unwrap();
    machine.boot();
    machine.run().unwrap().unwrap();
    machine.boot();
    machine.full.store(true, Ordering::Relaxed);
    // The exit code that ends the run in the background, at once and at every later try.
    for _ in 0..2 {
        assert_eq!(exit_of(&machine.run().unwrap_err()), Exit::Preflight);
        assert_eq!(machine.state().countdowns.len(), 1);
    }
    machine.full.store(false, Ordering::Relaxed);
    assert_eq!(exit_of(&machine.run().unwrap_err()), Exit::Preflight);
    assert!(machine.state().countdowns.is_empty());
    assert!(!panic_arguments(&machine));
}

#[test]
fn a_run_that_died_is_put_in_order_before_a_person_is_asked_for() {
    let mut machine = Machine::new("exact = \"bundle\"\non_failure = \"stop\"");
    machine.fate = Fate::Dies;
    machine.run().unwrap().unwrap();
    machine.boot();
    // Right after the failure is on record.
    for n in 0.. {
        machine.bed.host.fake().clear();
        machine.bed.host.fake().die_at(n);
        let _ = machine.run();
        machine.bed.host.fake().revive();
        if machine.state().trial.is_none() {
            break;
        }
    }
    assert!(machine.run().is_err());
    assert!(!trial::is_left(&machine.bed.host).unwrap());
    assert!(!panic_arguments(&machine));
}

#[test]
fn what_was_not_as_before_and_does_not_count_is_on_record() {
    let mut machine = Machine::new("exact = \"bundle\"");
    let addresses = |list: &str| {
        let text = format!(r#"[{{"ifname":"eth0","addr_info":[{{"local":"192.0.2.1","prefixlen":24}}{list}]}}]"#);
        machine.bed.host.fake().on("ip -j addr", Reply::ok(text));
    };
    addresses(r#",{"local":"192.0.2.50","prefixlen":32}"#);
    machine.run().unwrap().unwrap();
    addresses("");
    machine.boot();
    assert_eq!(machine.run().unwrap(), None);
    let lines = shown(&machine.bed.host).unwrap().lines().join("\n");
    assert!(lines.contains("not as before: address eth0 192.0.2.50/32 is gone"), "{lines}");
}

#[test]
fn reset_of_an_armed_trial_boots_the_kernel_before() {
    for without in ["", "\nwithout_fallback = \"console at hand\""] {
        let mut machine = Machine::new(&format!("exact = \"bundle\"{without}"));
        if !without.is_empty() {
            machine.bed.host.fake().on("grub-probe --target=abstraction", Reply::ok("lvm\n"));
        }
        machine.run().unwrap().unwrap();
        let (done, left) = forget(&machine.bed.host).unwrap();
        assert_eq!(done[0], "give the kernel's trial up");
        assert!(done.iter().any(|line| line.contains("without the trial's countdown")), "{done:?}");
        assert!(!panic_arguments(&machine) && !trial::is_left(&machine.bed.host).unwrap());
        // The new kernel is first in the menu, so the pin stays, and with it the record of why.
        assert!(left[0].contains(OLD) && left[1].contains(state::PATH), "{left:?}");
        assert!(is_held(&machine.bed.host).unwrap());
        assert_eq!([machine.boot(), machine.boot()], [OLD, OLD]);
        assert_eq!(forget(&machine.bed.host).unwrap().0, [""; 0]);
        // Its package has gone since.
        fs_err::remove_file(machine.bed.host.real_path(Path::new(&format!("/boot/vmlinuz-{NEW}")))).unwrap();
        machine.grub.update();
        let (done, left) = forget(&machine.bed.host).unwrap();
        assert_eq!((done.len(), left.len()), (1, 0), "{done:?} {left:?}");
        assert!(!is_held(&machine.bed.host).unwrap());
        machine.require_clean();
    }
}

#[test]
fn reset_lets_the_menu_boot_what_runs_but_no_kernel_that_failed_or_was_not_judged() {
    let mut machine = Machine::new("exact = \"bundle\"");
    machine.fate = Fate::Poor;
    machine.run().unwrap().unwrap();
    machine.boot();
    assert_eq!(machine.bed.facts.kernel, NEW);
    forget(&machine.bed.host).unwrap();
    assert!(is_held(&machine.bed.host).unwrap(), "not judged");
    assert_eq!(machine.boot(), OLD);

    let mut machine = Machine::new("exact = \"bundle\"");
    machine.fate = Fate::Dies;
    machine.go().unwrap();
    machine.bed.put("/proc/sys/kernel/osrelease", NEW);
    forget(&machine.bed.host).unwrap();
    assert!(is_held(&machine.bed.host).unwrap(), "it failed");
    // A later kernel of the distribution, which somebody has booted.
    machine.bed.put("/boot/vmlinuz-6.1.0-60-amd64", "later");
    machine.grub.update();
    machine.bed.put("/proc/sys/kernel/osrelease", "6.1.0-60-amd64");
    forget(&machine.bed.host).unwrap();
    assert!(!is_held(&machine.bed.host).unwrap());
    assert_eq!(machine.boot(), "6.1.0-60-amd64");
}

#[test]
fn reset_on_a_full_boot_keeps_what_ends_the_countdown() {
    let mut machine = Machine::new("exact = \"bundle\"");
    machine.run().unwrap().unwrap();
    machine.full.store(true, Ordering::Relaxed);
    let (_, left) = forget(&machine.bed.host).unwrap();
    assert!(left[0].contains(countdown::UNIT) && left[0].contains("No space left"), "{left:?}");
    assert!(is_held(&machine.bed.host).unwrap());
    assert_eq!(machine.boot(), OLD);
}

#[test]
fn reset_goes_on_where_the_boot_menu_cannot_be_made_anew() {
    let mut machine = Machine::new("exact = \"bundle\"");
    machine.run().unwrap().unwrap();
    machine.bed.host.fake().answer("update-grub", |_| Reply::fail(1, "No space left on device"));
    let (_, left) = forget(&machine.bed.host).unwrap();
    assert!(left.iter().any(|line| line.contains("No space left")), "{left:?}");
    assert!(is_held(&machine.bed.host).unwrap(), "the record says why the pin is there");
    assert_eq!(machine.boot(), OLD);
}

/// The journal keeps the wish for as long as the run is pending; a boot after which nobody says it again changes nothing.
#[test]
fn a_wish_to_try_again_outlives_reboots_and_counts_once() {
    let mut machine = Machine::new("exact = \"bundle\"");
    machine.fate = Fate::Dies;
    machine.go().unwrap();
    machine.log.clear();
    machine.say_retry();
    assert_eq!(machine.retry, Some(1));
    // The run dies somewhere before the reboot and goes on by itself after a power cut.
    for n in [0, 3, 9] {
        machine.bed.host.fake().clear();
        machine.bed.host.fake().die_at(n);
        assert!(machine.run().is_err());
        assert_eq!(machine.boot(), OLD);
    }
    for _ in 0..5 {
        if machine.run().unwrap().is_some() {
            machine.boot();
        }
    }
    assert_eq!(machine.log, [OLD, OLD, OLD, NEW, OLD], "tried once more, and not for ever");
    assert_eq!(failures(&machine.bed.host).unwrap(), 2);
}
