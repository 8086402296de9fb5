//! Rules of kube-proxy, the kubelet and CNI plugins in the tables of `iptables`: their chains, and what jumps there.
//!
//! The text of `iptables-save` decides; everything is taken away in one transaction a table, other rules are not touched.
//! Chains of the CNI plugins belong to a network, which their comments name: other networks (podman's) keep theirs.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::agent::cni;
use crate::host::{Command, Host};

/// Chains by the beginnings of their names: kube-proxy and kubelet, our agent, flannel, calico.
const PREFIXES: [&str; 4] = ["KUBE-", "SEALIFT-", "FLANNEL-", "cali-"];
/// Chains of the plugins `bridge` (masquerading) and `portmap`. Each rule about one says `name: "NETWORK" id: "CONTAINER"`
/// in a comment (containernetworking/plugins, pkg/utils and plugins/meta/portmap).
const CNI: &str = "CNI-";
/// Chains that portmap keeps for all networks together.
const SHARED: [&str; 4] = ["CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ", "CNI-HOSTPORT-SNAT"];
/// Our networks: the bridge's, and as the upstream manifests of flannel and calico call theirs.
const NETWORKS: [&str; 3] = [cni::NETWORK, "cbr0", "k8s-pod-network"];
const PATIENCE: Duration = Duration::from_secs(60);

/// Cleans the tables of both families; a host without the programs has no such rules. Adds to `left` what stays because
/// it is another network's.
pub(super) fn remove(host: &Host, left: &mut Vec<String>) -> Result<Vec<String>> {
    let mut done = Vec::new();
    for family in ["iptables", "ip6tables"] {
        let Ok(saved) = host.try_run(&Command::new(format!("{family}-save")).timeout(PATIENCE)) else { continue };
        // A kernel without the family says so; there is nothing to clean then.
        let Plan { input: changes, kept } = if saved.success() { plan(&saved.text()) } else { continue };
        if !kept.is_empty() {
            let kept: Vec<&str> = kept.iter().map(String::as_str).collect();
            left.push(format!("{family} chains {}: of another CNI network than Sealift's", kept.join(", ")));
        }
        if changes.is_empty() {
            continue;
        }
        let command = Command::new(format!("{family}-restore")).args(["--noflush", "--wait=30"]).timeout(PATIENCE);
        host.run(&command.input(changes.as_str()))
            .with_context(|| format!("removing Kubernetes' rules of {family}"))?;
        done.push(format!("remove {} chains of {family}", changes.matches("\n-X ").count()));
    }
    Ok(done)
}

/// What to do about one family.
#[derive(Default)]
struct Plan {
    /// The input of `iptables-restore --noflush` that removes our chains; empty when there are none.
    input: String,
    /// Chains of other CNI networks.
    kept: BTreeSet<String>,
}

/// Chains of the CNI plugins in one table.
struct Cni<'a> {
    ours: BTreeSet<&'a str>,
    kept: BTreeSet<&'a str>,
}

impl<'a> Cni<'a> {
    fn of(lines: &[&'a str]) -> Self {
        let all = lines.iter().filter_map(|line| line.strip_prefix(':')?.split(' ').next());
        let all = all.filter(|chain| chain.starts_with(CNI));
        let (shared, single): (BTreeSet<&str>, BTreeSet<&str>) = all.partition(|chain| SHARED.contains(chain));
        let named = lines.iter().filter(|line| {
            // As iptables-save writes a comment that holds quotes.
            NETWORKS.iter().any(|network| line.contains(&format!("name: \\\"{network}\\\" ")))
        });
        let named: BTreeSet<&str> = named.flat_map(|line| line.split(' ')).collect();
        let (mut ours, mut kept): (BTreeSet<&str>, BTreeSet<&str>) =
            single.into_iter().partition(|chain| named.contains(chain));
        if kept.is_empty() {
            ours.extend(shared);
        } else {
            kept.extend(shared);
        }
        Self { ours, kept }
    }
}

fn plan(saved: &str) -> Plan {
    let Plan { mut input, mut kept } = Plan::default();
    for table in saved.split_inclusive("COMMIT\n") {
        let lines: Vec<&str> = table.lines().collect();
        let Some(name) = lines.iter().find_map(|line| line.strip_prefix('*')) else { continue };
        let chains = lines.iter().filter_map(|line| line.strip_prefix(':')?.split(' ').next());
        let cni = Cni::of(&lines);
        kept.extend(cni.kept.iter().map(|chain| (*chain).to_owned()));
        let mut chains: BTreeSet<&str> = chains.filter(|chain| is_ours(chain)).collect();
        chains.extend(&cni.ours);
        let jumps = lines.iter().filter_map(|line| line.strip_prefix("-A ")).filter(|rule| {
            // Comments are quoted, and may hold anything; a quote in one is escaped, which only ends the search early.
            let outside: String = rule.split('"').step_by(2).collect();
            let words: Vec<&str> = outside.split_whitespace().collect();
            let target = words.windows(2).find(|pair| matches!(pair[0], "-j" | "-g")).map(|pair| pair[1]);
            let chain = words.first().copied().unwrap_or_default();
            !chains.contains(chain) && target.is_some_and(|target| chains.contains(target))
        });
        if chains.is_empty() {
            continue;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(input, "*{name}");
        for rule in jumps {
            let _ = writeln!(input, "-D {rule}");
        }
        for command in ["-F", "-X"] {
            for chain in &chains {
                let _ = writeln!(input, "{command} {chain}");
            }
        }
        input.push_str("COMMIT\n");
    }
    Plan { input, kept }
}

fn is_ours(chain: &str) -> bool {
    PREFIXES.iter().any(|prefix| chain.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = "\
# Generated by iptables-save\n*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n\
:KUBE-POSTROUTING - [0:0]\n:MINE - [0:0]\n\
-A PREROUTING -m comment --comment \"kubernetes -j MINE\" -j KUBE-SERVICES\n-A PREROUTING -j MINE\n\
-A POSTROUTING -m comment --comment \"after KUBE-SERVICES\" -j MASQUERADE\n\
-A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-POSTROUTING\nCOMMIT\n\
*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j ACCEPT\nCOMMIT\n";

    #[test]
    fn our_chains_go_and_the_rules_that_lead_there() {
        let expected = "*nat\n\
            -D PREROUTING -m comment --comment \"kubernetes -j MINE\" -j KUBE-SERVICES\n\
            -F KUBE-POSTROUTING\n-F KUBE-SERVICES\n-X KUBE-POSTROUTING\n-X KUBE-SERVICES\nCOMMIT\n";
        assert_eq!(plan(SAVED).input, expected);
        assert_eq!(plan("*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j ACCEPT\nCOMMIT\n").input, "");
    }

    /// Two networks with a published port each, ours first, as portmap makes them.
    const PORTS: &str = r#"*nat
:PREROUTING ACCEPT [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-HOSTPORT-SETMARK - [0:0]
:CNI-DN-0123456789abcdef01234 - [0:0]
:CNI-DN-ffffffffffffffffffff0 - [0:0]
:CNI-aaaaaaaaaaaaaaaaaaaaaaaa - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A POSTROUTING -s 10.88.0.2/32 -m comment --comment "name: \"podman\" id: \"b\"" -j CNI-aaaaaaaaaaaaaaaaaaaaaaaa
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"sealift\" id: \"a\"" -m multiport --dports 80 -j CNI-DN-0123456789abcdef01234
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"podman\" id: \"b\"" -m multiport --dports 81 -j CNI-DN-ffffffffffffffffffff0
-A CNI-DN-0123456789abcdef01234 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.244.0.5:80
COMMIT
"#;

    #[test]
    fn another_network_keeps_its_chains_and_those_that_all_share() {
        let Plan { input, kept } = plan(PORTS);
        let ours = "CNI-DN-0123456789abcdef01234";
        let rule = r#"CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"sealift\" id: \"a\"" -m multiport --dports 80"#;
        assert_eq!(input, format!("*nat\n-D {rule} -j {ours}\n-F {ours}\n-X {ours}\nCOMMIT\n"));
        assert_eq!(kept.len(), 4, "{kept:?}");
        let alone: Vec<&str> = PORTS
            .lines()
            .filter(|line| !["podman", "ffffff", "aaaaaa"].iter().any(|word| line.contains(word)))
            .collect();
        let Plan { input, kept } = plan(&(alone.join("\n") + "\n"));
        assert!(input.contains("-D PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT\n"), "{input}");
        assert_eq!((input.matches("\n-X ").count(), kept.len()), (3, 0), "{input}");
    }
}
