//! One installer at a time: a lock that ends with the process, whatever ends it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, anyhow};
use rustix::fs::{FlockOperation, flock, fstat, stat};

use crate::engine::interrupted;
use crate::host::Host;
use crate::report::Explain as _;
use crate::store::Footprint;

/// Where it is.
pub const PATH: &str = "/var/lib/sealift/lock";

/// Held until dropped.
#[derive(Debug)]
pub struct Lock {
    _file: fs_err::File,
}

impl Lock {
    /// Takes the lock as soon as it is free, or says after a while who holds it: for runs that nobody watches.
    pub fn take_within(host: &Host, footprint: &mut Footprint<'_>, patience: Duration) -> Result<Self> {
        let start = host.monotonic();
        loop {
            let taken = Self::take(host, footprint);
            if taken.is_ok() || interrupted() || host.monotonic().saturating_sub(start) >= patience {
                return taken;
            }
            host.pause(Duration::from_millis(500));
        }
    }

    /// Takes the lock, or says who holds it. What has to be created for it goes into the footprint.
    pub fn take(host: &Host, footprint: &mut Footprint<'_>) -> Result<Self> {
        let path = Path::new(PATH);
        loop {
            footprint.file(path)?;
            let file = host.open_lock(path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let who =
                        holder(host, &file).map_or("another installer".to_owned(), |pid| format!("process {pid}"));
                    let error: Result<Self> = Err(anyhow!("{who} is installing on this host"));
                    return error.hint("wait until it has ended; the lock ends with the process");
                }
                Err(error) => return Err(error.into()),
            }
            // A refused run removes the lock it made: what we locked may no longer be the file that others will open.
            let (ours, theirs) = (fstat(&file)?, stat(host.real_path(path)));
            if theirs.is_ok_and(|theirs| (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)) {
                return Ok(Self { _file: file });
            }
        }
    }
}

/// The process that holds the lock, by inode in `/proc/locks` (proc(5)).
fn holder(host: &Host, file: &fs_err::File) -> Option<u32> {
    let inode = fstat(file).ok()?.st_ino.to_string();
    // The real one also on a test host: its files are real.
    let locks = if host.is_real() { host.read_text(Path::new("/proc/locks")).ok()?? } else { proc_locks()? };
    locks.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip_while(|field| *field != "FLOCK").skip(3);
        let (pid, place) = (fields.next()?, fields.next()?);
        (place.rsplit(':').next() == Some(&inode)).then(|| pid.parse().ok())?
    })
}

fn proc_locks() -> Option<String> {
    fs_err::read_to_string("/proc/locks").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_installer_is_told_who_is_first() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        let mut footprint = Footprint::new(&host);
        let first = Lock::take(&host, &mut footprint).unwrap();
        let error = Lock::take(&host, &mut Footprint::new(&host)).unwrap_err();
        assert_eq!(error.to_string(), format!("process {} is installing on this host", std::process::id()));
        let patience = Duration::from_secs(5);
        Lock::take_within(&host, &mut Footprint::new(&host), patience).unwrap_err();
        assert!(host.monotonic() >= patience);
        drop(first);
        Lock::take(&host, &mut Footprint::new(&host)).unwrap();
    }
}
