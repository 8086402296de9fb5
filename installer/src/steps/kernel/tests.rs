//! A machine that is upgraded, tried, accepted, fallen back, and cut off at every operation.

mod cluster;
mod leftovers;
mod machine;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use machine::{Fate, Machine, NEW, OLD, config, status};

use super::*;
use crate::host::Reply;
use crate::report::exit_of;
use crate::steps::preflight::Preflight;
use crate::steps::unit::unit_path;

#[test]
fn a_good_kernel_is_pinned_against_tried_once_accepted_and_the_menu_given_back() {
    let mut machine = Machine::new("exact = \"bundle\"");
    let Check::Needed(lines) = machine.check().unwrap() else { panic!() };
    insta::assert_snapshot!(lines.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    let restart = machine.run().unwrap().unwrap();
    assert_eq!((restart.urgency, restart.way), (Urgency::AsAsked, Way::Reboot));
    assert!(awaits_reboot(&machine.bed.host).unwrap());
    assert!(machine.exists("/etc/systemd/system/sealift-resume.service"), "the run goes on by itself");
    let timer = machine.bed.host.read_text(&unit_path(TIMER)).unwrap().unwrap();
    assert!(
        timer.contains(&format!("ConditionKernelVersion={NEW}\n")) && timer.contains("OnBootSec=600s\n"),
        "{timer}"
    );
    // Nothing was installed before the running kernel was pinned, and nothing armed before it was installed.
    let operations = machine.bed.host.fake().operations();
    let at = |what: &str| operations.iter().position(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}"));
    let order = [
        "run grub-set-default",
        pin::SETTINGS,
        "run update-grub",
        "--install",
        "sealift-trial.timer",
        "run grub-reboot",
    ];
    let order: Vec<usize> = order.into_iter().map(at).collect();

    assert!(order.is_sorted(), "{order:?}");

    let memory = std::mem::replace(&mut machine.bed.facts.memory_mib, 1);
    assert!(Preflight.check(&machine.bed.context()).is_err());
    assert_eq!(machine.boot(), NEW);
    let Check::Kept(said) = Preflight.check(&machine.bed.context()).unwrap() else {
        panic!("a good kernel is sent back")
    };
    assert!(said.contains("a kernel is on trial") && said.contains("memory"), "{said}");
    machine.bed.facts.memory_mib = memory;
    assert!(matches!(machine.check().unwrap(), Check::Needed(_)));
    assert_eq!(machine.run().unwrap(), None);
    machine.require_clean();
    let state = machine.state();
    assert_eq!(state.accepted.unwrap().build, "#1 new");
    assert_eq!((state.trial, state.pin, state.failed.len()), (None, None, 0));
    // Its initramfs would count down at every later boot, too.
    assert!(state.countdowns.is_empty());
    let initramfs = machine.bed.host.read_text(Path::new(&format!("/boot/initrd.img-{NEW}"))).unwrap().unwrap();
    assert!(!initramfs.contains("sealift-trial"), "{initramfs}");
    assert_eq!([machine.boot(), machine.boot()], [NEW, NEW]);
    // A later kernel of the distribution, installed by hand, boots by itself.
    machine.bed.put("/boot/vmlinuz-6.1.0-60-amd64", "later");
    machine.grub.update();
    assert_eq!(machine.boot(), "6.1.0-60-amd64");
}

#[test]
fn a_kernel_that_does_not_come_up_is_not_tried_again_and_the_node_goes_on() {
    let mut machine = Machine::new("exact = \"bundle\"");
    machine.fate = Fate::Dies;
    machine.go().unwrap();
    assert_eq!(machine.log, [NEW, OLD]);
    let Check::Kept(text) = machine.check().unwrap() else { panic!() };
    assert!(text.contains("was tried here and failed") && text.contains("--retry-kernel"), "{text}");
    assert!(text.contains(&format!("held at Linux {OLD}")), "{text}");
    assert_eq!([machine.boot(), machine.boot()], [OLD, OLD], "the pin stays: the menu's first entry is the bad one");
    assert!(!trial::is_left(&machine.bed.host).unwrap());

    // Once more, because it was asked for; and only once.
    machine.log.clear();
    machine.say_retry();
    assert!(machine.run().unwrap().is_some());
    machine.boot();
    machine.go().unwrap();
    assert_eq!(machine.log, [NEW, OLD]);
    assert_eq!(machine.state().failed.len(), 2);

    // It was repaired.
    machine.fate = Fate::Good;
    machine.say_retry();
    assert!(machine.run().unwrap().is_some());
    machine.boot();
    machine.go().unwrap();
    assert_eq!(machine.bed.facts.kernel, NEW);
    machine.require_clean();
}

#[test]
fn a_kernel_that_lacks_something_goes_back_by_itself() {
    let mut machine = Machine::new("require = \">= 6.1\"\non_failure = \"stop\"");
    assert!(matches!(machine.check().unwrap(), Check::Kept(_)), "6.1 fits already");
    machine.bed.config = config("exact = \"bundle\"\non_failure = \"stop\"");
    machine.fate = Fate::Poor;
    machine.run().unwrap().unwrap();
    assert_eq!(machine.boot(), NEW);
    let restart = machine.run().unwrap().unwrap();
    assert_eq!(restart.urgency, Urgency::Now);
    assert!(restart.reason.contains("kernel module ip_vs is gone"), "{}", restart.reason);
    assert_eq!(machine.boot(), OLD);
    let error = machine.run().unwrap_err();
    assert_eq!(exit_of(&error), Exit::Preflight);
    assert!(error.to_string().contains("ip_vs is gone"), "{error:#}");
    assert_eq!(machine.boot(), OLD);
    let lines = shown(&machine.bed.host).unwrap().lines().join("\n");
    assert!(
        lines.contains("FAILED: 6.1.0-49-amd64 (6.1.174-1)") && lines.contains("held at: 6.1.0-40-amd64"),
        "{lines}"
    );
}

#[test]
fn a_demand_that_only_the_bundle_fits_is_met_by_it() {
    let mut machine = Machine::new("require = \">= 6.12\"");
    let kernel = machine.bed.components.last_mut().unwrap();
    kernel.packages[0].name = "linux-image-6.12.9-amd64".to_owned();
    let Check::Needed(lines) = machine.check().unwrap() else { panic!() };
    assert!(lines.iter().any(|line| line.0.contains("Linux 6.12.9-amd64")), "{lines:?}");
    assert_eq!(machine.bed.config.kernel.on_failure, OnFailure::Stop, "a demand that fails stops the run");

    let mut machine = Machine::new(&format!("exact = \"{NEW}\""));
    assert_eq!(machine.bed.config.kernel.on_failure, OnFailure::Continue);
    machine.run().unwrap().unwrap();
    assert_eq!(machine.boot(), NEW);
    assert_eq!(machine.run().unwrap(), None);
    machine.require_clean();
}

#[test]
fn an_entry_that_was_never_tried_is_armed_again() {
    let mut machine = Machine::new("exact = \"bundle\"");
    machine.run().unwrap().unwrap();
    // Somebody chose the old kernel from outside of GRUB: the entry is still set.
    machine.bed.put("/proc/sys/kernel/random/boot_id", "another\n");
    assert!(matches!(machine.check().unwrap(), Check::Needed(_)));
    assert!(machine.run().unwrap().is_some());
    assert_eq!(machine.state().trial.unwrap().boot_id, "another");
    // Somebody took it out in this boot.
    let grub = Grub::find(&machine.bed.host).unwrap().unwrap();
    grub.unset(&machine.bed.host, "next_entry").unwrap();
    assert!(!matches!(machine.check().unwrap(), Check::Reboot(_)));
    machine.go().unwrap();
    assert_eq!(machine.bed.facts.kernel, NEW);
}

/// Death or power cut at the n-th operation of calling it off, for all n.
#[test]
fn a_trial_that_waits_for_its_reboot_is_called_off_by_the_config() {
    for power_cut in [true, false] {
        for n in 0.. {
            let mut machine = Machine::new("exact = \"bundle\"");
            assert!(machine.run().unwrap().is_some());
            machine.bed.config = config("policy = \"keep\"");
            let Check::Needed(lines) = machine.check().unwrap() else { panic!() };
            assert!(lines[0].0.contains(&format!("call the trial of Linux {NEW} off")), "{lines:?}");
            let died = died_at(&mut machine, n, power_cut);
            machine.go().unwrap();
            let state = machine.state();
            assert!(state.failed.is_empty() && state.trial.is_none(), "operation {n}: {state:?}");
            assert!(!trial::is_left(&machine.bed.host).unwrap());
            let accepted = state.accepted.is_some();
            assert!(!accepted || machine.log.contains(&NEW.to_owned()), "operation {n}: accepted and never booted");
            assert_eq!(machine.boot(), if accepted { NEW } else { OLD }, "operation {n}");
            if !died {
                assert!(n > 8, "{n} operations in all");
                // Wanted after all.
                machine.bed.config = config("exact = \"bundle\"");
                machine.go().unwrap();
                assert_eq!(machine.bed.facts.kernel, NEW);
                machine.require_clean();
                break;
            }
        }
    }
}

/// Death or power cut at the n-th operation, for all n, of all runs from the first one to the last.
#[test]
fn death_at_every_operation_boots_and_the_next_runs_finish() {
    let machine = Machine::new("exact = \"bundle\"");
    machine.bed.host.fake().clear();
    machine.run().unwrap().unwrap();
    let before_reboot = machine.bed.host.fake().operations().len();
    for fate in [Fate::Good, Fate::Dies, Fate::Poor] {
        for power_cut in [true, false] {
            // Up to the first reboot all kernels are alike.
            let mut n = if fate == Fate::Good { 0 } else { before_reboot };
            loop {
                let mut machine = Machine::new("exact = \"bundle\"");
                machine.fate = fate;
                if !died_at(&mut machine, n, power_cut) {
                    assert!(n > 40, "{n} operations in all");
                    break;
                }
                machine.go().unwrap_or_else(|error| panic!("operation {n}: {error:#}"));
                if power_cut && fate == Fate::Good && !machine.state().failed.is_empty() {
                    // The power went during the trial: nobody can tell that from a kernel that does not come up.
                    assert_eq!(machine.log[..2], [NEW, OLD], "operation {n}");
                    machine.say_retry();
                    assert!(machine.run().unwrap().is_some());
                    machine.boot();
                    machine.go().unwrap();
                }
                let wanted = if fate == Fate::Good { NEW } else { OLD };
                assert_eq!(machine.bed.facts.kernel, wanted, "operation {n}: {:?}", machine.log);
                if fate == Fate::Good {
                    machine.require_clean();
                }
                assert_eq!(machine.boot(), wanted, "operation {n}");
                assert_eq!(machine.state().trial, None);
                n += 1;
            }
        }
    }
}

/// Runs until the n-th operation, over reboots; false when there are fewer.
fn died_at(machine: &mut Machine, n: usize, power_cut: bool) -> bool {
    let mut left = n;
    loop {
        machine.bed.host.fake().clear();
        machine.bed.host.fake().die_at(left);
        let ended = machine.run();
        let count = machine.bed.host.fake().operations().len();
        machine.bed.host.fake().revive();
        // Also where it died in what fails nothing.
        if count > left {
            if power_cut {
                let release = machine.boot();
                assert!([OLD, NEW].contains(&release.as_str()));
            }
            return true;
        }
        if ended.unwrap().is_none() {
            return false;
        }
        left -= count.min(left);
        machine.boot();
    }
}

#[test]
fn dpkg_that_was_cut_off_is_run_again_and_a_kernel_without_initramfs_gets_one_before_it_is_armed() {
    let machine = Machine::new("exact = \"bundle\"");
    let cut = Arc::new(Mutex::new(true));
    let (seen, root, grub) = (Arc::clone(&cut), machine.bed.host.real_path(Path::new("/")), machine.grub.clone());
    machine.bed.host.fake().answer("dpkg --force-confdef", move |_| {
        let whole = !*seen.lock().unwrap();
        fs_err::write(root.join(format!("boot/vmlinuz-{NEW}")), "new").unwrap();
        let state = if whole { "installed" } else { "half-configured" };
        let both = status(OLD, "6.1.153-1", "installed") + &status(NEW, "6.1.174-1", state);
        fs_err::write(root.join("var/lib/dpkg/status"), both).unwrap();
        grub.update();
        if whole { Reply::ok("") } else { Reply::fail(1, "update-initramfs: failed: No space left on device") }
    });
    let error = machine.run().unwrap_err();
    assert!(format!("{error:#}").contains("No space left on device"), "{error:#}");
    assert_eq!(machine.grub.boot(), OLD, "half of the new kernel is there, and not booted");
    *cut.lock().unwrap() = false;
    machine.full.store(true, Ordering::Relaxed);
    let error = machine.run().unwrap_err();
    assert!(error.to_string().contains(&format!("making the initramfs of Linux {NEW}")), "{error:#}");
    assert_eq!((machine.state().trial, machine.grub.boot()), (None, OLD.to_owned()));
    machine.full.store(false, Ordering::Relaxed);
    assert!(machine.run().unwrap().is_some());
}

#[test]
fn preflight_stops_no_run_that_has_a_trial_to_judge_and_asks_for_no_room_for_a_kernel_that_is_there() {
    let mut machine = Machine::new("exact = \"bundle\"");
    assert!(coming(&machine.context()).unwrap().is_some());
    machine.fate = Fate::Dies;
    machine.run().unwrap().unwrap();
    assert!(!on_trial(&machine.context()).unwrap(), "its reboot is pending");
    assert_eq!(coming(&machine.context()).unwrap(), None);
    assert_eq!(machine.boot(), OLD);
    assert!(on_trial(&machine.context()).unwrap(), "that it failed is not on record yet");
    assert_eq!(machine.run().unwrap(), None);
    assert!(!on_trial(&machine.context()).unwrap());
    assert_eq!(machine.state().failed.len(), 1);
}

#[test]
fn the_running_kernels_files_are_never_overwritten() {
    let mut machine = Machine::new("exact = \"bundle\"");
    machine.bed.facts.kernel = NEW.to_owned();
    machine.bed.put("/var/lib/dpkg/status", &status(NEW, "6.1.170-1", "installed"));
    let error = machine.check().unwrap_err();
    assert_eq!(exit_of(&error), Exit::Preflight);
    assert!(error.to_string().contains("would overwrite the files of the running kernel"), "{error}");
    machine.bed.put("/var/lib/dpkg/status", &status(NEW, "6.1.180-1", "installed"));
    assert!(matches!(machine.check().unwrap(), Check::Kept(_)), "a newer build of it is as good");
}

#[test]
fn what_the_config_wants_must_be_in_the_bundle() {
    for (kernel, expected) in [
        (
            "require = \">= 6.12\"",
            "wants `>= 6.12`, this host runs Linux 6.1.0-40-amd64, and the bundle brings Linux 6.1.0-49",
        ),
        ("exact = \"6.12.1-1-amd64\"", "wants exactly Linux 6.12.1-1-amd64"),
    ] {
        let error = Machine::new(kernel).check().unwrap_err();
        assert_eq!(exit_of(&error), Exit::Preflight);
        assert!(error.to_string().contains(expected), "{error}");
    }
    let mut machine = Machine::new("exact = \"bundle\"");
    machine.bed.components.pop();
    assert!(machine.check().unwrap_err().to_string().contains("the bundle brings no kernel for debian-12"));
    assert!(matches!(Machine::new("policy = \"keep\"").check().unwrap(), Check::Kept(_)));
    assert!(matches!(Machine::new("exact = \"6.1.0-40-amd64\"").check().unwrap(), Check::Kept(_)));
}

#[test]
fn without_a_way_back_a_reason_is_needed_and_kexec_is_one() {
    let mut machine = Machine::new("exact = \"bundle\"");
    machine.bed.host.fake().on("grub-probe --target=abstraction", Reply::ok("lvm\n"));
    let error = machine.check().unwrap_err();
    assert_eq!(exit_of(&error), Exit::Preflight);
    assert!(
        error.to_string().contains("with a way back on this host: GRUB cannot write to /boot/grub (lvm)"),
        "{error}"
    );

    machine.bed.config = config("exact = \"bundle\"\nwithout_fallback = \"console at hand\"");
    let Check::Needed(lines) = machine.check().unwrap() else { panic!() };
    assert!(lines.iter().any(|line| line.0.contains("WITHOUT A WAY BACK")), "{lines:?}");
    assert!(machine.run().unwrap().is_some());
    assert!(!machine.exists("/etc/systemd/system/sealift-trial.timer"), "it would only boot the same kernel again");
    assert_eq!(machine.boot(), NEW);
    assert_eq!(machine.run().unwrap(), None);
    machine.require_clean();
}

/// Armed where GRUB cannot write: the running kernel has the new one loaded.
fn armed_by_kexec() -> Machine {
    let machine = Machine::new("exact = \"bundle\"");
    machine.bed.host.fake().on("grub-probe --target=abstraction", Reply::ok("lvm\n"));
    machine.bed.put("/usr/sbin/kexec", "");
    machine.bed.put("/proc/sys/kernel/kexec_load_disabled", "0\n");
    let root = machine.bed.host.real_path(Path::new("/"));
    machine.bed.host.fake().answer("kexec -l", move |_| {
        fs_err::write(root.join("sys/kernel/kexec_loaded"), "1\n").unwrap();
        Reply::ok("")
    });
    machine.bed.put("/sys/kernel/kexec_loaded", "0\n");
    let restart = machine.run().unwrap().unwrap();
    assert_eq!(restart.way, Way::Kexec);
    let line = machine.bed.host.fake().commands().into_iter().find(|line| line.starts_with("kexec -l")).unwrap();
    assert!(
        line.starts_with(&format!("kexec -l /boot/vmlinuz-{NEW} --initrd=/boot/initrd.img-{NEW} --append=root=UUID=")),
        "{line}"
    );
    machine
}

#[test]
fn where_grub_cannot_write_the_running_kernel_starts_the_next() {
    let mut machine = armed_by_kexec();
    machine.kexec();
    assert_eq!(machine.run().unwrap(), None);
    assert_eq!(machine.state().accepted.unwrap().kernel.release, NEW);
    machine.require_clean();
    assert_eq!(machine.boot(), NEW, "from power-on, too");
}

#[test]
fn a_kernel_started_by_kexec_that_lacks_something_is_left_by_a_plain_boot() {
    let mut machine = armed_by_kexec();
    machine.fate = Fate::Poor;
    machine.kexec();
    let restart = machine.run().unwrap().unwrap();
    assert_eq!((restart.urgency, restart.way), (Urgency::Now, Way::Reboot));
    assert_eq!(machine.boot(), OLD);
    machine.go().unwrap();
    assert!(machine.state().failed[0].reason.contains("ip_vs is gone"));
    assert_eq!(machine.boot(), OLD);
}

#[test]
fn a_kernel_for_kexec_that_was_never_started_counts_as_lost() {
    let mut machine = armed_by_kexec();
    // A plain boot is the old kernel; the trial says why that may be.
    machine.bed.put("/sys/kernel/kexec_loaded", "0\n");
    assert_eq!(machine.boot(), OLD);
    machine.go().unwrap();
    assert!(machine.state().failed[0].reason.contains("systemctl kexec"));
    assert_eq!(machine.boot(), OLD);
}

#[test]
fn a_host_whose_kernel_is_not_in_the_menu_is_left_alone() {
    let mut machine = Machine::new("exact = \"bundle\"");
    machine.bed.facts.kernel = "6.1.0-99-amd64".to_owned();
    let error = machine.check().unwrap_err().to_string();
    assert!(error.contains("has no entry with an id for Linux 6.1.0-99-amd64"), "{error}");
}

#[test]
fn files_in_an_old_encoding_are_read_and_kept() {
    let mut machine = Machine::new("exact = \"bundle\"");
    let fstab = b"# B\xfcro\n/dev/vda1 / ext4 defaults 0 1\n/dev/vda2 /srv ext4 defaults 0 2\n";
    let grub = b"# B\xfcro\nGRUB_DEFAULT=0\n";
    for (path, bytes) in [("/etc/fstab", &fstab[..]), ("/etc/default/grub", &grub[..])] {
        fs_err::write(machine.bed.host.real_path(Path::new(path)), bytes).unwrap();
    }
    machine.bed.put(
        "/proc/self/mountinfo",
        "23 1 254:1 / / rw - ext4 /dev/vda1 rw\n24 23 254:2 / /srv rw - ext4 /dev/vda2 rw\n",
    );
    machine.run().unwrap().unwrap();
    let snapshot = machine.state().trial.unwrap().snapshot;
    assert!(serde_json::to_string(&snapshot).unwrap().contains("/srv (ext4)"), "{snapshot:?}");
    machine.boot();
    machine.go().unwrap();
    assert_eq!(machine.bed.facts.kernel, NEW);
    assert_eq!(machine.bed.host.read(Path::new("/etc/default/grub")).unwrap().unwrap(), grub);
}

#[test]
fn an_operators_own_default_is_not_taken_away() {
    let mut machine = Machine::new("exact = \"bundle\"");
    machine.grub.put("etc/default/grub", "GRUB_DEFAULT=\"1>2\"\n");
    machine.grub.update();
    machine.go().unwrap();
    assert_eq!(machine.bed.facts.kernel, NEW);
    assert_eq!(machine.state().pin.unwrap().release, NEW, "without the pin it would be what `1>2` means now");
    assert_eq!(machine.boot(), NEW);
    let (done, left) = forget(&machine.bed.host).unwrap();
    assert!(
        done.is_empty() && left[0].contains("held at Linux") | left[0].contains("holds the boot menu's default"),
        "{left:?}"
    );
}
