//! Rules in the firewall of a host: firewalld, ufw, or a plain ruleset of nftables. Only single rules of ours are added and
//! taken away; nothing is ever flushed or loaded anew.

use std::fmt;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{Command, Host};

/// How a rule of ours is known: the first word of the comment it carries.
pub const COMMENT: &str = "sealift";

/// A rule, or a place for rules of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// An element of a zone of firewalld.
    Firewalld {
        /// The zone.
        zone: String,
        /// In the configuration on disk; else in the running one.
        permanent: bool,
        /// As the options of `firewall-cmd` have it: `port=6443/tcp`, `source=10.244.0.0/16`, `forward`.
        element: String,
    },
    /// A rule of ufw, as its command has it: `allow 6443/tcp`.
    Ufw(String),
    /// All rules of ours (by their comment) in a chain of nftables.
    Nft(Chain),
}

/// A chain of nftables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Chain {
    /// `inet`, `ip`.
    pub family: String,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.family, self.table, self.name)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Firewalld { zone, permanent, element } => {
                let when = if *permanent { "at boot" } else { "now" };
                write!(f, "firewalld zone {zone}, {when}: {element}")
            }
            Self::Ufw(rule) => write!(f, "ufw: {rule}"),
            Self::Nft(chain) => write!(f, "Sealift's rules in nftables chain {chain}"),
        }
    }
}

impl Rule {
    /// Whether it is there. A firewall that is gone has no rules.
    pub fn is_there(&self, host: &Host) -> Result<bool> {
        match self {
            Self::Firewalld { .. } => Ok(self.firewalld_with_it(host).is_some()),
            Self::Ufw(rule) => Ok(ufw_added(host)?.contains(rule)),
            Self::Nft(chain) => Ok(!handles(host, chain)?.is_empty()),
        }
    }

    /// Adds a rule of firewalld or ufw. Those of nftables are loaded as one text.
    pub fn add(&self, host: &Host) -> Result<()> {
        match self {
            Self::Firewalld { .. } => host.run(&self.firewall_cmd(ONLINE, "add")).map(drop),
            Self::Ufw(rule) => {
                let words = rule.split(' ').chain(["comment", COMMENT]);
                host.run(&Command::new("ufw").args(words)).map(drop)
            }
            Self::Nft(_) => Ok(()),
        }
    }

    /// Takes it away; `Some` says that it could not be and why.
    pub fn remove(&self, host: &Host) -> Result<Option<String>> {
        if !self.is_there(host)? {
            return Ok(None);
        }
        let removed = match self {
            Self::Firewalld { .. } => {
                let Some(program) = self.firewalld_with_it(host) else { return Ok(None) };
                host.try_run(&self.firewall_cmd(program, "remove"))?
            }
            Self::Ufw(rule) => host.try_run(&Command::new("ufw").arg("delete").args(rule.split(' ')))?,
            Self::Nft(chain) => {
                let lines =
                    handles(host, chain)?.into_iter().map(|handle| format!("delete rule {chain} handle {handle}\n"));
                host.try_run(&Command::new("nft").args(["-f", "-"]).input(lines.collect::<String>()))?
            }
        };
        Ok((!removed.success()).then(|| format!("{self} is still there: {}", removed.tail())))
    }

    /// The program of firewalld by which this rule can be seen. Without the daemon the running configuration is gone; the one
    /// on disk is asked by another program.
    fn firewalld_with_it(&self, host: &Host) -> Option<&'static str> {
        let asked = host.try_run(&self.firewall_cmd(ONLINE, "query")).ok()?;
        if asked.code != NOT_RUNNING {
            return asked.success().then_some(ONLINE);
        }
        let permanent = matches!(self, Self::Firewalld { permanent: true, .. });
        let asked = permanent.then(|| host.try_run(&self.firewall_cmd(OFFLINE, "query")).ok())??;
        asked.success().then_some(OFFLINE)
    }

    /// `firewall-cmd [--permanent] --zone=public --add-port=6443/tcp`
    fn firewall_cmd(&self, program: &str, verb: &str) -> Command {
        let Self::Firewalld { zone, permanent, element } = self else { return Command::new(program) };
        let permanent = (*permanent && program == ONLINE).then_some("--permanent");
        Command::new(program).args(permanent).arg(format!("--zone={zone}")).arg(format!("--{verb}-{element}"))
    }
}

/// Asks the daemon.
const ONLINE: &str = "firewall-cmd";
/// Works on the files while there is no daemon; it knows no `--permanent`.
const OFFLINE: &str = "firewall-offline-cmd";
/// The exit code of firewall-cmd without a daemon (firewall-cmd(1)).
const NOT_RUNNING: i32 = 252;

/// The rules of ufw as their commands, without comments: `allow 6443/tcp`.
pub fn ufw_added(host: &Host) -> Result<Vec<String>> {
    let Ok(said) = host.try_run(&Command::new("ufw").args(["show", "added"])) else { return Ok(Vec::new()) };
    let text = said.text();
    let rules = text.lines().filter_map(|line| line.strip_prefix("ufw "));
    Ok(rules.map(|rule| rule.split(" comment ").next().unwrap_or(rule).trim().to_owned()).collect())
}

/// The numbers of our rules in a chain.
pub fn handles(host: &Host, chain: &Chain) -> Result<Vec<u64>> {
    let Chain { family, table, name } = chain;
    let command = Command::new("nft").args(["-j", "list", "chain", family, table, name]);
    // A table that is gone has no rules, nor has a host without the tool.
    let Ok(said) = host.try_run(&command) else { return Ok(Vec::new()) };
    let rules = if said.success() { rules(&said.text()) } else { Vec::new() };
    Ok(rules.iter().filter(|rule| is_ours(rule)).filter_map(|rule| rule["handle"].as_u64()).collect())
}

/// Whether a rule of nftables carries our comment.
pub fn is_ours(rule: &serde_json::Value) -> bool {
    rule["comment"].as_str().is_some_and(|comment| comment.split(' ').next() == Some(COMMENT))
}

/// The rules in the JSON output of `nft -j list` (libnftables-json(5)).
pub fn rules(json: &str) -> Vec<serde_json::Value> {
    let listed: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    let items = listed["nftables"].as_array().cloned().unwrap_or_default();
    items.into_iter().filter_map(|mut item| item.get_mut("rule").map(serde_json::Value::take)).collect()
}
