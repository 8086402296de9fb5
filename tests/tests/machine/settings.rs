//! The settings of a machine that its operator has set up his own way: swap, modules, sysctls and files are given back by `reset`
//! as they were.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use e2e::cluster::INSTALLER;
use e2e::machine::Machine;
use e2e::master::events;
use e2e::process::Finished;
use e2e::wait;

use super::site::{LONG, Site};
use super::stage::Stage;

const KEEP: &str = "[kernel]\npolicy = \"keep\"\n";

/// Swap on a file with a priority, a module of those that a node needs, a line that is not UTF-8 and has no end, sysctls that Sealift
/// or the kernel would change, one that nobody else sets.
const OPERATOR: &str = r"
set -e
fallocate -l 64M /srv/swap; chmod 600 /srv/swap; mkswap -q /srv/swap
echo '/srv/swap none swap sw,nofail,pri=3 0 0' >>/etc/fstab
systemctl daemon-reload; swapon -a
modprobe ip_vs_rr
printf '10.9.9.9 drucker # B\374ro' >>/etc/hosts; chmod 640 /etc/hosts
printf 'vm.swappiness = 17\nvm.overcommit_memory = 0\nnet.ipv4.conf.all.accept_redirects = 0\n' >/etc/sysctl.d/60-own.conf
sysctl -q -p /etc/sysctl.d/60-own.conf
";

/// One line for each thing that a run may change. What counts, what is random, and what comes with interfaces of pods is no setting; nor
/// are the empty tables that iptables makes by being asked, and the service that answers `timedatectl` and ends by itself.
const INVENTORY: &str = r#"
cd /
files='etc -xdev ! -name .pwd.lock ! -name ld.so.cache ! -name adjtime'
find $files -printf 'file: %p %y %m %U:%G %l\n' | sort
find $files -type f -print0 | sort -z | xargs -0 sha256sum | sed 's/^/sum: /'
sysctl -a 2>/dev/null | grep -Ev '^(fs\.(dentry-state|file-nr|inode-|quota)|kernel\.(random|ns_last_pid|pty\.nr)|dev\.)' |
    grep -Ev 'nf_conntrack_count|stable_secret|\.(cni0|veth|kube-ipvs0)|neigh[./]|netdev_rss' | sed 's/^/sysctl: /'
cut -d' ' -f1 /proc/modules | sed 's/^/module: /'
sed '1d; s/^/swap: /' /proc/swaps | awk '{ print $1, $2, $3, $4, $6 }'
systemctl list-unit-files --no-legend --no-pager | grep -v '^install\.' | tr -s ' ' | sed 's/^/unit: /'
systemctl list-units --type=service --state=active --no-legend --plain --no-pager | cut -d' ' -f1 |
    grep -Ev '^(install|user@|systemd-timedated)' | sed 's/^/running: /'
nft -s list ruleset 2>/dev/null | grep -Ev '^[[:space:]]*(table|chain|type|[}]|#|$)' | sed 's/^/rule: /'
ip -o link show | cut -d: -f2 | sed 's/^/link:/'
echo "name: $(hostname)"
"#;

/// The lines of the inventory.
struct Inventory(BTreeSet<String>);

impl Inventory {
    fn of(machine: &Machine) -> Result<Self> {
        machine.write("/root/inventory.sh", INVENTORY)?;
        let said = machine.run_for("bash /root/inventory.sh", LONG)?;
        ensure!(said.success(), "the inventory failed:\n{}", said.tail());
        let lines: BTreeSet<String> = said.stdout.lines().map(str::to_owned).collect();
        // An inventory of nothing would never differ.
        for kind in ["file", "sum", "sysctl", "module", "unit", "running"] {
            let count = lines.iter().filter(|line| line.starts_with(&format!("{kind}: "))).count();
            ensure!(count > 3, "{count} lines of `{kind}` in the inventory");
        }
        Ok(Self(lines))
    }

    fn changes(&self, later: &Self) -> Vec<String> {
        let gone = self.0.difference(&later.0).map(|line| format!("- {line}"));
        let new = later.0.difference(&self.0).map(|line| format!("+ {line}"));
        gone.chain(new).collect()
    }
}

/// A machine whose packages are there before the comparison begins: they stay after a reset.
pub(crate) fn settings_are_given_back(stage: &Stage) -> Result<()> {
    stage.fresh(settings_are_given_back_on)
}

fn settings_are_given_back_on(site: &Site) -> Result<()> {
    let machine = &site.machine;
    let config = machine.read("/root/cluster.toml")?;
    machine.write("/root/cluster.toml", config.split("[kernel]").next().unwrap_or_default().to_owned() + KEEP)?;
    packages_only(site)?;
    machine.run(OPERATOR).context("setting the machine up")?;
    let before = Inventory::of(machine)?;
    ensure!(before.0.contains("swap: /srv/swap file 65532 3"), "no swap: {}", machine.read("/proc/swaps")?);

    let plan = installer(site, "plan", "")?;
    for line in ["turn swap off on /srv/swap", "edit /etc/fstab: comment out 1 line of swap", "edit /etc/hosts"] {
        ensure!(plan.stdout.contains(line), "the plan does not say `{line}`:\n{}", plan.stdout);
    }
    let touched = before.changes(&Inventory::of(machine)?);
    ensure!(touched.is_empty(), "the plan changed {touched:#?}");

    site.run("--reboot=never", 0)?;
    site.ready(LONG)?;
    machine
        .run("test $(wc -l </proc/swaps) = 1 && grep -q '^# sealift: /srv/swap' /etc/fstab")
        .context("swap is on")?;
    machine.run("grep -q '^# BEGIN sealift' /etc/hosts && test $(sysctl -n net.ipv4.ip_forward) = 1")?;
    let ours = machine.run("grep -v '^#' /etc/modules-load.d/sealift.conf || true")?.stdout;

    let again = installer(site, "plan", "--json")?;
    let left = events(&again.stdout).last().map(|total| total["changes"].clone());
    ensure!(left == Some(0.into()), "the plan of a finished machine:\n{}", again.stdout);

    let reset = machine.run_for(&format!("{INSTALLER} reset --yes"), LONG)?;
    ensure!(reset.success(), "{}", reset.tail());
    let said = reset.stdout + &reset.stderr;
    let mut left = before.changes(&Inventory::of(machine)?);
    // Modules that are in use stay until the next boot, with their keys. Of ours, each must be named; the kernel loads others as needed.
    left.retain(|line| match line.strip_prefix("+ module: ") {
        Some(name) => ours.lines().any(|own| own == name) && !said.contains(&format!("module {name} stays loaded")),
        None => !OF_MODULES.iter().any(|keys| line.starts_with(keys)) || existed(&before, line),
    });
    ensure!(left.is_empty(), "after reset:\n{}\n\nit said:\n{said}", left.join("\n"));
    Ok(())
}

/// Keys that come with a module.
const OF_MODULES: [&str; 4] =
    ["+ sysctl: net.netfilter.", "+ sysctl: net.nf_conntrack_max", "+ sysctl: net.bridge.", "+ sysctl: net.ipv4.vs."];

/// Whether a key of a new line had a value before.
fn existed(before: &Inventory, line: &str) -> bool {
    let key = line.trim_start_matches("+ ").split('=').next().unwrap_or_default();
    before.0.iter().any(|old| old.starts_with(key))
}

/// Runs a subcommand that needs the bundle; it must end well.
fn installer(site: &Site, command: &str, flags: &str) -> Result<Finished> {
    let line = format!(
        "cd /root; /mnt/installer {command} --role master --bundle /mnt/x.bundle --key /mnt/key.pub --config /root/cluster.toml {flags}"
    );
    let said = site.machine.run_for(&line, LONG)?;
    ensure!(said.success(), "`installer {command}` ended with {:?}\n{}\n{}", said.code, said.stdout, said.tail());
    Ok(said)
}

/// The run that brings the packages is killed when they are there, and what it had begun is taken away.
fn packages_only(site: &Site) -> Result<()> {
    site.start("--reboot=never")?;
    let there = wait::patiently("the packages to be installed", LONG, || {
        let events = site.events()?;
        let done = events.iter().any(|event| event["event"] == "step-finished" && event["step"] == "os-packages");
        ensure!(done, "not yet there");
        Ok(())
    });
    there.with_context(|| site.log())?;
    site.machine.run("systemctl kill --signal=KILL install; sleep 1; systemctl reset-failed install || true")?;
    let reset = site.machine.run_for(&format!("{INSTALLER} reset --yes"), LONG)?;
    ensure!(reset.success(), "{}", reset.tail());
    Ok(())
}
