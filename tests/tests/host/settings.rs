//! The settings of a host: what `plan` says is made, a second run finds nothing, and `reset` gives the host back as it was.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::master::{Master, events};
use e2e::{Host, Route, Snapshot, wait};

use super::stage::{SHORT_LIVED, Stage};

/// A firewall as an operator writes it: what it does not know is dropped, on the way in and on the way through.
const FIREWALL: &str = "flush ruleset\n\
table inet guard {\n\
  chain arriving {\n\
    type filter hook input priority 0; policy drop;\n\
    iif lo accept\n    ct state established,related accept\n    ip protocol icmp accept\n    ip saddr 10.77.99.0/24 drop\n\
    tcp dport 22 accept\n    counter drop comment \"what is left\"\n  }\n\
  chain passing {\n    type filter hook forward priority 0; policy drop;\n    ct state established,related accept\n  }\n}\n";
const HOST: &str = "[host]\nhostname = \"set\"\nselinux = \"permissive\"\n";
const INSTALLER: &str = "/opt/sealift/bin/installer";

/// Everything of a host that a run may change and a reset has to give back.
struct Picture {
    files: Snapshot,
    /// Titles and lines.
    lines: BTreeSet<String>,
}

impl Picture {
    fn of(host: &Host) -> Result<Self> {
        let mut lines = BTreeSet::new();
        for (title, command) in [
            // What counts or depends on interfaces that come and go is no setting.
            (
                "sysctl",
                "sysctl -a 2>/dev/null | grep '^net\\.' | grep -Ev 'nf_conntrack_count|\\.(cni0|veth)|netdev_rss|stable_secret|neigh\\.'",
            ),
            ("module", "cut -d' ' -f1 /proc/modules"),
            ("unit", "systemctl list-unit-files --no-legend --no-pager | tr -s ' '"),
            (
                "running",
                "systemctl list-units --type=service --state=active --no-legend --plain --no-pager | cut -d' ' -f1",
            ),
            ("name", "hostname"),
            ("swap", "cat /proc/swaps"),
            ("rule", "nft -s list ruleset"),
            ("link", "ip -o link show | cut -d: -f2 | cut -d@ -f1"),
            ("route", "ip -4 route show table all"),
        ] {
            let said = host.run(&format!("{command} || true"))?.stdout;
            lines.extend(said.lines().map(|line| format!("{title}: {}", line.trim())));
        }
        Ok(Self { files: host.snapshot()?, lines })
    }

    fn changes(&self, later: &Self) -> Vec<String> {
        let gone = self.lines.difference(&later.lines).map(|line| format!("no more: {line}"));
        let new = later.lines.difference(&self.lines).map(|line| format!("new: {line}"));
        let kept = |line: &String| {
            // The audit log is evidence; the cache is this test's `kubectl`'s, run as root.
            !line.contains("/var/log/") && !line.contains(" /root/.kube")
        };
        self.files.changes(&later.files).into_iter().filter(kept).chain(gone).chain(new).collect()
    }
}

/// A host of its own with a firewall that drops, another name, and lines of its operator.
pub(crate) fn settings_are_made_and_given_back(stage: &Stage) -> Result<()> {
    let (_, product) = stage.product()?;
    let host = Host::boot(stage.bed()?, "settings-1", 13, Route::None)?;
    host.write("/etc/nftables.conf", FIREWALL)?;
    host.write("/etc/fstab", "# nothing but this\n")?;
    host.write("/etc/hosts", "127.0.0.1 localhost\n127.0.1.1 somebody\n10.9.9.9 printer # no end")?;
    host.write("/etc/hostname", "somebody\n")?;
    host.run("chmod 640 /etc/hosts; hostname somebody; systemctl enable --now nftables")?;
    let master = Master::prepare(host, product, &format!("{SHORT_LIVED}{HOST}"))?;
    let host = &master.host;
    packages_only(&master)?;
    let before = Picture::of(host)?;

    let plan = master.plainly("plan")?;
    ensure!(plan.success(), "{}", plan.tail());
    for line in [
        "edit /etc/hosts: the name of this node",
        "write /etc/hostname: settings-1",
        "set the host's name to settings-1 (is somebody)",
        "set net.ipv4.ip_forward to 1",
        "nftables chain inet guard arriving: tcp dport { 2379, 2380, 6443, 10250, 30000-32767 } accept",
        "nftables chain inet guard passing: ip daddr 10.244.0.0/16 accept",
        "write /etc/systemd/system/nftables.service.d/sealift.conf",
    ] {
        ensure!(plan.stdout.contains(line), "the plan does not say `{line}`:\n{}", plan.stdout);
    }
    let touched = before.changes(&Picture::of(host)?);
    ensure!(touched.is_empty(), "the plan changed {touched:#?}");

    master.install()?;
    master.ready(Duration::from_secs(60))?;
    settings_hold(&master)?;

    let again = master.installer("plan", "/root/x.bundle")?;
    ensure!(again.finished.success(), "{}", again.finished.tail());
    let left = again.events.last().map(|total| &total["changes"]);
    ensure!(left == Some(&0.into()), "the plan of a finished host:\n{}", again.finished.stdout);

    let reset = host.run(&format!("{INSTALLER} reset --yes"))?;
    let left = before.changes(&Picture::of(host)?);
    ensure!(left.is_empty(), "after reset: {left:#?}\n{}", reset.stdout);
    Ok(())
}

/// Packages stay after a reset: they are on the host before the comparison begins. The run that brings them is killed after that.
fn packages_only(master: &Master) -> Result<()> {
    let plan = master.plainly("plan")?;
    ensure!(plan.success(), "{}", plan.tail());
    let running = master.start()?;
    wait::until("the packages to be installed", Duration::from_secs(300), || {
        let output = running.output()?;
        let done =
            events(&output).iter().any(|event| event["event"] == "step-finished" && event["step"] == "os-packages");
        ensure!(done, "not yet there\n{output}");
        Ok(())
    })?;
    running.kill()?;
    master.host.run(&format!("{INSTALLER} reset --yes"))?;
    Ok(())
}

/// What was planned is so, and survives a firewall that is loaded anew.
fn settings_hold(master: &Master) -> Result<()> {
    let host = &master.host;
    let hosts = host.run("cat /etc/hosts; stat -c %a /etc/hosts; hostname; cat /etc/hostname")?.stdout;
    let wanted = format!(
        "127.0.0.1 localhost\n127.0.1.1 somebody\n10.9.9.9 printer # no end\n\
         # BEGIN sealift (the line before had no end)\n{} settings-1\n# END sealift\n640\nsettings-1\nsettings-1\n",
        host.address()
    );
    ensure!(hosts == wanted, "{hosts}");
    let reaches = |port: u16| -> Result<bool> {
        let line = format!("</dev/tcp/{}/{port}", host.address());
        Ok(host.bed().outside("timeout").args(["3", "bash", "-c", line.as_str()]).finish()?.success())
    };
    ensure!(reaches(6443)? && reaches(10250)?, "the firewall does not let the cluster through");
    host.run("nft insert rule inet guard arriving tcp dport 9999 accept")?;
    host.run("systemctl reload nftables")?;
    ensure!(reaches(6443)?, "the rules are gone after a reload");
    // After what the operator drops by name, before the end that drops everything.
    let chain = host.run("nft list chain inet guard arriving")?.stdout;
    let kinds = chain.lines().filter_map(|line| {
        let kinds = [("99.0/24 drop", 'd'), ("sealift", 's'), ("what is left", 'e')];
        kinds.into_iter().find(|(word, _)| line.contains(word)).map(|(_, kind)| kind)
    });
    ensure!(kinds.collect::<String>() == "dssse", "after a reload:\n{chain}");
    host.run("systemctl restart nftables")?;
    wait::until("the API server to be reached after a restart of the firewall", Duration::from_secs(10), || {
        ensure!(reaches(6443)?, "refused");
        Ok(())
    })
}
