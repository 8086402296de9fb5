//! Record locks (fcntl(2)) of other programs. They belong to a process, not to a descriptor: closing any descriptor of a
//! file gives up what this process has locked of it.

use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::{Flock, FlockType};

use super::Host;
use super::files::absent;

impl Host {
    /// The process that has a record lock on a file, 0 when it is not visible from here; `None` when nobody has, or there is
    /// no file. Must not be asked about a file that this process has locked itself.
    pub fn record_lock_holder(&self, path: &Path) -> Result<Option<i32>> {
        if let Some(fake) = self.script() {
            return Ok(fake.lock_holder(path));
        }
        let Some(file) = absent(fs_err::File::open(self.real_path(path)))? else { return Ok(None) };
        let found = rustix::process::fcntl_getlk(&file, &Flock::from(FlockType::WriteLock))
            .with_context(|| format!("asking who has locked `{}`", path.display()))?;
        Ok(found.map(|lock| lock.pid.map_or(0, |pid| pid.as_raw_nonzero().get())))
    }

    /// Takes a record lock on all of a file (made, 0640, when there is none), without waiting; `None` when another process
    /// has it. It is given up when the file is dropped.
    pub fn take_record_lock(&self, path: &Path) -> Result<Option<fs_err::File>> {
        use fs_err::os::unix::fs::OpenOptionsExt as _;
        if self.script().is_some_and(|fake| fake.lock_holder(path).is_some()) {
            return Ok(None);
        }
        let file =
            fs_err::OpenOptions::new().read(true).write(true).create(true).mode(0o640).open(self.real_path(path))?;
        match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::ACCESS | Errno::AGAIN) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("locking `{}`", path.display())),
        }
    }
}
