//! Clients that never stop asking the API through a worker's own proxy, and what they noticed: new connections, writes, and one connection
//! that stays open. All of them with the worker's kubelet certificate, as everything on a worker does.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Cluster;
use crate::measure::seconds;
use crate::{Host, Process};

const PROXY: &str = "https://127.0.0.1:8443";
/// Open connections: enough to have one on every master.
const WATCHES: usize = 5;

/// What one loop noticed.
#[derive(Debug, Clone, Default)]
pub struct Noticed {
    /// Requests, or events.
    pub count: usize,
    /// Requests that failed; connections that ended.
    pub failed: usize,
    /// The longest time without a success.
    pub gap: Duration,
    /// The last reason of a failure.
    pub reason: String,
}

/// All that was noticed.
#[derive(Debug, Clone)]
pub struct Report {
    /// One new connection each 200 ms, read from an API server's cache.
    pub fresh: Noticed,
    /// One new connection each 500 ms that changes the node object: needs etcd's quorum, too.
    pub write: Noticed,
    /// The worst of some watches that stay open and see the changes: they spread over the masters, so that one of them is hit.
    pub open: Noticed,
}

/// The running loops; dropped, they end.
#[derive(Debug)]
pub struct Loops {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Noticed>>,
    watches: Vec<Watch>,
}

/// A running `kubectl get --watch`.
type Watch = Arc<Mutex<Option<Child>>>;

struct Client {
    pid: i32,
    node: String,
    pair: PathBuf,
    authority: PathBuf,
    kubectl: PathBuf,
    directory: PathBuf,
}

/// Successes and failures in the order of time.
struct Ledger {
    noticed: Noticed,
    last: Instant,
}

impl Ledger {
    fn new() -> Self {
        Self { noticed: Noticed::default(), last: Instant::now() }
    }

    fn success(&mut self) {
        self.noticed.count += 1;
        self.noticed.gap = self.noticed.gap.max(self.last.elapsed());
        self.last = Instant::now();
    }

    fn failure(&mut self, reason: &str) {
        self.noticed.count += 1;
        self.noticed.failed += 1;
        reason.clone_into(&mut self.noticed.reason);
    }

    /// The time since the last success counts, too.
    fn end(mut self) -> Noticed {
        self.noticed.gap = self.noticed.gap.max(self.last.elapsed());
        self.noticed
    }
}

impl Loops {
    /// Starts them on a worker.
    pub fn start(cluster: &Cluster, worker: &str) -> Result<Self> {
        let host = cluster.host(worker)?;
        let stop = Arc::new(AtomicBool::new(false));
        let watches: Vec<Watch> = (0..WATCHES).map(|_| Watch::default()).collect();
        let mut threads = Vec::new();
        let client = Arc::new(Client::of(cluster, &host, &cluster.directory().join(format!("loops-{worker}")))?);
        for turn in [fresh, write] {
            let (stop, client) = (stop.clone(), client.clone());
            threads.push(std::thread::spawn(move || turn(&client, &stop)));
        }
        for (number, watch) in watches.iter().enumerate() {
            let (stop, client, watch) = (stop.clone(), client.clone(), watch.clone());
            threads.push(std::thread::spawn(move || open(&client, number, &stop, &watch)));
        }
        Ok(Self { stop, threads, watches })
    }

    /// Ends them and says what they noticed.
    pub fn finish(mut self) -> Result<Report> {
        self.halt();
        let mut noticed = std::mem::take(&mut self.threads).into_iter().map(JoinHandle::join);
        let mut next = || noticed.next().context("a loop is missing")?.ok().context("a loop panicked");
        let (fresh, write, mut open) = (next()?, next()?, next()?);
        for _ in 1..WATCHES {
            let other = next()?;
            open.count = open.count.min(other.count);
            open.failed += other.failed;
            open.gap = open.gap.max(other.gap);
        }
        Ok(Report { fresh, write, open })
    }

    fn halt(&self) {
        self.stop.store(true, Ordering::Relaxed);
        for watch in &self.watches {
            if let Some(child) = watch.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                let _ = child.kill();
            }
        }
    }
}

impl Drop for Loops {
    fn drop(&mut self) {
        self.halt();
        for thread in std::mem::take(&mut self.threads) {
            let _ = thread.join();
        }
    }
}

impl Report {
    /// Lines for a person.
    pub fn figures(&self, what: &str) -> Vec<String> {
        let line = |kind: &str, noticed: &Noticed| {
            let Noticed { count, failed, gap, reason } = noticed;
            let reason = if reason.is_empty() { String::new() } else { format!(" (last: {reason})") };
            format!("figure: {what}: {kind}: {failed} of {count} failed, longest gap {}{reason}", seconds(*gap))
        };
        vec![
            line("new connections", &self.fresh),
            line("writes", &self.write),
            format!(
                "figure: {what}: open watches: at least {} events each, ended {} times in all, longest gap {}",
                self.open.count,
                self.open.failed,
                seconds(self.open.gap)
            ),
        ]
    }
}

impl Client {
    fn of(cluster: &Cluster, host: &Host, directory: &Path) -> Result<Self> {
        fs_err::create_dir_all(directory)?;
        let (pair, authority, kubectl) =
            (directory.join("kubelet.pem"), directory.join("ca.crt"), directory.join("kubectl"));
        fs_err::write(&pair, host.run("cat /var/lib/kubelet/pki/kubelet-client-current.pem")?.stdout)?;
        fs_err::write(&authority, host.run("cat /etc/sealift/pki/ca.crt")?.stdout)?;
        fs_err::copy(cluster.kubectl_program()?, &kubectl)?;
        Ok(Self {
            pid: host.pid(),
            node: host.name().to_owned(),
            pair,
            authority,
            kubectl,
            directory: directory.to_owned(),
        })
    }

    /// A program of this machine in the worker's network.
    fn beside(&self, program: &Path) -> Process {
        Process::new("nsenter").args(["-t", &self.pid.to_string(), "-n", "--"]).arg(program)
    }

    fn curl(&self) -> Process {
        self.beside(Path::new("curl"))
            .args(["--silent", "--show-error", "--fail", "--max-time", "5", "--noproxy", "*", "--output", "/dev/null"])
            .arg("--cacert")
            .arg(&self.authority)
            .arg("--cert")
            .arg(&self.pair)
    }
}

/// Asks at a steady pace until told to stop.
fn pace(every: Duration, stop: &AtomicBool, ask: impl Fn(usize) -> Result<crate::Finished>) -> Noticed {
    let mut ledger = Ledger::new();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        number += 1;
        match ask(number) {
            Ok(finished) if finished.success() => ledger.success(),
            Ok(finished) => ledger.failure(finished.stderr.trim()),
            Err(error) => ledger.failure(&format!("{error:#}")),
        }
        std::thread::sleep(every.saturating_sub(start.elapsed()));
    }
    ledger.end()
}

fn fresh(client: &Client, stop: &AtomicBool) -> Noticed {
    let url = format!("{PROXY}/api/v1/nodes/{}?resourceVersion=0", client.node);
    pace(Duration::from_millis(200), stop, |_| client.curl().arg(&url).finish())
}

fn write(client: &Client, stop: &AtomicBool) -> Noticed {
    let url = format!("{PROXY}/api/v1/nodes/{}", client.node);
    pace(Duration::from_millis(500), stop, |number| {
        let change = format!("{{\"metadata\":{{\"annotations\":{{\"bed/count\":\"{number}\"}}}}}}");
        let curl = client.curl().args(["--request", "PATCH", "--header", "Content-Type: application/merge-patch+json"]);
        curl.args(["--data", &change]).arg(&url).finish()
    })
}

/// kubectl watches as the kubelet does: with HTTP/2 pings on a connection that is silent for 5 seconds.
fn open(client: &Client, number: usize, stop: &AtomicBool, running: &Mutex<Option<Child>>) -> Noticed {
    let mut ledger = Ledger::new();
    let log = client.directory.join(format!("watch-{number}.log"));
    let mut first = true;
    while !stop.load(Ordering::Relaxed) {
        if !first {
            ledger.noticed.failed += 1;
            std::thread::sleep(Duration::from_millis(200));
        }
        first = false;
        let pair = client.pair.display();
        let kubectl = client
            .beside(&client.kubectl)
            .env("HTTP2_READ_IDLE_TIMEOUT_SECONDS", "5")
            .env("HTTP2_PING_TIMEOUT_SECONDS", "5")
            .args([
                "--kubeconfig=/dev/null",
                &format!("--server={PROXY}"),
                &format!("--certificate-authority={}", client.authority.display()),
            ])
            .args([format!("--client-certificate={pair}"), format!("--client-key={pair}")])
            .args(["get", "node", &client.node, "--output=name", "--watch"]);
        let Ok(child) = kubectl.spawn(&log) else { continue };
        *running.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        let mut seen = 0;
        loop {
            let lines = fs_err::read_to_string(&log).map(|text| text.matches("node/").count()).unwrap_or_default();
            for _ in seen..lines {
                ledger.success();
            }
            seen = lines;
            let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
            let ended = running.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            drop(running);
            if ended {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    ledger.end()
}
