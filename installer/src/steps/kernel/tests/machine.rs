//! A machine with GRUB, dpkg, systemd and power, and perhaps a cluster around it.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bundle::Digest;
use bundle::component::{Kind, Package, Role};
use serde_json::{Value, json};

use super::super::*;
use crate::config::ClusterConfig;
use crate::facts::Modules;
use crate::host::Reply;
use crate::host::boot::tests::Simulated;
use crate::kubeapi::fake::Server;
use crate::pki::KUBELET_CLIENT;
use crate::steps::images::blob_path;
use crate::steps::tests::Bed;
use crate::steps::unit::unit_path;

pub(super) const OLD: &str = "6.1.0-40-amd64";
pub(super) const NEW: &str = "6.1.0-49-amd64";
pub(super) const MODULES: [&str; 6] = ["overlay", "br_netfilter", "nf_conntrack", "ip_vs", "nf_tables", "veth"];

/// A machine that can lose its power.
pub(super) struct Machine {
    pub(super) bed: Bed,
    pub(super) grub: Simulated,
    /// What happens to a kernel when it is booted.
    pub(super) fate: Fate,
    pub(super) retry: Option<usize>,
    pub(super) boots: usize,
    /// Times it was rebooted into each kernel.
    pub(super) log: Vec<String>,
    /// Whether `/boot` has no room for another initramfs.
    pub(super) full: Arc<AtomicBool>,
    /// The API of its cluster.
    pub(super) server: Option<Rc<Server>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Good,
    /// It never comes up: the watch over it, or a person, boots again.
    Dies,
    /// It lacks a module.
    Poor,
}

pub(super) fn config(kernel: &str) -> ClusterConfig {
    configure(kernel, "")
}

fn configure(kernel: &str, further: &str) -> ClusterConfig {
    let text = format!(
        "[cluster]\nname = \"test\"\n[[node]]\nname = \"m1\"\naddress = \"192.0.2.1\"\nroles = [\"master\"]\n[kernel]\n{kernel}\n\
         {further}"
    );
    ClusterConfig::parse(&text, Path::new("x")).unwrap()
}

/// The list of an initramfs that is made now.
fn packed(root: &Path) -> &'static str {
    if root.join(&countdown::SCRIPT[1..]).exists() { ".\ninit\nscripts/init-top/sealift-trial\n" } else { ".\ninit\n" }
}

pub(super) fn status(release: &str, version: &str, state: &str) -> String {
    format!("Package: linux-image-{release}\nStatus: install ok {state}\nArchitecture: amd64\nVersion: {version}\n\n")
}

impl Machine {
    pub(super) fn new(kernel: &str) -> Self {
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
            ("/proc/sys/kernel/panic", "10\n"),
            ("/proc/sys/kernel/softlockup_panic", "0\n"),
            ("/sys/class/net/eth0/device/vendor", "0x1af4\n"),
            ("/sys/class/net/eth0/carrier", "1\n"),
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
            ("ip -4 route show default", "default via 192.0.2.254 dev eth0 proto static\n"),
            ("ip -j addr", r#"[{"ifname":"eth0","addr_info":[{"local":"192.0.2.1","prefixlen":24}]}]"#),
            ("systemctl list-units --failed", ""),
            ("systemctl is-system-running", "running\n"),
            ("modprobe", ""),
            ("mount -t overlay", ""),
            ("umount", ""),
            ("nft -f -", ""),
        ] {
            fake.on(command, Reply::ok(answer));
        }
        fake.on(
            &format!("dpkg -S /boot/vmlinuz-{NEW}"),
            Reply::ok(format!("linux-image-{NEW}: /boot/vmlinuz-{NEW}\n")),
        );
        let machine = Self {
            bed,
            grub,
            fate: Fate::Good,
            retry: None,
            boots: 0,
            log: Vec::new(),
            full: Arc::default(),
            server: None,
        };
        machine.script_dpkg();
        machine.script_initramfs();
        machine.gather();
        machine.with_modules(&MODULES)
    }

    /// The same in a cluster with another node, where `m1` works already and runs the pod `web`.
    pub(super) fn in_cluster(kernel: &str) -> Self {
        let mut machine = Self::new(kernel);
        let other = "\n[[node]]\nname = \"w1\"\naddress = \"192.0.2.2\"\nroles = [\"worker\"]\n";
        machine.bed.config = configure(kernel, other);
        machine.bed.put(KUBELET_CLIENT, "");
        let server = Rc::new(Server::start());
        server.put("/api/v1/nodes/m1", json!({ "spec": {} }));
        let eviction = json!({ "name": "pods/eviction", "kind": "Eviction", "group": "policy", "version": "v1" });
        server.put("/api/v1", json!({ "resources": [eviction] }));
        let pod = json!({
            "metadata": { "name": "web", "namespace": "default", "uid": "web",
                "ownerReferences": [{ "kind": "ReplicaSet", "controller": true }] },
            "spec": { "nodeName": "m1" }, "status": { "phase": "Running" },
        });
        server.put("/api/v1/pods", json!({ "items": [pod], "metadata": {} }));
        drain::test_api::set(Some(Rc::clone(&server)));
        machine.server = Some(server);
        machine
    }

    /// The operator says `--retry-kernel`.
    pub(super) fn say_retry(&mut self) {
        self.retry = Some(failures(&self.bed.host).unwrap());
    }

    /// Whether its node takes no new pods.
    pub(super) fn is_closed(&self) -> bool {
        let node = self.server.as_ref().unwrap().object("/api/v1/nodes/m1").unwrap();
        node.pointer("/spec/unschedulable") == Some(&Value::Bool(true))
    }

    /// `update-initramfs` packs what is in `/etc/initramfs-tools`, `lsinitramfs` shows it.
    fn script_initramfs(&self) {
        let (root, full) = (self.bed.host.real_path(Path::new("/")), Arc::clone(&self.full));
        self.bed.host.fake().answer("update-initramfs -", move |command| {
            if full.load(Ordering::Relaxed) {
                return Reply::fail(1, "No space left on device");
            }
            let release = command.line().rsplit(' ').next().unwrap().to_owned();
            fs_err::write(root.join(format!("boot/initrd.img-{release}")), packed(&root)).unwrap();
            Reply::ok("")
        });
        let root = self.bed.host.real_path(Path::new("/"));
        self.bed.host.fake().answer("lsinitramfs ", move |command| {
            let path = command.line().rsplit(" /").next().unwrap().to_owned();
            Reply::ok(fs_err::read(root.join(path)).unwrap())
        });
    }

    pub(super) fn gather(&self) {
        self.bed.put("/usr/bin/dpkg", "");
    }

    pub(super) fn with_modules(mut self, names: &[&str]) -> Self {
        self.bed.facts.modules = Modules {
            present: names.iter().map(|name| (*name).to_owned()).collect(),
            can_load: true,
            ..Modules::default()
        };
        self
    }

    /// dpkg unpacks, makes the initramfs, and its hook makes the menu, with the new kernel first in it.
    pub(super) fn script_dpkg(&self) {
        let (grub, root) = (self.grub.clone(), self.bed.host.real_path(Path::new("/")));
        self.bed.host.fake().answer("dpkg --force-confdef", move |command| {
            if !command.line().contains(&Digest::of(b"kernel").hex()) && !command.line().contains("/fd/") {
                return Reply::ok("");
            }
            let put = |path: &str, text: &str| fs_err::write(root.join(path), text).unwrap();
            put(&format!("boot/vmlinuz-{NEW}"), "new");
            put(&format!("boot/initrd.img-{NEW}"), packed(&root));
            let both = status(OLD, "6.1.153-1", "installed") + &status(NEW, "6.1.174-1", "installed");
            put("var/lib/dpkg/status", &both);
            grub.update();
            Reply::ok("")
        });
    }

    pub(super) fn context(&self) -> Context<'_> {
        Context { retry_kernel: self.retry, ..self.bed.context() }
    }

    pub(super) fn check(&self) -> Result<Check> {
        Kernel.check(&self.context())
    }

    /// What a run does about the kernel: ends at a reboot, at the end, or with an error.
    pub(super) fn run(&self) -> Result<Option<Restart>> {
        let ended = self.steps();
        tidy(&self.context());
        ended
    }

    fn steps(&self) -> Result<Option<Restart>> {
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
    pub(super) fn boot(&mut self) -> String {
        self.bed.host.fake().revive();
        loop {
            let release = self.grub.boot();
            self.log.push(release.clone());
            self.boots += 1;
            assert!(self.boots < 50, "boots for ever: {:?}", self.log);
            if release == NEW && self.fate == Fate::Dies {
                continue;
            }
            self.come_up(&release);
            return release;
        }
    }

    /// The running kernel starts the one that it has loaded.
    pub(super) fn kexec(&mut self) {
        self.bed.put("/sys/kernel/kexec_loaded", "0\n");
        self.boots += 1;
        self.come_up(NEW);
    }

    fn come_up(&mut self, release: &str) {
        self.require_no_countdown(release);
        release.clone_into(&mut self.bed.facts.kernel);
        self.bed.put("/proc/sys/kernel/osrelease", release);
        self.bed.put("/proc/sys/kernel/random/boot_id", &format!("boot-{}\n", self.boots));
        self.bed.put("/proc/sys/kernel/version", if release == NEW { "#1 new\n" } else { "#1 old\n" });
        let poor = release == NEW && self.fate == Fate::Poor;
        self.bed.facts.modules.present =
            MODULES.iter().filter(|name| !poor || **name != "ip_vs").map(|name| (*name).to_owned()).collect();
    }

    /// An initramfs that counts down ends a kernel that is not on trial, unless the unit is there that ends the countdown.
    fn require_no_countdown(&self, release: &str) {
        let initramfs = self.bed.host.read_text(Path::new(&format!("/boot/initrd.img-{release}"))).unwrap();
        let counts = initramfs.is_some_and(|list| list.contains("sealift-trial"));
        let ends = self.exists(&unit_path(countdown::UNIT).to_string_lossy());
        assert!(!counts || ends, "{release} is ended at every boot");
    }

    /// Runs and reboots until nothing is left to do.
    pub(super) fn go(&mut self) -> Result<()> {
        while self.run()?.is_some() {
            self.boot();
        }
        Ok(())
    }

    pub(super) fn state(&self) -> State {
        State::read(&self.bed.host).unwrap()
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.bed.host.exists(Path::new(path)).unwrap()
    }

    /// Nothing of a trial is left, and the boot menu is the distribution's.
    pub(super) fn require_clean(&self) {
        assert!(!trial::is_left(&self.bed.host).unwrap());
        assert!(!self.exists(&unit_path(countdown::UNIT).to_string_lossy()));
        assert!(!self.exists(pin::SETTINGS));
        let grub = Grub::find(&self.bed.host).unwrap().unwrap();
        assert_eq!(grub.environment(&self.bed.host).unwrap(), crate::host::boot::Environment::default());
    }
}
