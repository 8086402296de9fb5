//! A virtual machine on a bed: its own kernel, GRUB, BIOS and disk, so that kernels and reboots are real. QEMU's emulator runs it: about
//! ten times slower than the machine below.
//!
//! One machine a bed: its name and address are part of the image. Cut off and switched on at will, frozen in the middle of its work and
//! started from there again; files come on read-only disks that can be pulled.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::process::{Finished, Process};
use crate::{Bed, wait};

mod agent;
pub mod archive;
mod disk;
mod furniture;
mod grub;
mod image;
pub mod kernel;
mod power;
mod qmp;

pub use archive::Archive;
pub use disk::carrier;
pub use image::Image;
pub use kernel::Fault;
use power::{Carrier, Parts, Power, Start};

/// Its host name.
pub const NAME: &str = "machine";
/// Its address on the bed's first bridge.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 31);
/// Longer than any boot, on a machine that has more to do.
pub const BOOT: Duration = Duration::from_secs(600);
/// Slots from here on are for disks that come and go.
const FIRST_SLOT: u8 = 0x10;
const LAST_SLOT: u8 = 0x1e;

/// What starts a machine's boot loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// From the boot sector.
    Bios,
    /// From the EFI system partition.
    Uefi,
}

/// A machine; dropped, it is gone with its disk.
#[derive(Debug)]
pub struct Machine {
    bed: Arc<Bed>,
    directory: PathBuf,
    /// The EFI system partition, if it boots by UEFI.
    esp: Option<PathBuf>,
    carriers: Mutex<Vec<Carrier>>,
    /// Nothing while it is off.
    power: Mutex<Option<Power>>,
}

impl Machine {
    /// Puts a machine together: a new layer over the image, its network card on the bed's bridge. It is off.
    pub fn new(bed: &Arc<Bed>, image: &Image, firmware: Firmware) -> Result<Self> {
        let directory = bed.run().host(NAME);
        fs_err::create_dir_all(&directory)?;
        disk::layer(&image.disk, "raw", &directory.join("disk.qcow2"))?;
        let tap = tap(bed);
        for line in [
            format!("tuntap add dev {tap} mode tap"),
            format!("link set {tap} master {}", Bed::bridge()),
            format!("link set {tap} up"),
        ] {
            bed.outside("ip").args(line.split(' ')).run()?;
        }
        let esp = (firmware == Firmware::Uefi).then(|| image.esp.clone());
        Ok(Self { bed: bed.clone(), directory, esp, carriers: Mutex::default(), power: Mutex::default() })
    }

    /// The same, switched on and booted.
    pub fn boot(bed: &Arc<Bed>, image: &Image, firmware: Firmware) -> Result<Self> {
        let machine = Self::new(bed, image, firmware)?;
        machine.power_on()?;
        machine.settled(BOOT)?;
        Ok(machine)
    }

    /// Switches it on; it boots by itself.
    pub fn power_on(&self) -> Result<()> {
        self.start(Start::Itself)
    }

    /// Switches it on in the middle of a [`Machine::checkpoint`]: memory, processes, disk are as they were then.
    pub fn go_on_from(&self, checkpoint: &str) -> Result<()> {
        self.start(Start::Checkpoint(checkpoint.to_owned()))?;
        self.boot_id().map(drop)
    }

    fn start(&self, start: Start) -> Result<()> {
        let mut power = self.power();
        ensure!(!power.as_ref().is_some_and(Power::alive), "the machine is on");
        let carriers = self.carriers();
        let parts = Parts {
            directory: &self.directory,
            esp: self.esp.as_deref(),
            carriers: &carriers,
            network: (self.bed.namespace(), tap(&self.bed)),
            start,
        };
        *power = Some(Power::on(&parts)?);
        Ok(())
    }

    /// Ends QEMU at once, as a power cut would. What the machine had not flushed to its disk is lost, at least in part: the tables of its
    /// disk's file are in QEMU's memory.
    pub fn kill(&self) -> Result<()> {
        if let Some(mut power) = self.power().take() {
            power.cut()?;
        }
        Ok(())
    }

    /// Lets it shut down in order.
    pub fn power_off(&self) -> Result<()> {
        self.run("systemctl poweroff --no-block")?;
        self.stopped(BOOT)
    }

    /// Stops it at its next reboot, between the one boot and the other: to pull something out that it need not let go of.
    pub fn stops_at_its_reboot(&self) -> Result<()> {
        self.on(Power::off_at_reset)
    }

    /// Waits until it has switched itself off.
    pub fn stopped(&self, limit: Duration) -> Result<()> {
        let mut power = self.power().take().context("the machine is off")?;
        power.off(limit)
    }

    /// Keeps the machine's state, disk and memory, under a name, for [`Machine::go_on_from`]; it goes on afterwards. Disks that are
    /// plugged in now must be so again then.
    pub fn checkpoint(&self, name: &str) -> Result<()> {
        self.on(|power| power.qmp.person(&format!("savevm {name}")))
    }

    /// True while QEMU runs.
    pub fn alive(&self) -> bool {
        self.power().as_ref().is_some_and(Power::alive)
    }

    /// Plugs a read-only disk in, on or off; inside it is `/dev/disk/by-id/virtio-NAME`.
    pub fn plug(&self, name: &str, file: &Path) -> Result<()> {
        let mut carriers = self.carriers();
        let free = (FIRST_SLOT..=LAST_SLOT).find(|slot| carriers.iter().all(|carrier| carrier.slot != *slot));
        let slot = free.context("no slot is free")?;
        if let Some(power) = self.power().as_mut() {
            let node = format!("file-{name}");
            let file = json!({"driver": "file", "filename": file});
            let arguments = json!({"driver": "raw", "node-name": node, "read-only": true, "file": file});
            power.qmp.execute("blockdev-add", &arguments)?;
            let addr = format!("{slot:#04x}");
            let device = json!({"driver": "virtio-blk-pci", "id": name, "drive": node, "serial": name, "addr": addr});
            power.qmp.execute("device_add", &device)?;
        }
        carriers.push(Carrier { name: name.to_owned(), file: file.to_owned(), slot });
        Ok(())
    }

    /// Pulls a disk out, on or off. The machine is asked to let go of it, as with any hot-pluggable slot.
    pub fn unplug(&self, name: &str) -> Result<()> {
        let mut carriers = self.carriers();
        carriers.retain(|carrier| carrier.name != name);
        let mut power = self.power();
        let Some(power) = power.as_mut() else { return Ok(()) };
        power.qmp.execute("device_del", &json!({"id": name}))?;
        wait::until("the machine to let go of a disk", Duration::from_secs(120), || {
            ensure!(power.qmp.seen("DEVICE_DELETED", name)?, "not yet");
            Ok(())
        })?;
        power.qmp.execute("blockdev-del", &json!({"node-name": format!("file-{name}")}))?;
        Ok(())
    }

    /// Mounts a disk that is plugged in, read only.
    pub fn mount(&self, name: &str, on: &str) -> Result<()> {
        let device = format!("/dev/disk/by-id/virtio-{name}");
        self.run(&format!(
            "mkdir -p {on}; for i in $(seq 100); do [ -e {device} ] && break; sleep 0.2; done; mount -o ro {device} {on}"
        ))?;
        Ok(())
    }

    /// Runs a shell script inside for at most ten minutes; anything but exit code 0 is an error.
    pub fn run(&self, script: &str) -> Result<Finished> {
        let finished = self.try_run(script)?;
        ensure!(finished.success(), "`{script}` ended with {:?}\n{}", finished.code, finished.tail());
        Ok(finished)
    }

    /// Like [`Machine::run`], whatever the exit code.
    pub fn try_run(&self, script: &str) -> Result<Finished> {
        self.run_for(script, Duration::from_secs(600))
    }

    /// The same with another limit. While a script runs, no other does.
    pub fn run_for(&self, script: &str, limit: Duration) -> Result<Finished> {
        self.on(|power| power.agent.run(script, limit))
    }

    /// Starts a shell script as a service of its own and leaves it running; what it prints is appended to `/root/NAME.log`.
    pub fn start_service(&self, name: &str, script: &str) -> Result<()> {
        self.write(&format!("/root/{name}.sh"), script)?;
        let log = format!(
            "--property=StandardOutput=append:/root/{name}.log --property=StandardError=append:/root/{name}.log"
        );
        self.run(&format!(
            "systemd-run --quiet --no-block --unit={name} --setenv=HOME=/root {log} bash /root/{name}.sh"
        ))?;
        Ok(())
    }

    /// Writes a file inside.
    pub fn write(&self, to: &str, content: impl AsRef<[u8]>) -> Result<()> {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::STANDARD.encode(content);
        self.run(&format!("mkdir -p \"$(dirname {to})\" && base64 -d >{to} <<<'{encoded}'"))?;
        Ok(())
    }

    /// Reads a text file inside.
    pub fn read(&self, path: &str) -> Result<String> {
        Ok(self.run(&format!("cat {path}"))?.stdout)
    }

    /// The identity of this boot, as soon as the agent answers.
    pub fn boot_id(&self) -> Result<String> {
        self.on(|power| answer(power, BOOT))
    }

    /// Waits for a boot other than `before`, and hands back its identity.
    pub fn rebooted(&self, before: &str, limit: Duration) -> Result<String> {
        wait::patiently("another boot", limit, || {
            let now = self.on(|power| answer(power, Duration::from_secs(60)))?;
            ensure!(now != before, "still the same boot");
            Ok(now)
        })
        .with_context(|| self.console(60))
    }

    /// Waits until systemd has started what it can.
    pub fn settled(&self, limit: Duration) -> Result<()> {
        self.on(|power| answer(power, limit)).with_context(|| self.console(60))?;
        wait::patiently("the machine to be running", limit, || {
            let state = self.run_for("systemctl is-system-running", Duration::from_secs(60))?.stdout;
            match state.trim() {
                "running" => Ok(()),
                "degraded" => bail!("failed: {}", self.run("systemctl --failed --no-legend --plain")?.stdout.trim()),
                state => bail!("systemd says `{state}`"),
            }
        })
        .with_context(|| self.console(60))
    }

    /// The running kernel's release.
    pub fn kernel(&self) -> Result<String> {
        Ok(self.run("uname -r")?.stdout.trim().to_owned())
    }

    /// A program that runs as a neighbour of the machine on its bridge.
    pub fn beside(&self, program: &str) -> Process {
        self.bed.outside(program)
    }

    /// The end of what it printed on its serial console, all boots.
    pub fn console(&self, lines: usize) -> String {
        let bytes = fs_err::read(self.directory.join("console.log")).unwrap_or_default();
        format!("console:\n{}", last_lines(&String::from_utf8_lossy(&bytes), lines))
    }

    fn on<T>(&self, work: impl FnOnce(&mut Power) -> Result<T>) -> Result<T> {
        work(self.power().as_mut().context("the machine is off")?)
    }

    fn power(&self) -> MutexGuard<'_, Option<Power>> {
        self.power.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carriers(&self) -> MutexGuard<'_, Vec<Carrier>> {
        self.carriers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.directory.join("../../keep").exists() {
            return;
        }
        // What fails here is repeated when the bed goes, and by the next run's sweep.
        let _ = self.kill();
        let _ = self.bed.outside("ip").args(["link", "delete", &tap(&self.bed)]).finish();
        let _ = self.bed.run().remove_host(NAME);
    }
}

/// Asks the agent for the boot's identity until it answers.
fn answer(power: &mut Power, limit: Duration) -> Result<String> {
    let said = power.agent.ask("cat /proc/sys/kernel/random/boot_id", limit)?;
    Ok(said.stdout.trim().to_owned())
}

/// At most 15 characters; none of the first letters that [`Bed::foreign`] takes for an address.
fn tap(bed: &Bed) -> String {
    format!("vt-{}", bed.run().name())
}

/// The last lines of a text, without what a console needs to look nice.
fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
