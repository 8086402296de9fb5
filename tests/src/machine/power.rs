//! A machine's power: the QEMU process that is the machine, and its end.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::agent::Agent;
use super::qmp::Qmp;
use crate::process::Process;
use crate::run::Mark;
use crate::wait;

/// Memory of a machine: enough for a control plane with its kubelet.
const MEMORY_MIB: &str = "3072";

/// UEFI for QEMU (package ovmf).
const UEFI: &str = "/usr/share/ovmf/OVMF.fd";

/// How a machine starts.
#[derive(Debug)]
pub(super) enum Start {
    /// As a machine does: BIOS, GRUB, kernel.
    Itself,
    /// In the middle of a checkpoint.
    Checkpoint(String),
}

/// What a machine is put together from.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    /// Sockets, console and marks go there.
    pub(super) directory: &'a Path,
    /// The EFI system partition of a machine with UEFI; one without has a BIOS.
    pub(super) esp: Option<&'a Path>,
    /// Further disks.
    pub(super) carriers: &'a [Carrier],
    /// Network namespace and tap device.
    pub(super) network: (PathBuf, String),
    /// How it starts.
    pub(super) start: Start,
}

/// A read-only disk that is plugged in.
#[derive(Debug, Clone)]
pub(super) struct Carrier {
    /// Its serial number: `/dev/disk/by-id/virtio-NAME`.
    pub(super) name: String,
    /// The image.
    pub(super) file: PathBuf,
    /// Where it is plugged in.
    pub(super) slot: u8,
}

/// The process of a machine that is on, and the ways to it.
#[derive(Debug)]
pub(super) struct Power {
    process: Child,
    mark: Mark,
    pub(super) agent: Agent,
    pub(super) qmp: Qmp,
}

impl Power {
    /// Switches a machine on.
    pub(super) fn on(parts: &Parts<'_>) -> Result<Self> {
        let directory = parts.directory;
        let (agent, control) = (directory.join("agent.sock"), directory.join("qmp.sock"));
        for socket in [&agent, &control] {
            if socket.exists() {
                fs_err::remove_file(socket)?;
            }
        }
        let process = command(parts, &agent, &control)
            .spawn(&directory.join("qemu.log"))
            .context("starting a machine (scripts/prerequisites.sh installs qemu-system-x86)")?;
        let mark = Mark::of(i32::try_from(process.id()).context("a process id beyond 31 bits")?)?;
        mark.write(&directory.join("launcher"))?;
        match connect(&mark, &agent, &control) {
            Ok((agent, qmp)) => Ok(Self { process, mark, agent, qmp }),
            Err(error) => {
                mark.kill()?;
                let mut process = process;
                let _ = process.wait();
                let log = fs_err::read_to_string(directory.join("qemu.log")).unwrap_or_default();
                Err(error).with_context(|| format!("QEMU said: {log}"))
            }
        }
    }

    /// True while QEMU runs.
    pub(super) fn alive(&self) -> bool {
        self.mark.alive()
    }

    /// SIGKILL: what the machine had not flushed to its disk is lost in part, as in a power cut.
    pub(super) fn cut(&mut self) -> Result<()> {
        self.mark.kill()?;
        self.process.wait().context("waiting for QEMU's end")?;
        Ok(())
    }

    /// From now on a reset by the machine itself switches it off.
    pub(super) fn off_at_reset(&mut self) -> Result<()> {
        self.qmp.execute("set-action", &json!({"reboot": "shutdown"})).map(drop)
    }

    /// Waits until the machine has switched itself off.
    pub(super) fn off(&mut self, limit: Duration) -> Result<()> {
        wait::until("the machine to switch itself off", limit, || {
            ensure!(!self.alive(), "QEMU is still there");
            Ok(())
        })?;
        self.process.wait().context("waiting for QEMU's end")?;
        Ok(())
    }
}

fn connect(mark: &Mark, agent: &Path, control: &Path) -> Result<(Agent, Qmp)> {
    wait::until("QEMU to listen", Duration::from_secs(60), || {
        if !mark.alive() {
            return Ok(());
        }
        ensure!(agent.exists() && control.exists(), "no sockets yet");
        Ok(())
    })?;
    ensure!(mark.alive(), "QEMU ended at once");
    let qmp = wait::until("QEMU to answer", Duration::from_secs(60), || Qmp::connect(control))?;
    Ok((Agent::connect(agent)?, qmp))
}

/// QEMU by its emulator: a /dev/kvm may be there and still run no stock kernel (seen: it stops while it probes the BIOS).
///
/// The machine's clocks count its own instructions (`-icount`, two nanoseconds each), not the time that passes here: a machine below that
/// has other things to do makes it slower, and nothing else. By real time its kernel measured timers ten times too slow at boot and
/// stopped for want of ticks. That allows one processor only: more than one never come up this way.
fn command(parts: &Parts<'_>, agent: &Path, control: &Path) -> Process {
    let (namespace, tap) = &parts.network;
    let mut qemu = Process::new("nsenter")
        .arg(format!("--net={}", namespace.display()))
        .args(["--", "qemu-system-x86_64"])
        .args(["-name", "sealift-machine", "-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-machine", "pc", "-accel", "tcg,tb-size=512", "-icount", "shift=1", "-rtc", "clock=vm"])
        .args(["-smp", "1", "-m", MEMORY_MIB])
        .arg("-chardev")
        .arg(format!("file,id=console,append=on,path={}", parts.directory.join("console.log").display()))
        .args(["-serial", "chardev:console"])
        .arg("-drive")
        .arg(format!(
            "if=none,id=root,format=qcow2,discard=unmap,file={}",
            parts.directory.join("disk.qcow2").display()
        ))
        .args(["-device", "virtio-blk-pci,drive=root,serial=root,addr=0x04,bootindex=1"])
        .args(["-device", "virtio-serial-pci,addr=0x05", "-device", "virtserialport,chardev=agent,name=bed"])
        .args(["-device", "virtio-rng-pci,addr=0x06"])
        .arg("-chardev")
        .arg(format!("socket,id=agent,server=on,wait=off,path={}", agent.display()))
        .arg("-netdev")
        .arg(format!("tap,id=net,ifname={tap},script=no,downscript=no"))
        .args(["-device", "virtio-net-pci,netdev=net,addr=0x03,romfile="])
        .arg("-qmp")
        .arg(format!("unix:{},server=on,wait=off", control.display()));
    if let Some(esp) = parts.esp {
        qemu = qemu
            .args(["-bios", UEFI, "-drive"])
            .arg(format!("if=none,id=esp,format=raw,snapshot=on,file={}", esp.display()))
            .args(["-device", "virtio-blk-pci,drive=esp,serial=esp,addr=0x07,bootindex=0"]);
    }
    for Carrier { name, file, slot } in parts.carriers {
        qemu = qemu
            .arg("-blockdev")
            .arg(format!(
                "driver=raw,node-name=file-{name},read-only=on,file.driver=file,file.filename={}",
                file.display()
            ))
            .arg("-device")
            .arg(format!("virtio-blk-pci,id={name},drive=file-{name},serial={name},addr={slot:#04x}"));
    }
    match &parts.start {
        Start::Itself => qemu,
        Start::Checkpoint(name) => qemu.args(["-loadvm", name]),
    }
}
