//! One systemd host on a bed: systemd-nspawn over an overlay of the base root, with its own cgroups, network leg and disk for containerd.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{Finished, Process};
use crate::run::Mark;
use crate::{Bed, Snapshot, cgroup, root, wait};

/// Joins the cgroups given by their `cgroup.procs` files, then becomes the program that follows.
const JOIN: &str =
    r#"n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ >"$1" || exit 1; shift; n=$((n - 1)); done; exec "$@""#;
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
}

/// A running systemd host; dropped, it is gone with all its files.
#[derive(Debug)]
pub struct Host {
    bed: Arc<Bed>,
    name: String,
    address: Ipv4Addr,
    leader: Mark,
    launcher: Child,
    directory: PathBuf,
}

/// A program that goes on inside a host.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// The program itself, as this machine sees it.
    mark: Mark,
    log: PathBuf,
}

impl Host {
    /// Boots a host and waits until systemd says that it is running.
    pub fn boot(bed: &Arc<Bed>, name: &str, number: u8, route: Route) -> Result<Self> {
        let directory = bed.run().host(name);
        for part in ["root", "upper", "work", "containerd"] {
            fs_err::create_dir_all(directory.join(part))?;
        }
        let address = bed.address(number);
        let (lower, tree) = (root::base()?, directory.join("root"));
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            directory.join("upper").display(),
            directory.join("work").display()
        );
        Process::new("mount").args(["-t", "overlay", "overlay", "-o"]).arg(layers).arg(&tree).run()?;
        furnish(&tree, name, address, bed.gateway(), route)?;

        // 14 characters with the `vb-` that systemd-nspawn puts before the veth's name: the kernel allows 15.
        let machine = format!("{}-{number}", bed.run().name());
        let joins = cgroup::create(&bed.run().cgroup(name))?;
        let launcher = Process::new("setsid")
            .args(["sh", "-c", JOIN, "join"])
            .arg(joins.len().to_string())
            .args(&joins)
            .args(["env", "-i", "SYSTEMD_NSPAWN_API_VFS_WRITABLE=1", "SYSTEMD_SECCOMP=0"])
            .arg(format!("PATH={PATH}"))
            .args(["nsenter", &format!("--net={}", bed.namespace().display()), "systemd-nspawn"])
            .args(["--quiet", "--register=no", "--keep-unit", "--boot", "--console=passive", "--capability=all"])
            .args(["--system-call-filter=@known", "--bind=/dev/kmsg", "--resolv-conf=off", "--timezone=off"])
            .arg("--link-journal=no")
            .args([format!("--machine={machine}"), format!("--hostname={name}")])
            .arg(format!("--network-bridge={}", Bed::bridge()))
            .arg(format!("--bind={}:/var/lib/containerd", directory.join("containerd").display()))
            .arg(format!("--directory={}", tree.display()))
            .spawn(&directory.join("console.log"))
            .context("starting a host (scripts/prerequisites.sh installs systemd-container)")?;
        let own = Mark::of(i32::try_from(launcher.id()).context("a process id beyond 31 bits")?)?;
        own.write(&directory.join("launcher"))?;
        let mut host =
            Self { bed: bed.clone(), name: name.to_owned(), address, leader: own.clone(), launcher, directory };

        host.leader = wait::until("the host's systemd to start", Duration::from_secs(20), || {
            if !own.alive() {
                bail!("the host ended at once");
            }
            descendants(own.pid).into_iter().find(|pid| is_init(*pid)).context("no init yet").and_then(Mark::of)
        })
        .with_context(|| host.console())?;
        host.leader.write(&host.directory.join("leader"))?;
        wait::until("the host to be running", Duration::from_secs(60), || {
            match host.try_run("systemctl is-system-running")?.stdout.trim() {
                "running" => Ok(()),
                state => bail!("systemd says `{state}`"),
            }
        })
        .with_context(|| host.console())?;
        // The v1 controllers come up read-only in a container; kubelet and runc make cgroups there.
        host.run(
            "grep -E ' /sys/fs/cgroup(/[^ ]*)? (cgroup|tmpfs)' /proc/self/mounts | cut -d' ' -f2 | xargs -r -n1 mount -o remount,rw,bind",
        )?;
        Ok(host)
    }

    /// Its host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address on the bridge.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The bed that it stands on.
    pub fn bed(&self) -> &Arc<Bed> {
        &self.bed
    }

    /// A program run inside, in all of the host's namespaces and with a clean environment.
    pub fn inside(&self, program: &str) -> Process {
        let leader = self.leader.pid.to_string();
        Process::new("nsenter")
            .args(["-t", &leader, "-a", "--", "/usr/bin/env", "-i"])
            .arg(format!("PATH={PATH}"))
            .args(["HOME=/root", "LANG=C.UTF-8", program])
    }

    /// A program in the host's network only, with this machine's files: the tools of a judge need not be on the host.
    pub fn beside(&self, program: &str) -> Process {
        Process::new("nsenter").args(["-t", &self.leader.pid.to_string(), "-n", "--", program])
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
        let (program, arguments) = argv.split_first().context("nothing to start")?;
        let log = self.directory.join(format!("running-{}.log", fs_err::read_dir(&self.directory)?.count()));
        let child = self.inside(program).args(arguments).spawn(&log)?;
        let parent = i32::try_from(child.id()).context("a process id beyond 31 bits")?;
        // nsenter forks to enter the pid namespace; env then becomes the program.
        let mark = wait::until("a program to start", Duration::from_secs(10), || {
            Mark::of(*descendants(parent).first().context("not forked yet")?)
        })?;
        Ok(Running { child, mark, log })
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

    /// Where this machine sees a file of the host.
    pub fn file(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.leader.pid))
    }

    /// Pulls the host's network plug.
    pub fn cut_network(&self) -> Result<()> {
        self.leg("down")
    }

    /// Puts the plug back.
    pub fn restore_network(&self) -> Result<()> {
        self.leg("up")
    }

    fn leg(&self, state: &str) -> Result<()> {
        let number = self.address.octets()[3];
        let veth = format!("vb-{}-{number}", self.bed.run().name());
        self.bed.outside("ip").args(["link", "set", &veth, state]).run()?;
        Ok(())
    }

    /// Ends every process of the host at once, as a power cut would; its files stay until it is dropped.
    pub fn kill(&self) -> Result<()> {
        self.leader.kill()
    }

    /// True while its systemd is there.
    pub fn alive(&self) -> bool {
        self.leader.alive()
    }

    /// All files but those that a running host changes by itself.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::take(&self.file("/"), &["/"], &LIVELY)
    }

    /// The files below some directories.
    pub fn snapshot_of(&self, directories: &[&str]) -> Result<Snapshot> {
        Snapshot::take(&self.file("/"), directories, &LIVELY)
    }

    /// The host's pid as this machine sees it: `nsenter -t PID -a` enters the host.
    pub fn pid(&self) -> i32 {
        self.leader.pid
    }

    /// The end of the journal, for a message about a failure.
    pub fn journal(&self, lines: u32) -> String {
        self.try_run(&format!("journalctl --no-pager -n {lines}")).map(|finished| finished.stdout).unwrap_or_default()
    }

    fn console(&self) -> String {
        format!("console:\n{}", fs_err::read_to_string(self.directory.join("console.log")).unwrap_or_default())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.directory.join("../../keep").exists() {
            return;
        }
        let _ = self.leader.kill();
        let _ = self.launcher.kill();
        let _ = self.launcher.wait();
        // What fails here is repeated when the bed goes, and by the next run's sweep.
        let _ = self.bed.run().remove_host(&self.name);
    }
}

impl Running {
    /// What it has printed so far.
    pub fn output(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs_err::read(&self.log)?).into_owned())
    }

    /// True while it runs.
    pub fn alive(&self) -> bool {
        self.mark.alive()
    }

    /// Ends it with SIGKILL.
    pub fn kill(mut self) -> Result<()> {
        self.mark.kill()?;
        self.child.wait().context("waiting for a killed program")?;
        Ok(())
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Result<Finished> {
        let status = self.child.wait().context("waiting for a program")?;
        Ok(Finished { code: status.code(), stdout: self.output()?, stderr: String::new() })
    }
}

/// Name, address, resolver and the unit that sets the address: networkd waits for udev, which a container does not have.
fn furnish(tree: &Path, name: &str, address: Ipv4Addr, gateway: Ipv4Addr, route: Route) -> Result<()> {
    let mut unit = format!(
        "[Unit]\nDescription=Static address of a test host\nDefaultDependencies=no\nBefore=network.target network-online.target\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\n\
         ExecStart=/usr/sbin/ip addr add {address}/24 dev host0\nExecStart=/usr/sbin/ip link set host0 up\n"
    );
    if route == Route::Trap {
        writeln!(unit, "ExecStart=/usr/sbin/ip route add default via {gateway}")?;
        fs_err::write(tree.join("etc/resolv.conf"), "nameserver 192.0.2.53\n")?;
    }
    unit.push_str("[Install]\nWantedBy=multi-user.target network-online.target\n");
    fs_err::write(tree.join("etc/systemd/system/bed-address.service"), unit)?;
    for target in ["multi-user.target.wants", "network-online.target.wants"] {
        let directory = tree.join("etc/systemd/system").join(target);
        fs_err::create_dir_all(&directory)?;
        let link = directory.join("bed-address.service");
        fs_err::os::unix::fs::symlink("../bed-address.service", link)?;
    }
    fs_err::write(tree.join("etc/hostname"), format!("{name}\n"))?;
    fs_err::write(tree.join("etc/hosts"), format!("127.0.0.1 localhost\n{address} {name}\n"))?;
    Ok(())
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

/// True for the first process of a pid namespace below this one.
fn is_init(pid: i32) -> bool {
    let status = fs_err::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    numbers.split_whitespace().nth(1) == Some("1") && status.starts_with("Name:\tsystemd\n")
}
