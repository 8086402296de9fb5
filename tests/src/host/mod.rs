//! One systemd host on a bed: systemd-nspawn over an overlay of the base root, with its own cgroups, network legs and disk for containerd.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{Finished, Process};
use crate::root::Debian;
use crate::{Bed, Snapshot, wait};

mod furniture;
mod network;
mod power;
mod running;

pub use network::When;
pub use running::Running;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Directories whose content is the host's own business while it runs: logs, clocks, sockets, kernel interfaces.
const LIVELY: [&str; 9] =
    ["/proc", "/sys", "/dev", "/run", "/tmp", "/var/log/journal", "/var/lib/systemd", "/var/tmp", "/etc/.pwd.lock"];

/// Where a host sends what is not for its bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// No route: such a packet cannot even be sent.
    None,
    /// A default route and a name server that lead nowhere, so that every attempt is counted ([`Bed::foreign`]) and dropped.
    Trap,
    /// A second interface, on the bed's second bridge, has the default route, and the host's own name means the address there: what takes
    /// its address from the route or the name takes the wrong one.
    Second,
}

/// What is done to a service's main process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGSTOP: it hangs, its connections stay open.
    Stop,
    /// SIGCONT.
    Continue,
    /// SIGKILL.
    Kill,
}

/// A systemd host; dropped, it is gone with all its files.
#[derive(Debug)]
pub struct Host {
    bed: Arc<Bed>,
    name: String,
    number: u8,
    route: Route,
    address: Mutex<Ipv4Addr>,
    /// Nothing while it is off.
    power: Mutex<Option<power::Power>>,
    directory: PathBuf,
}

impl Host {
    /// Boots a host with Debian 12 and waits until systemd says that it is running.
    pub fn boot(bed: &Arc<Bed>, name: &str, number: u8, route: Route) -> Result<Self> {
        Self::boot_release(Debian::Bookworm, bed, name, number, route)
    }

    /// The same with a release of Debian.
    pub fn boot_release(release: Debian, bed: &Arc<Bed>, name: &str, number: u8, route: Route) -> Result<Self> {
        let host = Self {
            bed: bed.clone(),
            name: name.to_owned(),
            number,
            route,
            address: Mutex::new(bed.address(number)),
            power: Mutex::new(None),
            directory: bed.run().host(name),
        };
        power::mount_root(&release.base()?, &host.directory)?;
        furniture::furnish(&host.tree(), name, &host.legs(host.address()))?;
        host.power_on()?;
        wait::until("the host to be running", Duration::from_secs(120), || {
            match host.try_run("systemctl is-system-running")?.stdout.trim() {
                "running" => Ok(()),
                state => bail!("systemd says `{state}`"),
            }
        })
        .with_context(|| host.console())?;
        Ok(host)
    }

    /// Boots several at once: names, numbers.
    pub fn boot_all(bed: &Arc<Bed>, wanted: &[(&str, u8)], route: Route) -> Result<Vec<Self>> {
        // Made once, not by all of them.
        Debian::Bookworm.base()?;
        std::thread::scope(|scope| {
            let boot = |(name, number): (&'_ str, u8)| Self::boot(bed, name, number, route);
            let threads: Vec<_> = wanted.iter().map(|host| scope.spawn(move || boot(*host))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| bail!("booting a host panicked")))
                .collect()
        })
    }

    /// Its host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address on the first bridge.
    pub fn address(&self) -> Ipv4Addr {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its address on the second bridge, where it has an interface there.
    pub fn second_address(&self) -> Ipv4Addr {
        self.bed.second_address(self.number)
    }

    /// The bed that it stands on.
    pub fn bed(&self) -> &Arc<Bed> {
        &self.bed
    }

    /// A program run inside, in all of the host's namespaces and with a clean environment.
    pub fn inside(&self, program: &str) -> Process {
        let leader = self.pid().to_string();
        Process::new("nsenter")
            .args(["-t", &leader, "-a", "--", "/usr/bin/env", "-i"])
            .arg(format!("PATH={PATH}"))
            .args(["HOME=/root", "LANG=C.UTF-8", program])
    }

    /// A program in the host's network only, with this machine's files: the tools of a judge need not be on the host.
    pub fn beside(&self, program: &str) -> Process {
        Process::new("nsenter").args(["-t", &self.pid().to_string(), "-n", "--", program])
    }

    /// Runs a shell command line inside for at most ten minutes; anything but exit code 0 is an error.
    pub fn run(&self, line: &str) -> Result<Finished> {
        self.inside("timeout").args(["600", "sh", "-c", line]).run()
    }

    /// Like [`Host::run`], whatever the exit code.
    pub fn try_run(&self, line: &str) -> Result<Finished> {
        self.inside("timeout").args(["600", "sh", "-c", line]).finish()
    }

    /// Starts a program inside and leaves it running.
    pub fn start(&self, argv: &[&str]) -> Result<Running> {
        Running::start(self, argv)
    }

    /// Copies a file of this machine into the host, its mode with it.
    pub fn copy(&self, from: &Path, to: &str) -> Result<()> {
        let to = self.file(to);
        if let Some(parent) = to.parent() {
            fs_err::create_dir_all(parent)?;
        }
        fs_err::copy(from, to)?;
        Ok(())
    }

    /// Writes a file into the host.
    pub fn write(&self, to: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let to = self.file(to);
        if let Some(parent) = to.parent() {
            fs_err::create_dir_all(parent)?;
        }
        Ok(fs_err::write(to, content)?)
    }

    /// Where this machine sees a file of the host, on or off. A link whose target is absolute leads elsewhere.
    pub fn file(&self, path: &str) -> PathBuf {
        match self.pid() {
            0 => self.tree().join(path.trim_start_matches('/')),
            pid => PathBuf::from(format!("/proc/{pid}/root{path}")),
        }
    }

    /// Sends a signal to a service's main process.
    pub fn signal(&self, unit: &str, signal: Signal) -> Result<()> {
        let name = match signal {
            Signal::Stop => "STOP",
            Signal::Continue => "CONT",
            Signal::Kill => "KILL",
        };
        self.run(&format!("systemctl kill --kill-who=main --signal={name} {unit}"))?;
        Ok(())
    }

    /// True while its systemd is there.
    pub fn alive(&self) -> bool {
        self.power().as_ref().is_some_and(|power| power.leader.alive())
    }

    /// Its systemd's pid as this machine sees it, 0 while it is off: `nsenter -t PID -a` enters the host.
    pub fn pid(&self) -> i32 {
        self.power().as_ref().map_or(0, |power| power.leader.pid)
    }

    /// All files but those that a running host changes by itself.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::take(&self.file("/"), &["/"], &LIVELY)
    }

    /// The files below some directories.
    pub fn snapshot_of(&self, directories: &[&str]) -> Result<Snapshot> {
        Snapshot::take(&self.file("/"), directories, &LIVELY)
    }

    /// The end of the journal, for a message about a failure.
    pub fn journal(&self, lines: u32) -> String {
        self.try_run(&format!("journalctl --no-pager -n {lines}")).map(|finished| finished.stdout).unwrap_or_default()
    }

    fn power(&self) -> MutexGuard<'_, Option<power::Power>> {
        self.power.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.directory.join("../../keep").exists() {
            return;
        }
        if let Some(mut power) = self.power().take() {
            let _ = power.end();
        }
        // What fails here is repeated when the bed goes, and by the next run's sweep.
        let _ = self.bed.run().remove_host(&self.name);
    }
}

/// All processes below one, nearest first.
fn descendants(pid: i32) -> Vec<i32> {
    let mut found: Vec<i32> = fs_err::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .map(|text| text.split_whitespace().filter_map(|word| word.parse().ok()).collect())
        .unwrap_or_default();
    for child in found.clone() {
        found.extend(descendants(child));
    }
    found
}
