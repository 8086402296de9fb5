//! Point 6: who may not join, and which certificates are not given out. A sixth host, `w3`, tries everything before it joins for real.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::cluster::{Cluster, How, INSTALLER, Outcome, PASSPHRASE, Seat};
use e2e::{Host, Process, wait};
use serde_json::{Value, json};

use super::stage::{SETTLED, Stage};

const NAME: &str = "w3";
/// Exit codes of a refusal: failed, wrong usage, preflight.
const REFUSED: [i32; 3] = [1, 2, 3];

/// The cluster of five with a bare sixth host whose node the cluster's config names.
pub(crate) fn with_a_sixth(stage: &Stage) -> Result<Arc<Cluster>> {
    let cluster = stage.five()?;
    if cluster.host(NAME).is_err() {
        cluster.add(&[Seat::worker(NAME, 23)])?;
        let address = cluster.host(NAME)?.address();
        cluster.host("m2")?.run(&format!("{INSTALLER} node add {NAME} --address {address} --role worker"))?;
    }
    Ok(cluster)
}

/// The installer must refuse, say each of these words, and leave the host without a unit of Kubernetes.
fn refused(cluster: &Cluster, how: &How<'_>, words: &[&str]) -> Result<Outcome> {
    let outcome = cluster.install(NAME, how)?.ended(&REFUSED)?;
    let said = outcome.install.finished.tail();
    for word in words {
        ensure!(said.to_lowercase().contains(word), "it did not say `{word}`:\n{said}");
    }
    ensure!(!cluster.kubectl("get nodes -o name")?.contains(NAME), "it joined");
    Ok(outcome)
}

/// Nothing but what the installer itself keeps may have changed on the host.
fn untouched(host: &Host, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = host.snapshot_of(&["/etc", "/opt", "/usr/local", "/var/lib"])?;
    act()?;
    let changes = before.changes(&host.snapshot_of(&["/etc", "/opt", "/usr/local", "/var/lib"])?);
    let foreign: Vec<&String> = changes.iter().filter(|change| !change.contains("/var/lib/sealift")).collect();
    ensure!(foreign.is_empty(), "{foreign:?}");
    Ok(())
}

pub(crate) fn a_join_file_that_was_tampered_with(stage: &Stage) -> Result<()> {
    let cluster = with_a_sixth(stage)?;
    cluster.join_file("m1", NAME)?;
    let host = cluster.host(NAME)?;
    let path = host.file("/root/w3.join");
    let whole = fs_err::read(&path)?;
    untouched(&host, || {
        for place in [whole.len() / 2, whole.len() - 20] {
            let mut bytes = whole.clone();
            bytes[place] ^= 1;
            fs_err::write(&path, bytes)?;
            refused(&cluster, &How::JOIN, &["join"])?;
        }
        Ok(())
    })?;
    fs_err::write(&path, whole)?;
    Ok(())
}

pub(crate) fn a_wrong_passphrase(stage: &Stage) -> Result<()> {
    let cluster = with_a_sixth(stage)?;
    cluster.join_file("m1", NAME)?;
    let host = cluster.host(NAME)?;
    untouched(&host, || {
        host.write("/root/passphrase", "something else entirely\n")?;
        refused(&cluster, &How::JOIN, &["passphrase"])?;
        Ok(())
    })?;
    host.write("/root/passphrase", format!("{PASSPHRASE}\n"))
}

/// `age` itself opens the file.
pub(crate) fn age_opens_a_join_file(stage: &Stage) -> Result<()> {
    let cluster = with_a_sixth(stage)?;
    let (identity, file) = (cluster.directory().join("identity"), "/root/for-age.join");
    Process::new("age-keygen").arg("--output").arg(&identity).run()?;
    let recipient = Process::new("age-keygen").arg("-y").arg(&identity).text()?;
    let master = cluster.host("m1")?;
    master.run(&format!("{INSTALLER} join-file --node {NAME} --recipient {recipient} --output {file}"))?;
    let text = Process::new("age").args(["--decrypt", "--identity"]).arg(&identity).arg(master.file(file)).text()?;
    ensure!(text.contains(NAME), "{text}");
    // A worker's file holds no key but its token.
    ensure!(!text.contains("PRIVATE KEY"), "a worker's join file holds a private key");
    Ok(())
}

pub(crate) fn another_authority_than_the_pinned(stage: &Stage) -> Result<()> {
    let cluster = with_a_sixth(stage)?;
    let master = cluster.host("m1")?;
    let path = "/root/plain.join";
    master.run(&format!("rm -f {path}; {INSTALLER} join-file --node {NAME} --plain --output {path}"))?;
    let host = cluster.host(NAME)?;
    host.copy(&master.file(path), path)?;
    let pin = format!("sha256:{}", "0".repeat(64));
    untouched(&host, || {
        for extra in [&["--join", path, "--ca-pin", pin.as_str()][..], &["--join", path][..]] {
            refused(&cluster, &How { joins: false, patience: "1m", extra }, &["pin"])?;
        }
        Ok(())
    })
}

pub(crate) fn an_expired_join_file(stage: &Stage) -> Result<()> {
    let cluster = with_a_sixth(stage)?;
    let (master, host) = (cluster.host("m1")?, cluster.host(NAME)?);
    let path = "/root/short.join";
    master.run(&format!(
        "rm -f {path}; {INSTALLER} join-file --node {NAME} --ttl 1s --output {path} --passphrase-file /root/passphrase"
    ))?;
    host.copy(&master.file(path), "/root/w3.join")?;
    std::thread::sleep(Duration::from_secs(2));
    untouched(&host, || refused(&cluster, &How::JOIN, &["expired"]).map(drop))
}

/// The file is good for hours, the token in it is not: the masters say so, the host says what to do.
pub(crate) fn a_revoked_token(stage: &Stage) -> Result<()> {
    let cluster = with_a_sixth(stage)?;
    cluster.join_file("m1", NAME)?;
    let listed = cluster.host("m2")?.run(&format!("{INSTALLER} token list"))?.stdout;
    ensure!(listed.contains(NAME), "{listed}");
    cluster.host("m2")?.run(&format!("{INSTALLER} token revoke {NAME}"))?;
    refused(&cluster, &How { joins: true, patience: "5m", extra: &[] }, &["join-file"]).map(drop)
}

/// A worker asks for a serving certificate with a master's address, and a stranger with a token asks to be another node: both requests
/// stay pending, and `status` on every master says why.
pub(crate) fn requests_that_nobody_approves(stage: &Stage) -> Result<()> {
    let cluster = with_a_sixth(stage)?;
    let directory = cluster.directory().to_owned();
    let pair = directory.join("w1.pem");
    fs_err::write(&pair, cluster.host("w1")?.run("cat /var/lib/kubelet/pki/kubelet-client-current.pem")?.stdout)?;
    let authority = directory.join("ca.crt");
    fs_err::write(&authority, cluster.host("w1")?.run("cat /etc/sealift/pki/ca.crt")?.stdout)?;
    let usages = ["digital signature", "key encipherment", "server auth"];
    let serving = request(
        &directory,
        "foreign-address",
        "/O=system:nodes/CN=system:node:w1",
        Some("subjectAltName=DNS:w1,IP:10.77.0.11"),
        "kubernetes.io/kubelet-serving",
        &usages,
    )?;
    let pair = pair.display().to_string();
    submit(&cluster, &authority, &["--cert", &pair], &serving)?;

    // The token of w3, made for w3, claims m1's name.
    let token = a_token(&cluster)?;
    let usages = ["digital signature", "key encipherment", "client auth"];
    let subject = "/O=system:nodes/CN=system:node:m1";
    let claim =
        request(&directory, "foreign-name", subject, None, "kubernetes.io/kube-apiserver-client-kubelet", &usages)?;
    submit(&cluster, &authority, &["--header", &format!("Authorization: Bearer {token}")], &claim)?;

    std::thread::sleep(Duration::from_secs(5));
    for name in ["foreign-address", "foreign-name"] {
        let conditions = cluster.kubectl(&format!("get csr {name} -o jsonpath={{.status.conditions[*].type}}"))?;
        ensure!(conditions.is_empty(), "{name} is {conditions}");
        for master in ["m1", "m3"] {
            wait::until(&format!("{master} to show {name}"), Duration::from_secs(40), || {
                let status = cluster.status(master)?.stdout;
                ensure!(status.contains(name), "{status}");
                Ok(())
            })?;
        }
    }
    let status = cluster.status("m1")?.stdout;
    ensure!(status.contains("10.77.0.11"), "the foreign address is not named:\n{status}");
    cluster.kubectl("delete csr foreign-address foreign-name").map(drop)
}

/// After all that the host joins with a file that is in order; alone, so that its time counts for point 10, and nobody touches another host.
pub(crate) fn the_sixth_joins_at_last(stage: &Stage) -> Result<()> {
    let cluster = with_a_sixth(stage)?;
    cluster.join_file("m3", NAME)?;
    let outcome = cluster.install(NAME, &How::JOIN)?.ended(&[0])?;
    stage.worker_took(5, &outcome);
    cluster.ready(SETTLED)?;
    cluster.pods_everywhere(SETTLED)?;
    cluster.everything_reaches_everything(SETTLED)?;
    cluster.all_checks_green(SETTLED)
}

/// A fresh token for the sixth host, out of a plain join file: `ID.SECRET`.
fn a_token(cluster: &Cluster) -> Result<String> {
    let (master, path) = (cluster.host("m1")?, "/root/plain.join");
    master.run(&format!("rm -f {path}; {INSTALLER} join-file --node {NAME} --plain --output {path}"))?;
    let file: Value = serde_json::from_slice(&fs_err::read(master.file(path))?)?;
    let tokens = file["files"]["/etc/sealift/secrets/tokens.json"].as_str().context("no tokens in a worker's file")?;
    let tokens: Value = serde_json::from_str(tokens)?;
    Ok(tokens[NAME]["token"].as_str().with_context(|| format!("no token of {NAME} in its file"))?.to_owned())
}

/// A request for a certificate as the API takes it.
fn request(
    directory: &std::path::Path,
    name: &str,
    subject: &str,
    names: Option<&str>,
    signer: &str,
    usages: &[&str],
) -> Result<Value> {
    let (key, file) = (directory.join(format!("{name}.key")), directory.join(format!("{name}.csr")));
    let mut openssl = Process::new("openssl")
        .args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&file);
    if let Some(names) = names {
        openssl = openssl.args(["-addext", names]);
    }
    openssl.run()?;
    let encoded = Process::new("base64").arg("--wrap=0").arg(&file).text()?;
    Ok(json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
        "spec": {"request": encoded, "signerName": signer, "usages": usages}}))
}

/// Posts it to a master from the bridge.
fn submit(cluster: &Cluster, authority: &std::path::Path, credential: &[&str], request: &Value) -> Result<()> {
    let url = format!(
        "https://{}:6443/apis/certificates.k8s.io/v1/certificatesigningrequests",
        cluster.host("m1")?.address()
    );
    let curl = cluster.bed().outside("curl").args([
        "--silent",
        "--show-error",
        "--fail-with-body",
        "--max-time",
        "10",
        "--noproxy",
        "*",
    ]);
    let curl = curl.arg("--cacert").arg(authority).args(credential);
    curl.args(["--header", "Content-Type: application/json", "--data", &request.to_string(), &url]).run()?;
    Ok(())
}
