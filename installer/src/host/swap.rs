//! Swap in use: `/proc/swaps`, swapon(8) and swapoff(8).

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::kernel::unescape;
use super::{Command, Host};

/// Everything in it is read back into memory, from a slow disk too.
const EMPTYING: Duration = Duration::from_secs(900);

/// A device or file in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// Where.
    pub path: PathBuf,
    /// Bytes in it.
    pub used: u64,
    /// Higher ones are used first; the kernel gives negative ones by itself.
    pub priority: i32,
}

/// All swap in use, highest priority first as the kernel lists it.
pub fn active(host: &Host) -> Result<Vec<Swap>> {
    Ok(parse(&host.read_text(Path::new("/proc/swaps"))?.unwrap_or_default()))
}

/// `Filename Type Size Used Priority`, sizes in KiB (proc(5)).
fn parse(swaps: &str) -> Vec<Swap> {
    let lines = swaps.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace();
        let path = PathBuf::from(unescape(words.next()?));
        let mut numbers = words.skip(2);
        let used: u64 = numbers.next()?.parse().ok()?;
        Some(Swap { path, used: used << 10, priority: numbers.next()?.parse().ok()? })
    });
    lines.collect()
}

/// Bytes in swap and bytes of memory that they would have to fit into, when they do not.
pub fn too_full(host: &Host) -> Result<Option<(u64, u64)>> {
    let used: u64 = active(host)?.iter().map(|swap| swap.used).sum();
    let meminfo = host.read_text(Path::new("/proc/meminfo"))?.unwrap_or_default();
    let available =
        meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next()?.parse().ok());
    let Some(available) = available.map(|kib: u64| kib << 10) else { return Ok(None) };
    Ok((used > available).then_some((used, available)))
}

/// Takes a device out of use.
pub fn off(host: &Host, path: &Path) -> Result<()> {
    host.run(&Command::new("swapoff").arg(path).timeout(EMPTYING))
        .with_context(|| format!("turning swap off on `{}`", path.display()))?;
    Ok(())
}

/// Takes a device into use again; `Some` says that it could not be and why.
pub fn on(host: &Host, path: &Path, priority: i32) -> Result<Option<String>> {
    if active(host)?.iter().any(|swap| swap.path == path) {
        return Ok(None);
    }
    let mut command = Command::new("swapon");
    // Negative ones are the kernel's own to give.
    if priority >= 0 {
        command = command.arg("--priority").arg(priority.to_string());
    }
    let reason = match host.try_run(&command.arg(path)) {
        Ok(done) if done.success() => return Ok(None),
        Ok(done) => done.tail(),
        Err(error) => format!("{error:#}"),
    };
    Ok(Some(format!("swap on `{}` is not in use again: {reason}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_in_use_is_read() {
        let text = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n\
            /dev/zram0                              partition\t4026364\t\t0\t\t100\n\
            /srv/swap\\040file                       file\t\t1048572\t\t2048\t\t-2\n";
        let found = parse(text);
        assert_eq!(found[0], Swap { path: "/dev/zram0".into(), used: 0, priority: 100 });
        assert_eq!(found[1], Swap { path: "/srv/swap file".into(), used: 2 << 20, priority: -2 });
        assert_eq!(parse("Filename Type Size Used Priority\n"), []);
    }
}
