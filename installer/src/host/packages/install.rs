//! Installing packages from verified files, offline, through dpkg or rpm.
//!
//! Every file is hashed once more, and the tool is given the very descriptor that was hashed (by its name below
//! `/proc/PID/fd`, so nothing can come in between). Nobody is asked anything; no service is started or stopped; files of
//! configuration that the operator changed stay as they are. Never a downgrade.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use bundle::Digest;
use bundle::digest::Hashing;
use serde::{Deserialize, Serialize};

use super::lock::Lock;
use super::record::Record;
use super::{Database, Family, Installed, policy, services};
use crate::host::{Command, Finished, Host};
use crate::report::Explain as _;

/// The longest run of dpkg or rpm: an initramfs on a slow disk takes minutes.
const LONGEST: Duration = Duration::from_secs(3600);
/// How deep chains of `Pre-Depends` may be: dpkg is run once for each link.
const RUNS: usize = 20;

/// A package file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// Package name.
    pub name: String,
    /// Version that is there afterwards, or a newer one.
    pub version: String,
    /// Where the file is.
    pub path: PathBuf,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// What becomes of an older package of the same name. For dpkg both are the same: packages that stand beside each other have
/// different names there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It is replaced.
    Upgrade,
    /// It stays: kernels (`rpm --install`).
    Beside,
}

/// Installs packages; see the module. Waits at most `patience` for another program that changes packages; `say` is told
/// what takes time. What an interrupted dpkg or rpm left is finished first, also when there is nothing to install.
pub fn install(
    host: &Host,
    family: Family,
    archives: &[Archive],
    mode: Mode,
    patience: Duration,
    say: &dyn Fn(String),
) -> Result<()> {
    let lock = Lock::take(host, family, patience, say)?;
    install_with(host, &lock, archives, mode, &Later::new(), say)
}

/// Names of packages that a later installation brings: what an interrupted dpkg left of them may be left before that, because
/// what they need may come only then.
pub type Later<'a> = BTreeSet<&'a str>;

/// As [`install`], with the lock that the caller has: nobody else has changed packages since it was taken.
pub fn install_with(
    host: &Host,
    lock: &Lock,
    archives: &[Archive],
    mode: Mode,
    later: &Later<'_>,
    say: &dyn Fn(String),
) -> Result<()> {
    let done = match lock.family {
        Family::Dpkg => {
            let all: Vec<&Archive> = archives.iter().collect();
            Record::begin(host, &all, mode)?;
            policy::forbid(host)?;
            let done = with_dpkg(host, archives, lock, later, say);
            // Also after a failure: only death leaves it to the next run.
            let back = policy::put_back(host);
            done.and(back)
        }
        Family::Rpm => replay(host, say).and_then(|()| with_rpm(host, archives, mode)),
    };
    let Some(mut record) = Record::read(host)? else { return done };
    let disabled = services::disable(host, lock.family, &record, say);
    done?;
    // Neither dpkg nor rpm waits until what scripts and hooks wrote has reached the disk.
    host.run(&Command::new("sync").timeout(LONGEST))?;
    disabled?;
    record.ended_but(host, later)
}

/// Hashed files, open: the names last as long as this does.
struct Opened {
    files: Vec<fs_err::File>,
    names: Vec<PathBuf>,
}

fn open(host: &Host, archives: &[&Archive]) -> Result<Opened> {
    let mut opened = Opened { files: Vec::new(), names: Vec::new() };
    for archive in archives {
        let file = host.open(&archive.path)?;
        let file = file.with_context(|| format!("package `{}` is not in the store", archive.name))?;
        let mut hashing = Hashing::new(io::Read::take(&file, archive.size + 1));
        io::copy(&mut hashing, &mut io::sink()).with_context(|| format!("reading package `{}`", archive.name))?;
        let (_, digest, size) = hashing.finish();
        if (digest, size) != (archive.digest, archive.size) {
            return Err(anyhow!(
                "`{}` does not hold package `{}` any more: its digest is {digest}, expected {}",
                archive.path.display(),
                archive.name,
                archive.digest
            ))
            .hint("the disk may be failing: remove that file and run the installation with the bundle again");
        }
        let name = if host.is_real() {
            use std::os::fd::AsRawFd as _;
            PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()))
        } else {
            archive.path.clone()
        };
        opened.files.push(file);
        opened.names.push(name);
    }
    Ok(opened)
}

/// dpkg that asks nothing, keeps what the operator changed, and writes safely even where its configuration says otherwise (as
/// images of containers and clouds do).
pub(super) fn dpkg(lock: &Lock) -> Command {
    let mut command = Command::new("dpkg")
        .args(["--force-confdef", "--force-confold", "--refuse-downgrade", "--refuse-unsafe-io"])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("DEBIAN_PRIORITY", "critical")
        .env("DEBCONF_NOWARNINGS", "yes")
        .env("DEBCONF_NONINTERACTIVE_SEEN", "true")
        .env("UCF_FORCE_CONFFOLD", "1")
        // Hooks of the operator's: restart no services, show no changelogs.
        .env("NEEDRESTART_SUSPEND", "1")
        .env("APT_LISTCHANGES_FRONTEND", "none")
        .timeout(LONGEST);
    if lock.is_frontend() {
        command = command.env("DPKG_FRONTEND_LOCKED", "1");
    }
    command
}

fn with_dpkg(host: &Host, archives: &[Archive], lock: &Lock, later: &Later<'_>, say: &dyn Fn(String)) -> Result<()> {
    // What only its archive can repair is left to the installation, or to the operator.
    let trouble = configure(host, lock, later, say)?;
    let mut last = usize::MAX;
    for _ in 0..RUNS {
        let missing = missing(host, archives)?;
        if missing.is_empty() {
            return settle(host, lock, trouble.as_ref(), later, say);
        }
        let opened = open(host, &missing)?;
        let command = dpkg(lock).arg("--install").args(&opened.names);
        let finished = attempt(host, &command)?;
        drop(opened.files);
        if finished.success() {
            continue;
        }
        let text = named(&finished, &missing, &opened.names);
        // A package that must be configured before another is unpacked makes dpkg refuse the other, once.
        if missing.len() >= last {
            return failed("installing packages with dpkg", &text);
        }
        last = missing.len();
    }
    let left: Vec<&str> = missing(host, archives)?.iter().map(|archive| archive.name.as_str()).collect();
    if left.is_empty() {
        settle(host, lock, trouble.as_ref(), later, say)
    } else {
        bail!("dpkg says that it is done, and these are not there: {}", left.join(", "))
    }
}

/// What could not be finished at first may have waited for packages that are there now.
fn settle(host: &Host, lock: &Lock, trouble: Option<&Finished>, later: &Later<'_>, say: &dyn Fn(String)) -> Result<()> {
    if trouble.is_none() {
        return Ok(());
    }
    let Some(trouble) = configure(host, lock, later, say)? else { return Ok(()) };
    failed("finishing what an interrupted dpkg left", &trouble.tail())
}

/// Configures what an interrupted dpkg left unpacked; gives what dpkg said when it could not. Only packages that come later
/// may be left over: they are tried as well, because others may need them.
fn configure(host: &Host, lock: &Lock, later: &Later<'_>, say: &dyn Fn(String)) -> Result<Option<Finished>> {
    let is_left = |counts: &dyn Fn(&str, &Installed) -> bool| -> Result<bool> {
        let database = Database::read(host)?;
        Ok(database.is_some_and(|database| database.unfinished().any(|(name, entry)| counts(name, entry))))
    };
    if !is_left(&|_, _| true)? {
        return Ok(None);
    }
    say("finishing what an interrupted dpkg left".to_owned());
    let finished = host.try_run(&dpkg(lock).args(["--configure", "--pending"]))?;
    let is_trouble = !finished.success()
        && (later.is_empty() || is_left(&|name, entry| entry.can_be_configured() && !later.contains(name))?);
    Ok(is_trouble.then_some(finished))
}

/// What is not there whole, in this version or a newer one.
fn missing<'a>(host: &Host, archives: &'a [Archive]) -> Result<Vec<&'a Archive>> {
    let database = Database::read(host)?.context("the host's package database has gone")?;
    Ok(archives.iter().filter(|archive| !database.has(&archive.name, &archive.version)).collect())
}

fn with_rpm(host: &Host, archives: &[Archive], mode: Mode) -> Result<()> {
    let missing = missing(host, archives)?;
    if missing.is_empty() {
        return Ok(());
    }
    let opened = open(host, &missing)?;
    let what = "installing packages with rpm";
    run(host, rpm(mode).arg("--test"), &missing, &opened, what)?;
    Record::begin(host, &missing, mode)?;
    run(host, rpm(mode), &missing, &opened, what)
}

/// Finishes what an interrupted rpm left: all packages of that transaction once more, with their scripts. Their entries in the
/// database do not tell how far each had got.
pub(super) fn replay(host: &Host, say: &dyn Fn(String)) -> Result<()> {
    let Some(mut record) = Record::read(host)? else { return Ok(()) };
    if record.begun.is_empty() {
        return Ok(());
    }
    say("finishing what an interrupted rpm left".to_owned());
    // The database itself may have suffered (Berkeley DB, up to Enterprise Linux 8).
    if !host.try_run(&Command::new("rpmdb").arg("--verifydb").timeout(LONGEST))?.success() {
        host.run(&Command::new("rpmdb").arg("--rebuilddb").timeout(LONGEST)).context("repairing rpm's database")?;
    }
    let database = Database::read(host)?.context("the host's package database has gone")?;
    for mode in [Mode::Upgrade, Mode::Beside] {
        let mut again = Vec::new();
        for archive in record.begun.iter().filter(|begun| begun.mode == mode).map(|begun| &begun.archive) {
            let newer = |version: &str| Family::Rpm.compare(version, &archive.version).is_gt();
            if mode == Mode::Upgrade && database.find(&archive.name).is_some_and(|entry| newer(&entry.version)) {
                continue;
            }
            if host.exists(&archive.path)? {
                again.push(archive);
            } else {
                say(format!(
                    "package {} {} is not in the store any more: `dnf reinstall {}` finishes it",
                    archive.name, archive.version, archive.name
                ));
            }
        }
        if !again.is_empty() {
            let opened = open(host, &again)?;
            let command = rpm(mode).arg("--replacepkgs");
            run(host, command, &again, &opened, "finishing what an interrupted rpm left")?;
        }
    }
    record.ended(host)
}

/// rpm that asks nothing and starts nothing.
fn rpm(mode: Mode) -> Command {
    let verb = match mode {
        Mode::Upgrade => "--upgrade",
        Mode::Beside => "--install",
    };
    // The bundle's own signature vouches for the files; keys of distributions need not be known to this host's rpm.
    Command::new("rpm").args([verb, "--nosignature"]).env("SYSTEMD_OFFLINE", "1").timeout(LONGEST)
}

fn run(host: &Host, command: Command, archives: &[&Archive], opened: &Opened, what: &str) -> Result<()> {
    let finished = attempt(host, &command.args(&opened.names))?;
    if finished.success() { Ok(()) } else { failed(what, &named(&finished, archives, &opened.names)) }
}

/// Runs dpkg or rpm. Its deadline is meant for a script that waits for something that never comes.
fn attempt(host: &Host, command: &Command) -> Result<Finished> {
    host.try_run(command).hint(
        "if a script of a package hangs, `journalctl` and `/var/log/dpkg.log` tell which; then run the same command again: it \
         finishes what is half installed",
    )
}

/// The last lines of what was said, with names of packages instead of descriptors.
fn named(finished: &Finished, archives: &[&Archive], names: &[PathBuf]) -> String {
    let mut text = finished.tail();
    // Longest first: `/proc/1/fd/1` is the beginning of `/proc/1/fd/10`.
    let mut pairs: Vec<_> = names.iter().map(|name| name.to_string_lossy()).zip(archives).collect();
    pairs.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    for (name, archive) in pairs {
        text = text.replace(&*name, &archive.name);
    }
    text
}

fn failed(what: &str, text: &str) -> Result<()> {
    let hint = if text.contains("No space left on device") {
        "make room on the file system that is full, then run the same command again: it finishes what is half installed"
    } else {
        "correct what is named, then run the same command again: it finishes what is half installed"
    };
    Err(anyhow!("{what} failed: {text}")).hint(hint)
}
