//! The end of a run that needs a reboot: by itself, after a question, or left to the operator.
//!
//! The run goes on after the boot (`sealift-resume.service`); nothing here decides what will be booted, that is recorded
//! and armed before.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::host::{Command, Host};
use crate::output::Output;
use crate::report::Explain as _;

/// What the operator said about reboots (`--reboot`). Part of the journal, so that a run that goes on by itself knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Reboot without asking.
    Auto,
    /// Ask on a terminal; without one, end with exit code 5.
    #[default]
    Ask,
    /// End with exit code 5.
    Never,
}

/// A reboot that is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    /// What will be booted and why, for people.
    pub reason: String,
    /// Who decides when.
    pub urgency: Urgency,
    /// By which command.
    pub way: Way,
}

/// Who decides when a reboot is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// The operator: [`Mode`].
    AsAsked,
    /// Nobody: this host runs a kernel that is not good, and goes back.
    Now,
}

/// How the next kernel is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Through the firmware and the boot loader.
    Reboot,
    /// By the running kernel (`kexec -l` has loaded the next one).
    Kexec,
}

impl Way {
    /// The verb of `systemctl`.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Reboot => "reboot",
            Self::Kexec => "kexec",
        }
    }
}

/// Reboots, or says what to do. Returns in either case: systemd ends this process on its way down.
pub fn restart(host: &Host, restart: &Restart, mode: Mode, output: &Output) -> Result<()> {
    let verb = restart.way.verb();
    if !is_now(restart.urgency, mode, || Ok(asks(output) && agreed(&restart.reason, output)?))? {
        output.line(&format!("reboot pending: {}", restart.reason));
        output.line(&format!("hint: `systemctl {verb}` makes it; this host then goes on by itself"));
        return Ok(());
    }
    output.line(&format!("rebooting now: {}", restart.reason));
    host.run(&Command::new("sync")).context("writing everything to the disks")?;
    host.run(&Command::new("systemctl").args(["--no-block", verb]))
        .context("asking systemd to reboot")
        .hint(format!("`systemctl {verb}` makes it; this host then goes on by itself"))?;
    Ok(())
}

fn is_now(urgency: Urgency, mode: Mode, ask: impl FnOnce() -> Result<bool>) -> Result<bool> {
    match (urgency, mode) {
        (Urgency::Now, _) | (_, Mode::Auto) => Ok(true),
        (Urgency::AsAsked, Mode::Ask) => ask(),
        (Urgency::AsAsked, Mode::Never) => Ok(false),
    }
}

/// Only a person at a terminal can be asked.
fn asks(output: &Output) -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && !output.is_json()
}

fn agreed(reason: &str, output: &Output) -> Result<bool> {
    output.line(&format!("This host has to reboot: {reason}."));
    let mut stdout = std::io::stdout();
    let _ = write!(stdout, "Reboot now? Type `yes`: ").and_then(|()| stdout.flush());
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(is_yes(&answer))
}

/// The whole word: whoever hits a key too many does not reboot a host.
fn is_yes(answer: &str) -> bool {
    answer.trim() == "yes"
}

/// The identity of this boot (random(4)): another one proves that the host was rebooted.
pub fn boot_id(host: &Host) -> Result<String> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = host.read_text(path)?.with_context(|| format!("`{}` is missing", path.display()))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Reply;

    fn commands(urgency: Urgency, way: Way, mode: Mode) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::under(directory.path());
        host.fake().on("sync", Reply::ok(""));
        host.fake().on("systemctl", Reply::ok(""));
        let wanted = Restart { reason: "Linux 6.12".to_owned(), urgency, way };
        restart(&host, &wanted, mode, &Output::silent()).unwrap();
        host.fake().commands()
    }

    #[test]
    fn nobody_is_rebooted_without_having_said_so_but_a_bad_kernel_is_left_at_once() {
        let none: [&str; 0] = [];
        assert_eq!(commands(Urgency::AsAsked, Way::Reboot, Mode::Never), none);
        assert_eq!(commands(Urgency::AsAsked, Way::Reboot, Mode::Auto), ["sync", "systemctl --no-block reboot"]);
        assert_eq!(commands(Urgency::AsAsked, Way::Kexec, Mode::Auto), ["sync", "systemctl --no-block kexec"]);
        assert_eq!(commands(Urgency::Now, Way::Reboot, Mode::Never), ["sync", "systemctl --no-block reboot"]);
        // Output that nobody reads as a person: nobody is there to be asked.
        assert_eq!(commands(Urgency::AsAsked, Way::Reboot, Mode::Ask), none);
    }

    #[test]
    fn by_default_a_person_decides() {
        let asked = |mode, answer: &str| is_now(Urgency::AsAsked, mode, || Ok(is_yes(answer))).unwrap();
        assert!(asked(Mode::default(), "yes\n"));
        for no in ["", "\n", "y\n", "no\n", "yes please\n"] {
            assert!(!asked(Mode::default(), no), "{no:?}");
        }
        let unasked = |mode| is_now(Urgency::AsAsked, mode, || panic!("somebody was asked"));
        assert!(unasked(Mode::Auto).unwrap() && !unasked(Mode::Never).unwrap());
        assert!(is_now(Urgency::Now, Mode::Ask, || panic!("somebody was asked")).unwrap());
    }
}
