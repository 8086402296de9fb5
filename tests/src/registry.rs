//! Debian's docker-registry on loopback, filled by skopeo and umoci: the registry that others run.
//!
//! Registries over the same storage serve the same images, so one without a guard is filled and the others are read.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::process::Process;
use crate::wait;

/// Who may pull from guarded registries.
pub const USER: &str = "alice";
/// With this password.
pub const PASSWORD: &str = "wonderland";
/// Both, as the `Authorization` header and Docker's config.json have them.
pub const ENCODED: &str = "YWxpY2U6d29uZGVybGFuZA==";
/// The password, as htpasswd hashes it (bcrypt, the only kind that docker-registry takes).
const HASHED: &str = "$2b$05$AwibxBUHYXnEiobmJD2DaOivcEP8hpxLR4VvI9i6HNAz9auxmaOrm";

/// What a registry asks for.
#[derive(Debug)]
pub enum Guard<'a> {
    /// Nothing.
    Open,
    /// User and password with every request.
    Password,
    /// A token of this server.
    Token(&'a TokenServer),
}

/// A running registry; ended when dropped.
#[derive(Debug)]
pub struct Registry {
    /// `127.0.0.1:PORT`.
    pub address: String,
    process: Child,
    log: PathBuf,
}

impl Registry {
    /// Starts one over `storage`; its own files are in `directory`.
    pub fn start(directory: &Path, storage: &Path, guard: &Guard<'_>) -> Result<Self> {
        fs_err::create_dir_all(directory)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let auth = match guard {
            Guard::Open => String::new(),
            Guard::Password => {
                let path = directory.join("htpasswd");
                fs_err::write(&path, format!("{USER}:{HASHED}\n"))?;
                format!("auth:\n  htpasswd:\n    realm: registry\n    path: {}\n", path.display())
            }
            Guard::Token(server) => format!(
                "auth:\n  token:\n    realm: {}/token\n    service: registry\n    issuer: tokens\n    rootcertbundle: {}\n",
                server.url,
                server.file("cert.pem").display()
            ),
        };
        let config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n{auth}",
            storage.display()
        );
        let (path, log) = (directory.join("config.yml"), directory.join("log"));
        fs_err::write(&path, config)?;
        let process = Process::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .env("OTEL_TRACES_EXPORTER", "none")
            .spawn(&log)
            .context("scripts/prerequisites.sh installs docker-registry")?;
        let registry = Self { address, process, log };
        wait::until("docker-registry", Duration::from_secs(20), || {
            TcpStream::connect(&registry.address)
                .with_context(|| fs_err::read_to_string(&registry.log).unwrap_or_default())
        })?;
        Ok(registry)
    }

    /// `docker://` and a name in this registry, as skopeo has it.
    pub fn name(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.address)
    }

    /// Pushes an image of an OCI layout (`oci:DIRECTORY:TAG`), in one of skopeo's formats (`oci`, `v2s2`).
    pub fn push(&self, source: &str, name: &str, format: &str) -> Result<()> {
        let copy = Process::new("skopeo").args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]);
        copy.args(["--format", format, source]).arg(self.name(name)).run()?;
        Ok(())
    }

    /// The manifest or index under a name, as it was pushed.
    pub fn raw(&self, name: &str) -> Result<Vec<u8>> {
        let inspect = Process::new("skopeo").args(["inspect", "--raw", "--tls-verify=false"]).arg(self.name(name));
        Ok(inspect.run()?.stdout.into_bytes())
    }

    /// Puts a manifest or index under a tag, byte for byte.
    pub fn put(&self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        fs_err::write(file.path(), bytes)?;
        Process::new("curl")
            .args(["--silent", "--show-error", "--fail-with-body", "-X", "PUT", "-H"])
            .arg(format!("Content-Type: {media_type}"))
            .arg("--data-binary")
            .arg(format!("@{}", file.path().display()))
            .arg(format!("http://{}/v2/{repository}/manifests/{tag}", self.address))
            .run()?;
        Ok(())
    }

    /// Everything under a name into a directory, each blob in a file that has its digest's hex digits for a name.
    pub fn copy_out(&self, name: &str, directory: &Path) -> Result<()> {
        let copy = Process::new("skopeo").args(["copy", "--quiet", "--insecure-policy", "--src-tls-verify=false"]);
        let copy = copy.args(["--all", "--preserve-digests"]).arg(self.name(name));
        copy.arg(format!("dir:{}", directory.display())).run()?;
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A token server as registries expect it: tokens are signed by the key that the registry trusts. Ended when dropped.
#[derive(Debug)]
pub struct TokenServer {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    directory: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TokenServer {
    /// Makes a key in `directory`, and answers whoever knows the password.
    pub fn start(directory: &Path) -> Result<Self> {
        fs_err::create_dir_all(directory)?;
        let openssl = || Process::new("openssl").directory(directory);
        let request = "req -x509 -newkey rsa:2048 -nodes -subj /CN=tokens -days 2 -keyout key.pem -out cert.pem";
        openssl().args(request.split(' ')).run()?;
        openssl().args("x509 -in cert.pem -outform DER -out cert.der".split(' ')).run()?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let (asked, stop) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let (seen, stopped, home) = (asked.clone(), stop.clone(), directory.to_owned());
        let thread = std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (target, answer) = answer(&home, &stream);
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(target);
                let (status, body) = match answer {
                    Ok(token) => ("200 OK", format!("{{\"token\":\"{token}\"}}")),
                    Err(error) => ("401 Unauthorized", format!("{{\"details\":\"{error:#}\"}}")),
                };
                let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
            }
        });
        Ok(Self { url, directory: directory.to_owned(), asked, stop, thread: Some(thread) })
    }

    /// Paths and queries it was asked with so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accept loop.
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The path and query of a request, and the token for it: to pull, from the one repository that its scope names.
fn answer(directory: &Path, stream: &TcpStream) -> (String, Result<String>) {
    let head: Vec<String> =
        BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let target = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
    let token = || -> Result<String> {
        let login = format!("authorization: basic {ENCODED}").to_ascii_lowercase();
        ensure!(head.iter().any(|line| line.to_ascii_lowercase() == login), "a login is needed");
        let scope = target.split(['?', '&']).find_map(|pair| pair.strip_prefix("scope=")).context("no scope")?;
        let scope = scope.replace("%3A", ":").replace("%2F", "/");
        let [_, repository, "pull"] = scope.split(':').collect::<Vec<_>>()[..] else { bail!("only to pull: {scope}") };
        sign(directory, repository)
    };
    let token = token();
    (target, token)
}

/// A JSON web token (RFC 7519) as docker-registry checks it: signed with RS256, the certificate in its header.
fn sign(directory: &Path, repository: &str) -> Result<String> {
    let encode = |kind: &str, name: &str| {
        Process::new("basenc")
            .args([kind, "-w0", name])
            .directory(directory)
            .text()
            .map(|text| text.trim_end_matches('=').to_owned())
    };
    let certificate = Process::new("basenc").args(["--base64", "-w0", "cert.der"]).directory(directory).text()?;
    let now: u64 = Process::new("date").arg("+%s").text()?.parse()?;
    let header = format!(r#"{{"typ":"JWT","alg":"RS256","x5c":["{certificate}"]}}"#);
    let (from, until) = (now - 60, now + 300);
    let access = format!(r#"[{{"type":"repository","name":"{repository}","actions":["pull"]}}]"#);
    let claims = format!(
        r#"{{"iss":"tokens","sub":"{USER}","aud":"registry","iat":{from},"nbf":{from},"exp":{until},"jti":"{until}","access":{access}}}"#
    );
    fs_err::write(directory.join("header"), header)?;
    fs_err::write(directory.join("claims"), claims)?;
    let signed = format!("{}.{}", encode("--base64url", "header")?, encode("--base64url", "claims")?);
    fs_err::write(directory.join("signed"), &signed)?;
    let openssl = Process::new("openssl").args("dgst -sha256 -sign key.pem -out signature signed".split(' '));
    openssl.directory(directory).run()?;
    Ok(format!("{signed}.{}", encode("--base64url", "signature")?))
}
