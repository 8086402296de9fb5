//! A plain ruleset of nftables whose chains drop what they do not know. An accept in a table of our own cannot undo a drop in
//! another one, so our rules go to the beginning of these chains, each with our comment. Nobody else's rule is touched.
//!
//! `nftables.service` loads the ruleset anew at boot and on reload; a drop-in of that unit adds our rules again afterwards.
//! They are not in the operator's own file: a mistake in it would leave the host without any firewall.
//!
//! Chains that `iptables` manages are not written to: a rule that it cannot show would stop it from working at all.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::super::part::Found;
use super::Wanted;
use crate::facts::which;
use crate::host::firewall::{COMMENT, Chain, Rule, handles, is_ours, rules};
use crate::host::{Command, Host};
use crate::step::Target;
use crate::steps::file::WantedFile;
use crate::steps::unit::{UnitState, systemctl};

const UNIT: &str = "nftables.service";
/// Our rules, for the drop-in.
const RULES: &str = "/etc/sealift/firewall.nft";
const DROP_IN: &str = "/etc/systemd/system/nftables.service.d/sealift.conf";
/// Tables of programs that look after them themselves.
const MANAGED: [&str; 4] = ["sealift", "kube-proxy", "firewalld", "libvirt_network"];

/// The chains that drop what they do not know.
#[derive(Debug)]
pub(super) struct Nftables {
    nft: PathBuf,
    walls: Vec<Wall>,
    /// Chains of `iptables` for packets to this host that drop.
    iptables: Vec<Chain>,
    /// `nftables.service` is in use, so the rules can be kept over a reload.
    unit: bool,
}

#[derive(Debug)]
struct Wall {
    chain: Chain,
    forwards: bool,
    /// The comments of our rules in it.
    ours: Vec<String>,
}

impl Nftables {
    /// `None` where nothing drops.
    pub(super) fn of(host: &Host) -> Result<Option<Self>> {
        let Some(nft) = which(host, "nft")? else { return Ok(None) };
        let listed = host.try_run(&Command::new("nft").args(["-j", "list", "chains"]))?;
        let (mut walls, mut iptables) = (Vec::new(), Vec::new());
        for (chain, hook, policy) in base_chains(&listed.text()) {
            let Chain { family, table, name } = &chain;
            let said = host.try_run(&Command::new("nft").args(["-j", "list", "chain", family, table, name]))?;
            let rules = rules(&said.text());
            if policy != "drop" && !rules.last().is_some_and(drops_all) {
                continue;
            }
            if table == "filter" && ["INPUT", "FORWARD"].contains(&name.as_str()) {
                iptables.extend((hook == "input").then_some(chain));
                continue;
            }
            let comments = rules.iter().filter(|rule| is_ours(rule)).filter_map(|rule| rule["comment"].as_str());
            walls.push(Wall { ours: comments.map(str::to_owned).collect(), chain, forwards: hook == "forward" });
        }
        if walls.is_empty() && iptables.is_empty() {
            return Ok(None);
        }
        let state = UnitState::read(host, UNIT)?;
        Ok(Some(Self { nft, walls, iptables, unit: state.is_enabled() || state.is_active() }))
    }

    pub(super) fn touches(&self) -> Vec<Target> {
        let files = [RULES, DROP_IN].map(|path| Target::File(path.into()));
        let chains = self.walls.iter().map(|wall| Target::Rule(Rule::Nft(wall.chain.clone())));
        files.into_iter().filter(|_| self.keeps()).chain(chains).collect()
    }

    pub(super) fn look(&self, host: &Host, wanted: &Wanted, found: &mut Found) -> Result<()> {
        for wall in self.walls.iter().filter(|wall| !wall.is_open(wanted)) {
            for rule in wall.rules(wanted) {
                found.change(format!("nftables chain {}: {rule}", wall.chain));
            }
        }
        for file in self.files(wanted) {
            found.changes.extend(file.change(host)?);
        }
        if !self.walls.is_empty() && !self.unit {
            let note = "is not in use: whoever loads the ruleset anew takes Sealift's rules away; `installer refresh` adds them";
            found.limit(format!("{UNIT} {note}"));
        }
        for chain in &self.iptables {
            let open: Vec<String> = wanted.ports.iter().map(|(port, protocol)| format!("{port}/{protocol}")).collect();
            let pods = wanted.pods.as_ref().map_or_else(String::new, |pods| format!(", and everything from {pods}"));
            found.limit(format!(
                "rules of iptables (chain {}) drop what they do not know; let through {}{pods}",
                chain.name,
                open.join(", ")
            ));
        }
        Ok(())
    }

    pub(super) fn apply(&self, host: &Host, wanted: &Wanted) -> Result<()> {
        let mut text = String::new();
        for wall in self.walls.iter().filter(|wall| !wall.is_open(wanted)) {
            for handle in handles(host, &wall.chain)? {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "delete rule {} handle {handle}", wall.chain);
            }
            text.push_str(&wall.script(wanted));
        }
        if !text.is_empty() {
            host.run(&Command::new("nft").args(["-f", "-"]).input(text))
                .context("adding rules to the host's nftables")?;
        }
        let mut reload = false;
        for file in self.files(wanted) {
            reload |= file.write(host)?;
        }
        if reload { systemctl(host, &["daemon-reload"]) } else { Ok(()) }
    }

    fn keeps(&self) -> bool {
        self.unit && !self.walls.is_empty()
    }

    /// What brings the rules back after `nftables.service` has loaded others.
    fn files(&self, wanted: &Wanted) -> Vec<WantedFile> {
        if !self.keeps() {
            return Vec::new();
        }
        let script: String = self.walls.iter().map(|wall| wall.script(wanted)).collect();
        let load = format!("-{} -f {RULES}", self.nft.display());
        let unit = format!(
            "# Written by Sealift: its rules after those of this host.\n[Service]\nExecStartPost={load}\nExecReload={load}\n"
        );
        vec![WantedFile::private(RULES, script), WantedFile::public(DROP_IN, unit)]
    }
}

impl Wall {
    /// The rules, in the syntax of nft(8).
    fn rules(&self, wanted: &Wanted) -> Vec<String> {
        let mut rules: Vec<String> = Vec::new();
        let pods = |direction: &str| wanted.pods.as_ref().map(|pods| format!("ip {direction} {pods} accept"));
        if self.forwards {
            return [pods("saddr"), pods("daddr")].into_iter().flatten().collect();
        }
        for protocol in ["tcp", "udp"] {
            let ports: Vec<&str> =
                wanted.ports.iter().filter(|(_, of)| *of == protocol).map(|(port, _)| port.as_str()).collect();
            if !ports.is_empty() {
                rules.push(format!("{protocol} dport {{ {} }} accept", ports.join(", ")));
            }
        }
        rules.extend(wanted.protocols.iter().map(|protocol| format!("ip protocol {protocol} accept")));
        rules.extend(pods("saddr"));
        rules
    }

    /// Our comment and what it stands for: other rules have another one.
    fn comment(&self, wanted: &Wanted) -> String {
        let digest = bundle::Digest::of(self.rules(wanted).join("\n").as_bytes());
        format!("{COMMENT} {}", &digest.hex()[..12])
    }

    fn is_open(&self, wanted: &Wanted) -> bool {
        let comment = self.comment(wanted);
        self.ours.len() == self.rules(wanted).len() && self.ours.iter().all(|ours| *ours == comment)
    }

    /// The input of `nft -f` that adds the rules.
    fn script(&self, wanted: &Wanted) -> String {
        let comment = self.comment(wanted);
        let lines = self
            .rules(wanted)
            .into_iter()
            .map(|rule| format!("insert rule {} {rule} comment \"{comment}\"\n", self.chain));
        lines.collect()
    }
}

/// Chains of filters for IPv4 packets to this host and through it, with hook and policy.
fn base_chains(json: &str) -> Vec<(Chain, String, String)> {
    let listed: Value = serde_json::from_str(json).unwrap_or_default();
    let chains = listed["nftables"].as_array().into_iter().flatten().filter_map(|item| {
        let chain = item.get("chain")?;
        let text = |key: &str| chain[key].as_str().unwrap_or_default().to_owned();
        let (family, table, hook) = (text("family"), text("table"), text("hook"));
        let filters = text("type") == "filter" && ["input", "forward"].contains(&hook.as_str());
        let concerned = ["inet", "ip"].contains(&family.as_str()) && !MANAGED.contains(&table.as_str());
        (filters && concerned).then(|| (Chain { family, table, name: text("name") }, hook, text("policy")))
    });
    chains.collect()
}

/// A rule without any condition that ends the way of a packet.
fn drops_all(rule: &Value) -> bool {
    let parts = rule["expr"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut ends = false;
    for part in parts {
        let Some(name) = part.as_object().and_then(|part| part.keys().next()) else { return false };
        match name.as_str() {
            "drop" | "reject" => ends = true,
            // How nft shows a target of iptables.
            "xt" if part["xt"]["name"] == "REJECT" => ends = true,
            "counter" | "log" => {}
            _ => return false,
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_without_conditions_is_a_wall() {
        let rule = |expr: &str| drops_all(&serde_json::from_str(&format!("{{\"expr\":{expr}}}")).unwrap());
        assert!(rule(r#"[{"counter":{"packets":1}},{"reject":{"type":"icmpx"}}]"#) && rule(r#"[{"drop":null}]"#));
        assert!(rule(r#"[{"counter":{"packets":0}},{"xt":{"type":"target","name":"REJECT"}}]"#));
        assert!(!rule(r#"[{"match":{"op":"=="}},{"drop":null}]"#) && !rule(r#"[{"accept":null}]"#) && !rule("[]"));
    }

    #[test]
    fn only_filters_of_others_are_looked_at() {
        let chain = |family: &str, table: &str, kind: &str, hook: &str| {
            format!(
                r#"{{"chain":{{"family":"{family}","table":"{table}","name":"c","type":"{kind}","hook":"{hook}","policy":"drop"}}}}"#
            )
        };
        let all = [
            chain("inet", "mine", "filter", "input"),
            chain("ip", "mine", "filter", "forward"),
            chain("inet", "mine", "filter", "output"),
            chain("ip", "mine", "nat", "input"),
            chain("ip6", "mine", "filter", "input"),
            chain("ip", "sealift", "filter", "forward"),
            r#"{"chain":{"family":"inet","table":"mine","name":"d"}}"#.to_owned(),
        ];
        let found = base_chains(&format!(r#"{{"nftables":[{{"metainfo":{{}}}},{}]}}"#, all.join(",")));
        let found: Vec<String> =
            found.into_iter().map(|(chain, hook, policy)| format!("{chain} {hook} {policy}")).collect();
        assert_eq!(found, ["inet mine c input drop", "ip mine c forward drop"]);
        assert!(base_chains("").is_empty());
    }
}
