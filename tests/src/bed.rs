//! The network of one run: a namespace with one bridge in it and no link to anything else.
//!
//! Every frame that a host sends onto the bridge is looked at: a destination outside the bridge's own subnet is counted, remembered and
//! dropped. That makes "nothing dials out" a number.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::process::Process;
use crate::run::Run;

const BRIDGE: &str = "bridge0";
const NETWORK: [u8; 3] = [10, 77, 0];

/// A bridge of its own, on which hosts are booted.
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
    /// Makes the namespace and its bridge; sweeps what killed runs left.
    pub fn new() -> Result<Arc<Self>> {
        anyhow::ensure!(rustix::process::geteuid().is_root(), "test hosts need root: run the tests as root");
        let bed = Self { run: Run::claim()? };
        Process::new("ip")
            .args(["netns", "add"])
            .arg(bed.run.namespace())
            .run()
            .context("making a network namespace (scripts/prerequisites.sh installs iproute2)")?;
        let gateway = bed.gateway();
        for line in [
            "link set lo up".to_owned(),
            format!("link add {BRIDGE} type bridge"),
            format!("addr add {gateway}/24 dev {BRIDGE}"),
            format!("link set {BRIDGE} up"),
        ] {
            bed.outside("ip").args(line.split(' ')).run()?;
        }
        let [a, b, c] = NETWORK;
        let subnet = format!("{a}.{b}.{c}.0/24");
        let rules = format!(
            "table bridge watch {{
                counter foreign {{ }}
                set seen4 {{ type ipv4_addr; size 1024; flags dynamic; }}
                set seen6 {{ type ipv6_addr; size 1024; flags dynamic; }}
                chain sent {{
                    type filter hook prerouting priority -300; policy accept;
                    ether type ip ip daddr {{ {subnet}, 224.0.0.0/24 }} accept
                    ether type ip6 ip6 daddr {{ fe80::/10, ff02::/16 }} accept
                    ether type ip add @seen4 {{ ip daddr }} counter name foreign drop
                    ether type ip6 add @seen6 {{ ip6 daddr }} counter name foreign drop
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

    /// A program that runs as a neighbour on the bridge, outside every host.
    pub fn outside(&self, program: &str) -> Process {
        Process::new("nsenter").arg(format!("--net={}", self.namespace().display())).arg("--").arg(program)
    }

    /// What the hosts sent that was not for this bridge.
    pub fn foreign(&self) -> Result<Foreign> {
        let list = self.outside("nft").args(["--json", "list", "table", "bridge", "watch"]).text()?;
        let value: serde_json::Value = serde_json::from_str(&list).context("reading the list of nft")?;
        let items = value["nftables"].as_array().cloned().unwrap_or_default();
        let packets =
            items.iter().find_map(|item| item["counter"]["packets"].as_u64()).context("the counter is gone")?;
        let elements = items.iter().filter_map(|item| item["set"]["elem"].as_array()).flatten();
        let name = |element: &serde_json::Value| match element.as_str() {
            Some(address) => address.to_owned(),
            None => element["elem"]["val"].as_str().unwrap_or("?").to_owned(),
        };
        Ok(Foreign { packets, destinations: elements.map(name).collect() })
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
}

impl Drop for Bed {
    fn drop(&mut self) {
        // A failed removal is repeated by the next run's sweep.
        let _ = self.run.remove();
    }
}
