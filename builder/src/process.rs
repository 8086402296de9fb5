//! The door to other programs: argument vectors only, standard input closed, a clean environment.

use std::ffi::OsStr;
use std::process::Stdio;

use anyhow::Context as _;

use crate::failure::Failure;

/// What a program said.
#[derive(Debug)]
pub struct Finished {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

/// Runs `program`; `package` is what to install when it is missing.
pub fn run<A: AsRef<OsStr>>(program: &str, package: &str, arguments: &[A]) -> anyhow::Result<Finished> {
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    let output = std::process::Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .with_context(|| {
            Failure::new(format!("cannot run `{program}`")).hint(format!("install the package {package}"))
        })?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(Finished { code: output.status.code(), stdout: output.stdout, stderr })
}

impl Finished {
    /// The last lines of standard error, for messages.
    pub fn tail(&self) -> String {
        let lines: Vec<&str> = self.stderr.trim().lines().collect();
        lines[lines.len().saturating_sub(4)..].join("; ")
    }
}
