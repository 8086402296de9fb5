//! Commands inside a machine: one line to its agent over a virtio serial port, one line back. No network, nothing foreign in the image.
//!
//! The agent is a shell script in the base image ([`super::furniture`]); a line is `NUMBER BASE64(script)`, its answer
//! `NUMBER EXIT-CODE =BASE64(stdout) =BASE64(stderr)`. A machine that goes down takes the answer with it: then the limit ends the wait.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::process::Finished;

/// How long a question that is asked again waits first.
const AGAIN: Duration = Duration::from_secs(10);
/// How long one read waits for more.
const SLICE: Duration = Duration::from_millis(200);

/// The machine's end of the port is opened by its agent, ours by QEMU.
#[derive(Debug)]
pub(super) struct Agent {
    stream: UnixStream,
    number: u64,
    /// Bytes read beyond the last line.
    rest: Vec<u8>,
}

impl Agent {
    /// Connects to the socket that QEMU made.
    pub(super) fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| format!("connecting to {}", socket.display()))?;
        stream.set_read_timeout(Some(SLICE)).context("setting a limit on reads")?;
        stream.set_write_timeout(Some(Duration::from_secs(20))).context("setting a limit on writes")?;
        // A number that an earlier connection's answers do not have.
        let number = u64::from(std::process::id()) << 32;
        Ok(Self { stream, number, rest: Vec::new() })
    }

    /// Runs a shell script inside. Without an answer within `limit` the machine is down or busy, and the script may still go on.
    pub(super) fn run(&mut self, script: &str, limit: Duration) -> Result<Finished> {
        self.send(script)?;
        match self.answered(self.number, limit)? {
            Some(finished) => Ok(finished),
            None => bail!("the machine did not answer within {limit:?}: {}", script.lines().next().unwrap_or_default()),
        }
    }

    /// Asks again and again, as a machine that goes down takes questions with it, and takes the answer to any of them: a busy machine
    /// may need longer for one than the time between two.
    pub(super) fn ask(&mut self, script: &str, limit: Duration) -> Result<Finished> {
        let (first, start) = (self.number + 1, Instant::now());
        while start.elapsed() < limit {
            self.send(script)?;
            if let Some(finished) = self.answered(first, AGAIN)? {
                return Ok(finished);
            }
        }
        bail!("the machine's agent did not answer within {limit:?}")
    }

    fn send(&mut self, script: &str) -> Result<()> {
        self.number += 1;
        let line = format!("{} {}\n", self.number, STANDARD.encode(script));
        self.stream.write_all(line.as_bytes()).context("writing to the machine's agent")
    }

    /// The answer to one of the questions from number `first` on.
    fn answered(&mut self, first: u64, limit: Duration) -> Result<Option<Finished>> {
        let start = Instant::now();
        loop {
            while let Some(line) = self.line() {
                if let Some(finished) = answer(&line, first) {
                    return finished.map(Some);
                }
            }
            if start.elapsed() > limit {
                return Ok(None);
            }
            self.fill()?;
        }
    }

    /// A whole line that was read already.
    fn line(&mut self) -> Option<String> {
        let end = self.rest.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.rest.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line).into_owned())
    }

    fn fill(&mut self) -> Result<()> {
        let mut buffer = [0; 8192];
        match self.stream.read(&mut buffer) {
            Ok(0) => bail!("QEMU closed the agent's socket"),
            Ok(read) => self.rest.extend_from_slice(&buffer[..read]),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error).context("reading from the machine's agent"),
        }
        Ok(())
    }
}

/// What a line says, when it answers `first` or a later question; others are answers that nobody waits for any more.
fn answer(line: &str, first: u64) -> Option<Result<Finished>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [number, code, stdout, stderr] = words.as_slice() else { return None };
    if number.parse::<u64>().ok()? < first {
        return None;
    }
    let read = |word: &str| -> Result<String> {
        let bytes = STANDARD.decode(word.trim_start_matches('=')).context("an answer that is not base64")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    Some((|| {
        Ok(Finished {
            code: Some(code.parse().context("an exit code that is no number")?),
            stdout: read(stdout)?,
            stderr: read(stderr)?,
        })
    })())
}

#[cfg(test)]
mod tests {
    use super::answer;

    #[test]
    fn only_whole_answers_to_the_question_count() {
        let finished = answer("7 3 =aGk= =", 7).unwrap().unwrap();
        assert_eq!((finished.code, finished.stdout.as_str(), finished.stderr.as_str()), (Some(3), "hi", ""));
        for line in ["6 0 =aGk= =", "", "7 0 =aGk=", "x 0 = =", "garbage 7 0 = ="] {
            assert!(answer(line, 7).is_none(), "{line}");
        }
        assert!(answer("7 x = =", 7).unwrap().is_err());
        assert!(answer("7 0 =! =", 7).unwrap().is_err());
    }
}
