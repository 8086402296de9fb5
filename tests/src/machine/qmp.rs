//! QEMU's own control socket: unplugging and plugging disks, resets, snapshots of a running machine.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// Far beyond what QEMU takes for any of it, a snapshot of all memory included.
const LIMIT: Duration = Duration::from_secs(300);

/// A connection past its greeting.
#[derive(Debug)]
pub(super) struct Qmp {
    reader: BufReader<UnixStream>,
    /// Names of events that came while something else was awaited, and of what device.
    events: Vec<Value>,
}

impl Qmp {
    /// Connects and leaves the negotiation behind.
    pub(super) fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| format!("connecting to {}", socket.display()))?;
        stream.set_read_timeout(Some(LIMIT)).context("setting a limit on reads")?;
        let mut qmp = Self { reader: BufReader::new(stream), events: Vec::new() };
        let greeting = qmp.next()?;
        ensure!(greeting.get("QMP").is_some(), "QEMU said {greeting} instead of its greeting");
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs one command and hands back what it returns.
    pub(super) fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let line = json!({"execute": command, "arguments": arguments}).to_string() + "\n";
        self.reader.get_mut().write_all(line.as_bytes()).context("writing to QEMU's control socket")?;
        let start = Instant::now();
        while start.elapsed() < LIMIT {
            let mut said = self.next()?;
            if said.get("event").is_some() {
                self.events.push(said);
            } else if let Some(error) = said.get("error") {
                bail!("QEMU refuses `{command}`: {}", error["desc"]);
            } else {
                return Ok(said["return"].take());
            }
        }
        bail!("QEMU did not answer `{command}`")
    }

    /// A command of QEMU's monitor for people, for what QMP has none for: what it prints is an error message, or nothing.
    pub(super) fn person(&mut self, line: &str) -> Result<()> {
        let said = self.execute("human-monitor-command", &json!({"command-line": line}))?;
        let said = said.as_str().unwrap_or_default().trim();
        ensure!(said.is_empty(), "QEMU says of `{line}`: {said}");
        Ok(())
    }

    /// True once an event of this name was seen that concerns this device.
    pub(super) fn seen(&mut self, event: &str, device: &str) -> Result<bool> {
        // Events come before the answer of any command that follows them.
        self.execute("query-status", &json!({}))?;
        Ok(self.events.iter().any(|said| said["event"] == event && said["data"]["device"] == device))
    }

    fn next(&mut self) -> Result<Value> {
        let mut line = String::new();
        let read = self.reader.read_line(&mut line).context("reading QEMU's control socket")?;
        ensure!(read > 0, "QEMU closed its control socket");
        serde_json::from_str(&line).with_context(|| format!("reading `{}` of QEMU", line.trim()))
    }
}
