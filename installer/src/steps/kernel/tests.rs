//! A machine with GRUB, dpkg and power: upgraded, tried, accepted, fallen back, and cut off at every operation.

use std::path::Path;
use std::sync::{Arc, Mutex};

use bundle::Digest;
use bundle::component::{Kind, Package, Role};

use super::*;
use crate::config::ClusterConfig;
use crate::facts::Modules;
use crate::host::Reply;
use crate::host::boot::tests::Simulated;
use crate::report::exit_of;
use crate::steps::images::blob_path;
use crate::steps::preflight::Preflight;
use crate::steps::tests::Bed;
use crate::steps::unit::unit_path;

const OLD: &str = "6.1.0-40-amd64";
const NEW: &str = "6.1.0-49-amd64";
const MODULES: [&str; 6] = ["overlay", "br_netfilter", "nf_conntrack", "ip_vs", "nf_tables", "veth"];

/// A machine that can lose its power.
struct Machine {
    bed: Bed,
    grub: Simulated,
    /// What happens to a kernel when it is booted.
    fate: Fate,
    retry: bool,
    boots: usize,
    /// Times it was rebooted into each kernel.
    log: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Good,
    /// It never comes up: the watch over it, or a person, boots again.
    Dies,
    /// It lacks a module.
    Poor,
}

fn config(kernel: &str) -> ClusterConfig {
    let text = format!(
        "[cluster]\nname = \"test\"\n[[node]]\nname = \"m1\"\naddress = \"192.0.2.1\"\nroles = [\"master\"]\n[kernel]\n{kernel}\n"
    );
    ClusterConfig::parse(&text, Path::new("x")).unwrap()
}

fn status(release: &str, version: &str, state: &str) -> String {
    format!("Package: linux-image-{release}\nStatus: install ok {state}\nArchitecture: amd64\nVersion: {version}\n\n")
}

impl Machine {
    fn new(kernel: &str) -> Self {
        // Thousands of writes that all wait for the disk: in memory where that can be.
        let memory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let mut bed = Bed::under(memory.unwrap());
        bed.config = config(kernel);
        bed.facts.kernel = OLD.to_owned();
        let mut component =
            bundle::fake::component("kernel-debian-12", "6.1.174-1", Kind::Kernel, &[Role::Master]).unwrap();
        component.distribution = Some("debian-12".to_owned());
        let package = |name: &str| Package {
            name: name.to_owned(),
            version: "6.1.174-1".to_owned(),
            file: format!("{name}.deb"),
            sha256: Digest::of(b"kernel"),
            size: 6,
            architecture: "amd64".to_owned(),
            relations: bundle::component::Relations::default(),
        };
        component.packages = vec![package(&format!("linux-image-{NEW}"))];
        bed.components.push(component);
        bed.put(&blob_path(&Digest::of(b"kernel")).to_string_lossy(), "kernel");
        bed.put("/var/lib/dpkg/status", &status(OLD, "6.1.153-1", "installed"));
        bed.put(&format!("/boot/vmlinuz-{OLD}"), "old");
        bed.put(&format!("/boot/initrd.img-{OLD}"), "old");
        for (path, text) in [
            ("/etc/fstab", "/dev/vda1 / ext4 defaults 0 1\n"),
            ("/proc/self/mountinfo", "23 1 254:1 / / rw - ext4 /dev/vda1 rw\n"),
            ("/proc/sys/kernel/random/boot_id", "boot-0\n"),
            ("/proc/sys/kernel/version", "#1 old\n"),
            ("/proc/sys/kernel/osrelease", OLD),
            ("/sys/class/net/eth0/mtu", "1500\n"),
            ("/usr/sbin/nft", ""),
            ("/usr/bin/lsinitramfs", ""),
            ("/usr/sbin/mkinitramfs", ""),
        ] {
            bed.put(path, text);
        }
        let grub = Simulated::install(&bed.host);
        let fake = bed.host.fake();
        for (command, answer) in [
            ("sync", ""),
            ("ip route show default", "default via 192.0.2.254 dev eth0 proto static\n"),
            ("ip -j addr", r#"[{"ifname":"eth0","addr_info":[{"local":"192.0.2.1","prefixlen":24}]}]"#),
            ("systemctl list-units --failed", ""),
            ("systemctl is-system-running", "running\n"),
            ("modprobe", ""),
            ("mount -t overlay", ""),
            ("umount", ""),
            ("nft -f -", ""),
            ("lsinitramfs", ".\ninit\n"),
            ("update-initramfs", ""),
        ] {
            fake.on(command, Reply::ok(answer));
        }
        fake.on(
            &format!("dpkg -S /boot/vmlinuz-{NEW}"),
            Reply::ok(format!("linux-image-{NEW}: /boot/vmlinuz-{NEW}\n")),
        );
        let machine = Self { bed, grub, fate: Fate::Good, retry: false, boots: 0, log: Vec::new() };
        machine.script_dpkg();
        machine.gather();
        machine.with_modules(&MODULES)
    }

    fn gather(&self) {
        self.bed.put("/usr/bin/dpkg", "");
    }

    fn with_modules(mut self, names: &[&str]) -> Self {
        self.bed.facts.modules = Modules {
            present: names.iter().map(|name| (*name).to_owned()).collect(),
            can_load: true,
            ..Modules::default()
        };
        self
    }

    /// dpkg unpacks, makes the initramfs, and its hook makes the menu, with the new kernel first in it.
    fn script_dpkg(&self) {
        let (grub, root) = (self.grub.clone(), self.bed.host.real_path(Path::new("/")));
        self.bed.host.fake().answer("dpkg --force-confdef", move |command| {
            if !command.line().contains(&Digest::of(b"kernel").hex()) && !command.line().contains("/fd/") {
                return Reply::ok("");
            }
            let put = |path: &str, text: &str| fs_err::write(root.join(path), text).unwrap();
            put(&format!("boot/vmlinuz-{NEW}"), "new");
            put(&format!("boot/initrd.img-{NEW}"), "new");
            let both = status(OLD, "6.1.153-1", "installed") + &status(NEW, "6.1.174-1", "installed");
            put("var/lib/dpkg/status", &both);
            grub.update();
            Reply::ok("")
        });
    }

    fn context(&self) -> Context<'_> {
        Context { retry_kernel: self.retry, ..self.bed.context() }
    }

    fn check(&self) -> Result<Check> {
        Kernel.check(&self.context())
    }

    /// What the engine does with one step: ends at a reboot, at the end, or with an error.
    fn run(&self) -> Result<Option<Restart>> {
        for _ in 0..6 {
            match self.check()? {
                Check::Needed(_) => Kernel.apply(&self.context())?,
                Check::Reboot(restart) => return Ok(Some(restart)),
                _ => return Ok(None),
            }
        }
        panic!("does not come to an end: {:?}", self.check());
    }

    /// Power off and on again, whatever was going on.
    fn boot(&mut self) -> String {
        self.bed.host.fake().revive();
        loop {
            let release = self.grub.boot();
            self.log.push(release.clone());
            self.boots += 1;
            assert!(self.boots < 50, "boots for ever: {:?}", self.log);
            if release == NEW && self.fate == Fate::Dies {
                continue;
            }
            self.bed.facts.kernel.clone_from(&release);
            self.bed.put("/proc/sys/kernel/osrelease", &release);
            self.bed.put("/proc/sys/kernel/random/boot_id", &format!("boot-{}\n", self.boots));
            self.bed.put("/proc/sys/kernel/version", if release == NEW { "#1 new\n" } else { "#1 old\n" });
            let poor = release == NEW && self.fate == Fate::Poor;
            self.bed.facts.modules.present =
                MODULES.iter().filter(|name| !poor || **name != "ip_vs").map(|name| (*name).to_owned()).collect();
            return release;
        }
    }

    /// Runs and reboots until nothing is left to do.
    fn go(&mut self) -> Result<()> {
        while self.run()?.is_some() {
            self.boot();
        }
        Ok(())
    }

    fn state(&self) -> State {
        State::read(&self.bed.host).unwrap()
    }

    fn exists(&self, path: &str) -> bool {
        self.bed.host.exists(Path::new(path)).unwrap()
    }

    /// Nothing of a trial is left, and the boot menu is the distribution's.
    fn require_clean(&self) {
        assert!(!trial::is_left(&self.bed.host).unwrap());
        assert!(!self.exists(pin::SETTINGS));
        let grub = Grub::find(&self.bed.host).unwrap().unwrap();
        assert_eq!(grub.environment(&self.bed.host).unwrap(), crate::host::boot::Environment::default());
    }
}

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
    // Its initramfs would count down at every later boot, too: the last one that was made is one without.
    let operations = machine.bed.host.fake().operations();
    let last = |what: &str| operations.iter().rposition(|line| line.contains(what));
    assert_eq!(state.countdown, None);
    assert!(last(&format!("run update-initramfs -u -k {NEW}")) > last("init-top/sealift-trial"), "{operations:?}");
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
    machine.retry = true;
    assert!(machine.run().unwrap().is_some());
    machine.retry = false;
    machine.boot();
    machine.go().unwrap();
    assert_eq!(machine.log, [NEW, OLD]);
    assert_eq!(machine.state().failed.len(), 1);

    // It was repaired.
    machine.fate = Fate::Good;
    machine.retry = true;
    assert!(machine.run().unwrap().is_some());
    machine.retry = false;
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
                    machine.retry = true;
                    assert!(machine.run().unwrap().is_some());
                    machine.retry = false;
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
        match ended {
            Err(_) => {
                if power_cut {
                    let release = machine.boot();
                    assert!([OLD, NEW].contains(&release.as_str()));
                }
                return true;
            }
            Ok(None) => return false,
            Ok(Some(_)) => {
                left -= count.min(left);
                machine.boot();
            }
        }
    }
}

#[test]
fn dpkg_that_was_cut_off_is_run_again_and_a_kernel_without_initramfs_is_not_armed() {
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
    let error = machine.run().unwrap_err().to_string();
    assert!(error.contains("cannot be booted: it has no initramfs"), "{error}");
    assert_eq!((machine.state().trial, machine.grub.boot()), (None, OLD.to_owned()));
    machine.bed.put(&format!("/boot/initrd.img-{NEW}"), "new");
    assert!(machine.run().unwrap().is_some());
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

#[test]
fn where_grub_cannot_write_the_running_kernel_starts_the_next() {
    let mut machine = Machine::new("exact = \"bundle\"");
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
    // A plain boot is the old kernel; the trial counts as lost, and says why that may be.
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

#[test]
fn reset_gives_the_menu_back_unless_that_boots_a_kernel_that_failed() {
    let mut machine = Machine::new("exact = \"bundle\"");
    machine.fate = Fate::Dies;
    machine.run().unwrap().unwrap();
    // Before the reboot: the trial is given up, and the pin stays, because the new kernel is first in the menu.
    let (done, left) = forget(&machine.bed.host).unwrap();
    assert_eq!(done[..2], ["give the kernel's trial up", "remove what watched over a kernel's trial"]);
    assert!(done[2].contains("without the trial's countdown"), "{done:?}");
    assert!(left[0].contains(OLD), "{left:?}");
    assert_eq!(machine.boot(), OLD);
    assert_eq!(forget(&machine.bed.host).unwrap().0, [""; 0]);
}
