//! A plain ruleset of nftables whose chains drop what they do not know. An accept in a table of our own cannot undo a drop in
//! another one, so our rules go into these chains, each with our comment: to the end, but before rules that take whatever is
//! left. What the operator drops by name stays dropped, and nobody else's rule is touched.
//!
//! `nftables.service` loads the ruleset anew at boot and on reload; a drop-in of that unit adds our rules again afterwards, by
//! a script that finds the end of a chain as it is then. They are not in the operator's own file: a mistake in it would leave
//! the host without any firewall.
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
/// Adds our rules, for the drop-in. With what a host has before `/opt` is mounted: sh, awk, nft.
const SCRIPT: &str = "/etc/sealift/firewall.sh";
/// `put CHAIN COMMENT RULE...`; [`closes`] in awk.
const PUT: &str = include_str!("put.sh");
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
    /// The comments of our rules in it that packets reach.
    ours: Vec<String>,
    /// The number of the rule before which ours belong; none: they go to the end.
    before: Option<u64>,
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
            let mut rules = rules(&said.text());
            // What comes after that is never reached.
            rules.truncate(rules.iter().position(drops_all).map_or(rules.len(), |last| last + 1));
            let end = end(&rules);
            if policy != "drop" && !rules[end..].iter().any(drops_all) {
                continue;
            }
            if table == "filter" && ["INPUT", "FORWARD"].contains(&name.as_str()) {
                iptables.extend((hook == "input").then_some(chain));
                continue;
            }
            let comments = rules.iter().filter(|rule| is_ours(rule)).filter_map(|rule| rule["comment"].as_str());
            let ours = comments.map(str::to_owned).collect();
            let before = rules.get(end).and_then(|rule| rule["handle"].as_u64());
            walls.push(Wall { ours, before, chain, forwards: hook == "forward" });
        }
        if walls.is_empty() && iptables.is_empty() {
            return Ok(None);
        }
        let state = UnitState::read(host, UNIT)?;
        Ok(Some(Self { nft, walls, iptables, unit: state.is_enabled() || state.is_active() }))
    }

    pub(super) fn touches(&self) -> Vec<Target> {
        let files = [SCRIPT, DROP_IN].map(|path| Target::File(path.into()));
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
        let puts: String = self.walls.iter().map(|wall| wall.put(wanted)).collect();
        let script = format!("{PUT}nft={}\n{puts}", self.nft.display());
        let load = format!("-/bin/sh {SCRIPT}");
        let unit = format!(
            "# Written by Sealift: its rules after those of this host.\n[Service]\nExecStartPost={load}\nExecReload={load}\n"
        );
        vec![WantedFile::private(SCRIPT, script), WantedFile::public(DROP_IN, unit)]
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

    /// The input of `nft -f` that adds the rules now.
    fn script(&self, wanted: &Wanted) -> String {
        let (chain, comment) = (&self.chain, self.comment(wanted));
        let place = self.before.map_or(format!("add rule {chain}"), |handle| {
            // Each goes right before that rule, so they keep their order.
            format!("insert rule {chain} position {handle}")
        });
        let lines = self.rules(wanted).into_iter().map(|rule| format!("{place} {rule} comment \"{comment}\"\n"));
        lines.collect()
    }

    /// The line of the script that adds them whenever the chain is new.
    fn put(&self, wanted: &Wanted) -> String {
        format!("put '{}' '{}' '{}'\n", self.chain, self.comment(wanted), self.rules(wanted).join("' '"))
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

/// Where the end of a chain begins: the first of the last rules that take whatever is left.
fn end(rules: &[Value]) -> usize {
    rules.len() - rules.iter().rev().take_while(|rule| closes(rule)).count()
}

/// A rule that drops, rejects, counts or logs what has come so far, at most by protocol (`meta l4proto tcp reject with tcp
/// reset`, and the like for others, is how a chain often ends).
fn closes(rule: &Value) -> bool {
    parts(rule).iter().all(|(name, part)| match name.as_str() {
        "drop" | "reject" | "counter" | "log" => true,
        // How nft shows a target of iptables.
        "xt" => part["name"] == "REJECT",
        "limit" => part["inv"] != true,
        "match" => is_protocol(part),
        _ => false,
    })
}

/// A rule that ends the way of every packet.
fn drops_all(rule: &Value) -> bool {
    let parts = parts(rule);
    let ends = parts.iter().any(|(name, _)| ["drop", "reject", "xt"].contains(&name.as_str()));
    ends && closes(rule) && !parts.iter().any(|(name, _)| ["limit", "match"].contains(&name.as_str()))
}

/// Whether a condition asks for nothing but the protocol.
fn is_protocol(condition: &Value) -> bool {
    let (meta, payload) = (&condition["left"]["meta"]["key"], &condition["left"]["payload"]);
    let of = |value: &Value, names: &[&str]| value.as_str().is_some_and(|value| names.contains(&value));
    let field = |protocol: &str, field: &str| payload["protocol"] == protocol && payload["field"] == field;
    of(&condition["op"], &["==", "in"])
        && (of(meta, &["l4proto", "nfproto", "protocol", "pkttype"])
            || field("ip", "protocol")
            || field("ip6", "nexthdr"))
}

/// What a rule consists of (libnftables-json(5), `expr`).
fn parts(rule: &Value) -> Vec<(&String, &Value)> {
    let parts = rule["expr"].as_array().into_iter().flatten().filter_map(Value::as_object);
    parts.flatten().collect()
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
        assert!(!rule(r#"[{"limit":{"rate":5}},{"drop":null}]"#) && !rule(r#"[{"xt":{"name":"LOG"}}]"#));
    }

    #[test]
    fn the_end_of_a_chain_begins_where_only_protocols_are_told_apart() {
        let protocol = |left: &str, op: &str| format!(r#"{{"match":{{"op":"{op}","left":{left},"right":"tcp"}}}}"#);
        let l4 = r#"{"meta":{"key":"l4proto"}}"#;
        let tcp = format!(r#"[{},{{"reject":{{"type":"tcp reset"}}}}]"#, protocol(l4, "=="));
        let source = protocol(r#"{"payload":{"protocol":"ip","field":"saddr"}}"#, "==");
        let source = format!(r#"[{source},{{"drop":null}}]"#);
        let others = format!(r#"[{},{{"drop":null}}]"#, protocol(l4, "!="));
        let flood = r#"[{"limit":{"rate":5,"inv":true}},{"drop":null}]"#;
        let (accept, drop) = (r#"[{"accept":null}]"#, r#"[{"counter":{}},{"log":{}},{"drop":null}]"#);
        for (rules, wanted) in [
            (vec![accept, &source, drop], 2),
            (vec![accept, &source], 2),
            (vec![drop, accept, &tcp, drop], 2),
            (vec![accept, &others, drop], 2),
            (vec![accept, flood, r#"[{"log":{}}]"#], 2),
            (vec![], 0),
        ] {
            let rules: Vec<Value> =
                rules.iter().map(|expr| serde_json::from_str(&format!("{{\"expr\":{expr}}}")).unwrap()).collect();
            assert_eq!(end(&rules), wanted, "{rules:?}");
        }
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
