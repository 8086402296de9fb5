//! The door to other programs: argument vectors only; for all but the user's own, standard input closed and a clean
//! environment.

use std::ffi::OsStr;
use std::io::Write as _;
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

/// Runs a program of the user's own, found and run in the user's environment, with `input` on its standard input.
pub fn converse<A: AsRef<OsStr>>(program: &str, arguments: &[A], input: &[u8]) -> anyhow::Result<Finished> {
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    let mut command = std::process::Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let context = || format!("cannot run `{program}`");
    let mut child = command.spawn().with_context(context)?;
    if let Some(mut stdin) = child.stdin.take() {
        // Who does not read it may have an answer all the same.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().with_context(context)?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(Finished { code: output.status.code(), stdout: output.stdout, stderr })
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
