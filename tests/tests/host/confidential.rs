//! Nothing leaks: secrets at rest, ports, key files, packets.

use anyhow::{Context, Result, ensure};

use super::stage::Stage;
use e2e::master::NODE_PORT;

const SECRET: &str = "a-word-that-must-not-be-seen";

pub(crate) fn secrets_are_encrypted_at_rest(stage: &Stage) -> Result<()> {
    let master = stage.master()?;
    master.kubectl(&format!("create secret generic hidden --from-literal=word={SECRET}"))?;
    let pki = |name: &str| master.host.file(&format!("/etc/sealift/pki/{name}")).display().to_string();
    let etcdctl = master.host.beside("etcdctl").env("ETCDCTL_API", "3").args(["--endpoints", "https://127.0.0.1:2379"]);
    let raw = etcdctl
        .args(["--cacert", &pki("etcd/ca.crt"), "--cert", &pki("etcd/admin.crt"), "--key", &pki("etcd/admin.key")])
        .args(["get", "--print-value-only", "/registry/secrets/default/hidden"])
        .text()?;
    ensure!(raw.starts_with("k8s:enc:"), "etcd holds {}", raw.chars().take(40).collect::<String>());
    ensure!(!raw.contains(SECRET));
    let back = master.kubectl("get secret hidden -o jsonpath={.data.word}")?;
    ensure!(!back.is_empty(), "the apiserver cannot read it back");
    Ok(())
}

pub(crate) fn the_audit_log_is_written(stage: &Stage) -> Result<()> {
    let master = stage.master()?;
    master.kubectl("create secret generic audited --from-literal=word=another-secret-word")?;
    let log = master.host.run("cat /var/log/sealift/audit/*")?.stdout;
    ensure!(
        log.lines().any(|line| line.contains("\"secrets\"") && line.contains("audited")),
        "no trace of a created secret"
    );
    // kubectl sends the value in base64.
    for word in ["another-secret-word", "YW5vdGhlci1zZWNyZXQtd29yZA"] {
        ensure!(!log.contains(word), "the audit log holds a secret");
    }
    Ok(())
}

/// Lists every listening TCP port; all but loopback and the declared NodePort answer a TLS handshake.
pub(crate) fn every_open_port_speaks_tls(stage: &Stage) -> Result<()> {
    let master = stage.workload()?;
    let list = master.host.run("ss -Hltnp")?.stdout;
    let mut open = Vec::new();
    for line in list.lines() {
        let local = line.split_whitespace().nth(3).context("a line of ss without an address")?;
        let (address, port) = local.rsplit_once(':').context("an address without a port")?;
        let address = address.trim_matches(['[', ']']).trim_start_matches("::ffff:");
        let port: u16 = port.parse().context("a port that is no number")?;
        if address.starts_with("127.") || address == "::1" || port == NODE_PORT {
            continue;
        }
        open.push((port, line.to_owned()));
    }
    for expected in [6443, 10250] {
        ensure!(open.iter().any(|(port, _)| *port == expected), "nothing listens on {expected}:\n{list}");
    }
    for (port, line) in &open {
        let target = format!("{}:{port}", master.host.address());
        let handshake = master
            .host
            .bed()
            .outside("timeout")
            .args(["5", "openssl", "s_client", "-brief", "-connect", &target])
            .finish()?;
        let both = format!("{}{}", handshake.stdout, handshake.stderr);
        ensure!(both.contains("Protocol version: TLSv1."), "port {port} does not speak TLS: {line}\n{both}");
    }
    let udp = master.host.run("ss -Hlunp")?.stdout;
    ensure!(udp.lines().all(|line| line.contains("127.") || line.contains("[::1]")), "UDP is open:\n{udp}");
    Ok(())
}

/// Private keys and kubeconfigs, found by content and not by name, belong to root and are readable by nobody else.
pub(crate) fn keys_are_for_root_alone(stage: &Stage) -> Result<()> {
    let master = stage.master()?;
    let find = "grep -rIlsE '^-----BEGIN [A-Z ]*PRIVATE KEY-----|client-key-data|^kind: Config$|\"kind\": *\"Config\"' \
                /etc /opt /var /root /home /tmp /run --exclude-dir=containerd --exclude-dir=journal --exclude-dir=proc | sort -u";
    let found = master.host.run(&format!("{find} | xargs -r stat -c '%a %u:%g %n'"))?.stdout;
    let secrets = master.host.run("find /etc/sealift/secrets -type f -exec stat -c '%a %u:%g %n' {} +")?.stdout;
    let lines: Vec<&str> = found.lines().chain(secrets.lines()).collect();
    for expected in
        ["pki/ca.key", "pki/etcd/ca.key", "pki/service-account.key", "admin.conf", "kubelet-client-", "encryption.json"]
    {
        ensure!(lines.iter().any(|line| line.contains(expected)), "the search misses {expected}:\n{found}");
    }
    let open: Vec<&&str> = lines.iter().filter(|line| !line.starts_with("600 0:0 ")).collect();
    ensure!(open.is_empty(), "readable by others: {open:#?}");
    Ok(())
}

/// Nothing secret in logs, in the journal or in the arguments of processes: the encryption key, the bootstrap tokens, and a line out
/// of every private key, looked for by a file of patterns, so that the search does not find itself.
pub(crate) fn secrets_stay_out_of_logs_and_arguments(stage: &Stage) -> Result<()> {
    let master = stage.workload()?;
    let mut patterns = Vec::new();
    for (file, name) in [("encryption.json", "secret"), ("tokens.json", "token")] {
        let text = master.host.run(&format!("cat /etc/sealift/secrets/{file}"))?.stdout;
        let value: serde_json::Value = serde_json::from_str(&text).with_context(|| format!("reading {file}"))?;
        let secret = find_string(&value, name).with_context(|| format!("no {name} in {file}"))?;
        // The half of a token before the dot is public.
        patterns.push(secret.rsplit('.').next().unwrap_or(secret).to_owned());
    }
    let keys = master.host.run("find /etc/sealift/pki -name '*.key' -exec sed -n 3p {} \\;")?.stdout;
    patterns.extend(keys.lines().filter(|line| line.len() >= 20).map(str::to_owned));
    ensure!(patterns.len() > 8, "too few secrets to look for: {}", patterns.len());
    master.host.write("/root/patterns", patterns.join("\n") + "\n")?;
    let control = master.host.try_run("grep -rlsF -f /root/patterns /etc/sealift/pki /etc/sealift/secrets | wc -l")?;
    ensure!(control.stdout.trim().parse::<usize>()? > 8, "the search finds nothing where it must: {}", control.stdout);
    let leak = master.host.try_run(
        "grep -rlsF -f /root/patterns /var/log /var/lib/sealift /proc/[0-9]*/cmdline; \
         journalctl --no-pager -o cat | grep -F -f /root/patterns; rm /root/patterns",
    )?;
    ensure!(leak.stdout.trim().is_empty(), "secrets are in {}", leak.stdout);
    Ok(())
}

/// The first string under a name, anywhere in a value.
fn find_string<'a>(value: &'a serde_json::Value, name: &str) -> Option<&'a str> {
    match value {
        serde_json::Value::Object(map) => map
            .get(name)
            .and_then(serde_json::Value::as_str)
            .or_else(|| map.values().find_map(|inner| find_string(inner, name))),
        serde_json::Value::Array(list) => list.iter().find_map(|inner| find_string(inner, name)),
        _ => None,
    }
}

/// Since the bed was made no packet was sent to anywhere but the bridge's own subnet.
pub(crate) fn nothing_dials_out(stage: &Stage) -> Result<()> {
    stage.workload()?;
    let foreign = stage.bed()?.foreign()?;
    ensure!(foreign.packets == 0, "{foreign:?}");
    Ok(())
}
