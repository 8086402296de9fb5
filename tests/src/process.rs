//! The one door to other programs: argument vectors, closed standard input, the end of stderr in every error.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};

/// A program to run.
#[derive(Debug)]
pub struct Process {
    command: std::process::Command,
    shown: OsString,
}

/// What a program left behind.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output, lossily decoded.
    pub stdout: String,
    /// Standard error, lossily decoded.
    pub stderr: String,
}

impl Finished {
    /// True for exit code 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// Both streams for a message, their last 40 lines.
    pub fn tail(&self) -> String {
        let lines: Vec<&str> = self.stdout.lines().chain(self.stderr.lines()).collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Process {
    /// Prepares `program` with nothing on its standard input.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        #[allow(clippy::disallowed_methods, reason = "this is the door")]
        let mut command = std::process::Command::new(program.as_ref());
        command.stdin(Stdio::null());
        Self { command, shown: program.as_ref().to_owned() }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.shown.push(" ");
        self.shown.push(argument.as_ref());
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(self, arguments: I) -> Self {
        arguments.into_iter().fold(self, Process::arg)
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts in another directory.
    #[must_use]
    pub fn directory(mut self, path: &Path) -> Self {
        self.command.current_dir(path);
        self
    }

    /// Runs to the end, whatever the exit code.
    pub fn finish(mut self) -> Result<Finished> {
        let output = self.command.output().with_context(|| format!("starting {}", self.shown.display()))?;
        Ok(Finished {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs to the end; anything but exit code 0 is an error with the end of the output.
    pub fn run(self) -> Result<Finished> {
        let shown = self.shown.clone();
        let finished = self.finish()?;
        if !finished.success() {
            bail!("`{}` ended with {:?}\n{}", shown.display(), finished.code, finished.tail());
        }
        Ok(finished)
    }

    /// Runs to the end and hands back standard output without the last newline.
    pub fn text(self) -> Result<String> {
        Ok(self.run()?.stdout.trim_end().to_owned())
    }

    /// Runs to the end with its output passed on to ours; anything but exit code 0 is an error.
    pub fn show(mut self) -> Result<()> {
        let status = self.command.status().with_context(|| format!("starting {}", self.shown.display()))?;
        if !status.success() {
            bail!("`{}` ended with {:?}", self.shown.display(), status.code());
        }
        Ok(())
    }

    /// Starts it with both output streams in `log`; the caller ends it.
    pub fn spawn(mut self, log: &Path) -> Result<Child> {
        let file = fs_err::File::create(log)?.into_parts().0;
        self.command.stdout(file.try_clone().context("doubling the log's descriptor")?).stderr(file);
        self.command.spawn().with_context(|| format!("starting {}", self.shown.display()))
    }
}
