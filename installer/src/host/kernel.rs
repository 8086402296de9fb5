//! What only the kernel can tell: limits that this process may raise, sysctls, running processes, time.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit};

use super::{Filesystem, Host};

/// Whether another process has this pid.
pub(super) fn other_process_runs(pid: i32) -> bool {
    let own = std::process::id();
    u32::try_from(pid).is_ok_and(|pid| pid != own)
        && rustix::process::Pid::from_raw(pid)
            .is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// Time since the first call in this process.
pub(super) fn monotonic() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Path of a sysctl below `/proc/sys`. Interface names that contain dots are written with `/` as separators.
pub fn sysctl_path(name: &str) -> PathBuf {
    let relative = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    Path::new("/proc/sys").join(relative)
}

/// Whether `/proc/modules` has a module; the kernel treats `-` and `_` alike.
pub fn module_loaded(host: &Host, name: &str) -> Result<bool> {
    let text = host.read_text(Path::new("/proc/modules"))?.unwrap_or_default();
    Ok(text.lines().filter_map(|line| line.split(' ').next()).any(|found| found == name.replace('-', "_")))
}

/// The mount point of a line of `/proc/self/mountinfo` (proc(5)).
pub fn mount_point(line: &str) -> Option<PathBuf> {
    Some(PathBuf::from(unescape(line.split(' ').nth(4)?)))
}

/// Device, mount point, kind and source of a line of `/proc/self/mountinfo`.
pub(super) fn mount_fields(line: &str) -> Option<Filesystem> {
    let (front, back) = line.split_once(" - ")?;
    let mut back = back.split(' ');
    Some(Filesystem {
        mounted: mount_point(line)?,
        device: front.split(' ').nth(2)?.to_owned(),
        kind: back.next()?.to_owned(),
        source: unescape(back.next()?),
        ..Filesystem::default()
    })
}

/// Space, tab, newline and backslash are written as three octal digits.
pub(super) fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(code) = code {
            plain.push(char::from(code));
            plain.push_str(&part[3..]);
        } else {
            plain.push('\\');
            plain.push_str(part);
        }
    }
    plain
}

impl Host {
    /// Ends a process with SIGKILL, if it is still the one that `is_it` says; fine when it has ended.
    pub fn kill(&self, pid: i32, is_it: impl Fn() -> bool) -> Result<()> {
        use rustix::io::Errno;
        use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
        self.operation("kill", Path::new(&format!("/proc/{pid}")))?;
        if self.script().is_some() {
            return Ok(fs_err::remove_dir_all(self.real_path(Path::new(&format!("/proc/{pid}"))))?);
        }
        let Some(process) = Pid::from_raw(pid) else { return Ok(()) };
        // A descriptor keeps meaning this process; the number alone may be another's by now. Kernels before 5.3 have none.
        let handle = pidfd_open(process, PidfdFlags::empty());
        if !is_it() {
            return Ok(());
        }
        let sent = match &handle {
            Ok(handle) => pidfd_send_signal(handle, Signal::KILL),
            Err(Errno::NOSYS) => kill_process(process, Signal::KILL),
            Err(error) => Err(*error),
        };
        match sent {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("ending process {pid}")),
        }
    }

    /// Takes away the topmost mount at a path, at once or, while it is busy, from the tree of names (`umount --lazy`).
    pub fn unmount(&self, path: &Path) -> Result<()> {
        use rustix::io::Errno;
        use rustix::mount::{UnmountFlags, unmount};
        self.operation("unmount", path)?;
        if self.script().is_some() {
            return self.forget_mount(path);
        }
        let real = self.real_path(path);
        match unmount(&real, UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(_) => {}
        }
        unmount(&real, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH | UnmountFlags::FORCE)
            .with_context(|| format!("unmounting `{}`", path.display()))
    }

    /// A test host's mounts are the lines of a file.
    fn forget_mount(&self, path: &Path) -> Result<()> {
        let table = Path::new("/proc/self/mountinfo");
        let text = self.read_text(table)?.unwrap_or_default();
        let mut lines: Vec<&str> = text.lines().collect();
        if let Some(gone) = lines.iter().rposition(|line| mount_point(line).as_deref() == Some(path)) {
            lines.remove(gone);
        }
        Ok(fs_err::write(self.real_path(table), lines.join("\n"))?)
    }

    /// The value of a sysctl; `None` when this kernel does not have it.
    pub fn sysctl(&self, name: &str) -> Result<Option<String>> {
        Ok(self.read_text(&sysctl_path(name))?.map(|text| text.trim_end().to_owned()))
    }

    /// Whether a sysctl exists and could be set. Changes nothing.
    pub fn sysctl_writable(&self, name: &str) -> bool {
        self.writable(&sysctl_path(name))
    }

    /// Sets a sysctl of the running kernel (not for after a reboot: write `/etc/sysctl.d` for that).
    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = sysctl_path(name);
        self.operation("sysctl", &path)?;
        self.poke(&path, value.as_bytes()).with_context(|| format!("setting sysctl `{name}` to `{value}`"))?;
        if let Some(fake) = self.script() {
            fake.sysctl_set(name, value);
        }
        Ok(())
    }

    /// Writes to a file of the kernel (`/proc`, `/sys`), where temporary files and renames do not exist.
    pub fn write_kernel(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.operation("poke", path)?;
        self.poke(path, bytes)
    }

    fn poke(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        use std::io::Write as _;
        // One write call: the kernel takes each as a whole value.
        let mut file = fs_err::OpenOptions::new().write(true).open(self.real_path(path))?;
        Ok(file.write_all(bytes)?)
    }

    /// Bytes that root may still write where `path` is, or will be.
    pub fn free_bytes(&self, path: &Path) -> Result<u64> {
        for part in path.ancestors() {
            if self.exists(part)? {
                let real = self.real_path(part);
                let stat = rustix::fs::statvfs(&real)
                    .with_context(|| format!("asking for free space below `{}`", part.display()))?;
                return Ok(stat.f_bavail.saturating_mul(stat.f_frsize));
            }
        }
        Ok(0)
    }

    /// The hard limit of open files that this process reaches when it tries to raise it to `wanted`. The limit is put
    /// back; the host does not change.
    pub fn try_nofile(&self, wanted: u64) -> u64 {
        if let Some(fake) = self.script() {
            return fake.nofile().min(wanted);
        }
        let before = rustix::process::getrlimit(Resource::Nofile);
        let hard = before.maximum.unwrap_or(u64::MAX);
        if hard >= wanted {
            return wanted;
        }
        let raised = Rlimit { current: before.current, maximum: Some(wanted) };
        if rustix::process::setrlimit(Resource::Nofile, raised).is_err() {
            return hard;
        }
        let _ = rustix::process::setrlimit(Resource::Nofile, before);
        wanted
    }

    /// Whether this process may lower its own OOM score below what it has. The score is put back.
    pub fn try_oom_score_adj(&self) -> bool {
        if let Some(fake) = self.script() {
            return fake.oom_score_adj();
        }
        let path = Path::new("/proc/self/oom_score_adj");
        let Ok(Some(before)) = self.read_text(path) else { return false };
        let lowered = self.poke(path, b"-999").is_ok();
        if lowered {
            let _ = self.poke(path, before.trim().as_bytes());
        }
        lowered
    }
}
