//! A plain ruleset of nftables with the real nft, in a network of its own: what passes, what stays dropped, what is left of ours
//! after a reload and after a reset. (scripts/prerequisites.sh installs `nftables`; `unshare` needs no root's rights.)

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command as Process, Stdio};

use super::host_settings::{applied, runs, text};
use super::*;
use crate::host::firewall::{Chain, Rule};
use crate::host::{Command, Finished};
use crate::journal::BeforeImage;

/// Two addresses to come from, and one each to go to: the way back is the kernel's to choose.
const ADDRESSES: &str = "ip link set lo up && ip address add 192.0.2.1/32 dev lo && ip address add 192.0.2.66/32 dev lo && \
    ip route replace local 198.51.100.1 dev lo src 192.0.2.1 table local && \
    ip route replace local 198.51.100.66 dev lo src 192.0.2.66 table local && echo ready && read -r end";
const FRIEND: &str = "198.51.100.1";
const BLOCKED: &str = "198.51.100.66";
const SCRIPT: &str = "/etc/sealift/firewall.sh";

/// A network of its own, as long as this lives.
struct Network(Child);

impl Network {
    #[expect(clippy::disallowed_methods, reason = "it has to live for as long as the test")]
    fn new() -> Self {
        let mut process = Process::new("unshare");
        process.args(["--map-root-user", "--net", "sh", "-c", ADDRESSES]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = process.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n", "this host makes no network of its own for a test");
        Self(child)
    }

    fn run(&self, words: &[&str], input: &[u8]) -> Finished {
        let enter =
            ["--target", &self.0.id().to_string(), "--user", "--preserve-credentials", "--net"].map(str::to_owned);
        let command = Command::new("nsenter").args(enter).args(words).input(input);
        Host::real().try_run(&command).unwrap()
    }

    fn nft(&self, words: &[&str], input: &str) -> String {
        let done = self.run(&[&["nft"], words].concat(), input.as_bytes());
        assert!(done.success(), "{}", done.tail());
        done.text()
    }

    /// Everything, without what counts.
    fn ruleset(&self) -> String {
        self.nft(&["-s", "list", "ruleset"], "")
    }

    /// Whether a packet to this port passes the firewall: nothing listens, so it is refused at once, or not answered at all.
    fn passes(&self, to: &str, port: u16) -> bool {
        let line = format!("</dev/tcp/{to}/{port}");
        match self.run(&["timeout", "0.4", "bash", "-c", &line], b"").code {
            1 => true,
            124 => false,
            code => panic!("{code}"),
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A firewall as an operator writes it, with this end.
fn firewall(end: &str) -> String {
    format!(
        "flush ruleset\ntable inet mine {{\n chain input {{\n  type filter hook input priority 0; policy drop;\n  \
         ct state established,related accept\n  ip saddr 192.0.2.66 drop\n  tcp dport 22 accept\n  {end}\n }}\n \
         chain through {{\n  type filter hook forward priority 0; policy drop;\n  ip daddr 10.244.0.9 drop\n }}\n}}\n"
    )
}

/// A host whose `nft` is the real one, in that network.
fn bed_in(network: &Arc<Network>) -> Bed {
    let bed = Bed::new();
    bed.put("/usr/sbin/nft", "");
    runs(&bed, "nftables.service");
    let network = Arc::clone(network);
    bed.host.fake().answer("nft ", move |command| {
        let line = command.line();
        let done = network.run(&line.split(' ').collect::<Vec<_>>(), command.stdin().unwrap_or_default());
        Reply::fail(done.code, done.stderr).stdout(done.stdout)
    });
    bed
}

fn assert_open(network: &Network, when: &str) {
    for port in [6443, 10250, 31000, 22] {
        assert!(network.passes(FRIEND, port), "{when}: {port} is closed\n{}", network.ruleset());
    }
    assert!(!network.passes(FRIEND, 7000), "{when}: what nobody asked for is open");
    assert!(!network.passes(BLOCKED, 6443), "{when}: what the operator drops passes\n{}", network.ruleset());
}

#[test]
fn what_the_operator_drops_stays_dropped_and_all_else_of_the_cluster_passes() {
    let network = Arc::new(Network::new());
    for end in [
        "",
        "counter drop",
        "limit rate 5/minute log prefix \"ours, # handle 3\"\n  meta l4proto { udp, icmp } reject\n  \
         meta l4proto tcp counter drop comment \"the end\"\n  drop",
    ] {
        let bed = bed_in(&network);
        network.nft(&["-f", "-"], &firewall(end));
        let before = network.ruleset();
        assert!(!network.passes(FRIEND, 6443));
        let changes = applied(&bed, "nftables chain");
        let tcp = "nftables chain inet mine input: tcp dport { 2379, 2380, 6443, 10250, 30000-32767 } accept";
        assert!(changes.iter().any(|change| change == tcp), "{changes:#?}");
        assert_open(&network, "now");

        // What `nftables.service` does on reload, and then the drop-in of its unit; the second time nothing is left to do.
        let drop_in = text(&bed, "/etc/systemd/system/nftables.service.d/sealift.conf");
        assert!(drop_in.contains(&format!("\nExecStartPost=-/bin/sh {SCRIPT}\nExecReload=-/bin/sh {SCRIPT}\n")));
        let after = network.ruleset();
        network.nft(&["-f", "-"], &firewall(end));
        assert_eq!(network.ruleset(), before);
        let script = bed.host.real_path(Path::new(SCRIPT));
        for _ in 0..2 {
            let done = network.run(&["sh", script.to_str().unwrap()], b"");
            assert!(done.success() && done.stderr.is_empty(), "{}", done.tail());
            assert_eq!(network.ruleset(), after, "the script and the run do not agree");
        }
        assert_open(&network, "after a reload");
        assert_eq!(bed.changes(&HostSettings), Vec::<String>::new());

        for chain in ["input", "through"] {
            let chain = Chain { family: "inet".into(), table: "mine".into(), name: chain.into() };
            assert_eq!(BeforeImage::Absent.restore(&bed.host, &Target::Rule(Rule::Nft(chain))).unwrap(), None);
        }
        assert_eq!(network.ruleset(), before, "undone");
    }
}

#[test]
fn other_ports_replace_ours_and_an_operators_new_end_is_noticed() {
    let network = Arc::new(Network::new());
    let mut bed = bed_in(&network);
    network.nft(&["-f", "-"], &firewall(""));
    applied(&bed, "");
    let ours = |network: &Network| network.ruleset().matches("sealift").count();
    let count = ours(&network);
    bed.roles = Roles::new([Role::Worker]);
    assert!(!applied(&bed, "10250").is_empty());
    assert_eq!(ours(&network), count);
    assert!(!network.passes(FRIEND, 6443) && network.passes(FRIEND, 10250));
    // Somebody puts an end before them: they are of no use there any more.
    let rules = network.nft(&["-a", "list", "chain", "inet", "mine", "input"], "");
    let first = rules.lines().find(|line| line.contains("sealift")).unwrap();
    let handle = first.rsplit(' ').next().unwrap();
    network.nft(&["insert", "rule", "inet", "mine", "input", "position", handle, "drop"], "");
    assert!(!network.passes(FRIEND, 10250));
    assert!(!applied(&bed, "10250").is_empty());
    assert!(network.passes(FRIEND, 10250) && !network.passes(BLOCKED, 10250));
    assert_eq!(ours(&network), count);
}
