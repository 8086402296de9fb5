//! A host with many things wrong at once: all are named in one refusal, nothing is changed, and `--ignore` goes on.

use anyhow::{Context, Result, ensure};
use e2e::master::Master;
use e2e::{Finished, Process};

use serde_json::Value;

use super::stage::Stage;

/// What an installation would change first.
const WATCHED: [&str; 3] = ["/etc", "/opt", "/var/lib"];

/// What is done to the host, how it is undone, the check that has to see it, and how bad it is.
const WRONGS: [(&str, &str, &str, &str); 8] = [
    (
        "systemd-run --quiet --unit=occupier systemd-socket-activate --listen=0.0.0.0:6443 /bin/cat",
        "systemctl stop occupier",
        "ports",
        "refused",
    ),
    (
        "mkdir -p /opt/sealift && mount -t tmpfs -o noexec,mode=755,size=2g tmpfs /opt/sealift",
        "umount /opt/sealift && rmdir /opt/sealift",
        "mount-options",
        "refused",
    ),
    (
        "mkdir -p /var/lib/etcd && mount -t tmpfs -o size=64m,nr_inodes=16 tmpfs /var/lib/etcd",
        "umount /var/lib/etcd && rmdir /var/lib/etcd",
        "disk",
        "refused",
    ),
    (
        "systemctl set-environment HTTPS_PROXY=http://somebody:s3cret@192.0.2.1:3128",
        "systemctl unset-environment HTTPS_PROXY",
        "proxy-variables",
        "refused",
    ),
    (
        "mkdir -p /run/systemd/shutdown && touch /run/systemd/shutdown/scheduled",
        "rm /run/systemd/shutdown/scheduled",
        "shutdown",
        "refused",
    ),
    ("mkdir -p /var/lib/rancher/k3s", "rm -r /var/lib/rancher", "leftovers", "refused"),
    ("echo Bad_Name >/proc/sys/kernel/hostname", "cat /etc/hostname >/proc/sys/kernel/hostname", "host-name", "limit"),
    (
        "printf '[host]\\nfirewall = \"keep\"\\n' >>/root/cluster.toml; nft 'add table inet strict; add chain inet strict input { type filter hook input priority 0; policy drop; }'",
        "sed -i '/^.host.$/,$d' /root/cluster.toml; nft delete table inet strict",
        "firewall",
        "limit",
    ),
];

/// More of the same, each looked at alone: some hide others.
const FURTHER: [(&str, &str, &str, &str); 23] = [
    ("touch /run/nologin", "rm /run/nologin", "shutdown", "limit"),
    (
        "ip link add wrong0 type bridge && ip addr add 10.96.7.9/24 dev wrong0",
        "ip link del wrong0",
        "overlapping-networks",
        "refused",
    ),
    (
        "ip link add wrong0 type bridge && ip addr add 192.0.2.9/24 dev wrong0 && ip link set wrong0 up && \
         ip route append default via 192.0.2.1 metric 7 && ip route append default via 192.0.2.2 metric 7",
        "ip link del wrong0",
        "default-routes",
        "limit",
    ),
    (
        "ip link set $(ip -o -4 addr show scope global | cut -d' ' -f2) mtu 1200",
        "ip link set $(ip -o -4 addr show scope global | cut -d' ' -f2) mtu 1500",
        "mtu",
        "limit",
    ),
    (
        "echo 192.0.2.7 master-1 >/run/hosts && mount --bind /run/hosts /etc/hosts",
        "umount /etc/hosts",
        "name-resolution",
        "limit",
    ),
    (WILDCARD, "umount /etc/resolv.conf && systemctl stop wildcard", "wildcard-dns", "limit"),
    (
        "systemd-run --quiet --unit=docker.service sleep infinity",
        "systemctl stop docker.service",
        "other-runtimes",
        "limit",
    ),
    (
        "systemd-run --quiet --unit=dnf-automatic --on-active=1d true",
        "systemctl stop dnf-automatic.timer",
        "unattended-upgrades",
        "limit",
    ),
    (
        "cp /bin/sleep /run/kubeadm && systemd-run --quiet --unit=another /run/kubeadm infinity",
        "systemctl stop another && rm /run/kubeadm",
        "package-manager",
        "limit",
    ),
    (
        "printf '[Service]\\nExecStart=/bin/true\\n' >/etc/systemd/system/etcd.service",
        "rm /etc/systemd/system/etcd.service",
        "units",
        "refused",
    ),
    (
        "sed 's/^VERSION_ID=.*/VERSION_ID=7/' /usr/lib/os-release >/run/old && mount --bind /run/old /usr/lib/os-release",
        "umount /usr/lib/os-release && rm /run/old",
        "distribution",
        "refused",
    ),
    ("echo net.ipv4.ip_forward = 0 >/etc/sysctl.d/zz-own.conf", "rm /etc/sysctl.d/zz-own.conf", "sysctls", "limit"),
    ("mv /usr/sbin/nft /usr/sbin/nft.away", "mv /usr/sbin/nft.away /usr/sbin/nft", "tools", "refused"),
    (
        "mkdir -p /var/lib/containerd && mount -t tmpfs -o nosuid,size=4g tmpfs /var/lib/containerd",
        "umount /var/lib/containerd",
        "mount-options",
        "limit",
    ),
    (
        "mkdir -p /var/lib/etcd/member/wal && touch /var/lib/etcd/member/wal/0.wal",
        "rm -r /var/lib/etcd",
        "leftovers",
        "refused",
    ),
    (
        "printf '\\n[[node]]\\nname = \"w9\"\\naddress = \"203.0.113.9\"\\nroles = [\"worker\"]\\n' >>/root/cluster.toml",
        CONFIG,
        "routes",
        "refused",
    ),
    ("sed -i 's/^address = .*/&\\ninterface = \"lo\"/' /root/cluster.toml", CONFIG, "interface", "refused"),
    (
        "sed -i 's/^name = \"test\"/&\\napi_names = [\"no.such.invalid\"]/' /root/cluster.toml",
        CONFIG,
        "api-names",
        "limit",
    ),
    ("ip link add flannel.1 type bridge", "ip link del flannel.1", "leftovers", "refused"),
    (
        "mkdir -p /var/lib/etcd && mount -t tmpfs -o ro,size=1g tmpfs /var/lib/etcd",
        "umount /var/lib/etcd && rmdir /var/lib/etcd",
        "mount-options",
        "refused",
    ),
    (
        "printf 'Filename Type Size Used Priority\n/dev/sdz2 partition 9 0 -2\n' >/run/swaps && mount --bind /run/swaps /proc/swaps",
        "umount /proc/swaps",
        "swap",
        "refused",
    ),
    (
        "sed 's/^MemTotal:.*/MemTotal: 400000 kB/' /proc/meminfo >/run/meminfo && mount --bind /run/meminfo /proc/meminfo",
        "umount /proc/meminfo",
        "memory",
        "refused",
    ),
    (
        "echo 12 >/run/entropy && mount --bind /run/entropy /proc/sys/kernel/random/entropy_avail",
        "umount /proc/sys/kernel/random/entropy_avail",
        "entropy",
        "limit",
    ),
];

/// A name server that answers every question for an IPv4 address.
const WILDCARD: &str = r#"
cat >/run/wildcard.pl <<'END'
use Socket;
socket(S, PF_INET, SOCK_DGRAM, 0) && bind(S, sockaddr_in(53, INADDR_LOOPBACK)) or die;
while (my $from = recv(S, my $question, 512, 0)) {
    my $count = unpack("n", substr($question, -4, 2)) == 1 ? 1 : 0;
    my $answer = pack("n3Nn", 0xc00c, 1, 1, 60, 4) . inet_aton("192.0.2.53");
    my $head = substr($question, 0, 2) . pack("n5", 0x8180, 1, $count, 0, 0);
    send(S, $head . substr($question, 12) . $answer x $count, 0, $from);
}
END
systemd-run --quiet --unit=wildcard perl /run/wildcard.pl
printf 'nameserver 127.0.0.1\nsearch corp.example\n' >/run/resolv.conf
mount --bind /run/resolv.conf /etc/resolv.conf"#;

/// Gives the cluster config back.
const CONFIG: &str = "cp /root/cluster.kept /root/cluster.toml";

pub(crate) fn everything_wrong_is_named_at_once_and_can_be_ignored(stage: &Stage) -> Result<()> {
    let master = stage.bare()?;
    let before = master.host.snapshot_of(&["/etc"])?;
    for (wrong, ..) in WRONGS {
        master.host.run(wrong)?;
    }
    immutable(master, '+')?;
    let seen = look(master);
    immutable(master, '-')?;
    for (_, right, ..) in WRONGS {
        master.host.run(right)?;
    }
    seen?;
    one_by_one(master)?;
    let plan = master.plainly("plan")?;
    ensure!(plan.success(), "refused although all is right again: {}", plan.tail());
    let changes = before.changes(&master.host.snapshot_of(&["/etc"])?);
    ensure!(changes.is_empty(), "{changes:#?}");
    Ok(())
}

/// Each fires when its cause is there, and does not before.
fn one_by_one(master: &Master) -> Result<()> {
    let found = || -> Result<Vec<(String, String)>> {
        let plan = master.installer("plan", "/root/x.bundle")?;
        let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let findings = plan.events.iter().filter(|event| event["event"] == "finding" && event["verdict"] != "good");
        Ok(findings.map(|event| (text(event, "check"), text(event, "verdict"))).collect())
    };
    master.host.run("cp /root/cluster.toml /root/cluster.kept")?;
    let before = found()?;
    for (wrong, right, check, verdict) in FURTHER {
        let expected = (check.to_owned(), verdict.to_owned());
        ensure!(!before.contains(&expected), "{check} is there without its cause: {before:?}");
        master.host.run(wrong).with_context(|| format!("making {check} fire"))?;
        let now = found();
        master.host.run(right).with_context(|| format!("undoing what makes {check} fire"))?;
        ensure!(now.as_ref().is_ok_and(|now| now.contains(&expected)), "no {verdict} `{check}`: {now:?}");
    }
    let after = found()?;
    let is_left =
        |check: &str| after.iter().any(|(left, _)| left == check) && !before.iter().any(|(old, _)| old == check);
    ensure!(!FURTHER.iter().any(|(.., check, _)| is_left(check)), "before {before:?}, afterwards {after:?}");
    Ok(())
}

/// `/etc/hosts` is the host's own copy by then.
fn immutable(master: &Master, sign: char) -> Result<Finished> {
    master.host.run("test -s /etc/hosts || echo 127.0.0.1 localhost >>/etc/hosts")?;
    Process::new("chattr").arg(format!("{sign}i")).arg(master.host.file("/etc/hosts")).run()
}

fn look(master: &Master) -> Result<()> {
    let before = master.host.snapshot_of(&WATCHED)?;
    let refused = master.installer("install", "/root/x.bundle")?;
    ensure!(refused.finished.code == Some(3), "{:?} {}", refused.finished.code, refused.finished.tail());
    let changes = before.changes(&master.host.snapshot_of(&WATCHED)?);
    ensure!(changes.is_empty(), "a refusal changed {changes:#?}");

    let findings: Vec<&Value> = refused.events.iter().filter(|event| event["event"] == "finding").collect();
    let wanted = WRONGS.map(|(.., check, verdict)| (check, verdict));
    for (check, verdict) in
        wanted.into_iter().chain([("inodes", "refused"), ("immutable-files", "refused"), ("container", "limit")])
    {
        let found = findings.iter().find(|finding| finding["check"] == check && finding["verdict"] != "good");
        let found = found.with_context(|| format!("no finding `{check}`:\n{}", refused.finished.stdout))?;
        ensure!(found["verdict"] == verdict, "{found}");
        for says in ["found", "needed", "do"] {
            ensure!(!found[says].as_str().unwrap_or_default().is_empty(), "it does not say `{says}`: {found}");
        }
    }
    let said = &refused.finished.stderr;
    for part in ["port 6443: found in use by `", "noexec", "Bad_Name", "`chattr -i -a /etc/hosts`", "[proxy-variables]"]
    {
        let text = if part == "Bad_Name" { &refused.finished.stdout } else { said };
        ensure!(text.contains(part), "`{part}` is not in:\n{text}");
    }
    ensure!(!format!("{said}{}", refused.finished.stdout).contains("s3cret"), "it shows the proxy's password");

    let names: Vec<&str> = findings
        .iter()
        .filter(|finding| finding["verdict"] == "refused")
        .filter_map(|finding| finding["check"].as_str())
        .collect();
    let ignored = plan(master, &names.join(","))?;
    ensure!(ignored.success(), "{}", ignored.tail());
    ensure!(ignored.stdout.contains("preflight: ignored: port 6443"), "{}", ignored.stdout);
    let unknown = plan(master, "no-such-check")?;
    ensure!(unknown.code == Some(2) && unknown.stderr.contains("immutable-files"), "{}", unknown.tail());
    let never = plan(master, "architecture")?;
    ensure!(never.code == Some(2) && never.stderr.contains("cannot be ignored"), "{}", never.tail());
    facts(master)
}

fn plan(master: &Master, ignore: &str) -> Result<Finished> {
    let argv = master.command("plan", "/root/x.bundle");
    master.host.inside(argv[0]).args(&argv[1..]).args(["--ignore", ignore]).finish()
}

/// Support sees the same, and no secret.
fn facts(master: &Master) -> Result<()> {
    let shown = master.host.run("/root/installer facts --json")?.stdout;
    let facts: Value = serde_json::from_str(&shown).context("reading the facts")?;
    ensure!(facts["os"]["distribution"] == "debian-12" && facts["container"] == "systemd-nspawn", "{shown}");
    ensure!(facts["immutable"] == serde_json::json!(["/etc/hosts"]), "{shown}");
    ensure!(facts["filesystems"]["/opt/sealift"]["noexec"] == true, "{shown}");
    ensure!(facts["proxy_variables"]["HTTPS_PROXY"] == "http://192.0.2.1:3128" && !shown.contains("s3cret"), "{shown}");
    ensure!(master.host.run("/root/installer facts")?.stdout.contains("host_name: Bad_Name"), "{shown}");
    Ok(())
}
