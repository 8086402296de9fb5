//! Point 9: what the administrator finds on the first day.

use anyhow::{Context, Result, ensure};
use e2e::Process;
use e2e::cluster::INSTALLER;
use e2e::master::KUBECTL;

use super::stage::{SETTLED, Stage};

/// In a login shell, without any argument about where the cluster is.
pub(crate) fn kubectl_works_for_root_at_once(stage: &Stage) -> Result<()> {
    let cluster = stage.five()?;
    for name in ["m1", "m3"] {
        let nodes = cluster.host(name)?.run("bash -lc 'kubectl get nodes --no-headers'")?.stdout;
        ensure!(nodes.lines().count() >= 5, "{nodes}");
    }
    // A worker has no administrator's file.
    ensure!(!cluster.host("w1")?.try_run("test -e /etc/sealift/admin.conf")?.success());
    Ok(())
}

/// Made on a master, carried to another host, good for what its groups may do and for hours.
pub(crate) fn a_kubeconfig_for_a_person_works_elsewhere(stage: &Stage) -> Result<()> {
    let cluster = stage.five()?;
    let master = cluster.host("m2")?;
    let make = |user: &str, extra: &str| -> Result<()> {
        let file = format!("/root/{user}.conf");
        master.run(&format!("rm -f {file}; {INSTALLER} kubeconfig --user {user} --ttl 1h --output {file} {extra}"))?;
        ensure!(master.run(&format!("stat -c %a {file}"))?.stdout.trim() == "600");
        cluster.host("w2")?.copy(&master.file(&file), &file)
    };
    let ask = |user: &str, question: &str| {
        let kubectl = cluster.host("w2")?.inside("/root/kubectl").arg(format!("--kubeconfig=/root/{user}.conf"));
        kubectl.args(question.split(' ')).finish()
    };
    cluster.host("w2")?.copy(&cluster.kubectl_program()?, "/root/kubectl")?;
    make("ann", "--group sealift:cluster-admins")?;
    let nodes = ask("ann", "get nodes --no-headers")?;
    ensure!(nodes.success() && nodes.stdout.lines().count() >= 5, "{}", nodes.tail());
    make("bob", "")?;
    let refused = ask("bob", "get nodes")?;
    ensure!(!refused.success() && refused.stderr.contains("User \"bob\" cannot"), "{}", refused.tail());
    let text = fs_err::read_to_string(master.file("/root/ann.conf"))?;
    ensure!(text.contains("10.77.0.12:6443"), "the file does not lead to its master");
    let view = format!("{KUBECTL} --kubeconfig=/root/ann.conf config view --raw -o");
    let pem = master.run(&format!("{view} jsonpath='{{.users[0].user.client-certificate-data}}'"))?.stdout;
    let file = cluster.directory().join("ann.pem");
    fs_err::write(&file, pem.trim())?;
    let script = format!("base64 -d {} | openssl x509 -noout -checkend 7200", file.display());
    let lives = Process::new("sh").args(["-c", &script]).finish()?;
    ensure!(lives.code == Some(1), "it can be used for more than two hours: {}", lives.tail());
    Ok(())
}

/// The hosts of this suite have no nameserver, and pods run on them all the same.
pub(crate) fn pods_run_without_a_nameserver(stage: &Stage) -> Result<()> {
    let cluster = stage.five()?;
    for host in cluster.hosts() {
        let resolver = fs_err::read_to_string(host.file("/etc/resolv.conf"))?;
        ensure!(!resolver.contains("nameserver"), "{} has a nameserver: {resolver}", host.name());
    }
    let pods = cluster.pods_everywhere(SETTLED)?;
    let pod = pods.first().context("no pod")?;
    let said = cluster.kubectl(&format!("exec {} -- /bin/busybox cat /etc/resolv.conf", pod.name))?;
    ensure!(
        said.contains("search default.svc.cluster.local") || said.trim().is_empty() || said.contains("nameserver"),
        "{said}"
    );
    Ok(())
}

/// `status` on a master shows what runs, the members of etcd, the proxy's backends, tokens and certificates.
pub(crate) fn status_shows_the_cluster(stage: &Stage) -> Result<()> {
    let cluster = stage.five()?;
    let status = cluster.status("m1")?;
    ensure!(status.success(), "{}", status.tail());
    for word in ["10.77.0.11", "10.77.0.12", "10.77.0.13", "kube-apiserver"] {
        ensure!(status.stdout.contains(word), "`{word}` is not in it:\n{}", status.stdout);
    }
    Ok(())
}
