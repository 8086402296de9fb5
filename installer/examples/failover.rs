//! Measures how fast the local proxy gets over a master that is killed, vanishes or hangs: the real nginx with the rendered
//! configuration, the real agent, and three small TLS servers in a network namespace of their own. No Kubernetes.
//!
//! `scripts/failover.sh` fetches nginx and runs it; needs root, `unshare`, `ip`, `nft`. Prints a table: for clients that
//! connect anew every 50 ms, and for connections that were open when it happened, the longest time without an answer.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a measurement")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use installer::agent::{self, backends};
use installer::event::{Event, Events};
use installer::host::{Host, Reply};
use installer::pki::{Authority, AuthorityName, Leaf, Usage, files};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const MASTERS: [&str; 3] = ["10.99.0.1", "10.99.0.2", "10.99.0.3"];
const CONFIG: &str = include_str!("../tests/it/snapshots/it__snapshots__1.20-nginx.snap");
/// Long-lived connections, busy ones and silent ones.
const OPEN: usize = 12;

fn main() -> Result<()> {
    let nginx = PathBuf::from(std::env::args().nth(1).context("the directory of nginx is missing")?);
    if std::env::var_os("FAILOVER_INSIDE").is_none() {
        let own = std::env::current_exe()?;
        let error = Command::new("unshare").arg("--net").arg(own).arg(nginx).env("FAILOVER_INSIDE", "1").exec();
        return Err(error).context("starting `unshare`");
    }
    run("ip link set lo up")?;
    for master in MASTERS {
        run(&format!("ip addr add {master}/32 dev lo"))?;
    }
    run("nft add table inet lab")?;
    run("nft add chain inet lab input { type filter hook input priority 0 ; }")?;
    let lab = Arc::new(Lab::new(&nginx)?);
    let agent = Arc::clone(&lab);
    std::thread::spawn(move || agent::run(&agent.host, &Said(Instant::now())));
    std::thread::sleep(Duration::from_secs(3));
    println!("fault       new: longest   failed        patient  open: longest    silent: end back after");
    for fault in [Fault::Killed, Fault::Blackholed, Fault::Hung, Fault::Stopped] {
        for _ in 0..rounds() {
            lab.measure(fault)?;
        }
    }
    lab.stop();
    Ok(())
}

fn rounds() -> usize {
    std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(3)
}

fn run(line: &str) -> Result<()> {
    let mut words = line.split(' ');
    let status = Command::new(words.next().unwrap()).args(words).status().with_context(|| line.to_owned())?;
    ensure!(status.success(), "`{line}` failed");
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// SIGKILL: the machine answers with resets.
    Killed,
    /// Its packets vanish.
    Blackholed,
    /// SIGSTOP: connections are taken and never answered.
    Hung,
    /// SIGTERM and a fresh start two seconds later.
    Stopped,
}

/// What the agent says, with the time.
struct Said(Instant);

impl Events for Said {
    fn emit(&self, event: &Event) {
        if let (true, Some(line)) = (std::env::var_os("VERBOSE").is_some(), event.line()) {
            println!("  {:8.3} agent: {line}", self.0.elapsed().as_secs_f64());
        }
    }
}

struct Lab {
    directory: tempfile::TempDir,
    nginx: PathBuf,
    host: Host,
    tls: Arc<ClientConfig>,
    running: Arc<Mutex<BTreeMap<String, Child>>>,
}

impl Lab {
    fn new(nginx: &Path) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let host = Host::under(&directory.path().join("host"));
        let authority = Authority::create(AuthorityName::Cluster, "lab", host.now())?;
        for path in ["/etc/sealift/pki", "/var/lib/sealift/agent", "/run/sealift/proxy"] {
            host.create_dir(Path::new(path), 0o755)?;
        }
        host.write(&files::certificate_path("ca"), authority.pair().certificate.as_bytes(), 0o644)?;
        let mut config = "[cluster]\nname = \"lab\"\n".to_owned();
        for (n, address) in MASTERS.iter().enumerate() {
            writeln!(config, "[[node]]\nname = \"m{n}\"\naddress = \"{address}\"\nroles = [\"master\"]")?;
        }
        host.write(Path::new("/etc/sealift/cluster.toml"), config.as_bytes(), 0o644)?;
        let masters = MASTERS.map(|master| SocketAddr::new(master.parse().unwrap(), 6443));
        host.write(Path::new(backends::FILE), backends::first(masters).as_bytes(), 0o644)?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pair().certificate.as_bytes())?)?;
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let lab = Self { directory, nginx: nginx.to_owned(), host, tls: Arc::new(tls), running: Arc::default() };
        for master in MASTERS {
            lab.write_master(&authority, master)?;
            lab.start(master)?;
        }
        lab.start_proxy()?;
        Ok(lab)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// One nginx that plays an API server: `/readyz` says who it is.
    fn write_master(&self, authority: &Authority, master: &str) -> Result<()> {
        let leaf = Leaf {
            authority: AuthorityName::Cluster,
            common_name: "kube-apiserver".to_owned(),
            organization: None,
            usage: Usage::Server,
            names: [].into(),
            addresses: [master.parse()?, "127.0.0.1".parse()?].into(),
            lifetime: Duration::from_secs(86_400),
        };
        let pair = authority.issue(&leaf, self.host.now())?;
        fs_err::write(self.path(&format!("{master}.crt")), pair.certificate)?;
        fs_err::write(self.path(&format!("{master}.key")), pair.key.expose())?;
        let directory = self.directory.path().display();
        let config = format!(
            "daemon off; master_process off; pid {directory}/{master}.pid; error_log stderr crit;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; keepalive_timeout 1h; keepalive_requests 1000000; client_header_timeout 1h;\n\
             client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};\n\
             uwsgi_temp_path {directory}; scgi_temp_path {directory};\n\
             server {{ listen {master}:6443 ssl; ssl_certificate {directory}/{master}.crt; ssl_certificate_key {directory}/{master}.key;\n\
             location / {{ return 200 {master}; }} }} }}\n"
        );
        Ok(fs_err::write(self.path(&format!("{master}.conf")), config)?)
    }

    fn start(&self, name: &str) -> Result<()> {
        let child = Command::new(self.nginx.join("bin/nginx"))
            .args(["-e", "stderr", "-p"])
            .arg(self.directory.path())
            .arg("-c")
            .arg(self.path(&format!("{name}.conf")))
            .stderr(Stdio::null())
            .spawn()?;
        self.running.lock().unwrap().insert(name.to_owned(), child);
        Ok(())
    }

    /// The proxy, as rendered but for its paths; `systemctl reload` does what the unit's ExecReload does.
    fn start_proxy(&self) -> Result<()> {
        let root = self.directory.path().join("host");
        let text = CONFIG.rsplit_once("##### nginx.conf\n").context("the snapshot has no nginx.conf")?.1;
        let text = text
            .replace("/opt/sealift/current/nginx", &self.nginx.display().to_string())
            .replace("/var/lib/sealift", &root.join("var/lib/sealift").display().to_string())
            .replace("/run/sealift", &root.join("run/sealift").display().to_string());
        let config = self.path("proxy.conf");
        fs_err::write(&config, text)?;
        self.start("proxy")?;
        let (nginx, directory, running) =
            (self.nginx.join("bin/nginx"), self.directory.path().to_owned(), Arc::clone(&self.running));
        self.host.script().context("not a directory that plays a host")?.answer("systemctl reload", move |_| {
            let mut check = Command::new(&nginx);
            check.args(["-t", "-q", "-e", "stderr", "-p"]).arg(&directory).arg("-c").arg(&config);
            let good = check.status().is_ok_and(|status| status.success());
            signal(&running, "proxy", "-HUP");
            if good { Reply::ok("") } else { Reply::fail(1, "nginx refuses its configuration") }
        });
        Ok(())
    }

    fn hit(&self, fault: Fault, master: &str) -> Result<()> {
        match fault {
            Fault::Killed => signal(&self.running, master, "-KILL"),
            Fault::Stopped => signal(&self.running, master, "-TERM"),
            Fault::Hung => signal(&self.running, master, "-STOP"),
            Fault::Blackholed => {
                run(&format!("nft add rule inet lab input ip daddr {master} tcp dport 6443 drop"))?;
                run(&format!("nft add rule inet lab input ip saddr {master} tcp sport 6443 drop"))?;
            }
        }
        Ok(())
    }

    fn heal(&self, fault: Fault, master: &str) -> Result<()> {
        match fault {
            Fault::Killed | Fault::Stopped => {
                let child = self.running.lock().unwrap().remove(master);
                child.map(|mut child| child.wait()).transpose()?;
                self.start(master)?;
            }
            Fault::Hung => signal(&self.running, master, "-CONT"),
            Fault::Blackholed => run("nft flush chain inet lab input")?,
        }
        Ok(())
    }

    fn measure(self: &Arc<Self>, fault: Fault) -> Result<()> {
        let over = Arc::new(AtomicBool::new(false));
        let clients = |count: usize, work: fn(&Lab, &AtomicBool) -> Seen| -> Vec<_> {
            (0..count)
                .map(|_| {
                    let (lab, over) = (Arc::clone(self), Arc::clone(&over));
                    std::thread::spawn(move || work(&lab, &over))
                })
                .collect()
        };
        let open = clients(OPEN, Lab::stay_open);
        let silent = clients(OPEN, Lab::stay_silent);
        let new = clients(4, |lab, over| lab.connect_anew(over, Duration::from_secs(1)));
        let patient = clients(OPEN, |lab, over| lab.connect_anew(over, Duration::from_secs(30)));
        std::thread::sleep(Duration::from_secs(2));
        let master = MASTERS[1];
        let at = Instant::now();
        self.hit(fault, master)?;
        std::thread::sleep(Duration::from_secs(if fault == Fault::Stopped { 2 } else { 16 }));
        self.heal(fault, master)?;
        let healed = Instant::now();
        while healed.elapsed() < Duration::from_secs(30) && !self.answers_for(master) {
            std::thread::sleep(Duration::from_millis(50));
        }
        let back = healed.elapsed();
        over.store(true, Ordering::SeqCst);
        let joined = |threads: Vec<std::thread::JoinHandle<Seen>>| {
            threads.into_iter().map(|thread| thread.join().unwrap()).fold(Seen::default(), Seen::with)
        };
        let (new, patient, open, silent) = (joined(new), joined(patient), joined(open), joined(silent));
        let end = silent.ends.iter().map(|end| end.saturating_duration_since(at)).max().unwrap_or_default();
        let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        println!(
            "{:<11} {:>14} {:>8} {:>14} {:>14} {:>14} {:>10}",
            format!("{fault:?}").to_lowercase(),
            seconds(new.longest),
            format!("{}/{}", new.failed, new.asked),
            seconds(patient.longest),
            seconds(open.longest),
            seconds(end),
            seconds(back),
        );
        std::thread::sleep(Duration::from_secs(6));
        Ok(())
    }

    /// Whether the proxy leads to this master again.
    fn answers_for(&self, master: &str) -> bool {
        (0..6).any(|_| self.connect().and_then(|mut stream| ask(&mut stream)).is_ok_and(|body| body.ends_with(master)))
    }

    fn connect(&self) -> Result<Stream> {
        self.connect_for(Duration::from_secs(60))
    }

    fn connect_for(&self, limit: Duration) -> Result<Stream> {
        let socket = TcpStream::connect(("127.0.0.1", 8443))?;
        socket.set_read_timeout(Some(limit))?;
        socket.set_nodelay(true)?;
        let name = ServerName::IpAddress(IpAddr::from([127, 0, 0, 1]).into());
        Ok(StreamOwned::new(ClientConnection::new(Arc::clone(&self.tls), name)?, socket))
    }

    /// A new connection every 50 ms that is given up after `limit`.
    fn connect_anew(&self, over: &AtomicBool, limit: Duration) -> Seen {
        let (mut seen, mut last) = (Seen::default(), Instant::now());
        while !over.load(Ordering::SeqCst) {
            seen.asked += 1;
            match self.connect_for(limit).and_then(|mut stream| ask(&mut stream)) {
                Ok(_) => seen.gap(&mut last),
                Err(_) => seen.failed += 1,
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        seen
    }

    /// One connection that is used every 200 ms without any deadline, and opened again when it ends.
    fn stay_open(&self, over: &AtomicBool) -> Seen {
        let (mut seen, mut last, mut stream) = (Seen::default(), Instant::now(), self.connect());
        while !over.load(Ordering::SeqCst) {
            seen.asked += 1;
            if let Some(Ok(_)) = stream.as_mut().ok().map(ask) {
                seen.gap(&mut last);
            } else {
                seen.failed += 1;
                stream = self.connect();
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        seen
    }

    /// One connection on which nothing is said, like a watch in a quiet cluster: when does it end?
    fn stay_silent(&self, over: &AtomicBool) -> Seen {
        let mut seen = Seen::default();
        let Ok(mut stream) = self.connect() else { return seen };
        let Ok(body) = ask(&mut stream) else { return seen };
        if !body.ends_with(MASTERS[1]) {
            return seen;
        }
        let _ = stream.sock.set_read_timeout(Some(Duration::from_millis(200)));
        let mut byte = [0];
        while !over.load(Ordering::SeqCst) {
            match stream.read(&mut byte) {
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                }
                _ => break,
            }
        }
        seen.ends.push(Instant::now());
        seen
    }

    fn stop(&self) {
        for child in self.running.lock().unwrap().values_mut() {
            let _ = child.kill();
        }
        // Workers of the proxy notice that their master is gone.
        std::thread::sleep(Duration::from_secs(1));
    }
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn signal(running: &Mutex<BTreeMap<String, Child>>, name: &str, signal: &str) {
    if let Some(child) = running.lock().unwrap().get(name) {
        let _ = Command::new("kill").arg(signal).arg(child.id().to_string()).status();
    }
}

/// One request on an open connection; the body.
fn ask(stream: &mut Stream) -> Result<String> {
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    let (mut text, mut bytes) = (String::new(), [0; 1024]);
    while !MASTERS.iter().any(|master| text.ends_with(master)) {
        let count = stream.read(&mut bytes)?;
        ensure!(count > 0, "the connection ended");
        text += std::str::from_utf8(&bytes[..count])?;
    }
    Ok(text)
}

/// What a client has seen.
#[derive(Default)]
struct Seen {
    asked: usize,
    failed: usize,
    longest: Duration,
    ends: Vec<Instant>,
}

impl Seen {
    fn gap(&mut self, last: &mut Instant) {
        self.longest = self.longest.max(last.elapsed());
        *last = Instant::now();
    }

    fn with(mut self, other: Self) -> Self {
        self.ends.extend(other.ends);
        Self {
            asked: self.asked + other.asked,
            failed: self.failed + other.failed,
            longest: self.longest.max(other.longest),
            ends: self.ends,
        }
    }
}
