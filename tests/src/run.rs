//! A run's directory: everything that one bed owns is recorded there under names made from the run's own, so that the remains of a killed
//! run can be found and removed by the next one. Processes are known by pid *and* start time: a number used again is never ended.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal};

use crate::process::Process;
use crate::{cgroup, wait};

const RUNS: &str = "/var/tmp/sealift-e2e";
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A process, known beyond the reuse of its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Process id as this machine sees it.
    pub pid: i32,
    started: String,
}

impl Mark {
    /// Marks a running process.
    pub fn of(pid: i32) -> Result<Self> {
        let stat = fs_err::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields = stat.rsplit_once(") ").map(|(_, rest)| rest).context("a process without a name")?;
        let started = fields.split(' ').nth(19).context("a process without a start time")?.to_owned();
        Ok(Self { pid, started })
    }

    fn read(path: &Path) -> Option<Self> {
        let text = fs_err::read_to_string(path).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, started: started.to_owned() })
    }

    /// Records it in a file.
    pub fn write(&self, path: &Path) -> Result<()> {
        Ok(fs_err::write(path, format!("{} {}\n", self.pid, self.started))?)
    }

    /// True while this very process exists and is not a zombie.
    pub fn alive(&self) -> bool {
        let zombie = || {
            fs_err::read_to_string(format!("/proc/{}/stat", self.pid))
                .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
        };
        Self::of(self.pid).is_ok_and(|now| now == *self) && !zombie()
    }

    /// Ends it with SIGKILL and waits until it is gone.
    pub fn kill(&self) -> Result<()> {
        if let (true, Some(pid)) = (self.alive(), Pid::from_raw(self.pid)) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        wait::until("a killed process to go", Duration::from_secs(20), || {
            ensure!(!self.alive(), "process {} is still there", self.pid);
            Ok(())
        })
    }
}

/// Takes an exclusive lock, waiting for whoever has it; it ends with the returned file or the process.
pub fn lock(path: &Path) -> Result<File> {
    let file = fs_err::OpenOptions::new().create(true).append(true).open(path)?.into_parts().0;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
        .with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

/// The directory of one run.
#[derive(Debug)]
pub struct Run {
    name: String,
    directory: PathBuf,
}

impl Run {
    /// Sweeps what killed runs left, then claims a new run for this process.
    pub fn claim() -> Result<Self> {
        fs_err::create_dir_all(RUNS)?;
        let _lock = lock(&Path::new(RUNS).join("lock"))?;
        sweep(Sweep::Dead)?;
        let own = i32::try_from(std::process::id()).context("a process id beyond 31 bits")?;
        let name = format!("{own}{}", char::from(b'a' + u8::try_from(COUNT.fetch_add(1, Ordering::Relaxed) % 26)?));
        let directory = Path::new(RUNS).join(&name);
        fs_err::create_dir_all(directory.join("hosts"))?;
        Mark::of(own)?.write(&directory.join("owner"))?;
        Ok(Self { name, directory })
    }

    /// Unique among live runs; at most 8 characters.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Directory of the run.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Directory of one host's files.
    pub fn host(&self, name: &str) -> PathBuf {
        self.directory.join("hosts").join(name)
    }

    /// The run's network namespace.
    pub fn namespace(&self) -> String {
        namespace(&self.name)
    }

    /// The cgroup of a host, in every hierarchy.
    pub fn cgroup(&self, host: &str) -> String {
        cgroup_name(&self.name, host)
    }

    /// Leaves the run to outlive this process: only [`Sweep::Kept`] removes it.
    pub fn keep(&self) -> Result<()> {
        Ok(fs_err::write(self.directory.join("keep"), "")?)
    }

    /// Ends and removes one host.
    pub fn remove_host(&self, host: &str) -> Result<()> {
        remove_host(&self.name, &self.host(host))
    }

    /// Removes all of the run unless it is kept.
    pub fn remove(&self) -> Result<()> {
        if self.directory.join("keep").exists() { Ok(()) } else { remove(&self.directory) }
    }
}

/// Which runs [`sweep`] removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep<'a> {
    /// Those whose process is gone, unless they were kept on purpose.
    Dead,
    /// The one of this name, if its process is gone, kept or not: other kept ones may be somebody else's.
    Kept(&'a str),
}

/// Removes the remains of runs; hands back their names.
pub fn sweep(which: Sweep<'_>) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    if !Path::new(RUNS).exists() {
        return Ok(removed);
    }
    for entry in fs_err::read_dir(RUNS)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() || Mark::read(&entry.path().join("owner")).is_some_and(|owner| owner.alive()) {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let chosen = match which {
            Sweep::Dead => !entry.path().join("keep").exists(),
            Sweep::Kept(wanted) => name == wanted,
        };
        if chosen {
            remove(&entry.path())?;
            removed.push(name);
        }
    }
    Ok(removed)
}

fn namespace(run: &str) -> String {
    format!("sealift-{run}")
}

fn cgroup_name(run: &str, host: &str) -> String {
    format!("sealift-{run}-{host}")
}

fn remove(directory: &Path) -> Result<()> {
    let run = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if directory.join("hosts").exists() {
        for entry in fs_err::read_dir(directory.join("hosts"))? {
            remove_host(&run, &entry?.path())?;
        }
    }
    if Path::new("/run/netns").join(namespace(&run)).exists() {
        Process::new("ip").args(["netns", "delete"]).arg(namespace(&run)).run()?;
    }
    Ok(fs_err::remove_dir_all(directory)?)
}

fn remove_host(run: &str, directory: &Path) -> Result<()> {
    let host = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for name in ["leader", "launcher"] {
        if let Some(mark) = Mark::read(&directory.join(name)) {
            mark.kill()?;
        }
    }
    unmount_below(directory)?;
    cgroup::remove(&cgroup_name(run, &host))?;
    if directory.exists() {
        fs_err::remove_dir_all(directory)?;
    }
    Ok(())
}

/// Unmounts everything at or below a directory, the last mounted first.
fn unmount_below(directory: &Path) -> Result<()> {
    let table = fs_err::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    for point in points.filter(|point| point.starts_with(directory)).collect::<Vec<_>>().into_iter().rev() {
        wait::until("a mount to be free", Duration::from_secs(10), || {
            rustix::mount::unmount(point, rustix::mount::UnmountFlags::empty())
                .with_context(|| format!("unmounting {}", point.display()))
        })?;
    }
    Ok(())
}
