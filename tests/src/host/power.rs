//! A host's power: the systemd-nspawn process that is the machine, and its end.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{Host, PATH, Route, descendants};
use crate::process::Process;
use crate::run::Mark;
use crate::{Bed, cgroup, wait};

/// Joins the cgroups given by their `cgroup.procs` files, then becomes the program that follows.
const JOIN: &str =
    r#"n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ >"$1" || exit 1; shift; n=$((n - 1)); done; exec "$@""#;

/// The processes of a host that is on.
#[derive(Debug)]
pub(super) struct Power {
    /// systemd-nspawn.
    launcher: Child,
    /// The host's systemd.
    pub(super) leader: Mark,
}

impl Host {
    /// Boots the host, for the first time or again after [`Host::kill`] with the same files and the address it was told last, and waits
    /// until systemd has started what it can: a service that waits for other hosts does not hold this up.
    pub fn power_on(&self) -> Result<()> {
        ensure!(!self.alive(), "`{}` is on", self.name);
        let power = self.launch()?;
        *self.power() = Some(power);
        if self.route == Route::Second {
            let (veth, bridge) = (self.second_veth(), Bed::second_bridge());
            for line in [format!("link set {veth} master {bridge}"), format!("link set {veth} up")] {
                self.bed.outside("ip").args(line.split(' ')).run()?;
            }
        }
        wait::until("the host to have its address", Duration::from_secs(120), || {
            self.run("systemctl is-active bed-address.service bed-cgroups.service dbus.service")
        })
        .with_context(|| self.console())?;
        Ok(())
    }

    /// Ends every process of the host at once, as a power cut would. Its files stay until it is dropped; [`Host::power_on`] boots it again.
    /// What it had written without a sync is there all the same: that is this machine's memory.
    pub fn kill(&self) -> Result<()> {
        let mut power = self.power();
        let Some(on) = power.as_mut() else { return Ok(()) };
        on.end()?;
        *power = None;
        drop(power);
        cgroup::remove(&self.bed.run().cgroup(&self.name))?;
        wait::until("the legs of a host that is off to go", Duration::from_secs(20), || {
            let left = [self.veth(), self.second_veth()]
                .map(|veth| self.bed.outside("ip").args(["link", "show", &veth]).finish());
            for link in left {
                ensure!(!link?.success(), "a leg is still there");
            }
            Ok(())
        })
    }

    fn launch(&self) -> Result<Power> {
        let (bed, name, directory) = (&self.bed, &self.name, &self.directory);
        let joins = cgroup::create(&bed.run().cgroup(name))?;
        let second = match self.route {
            Route::Second => Some(format!("--network-veth-extra={}:host1", self.second_veth())),
            Route::None | Route::Trap => None,
        };
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
            .args([format!("--machine={}", self.machine()), format!("--hostname={name}")])
            .arg(format!("--network-bridge={}", Bed::bridge()))
            .args(second)
            .arg(format!("--bind={}:/var/lib/containerd", directory.join("containerd").display()))
            .arg(format!("--directory={}", self.tree().display()))
            // Where the machine has its controllers in v1 hierarchies, systemd 256 and newer wants to be told so.
            .arg("SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1")
            .spawn(&directory.join("console.log"))
            .context("starting a host (scripts/prerequisites.sh installs systemd-container)")?;
        let own = Mark::of(i32::try_from(launcher.id()).context("a process id beyond 31 bits")?)?;
        own.write(&directory.join("launcher"))?;
        let mut power = Power { launcher, leader: own.clone() };
        let leader = wait::until("the host's systemd to start", Duration::from_secs(60), || {
            if !own.alive() {
                bail!("the host ended at once");
            }
            descendants(own.pid).into_iter().find(|pid| is_init(*pid)).context("no init yet").and_then(Mark::of)
        });
        match leader {
            Ok(leader) => {
                leader.write(&directory.join("leader"))?;
                power.leader = leader;
                Ok(power)
            }
            Err(error) => {
                power.end()?;
                Err(error).with_context(|| self.console())
            }
        }
    }

    /// 14 characters with the `vb-` that systemd-nspawn puts before the veth's name: the kernel allows 15.
    fn machine(&self) -> String {
        format!("{}-{}", self.bed.run().name(), self.number)
    }

    /// The other end of its leg on the first bridge.
    pub(super) fn veth(&self) -> String {
        format!("vb-{}", self.machine())
    }

    /// The other end of its leg on the second bridge.
    pub(super) fn second_veth(&self) -> String {
        format!("vx-{}", self.machine())
    }

    /// Where its root is mounted on this machine, on or off.
    pub(super) fn tree(&self) -> PathBuf {
        self.directory.join("root")
    }

    pub(super) fn console(&self) -> String {
        format!("console:\n{}", fs_err::read_to_string(self.directory.join("console.log")).unwrap_or_default())
    }
}

impl Power {
    /// Ends all of the host: its systemd's end is that of every process in its pid namespace.
    pub(super) fn end(&mut self) -> Result<()> {
        self.leader.kill()?;
        let _ = self.launcher.kill();
        self.launcher.wait().context("waiting for a host's end")?;
        Ok(())
    }
}

/// Mounts a host's root: the cached base below, its own files above.
pub(super) fn mount_root(base: &Path, directory: &Path) -> Result<()> {
    for part in ["root", "upper", "work", "containerd"] {
        fs_err::create_dir_all(directory.join(part))?;
    }
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        base.display(),
        directory.join("upper").display(),
        directory.join("work").display()
    );
    let mount = Process::new("mount").args(["-t", "overlay", "overlay", "-o"]).arg(layers);
    mount.arg(directory.join("root")).run()?;
    Ok(())
}

/// True for the first process of a pid namespace below this one.
fn is_init(pid: i32) -> bool {
    let status = fs_err::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    numbers.split_whitespace().nth(1) == Some("1") && status.starts_with("Name:\tsystemd\n")
}
