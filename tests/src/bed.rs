//! The network of one run: a namespace with two bridges in it and no link to anything else. Hosts have a leg on the first; those with
//! several interfaces have one on the second, too.
//!
//! Every frame that a host sends onto a bridge is looked at: a destination outside the bridges' own subnets and the pod network is counted, remembered and
//! dropped. That makes "nothing dials out" a number. What a leg that is cut off sends or should get vanishes without an answer.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::process::Process;
use crate::run::Run;

const BRIDGE: &str = "bridge0";
const SECOND_BRIDGE: &str = "bridge1";
const NETWORK: [u8; 3] = [10, 77, 0];
const SECOND_NETWORK: [u8; 3] = [10, 78, 0];

/// Enough for fifty hosts.
const INOTIFY_INSTANCES: u32 = 1024;
/// The pod network of the tests' clusters: routed from host to host over the first bridge.
const PODS: &str = "10.244.0.0/16";

/// Bridges of its own, on which hosts are booted.
#[derive(Debug)]
pub struct Bed {
    run: Run,
}

/// What hosts tried to send beyond their bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// Packets counted since the bed was made.
    pub packets: u64,
    /// Where they wanted to go.
    pub destinations: Vec<String>,
}

impl Bed {
    /// Makes the namespace and its bridges; sweeps what killed runs left.
    pub fn new() -> Result<Arc<Self>> {
        anyhow::ensure!(rustix::process::geteuid().is_root(), "test hosts need root: run the tests as root");
        raise_inotify_limit()?;
        let bed = Self { run: Run::claim()? };
        Process::new("ip")
            .args(["netns", "add"])
            .arg(bed.run.namespace())
            .run()
            .context("making a network namespace (scripts/prerequisites.sh installs iproute2)")?;
        bed.outside("ip").args(["link", "set", "lo", "up"]).run()?;
        for (bridge, gateway) in [(BRIDGE, bed.gateway()), (SECOND_BRIDGE, bed.second_address(1))] {
            for line in [
                format!("link add {bridge} type bridge"),
                format!("addr add {gateway}/24 dev {bridge}"),
                format!("link set {bridge} up"),
            ] {
                bed.outside("ip").args(line.split(' ')).run()?;
            }
        }
        let (first, second) = (bed.address(0), bed.second_address(0));
        let rules = format!(
            "table bridge watch {{
                counter foreign {{ }}
                counter second {{ }}
                set seen4 {{ type ipv4_addr; size 1024; flags dynamic; }}
                set seen6 {{ type ipv6_addr; size 1024; flags dynamic; }}
                set cut {{ type ifname; }}
                chain sent {{
                    type filter hook prerouting priority -300; policy accept;
                    iifname @cut drop
                    ether type ip ip daddr {second}/24 counter name second accept
                    ether type ip ip daddr {{ {first}/24, {PODS}, 224.0.0.0/24 }} accept
                    ether type ip6 ip6 daddr {{ fe80::/10, ff02::/16 }} accept
                    ether type ip add @seen4 {{ ip daddr }} counter name foreign drop
                    ether type ip6 add @seen6 {{ ip6 daddr }} counter name foreign drop
                }}
                chain delivered {{
                    type filter hook postrouting priority 300; policy accept;
                    oifname @cut drop
                }}
            }}"
        );
        let file = bed.run.directory().join("watch.nft");
        fs_err::write(&file, rules)?;
        bed.outside("nft").arg("-f").arg(&file).run()?;
        Ok(Arc::new(bed))
    }

    /// The bridge's own address: the machine's side, as a neighbour of the hosts would see them.
    pub fn gateway(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// Address number `n` of the bridge's subnet.
    pub fn address(&self, n: u8) -> Ipv4Addr {
        let [a, b, c] = NETWORK;
        Ipv4Addr::new(a, b, c, n)
    }

    /// Address number `n` of the second bridge's subnet.
    pub fn second_address(&self, n: u8) -> Ipv4Addr {
        let [a, b, c] = SECOND_NETWORK;
        Ipv4Addr::new(a, b, c, n)
    }

    /// A program that runs as a neighbour on the bridge, outside every host.
    pub fn outside(&self, program: &str) -> Process {
        Process::new("nsenter").arg(format!("--net={}", self.namespace().display())).arg("--").arg(program)
    }

    /// What the hosts sent that was not for these bridges.
    pub fn foreign(&self) -> Result<Foreign> {
        let items = self.watched()?;
        let elements = items.iter().filter_map(|item| item["set"]["elem"].as_array()).flatten();
        let name = |element: &serde_json::Value| match element.as_str() {
            Some(address) => address.to_owned(),
            None => element["elem"]["val"].as_str().unwrap_or("?").to_owned(),
        };
        // Names of interfaces are in a set, too.
        let destinations = elements.map(name).filter(|name| !name.starts_with('v')).collect();
        Ok(Foreign { packets: packets(&items, "foreign")?, destinations })
    }

    /// Packets for addresses of the second bridge's subnet.
    pub fn on_second(&self) -> Result<u64> {
        packets(&self.watched()?, "second")
    }

    /// Lets everything that a leg sends or should get vanish, or no longer. Known by its end in the bed's namespace.
    pub(crate) fn cut(&self, veth: &str, cut: Cut) -> Result<()> {
        let verb = match cut {
            Cut::Off => "add",
            Cut::Restored => "delete",
        };
        self.outside("nft").args([verb, "element", "bridge", "watch", "cut"]).arg(format!("{{ \"{veth}\" }}")).run()?;
        Ok(())
    }

    fn watched(&self) -> Result<Vec<serde_json::Value>> {
        let list = self.outside("nft").args(["--json", "list", "table", "bridge", "watch"]).text()?;
        let value: serde_json::Value = serde_json::from_str(&list).context("reading the list of nft")?;
        Ok(value["nftables"].as_array().cloned().unwrap_or_default())
    }

    /// Leaves bed and hosts running when this process ends.
    pub fn keep(&self) -> Result<()> {
        self.run.keep()
    }

    /// The run that this bed belongs to.
    pub fn run(&self) -> &Run {
        &self.run
    }

    pub(crate) fn namespace(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(self.run.namespace())
    }

    pub(crate) fn bridge() -> &'static str {
        BRIDGE
    }

    pub(crate) fn second_bridge() -> &'static str {
        SECOND_BRIDGE
    }
}

/// All hosts of all beds share the machine's limit of inotify instances, and each with a kubelet takes about twenty; the kernel's default
/// of 128 ends with "too many open files" at the seventh. A container cannot raise it, so the bed does, and leaves it so: others may lean on it.
fn raise_inotify_limit() -> Result<()> {
    let path = "/proc/sys/fs/inotify/max_user_instances";
    let present: u32 = fs_err::read_to_string(path)?.trim().parse().with_context(|| format!("reading {path}"))?;
    if present < INOTIFY_INSTANCES {
        fs_err::write(path, INOTIFY_INSTANCES.to_string())?;
    }
    Ok(())
}

/// Whether a leg's traffic vanishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// From now on.
    Off,
    /// No longer.
    Restored,
}

fn packets(items: &[serde_json::Value], counter: &str) -> Result<u64> {
    let named = items.iter().find(|item| item["counter"]["name"] == counter);
    named
        .and_then(|item| item["counter"]["packets"].as_u64())
        .with_context(|| format!("the counter `{counter}` is gone"))
}

impl Drop for Bed {
    fn drop(&mut self) {
        // A failed removal is repeated by the next run's sweep.
        let _ = self.run.remove();
    }
}
