//! The cluster works: node, pod, NodePort, logs, exec, who may do what, and certificates that renew themselves.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::master::{ANSWER, KUBECTL, Master, NODE_PORT};
use e2e::{Finished, Process, wait};

use super::stage::Stage;

pub(crate) fn install_makes_a_ready_node(stage: &Stage) -> Result<()> {
    let install = stage.install()?;
    ensure!(install.changes()? > 0, "an installation that changed nothing");
    let nodes = stage.master()?.kubectl("get nodes -o wide")?;
    ensure!(nodes.contains("master-1") && nodes.contains(" Ready"), "{nodes}");
    let status = stage.master()?.host.run("/opt/sealift/bin/installer status")?;
    ensure!(!status.stdout.is_empty());
    Ok(())
}

pub(crate) fn a_pod_runs_and_answers_on_its_node_port(stage: &Stage) -> Result<()> {
    let master = stage.workload()?;
    let url = format!("http://{}:{NODE_PORT}/", master.host.address());
    let get = |process: Process| process.args(["--silent", "--show-error", "--fail", "--max-time", "3", &url]).text();
    wait::until("the NodePort to answer on the host", Duration::from_secs(30), || {
        let answer = get(master.host.beside("curl"))?;
        ensure!(answer == ANSWER, "`{answer}`");
        Ok(())
    })?;
    let answer = get(master.host.bed().outside("curl")).context("the NodePort does not answer on the bridge")?;
    ensure!(answer == ANSWER, "`{answer}`");
    Ok(())
}

pub(crate) fn logs_and_exec_work(stage: &Stage) -> Result<()> {
    let master = stage.workload()?;
    let logs = master.kubectl("logs web")?;
    ensure!(logs.contains("serving"), "{logs}");
    let output = master.kubectl("exec web -- /bin/busybox cat /www/index.html")?;
    ensure!(output == ANSWER, "{output}");
    Ok(())
}

/// What the kubelet's own certificate may do: read what its node needs, and nothing of the cluster's secrets or of other nodes.
pub(crate) fn the_node_authorizer_limits_the_kubelet(stage: &Stage) -> Result<()> {
    let master = stage.master()?;
    let as_kubelet = |arguments: &str| -> Result<Finished> {
        let pair = "/var/lib/kubelet/pki/kubelet-client-current.pem";
        master
            .host
            .inside(KUBECTL)
            .arg("--kubeconfig=/dev/null") // not the administrator's, which root has by default
            .arg(format!("--server=https://{}:6443", master.host.address()))
            .arg("--certificate-authority=/etc/sealift/pki/ca.crt")
            .args([format!("--client-certificate={pair}"), format!("--client-key={pair}")])
            .args(arguments.split(' '))
            .finish()
    };
    for (question, answer) in [
        ("auth can-i get nodes", "yes"),
        ("auth can-i create pods", "yes"),
        ("auth can-i list secrets --all-namespaces", "no"),
        ("auth can-i get secrets --namespace kube-system", "no"),
        ("auth can-i create clusterrolebindings", "no"),
        ("auth can-i delete nodes --all-namespaces", "no"),
        ("auth can-i approve certificatesigningrequests", "no"),
    ] {
        let said = as_kubelet(question)?;
        // The first word of the last line: warnings come before it, reasons after it.
        let word = said.stdout.lines().last().and_then(|line| line.split(' ').next());
        ensure!(word == Some(answer), "`{question}`: {}", said.tail());
    }
    let secret = as_kubelet("get secret --namespace kube-system some-secret")?;
    ensure!(secret.stderr.contains("Forbidden") || secret.stderr.contains("forbidden"), "{}", secret.tail());
    Ok(())
}

/// The kubelet's port: 401 without a certificate, 403 with one of the cluster's own authority that has no rights.
pub(crate) fn the_kubelet_asks_who_you_are(stage: &Stage) -> Result<()> {
    let master = stage.master()?;
    let (certificate, key) = powerless(stage, master)?;
    let ask = |extra: &[&str]| {
        let url = format!("https://{}:10250/pods", master.host.address());
        let curl = master.host.bed().outside("curl").args([
            "--silent",
            "--insecure",
            "--max-time",
            "5",
            "--output",
            "/dev/null",
        ]);
        curl.args(["--write-out", "%{http_code}"]).args(extra).arg(url).text()
    };
    let without = ask(&[])?;
    ensure!(without == "401", "without a certificate: {without}");
    let with = ask(&["--cert", &certificate.display().to_string(), "--key", &key.display().to_string()])?;
    ensure!(with == "403", "with a powerless certificate: {with}");
    Ok(())
}

/// A client certificate of the cluster's authority for a user that nothing is bound to.
fn powerless(stage: &Stage, master: &Master) -> Result<(PathBuf, PathBuf)> {
    let (request, certificate, key) = (stage.path("nobody.csr")?, stage.path("nobody.crt")?, stage.path("nobody.key")?);
    Process::new("openssl")
        .args([
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=nobody",
            "-keyout",
        ])
        .arg(&key)
        .arg("-out")
        .arg(&request)
        .run()?;
    Process::new("openssl")
        .args(["x509", "-req", "-days", "1", "-CAcreateserial", "-CAserial"])
        .arg(stage.path("serial")?)
        .arg("-CA")
        .arg(master.host.file("/etc/sealift/pki/ca.crt"))
        .arg("-CAkey")
        .arg(master.host.file("/etc/sealift/pki/ca.key"))
        .arg("-in")
        .arg(&request)
        .arg("-out")
        .arg(&certificate)
        .run()?;
    Ok((certificate, key))
}

/// Client and serving certificates of minutes are renewed long after the installer has ended: the approver and the controller-manager do it.
pub(crate) fn certificates_rotate_without_the_installer(stage: &Stage) -> Result<()> {
    let master = stage.master()?;
    let installers = master.host.try_run("pgrep -af 'installer (install|--role)'")?;
    ensure!(!installers.success(), "an installer still runs: {}", installers.stdout);
    for current in ["kubelet-client-current.pem", "kubelet-server-current.pem"] {
        let link = master.host.file(&format!("/var/lib/kubelet/pki/{current}"));
        let first = wait::until("the first certificate", Duration::from_secs(60), || Ok(fs_err::read_link(&link)?))?;
        // The link's target is an absolute path of the host.
        let serial = || {
            let file = master.host.file(&fs_err::read_link(&link)?.display().to_string());
            Process::new("openssl").args(["x509", "-noout", "-serial", "-in"]).arg(file).text()
        };
        let before = serial()?;
        wait::until("a renewed certificate", Duration::from_secs(420), || {
            ensure!(fs_err::read_link(&link)? != first, "{current} is still {}", first.display());
            Ok(())
        })
        .with_context(|| master.kubectl("get csr").unwrap_or_default())?;
        ensure!(serial()? != before, "{current} is another file with the same certificate");
    }
    // The renewed serving certificate is the cluster's own and in use.
    let logs = master.kubectl("get nodes")?;
    ensure!(logs.contains(" Ready"), "{logs}");
    Ok(())
}
