//! Commands: an argument vector, a clean environment, a deadline, and errors that carry the last lines of stderr.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use super::Host;

/// Where programs are looked for; nothing is inherited.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Captured bytes of each stream; the rest is read and dropped.
const CAPTURE_CAP: usize = 16 << 20;
/// How long the pipes of a finished command may stay open (a daemon may have inherited them).
const PIPE_GRACE: Duration = Duration::from_secs(2);

/// A program and its arguments. Never a shell string; secrets never go into arguments.
#[derive(Clone)]
pub struct Command {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    input: Option<Vec<u8>>,
    timeout: Duration,
}

impl Command {
    /// A command without arguments, stdin closed, two minutes to finish.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            input: None,
            timeout: Duration::from_secs(120),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable in the otherwise clean environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Bytes for stdin, which is closed after them.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// How long it may take before it is killed.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Program and arguments, separated by spaces, as people read them.
    pub fn line(&self) -> String {
        let mut line = self.program.to_string_lossy().into_owned();
        for arg in &self.args {
            line.push(' ');
            line.push_str(&arg.to_string_lossy());
        }
        line
    }

    /// The bytes given to stdin.
    pub fn stdin(&self) -> Option<&[u8]> {
        self.input.as_deref()
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line())
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the environment nor stdin: both may hold secrets.
        f.debug_tuple("Command").field(&self.line()).finish()
    }
}

/// What a command that succeeded wrote.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text, invalid UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// How a command ended, whatever its exit code.
#[derive(Clone, Debug, Default)]
pub struct Finished {
    /// Exit code; 128 + signal number when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Finished {
    /// Exit code 0.
    pub fn success(&self) -> bool {
        self.code == 0
    }

    /// Standard output as text, invalid UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The last lines of stderr (of stdout when it is empty), for errors. A disk that was full is said first: what follows is
    /// its doing.
    pub fn tail(&self) -> String {
        let stream = if self.stderr.trim_ascii().is_empty() { &self.stdout } else { &self.stderr };
        let text = String::from_utf8_lossy(stream);
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let (before, last) = lines.split_at(lines.len().saturating_sub(6));
        let full = before.iter().find(|line| line.contains("No space left on device"));
        full.into_iter().chain(last).copied().collect::<Vec<_>>().join("\n")
    }

    fn into_output(self, command: &Command) -> Result<Output> {
        if self.success() {
            return Ok(Output { stdout: self.stdout, stderr: self.stderr });
        }
        let tail = self.tail();
        let how = if self.code > 128 {
            format!("was ended by signal {}", self.code - 128)
        } else {
            format!("failed with exit code {}", self.code)
        };
        let tail = if tail.is_empty() { tail } else { format!(": {tail}") };
        bail!("`{command}` {how}{tail}")
    }
}

impl Host {
    /// Runs a command; an exit code other than 0 is an error that carries the last lines of stderr.
    pub fn run(&self, command: &Command) -> Result<Output> {
        self.try_run(command)?.into_output(command)
    }

    /// Runs a command and gives its exit code; only not being able to run it, or its deadline, is an error.
    pub fn try_run(&self, command: &Command) -> Result<Finished> {
        if let Some(fake) = self.script() {
            return fake.run(command, None);
        }
        match &command.input {
            Some(bytes) => spawn(command, Some(&mut bytes.as_slice())),
            None => spawn(command, None),
        }
    }

    /// Runs a command with a stream as its stdin, for example blobs that are hashed as they pass. When the stream fails
    /// (a wrong hash at its end), the command is killed and the stream's error returned: the pipe is not closed before
    /// the stream has ended well, so the command never sees a proper end of bad data.
    pub fn feed(&self, command: &Command, input: &mut (dyn Read + Send)) -> Result<Output> {
        let finished = match self.script() {
            Some(fake) => {
                let mut bytes = Vec::new();
                input.read_to_end(&mut bytes).with_context(|| format!("reading the input of `{command}`"))?;
                fake.run(command, Some(&bytes))?
            }
            None => spawn(command, Some(input))?,
        };
        finished.into_output(command)
    }
}

fn spawn(command: &Command, input: Option<&mut (dyn Read + Send)>) -> Result<Finished> {
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    let mut process = std::process::Command::new(&command.program);
    process
        .args(&command.args)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .env("HOME", "/root")
        .envs(command.env.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Its own process group: a Ctrl-C at the terminal does not hit it in the middle of a change, and a deadline
        // ends its children too.
        .process_group(0);
    let mut child = process.spawn().with_context(|| format!("starting `{}`", command.program.to_string_lossy()))?;
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| anyhow!("`{command}` has no process id"))?;

    let stdout = capture(child.stdout.take());
    let stderr = capture(child.stderr.take());
    let stdin = child.stdin.take();

    // The thread only learns of the end and does not reap, so `pid` stays ours until `wait` below.
    let (ended, end) = mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let waited = loop {
            match rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other.map(|_| ()),
            }
        };
        let _ = ended.send(waited);
    });
    let (fed, timed_out) = std::thread::scope(|scope| {
        let feeder = scope.spawn(move || -> std::io::Result<()> {
            let (Some(input), Some(mut stdin)) = (input, stdin) else { return Ok(()) };
            let fed = pour(input, &mut stdin);
            if fed.is_err() {
                let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            }
            drop(stdin);
            fed
        });
        let timed_out = matches!(end.recv_timeout(command.timeout), Err(mpsc::RecvTimeoutError::Timeout));
        if timed_out {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
        (feeder.join().unwrap_or_else(|_| Err(std::io::Error::other("the thread that feeds stdin ended"))), timed_out)
    });
    let status = child.wait().with_context(|| format!("waiting for `{command}`"))?;
    let _ = waiter.join();
    let finished = Finished {
        code: status
            .code()
            .unwrap_or_else(|| 128 + std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0)),
        stdout: stdout.recv_timeout(PIPE_GRACE).unwrap_or_default(),
        stderr: stderr.recv_timeout(PIPE_GRACE).unwrap_or_default(),
    };
    fed.with_context(|| format!("reading the input of `{command}`"))?;
    if timed_out {
        let tail = finished.tail();
        let tail = if tail.is_empty() { tail } else { format!(": {tail}") };
        bail!("`{command}` did not end within {} s{tail}", command.timeout.as_secs());
    }
    Ok(finished)
}

/// Copies `input` to a pipe. A reader that closed its end early is its own business: its exit code tells.
fn pour(input: &mut (dyn Read + Send), pipe: &mut std::process::ChildStdin) -> std::io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        match pipe.write_all(&buffer[..read]) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            other => other?,
        }
    }
}

/// Reads a stream on its own thread, keeping the last [`CAPTURE_CAP`] bytes at most.
fn capture(stream: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        if let Some(mut stream) = stream {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                let room = CAPTURE_CAP.saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..read.min(room)]);
            }
        }
        let _ = sender.send(kept);
    });
    receiver
}
