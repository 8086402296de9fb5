//! A program that goes on inside a host.

use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Host, descendants};
use crate::process::Finished;
use crate::run::Mark;
use crate::wait;

/// A program that goes on inside a host.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// The program itself, as this machine sees it.
    mark: Mark,
    log: PathBuf,
}

impl Running {
    /// Starts a program inside.
    pub(super) fn start(host: &Host, argv: &[&str]) -> Result<Self> {
        let (program, arguments) = argv.split_first().context("nothing to start")?;
        let log = host.directory.join(format!("running-{}.log", fs_err::read_dir(&host.directory)?.count()));
        let child = host.inside(program).args(arguments).spawn(&log)?;
        let parent = i32::try_from(child.id()).context("a process id beyond 31 bits")?;
        // nsenter forks to enter the pid namespace; env then becomes the program.
        let mark = wait::until("a program to start", Duration::from_secs(10), || {
            Mark::of(*descendants(parent).first().context("not forked yet")?)
        })?;
        Ok(Self { child, mark, log })
    }

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
