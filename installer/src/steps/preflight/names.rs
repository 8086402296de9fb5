//! Names: the host's own, who answers to the node's, and whether the resolver answers to names that do not exist.
//!
//! What is in files is read; the host's resolver is asked only where it has a name server, shortly, and all at once.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::finding::Finding;
use crate::checks::CheckName;
use crate::context::Context;
use crate::host::{Command, Host};

/// How long one name may take.
const RESOLVING: Duration = Duration::from_secs(1);
/// A name that nobody has.
const NOBODY: &str = "sealift-asks-for-a-name-that-nobody-has";

/// All findings of this file.
pub(super) fn look(context: &Context<'_>) -> Result<Vec<Finding>> {
    let own = context.facts.host_name.as_str();
    let mut findings = vec![host_name(own)];
    // A comment in another encoding is no reason to stop.
    let hosts = context.host.read(Path::new("/etc/hosts"))?.unwrap_or_default();
    let hosts = String::from_utf8_lossy(&hosts);
    let node = &context.node.name;
    let resolver = &context.facts.resolver;
    let listed = in_hosts(&hosts, node);
    // A name without dots is looked for in the search domains.
    let asks = !resolver.nameservers.is_empty() && !resolver.search.is_empty();
    let ask_node = asks && listed.is_empty();
    let foreign = resolver.search.iter().find(|domain| !domain.ends_with(&context.config.cluster.domain));
    let ask_wild = foreign.filter(|_| asks).map(|domain| format!("{NOBODY}.{domain}."));
    let host = context.host;
    let (found, wild) = std::thread::scope(|scope| {
        let wild = ask_wild.as_ref().map(|name| scope.spawn(move || addresses_of(host, name)));
        let found = if ask_node { addresses_of(host, node) } else { listed };
        (found, wild.and_then(|asked| asked.join().ok()).unwrap_or_default())
    });
    findings.extend(resolution(context, &found));
    if let (Some(name), Some(first)) = (ask_wild, wild.first()) {
        let follows = "names that a pod mistypes, or looks for in its search domains, get an answer from outside";
        let found = format!("the name server answers {first} for `{name}`, which does not exist");
        let advice = "take that domain out of `search` in /etc/resolv.conf, or the `*` record out of its zone";
        findings.push(Finding::limit(CheckName::WildcardDns, "wildcard DNS", found, follows, advice));
    }
    Ok(findings)
}

fn addresses_of(host: &Host, name: &str) -> Vec<IpAddr> {
    let command = Command::new("getent").args(["ahosts", name]).timeout(RESOLVING);
    let said = host.try_run(&command).map(|finished| finished.text()).unwrap_or_default();
    let mut found: Vec<IpAddr> = said.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    found.dedup();
    found
}

/// RFC 1123 §2.1, lower-case as Kubernetes has it.
fn host_name(name: &str) -> Finding {
    let subject = "host name";
    let good = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let local = matches!(name.split('.').next(), Some("localhost" | ""));
    if !local && name.len() <= 253 && name.split('.').all(good) {
        return Finding::good(CheckName::HostName, subject, name);
    }
    let follows =
        if local { "every host has that one" } else { "host names are small letters, digits and `-` (RFC 1123)" };
    let advice = "`hostnamectl set-hostname NAME`";
    Finding::limit(CheckName::HostName, subject, format!("`{name}`"), follows, advice)
}

/// Addresses of a name in `/etc/hosts`.
fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
        })
        .collect()
}

/// A name that nobody knows is fine: the cluster goes by addresses. One that leads elsewhere is not.
fn resolution(context: &Context<'_>, found: &[IpAddr]) -> Option<Finding> {
    let (name, own, wanted) = (CheckName::NameResolution, &context.node.name, context.node.address);
    let subject = format!("name `{own}`");
    let first = found.first()?;
    if found.contains(&wanted) {
        return Some(Finding::good(name, subject, wanted.to_string()));
    }
    let follows = format!("programs that ask for the node by its name do not get {wanted}");
    let advice = format!("write `{wanted} {own}` to /etc/hosts");
    Some(Finding::limit(name, subject, format!("resolves to {first}"), follows, advice))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::preflight::Verdict;

    #[test]
    fn host_names_as_kubernetes_has_them() {
        for good in ["m1", "node-1.example.org", "a", "1"] {
            assert_eq!(host_name(good).verdict, Verdict::Good, "{good}");
        }
        for bad in ["", "localhost", "localhost.localdomain", "Node", "node_1", "-a", "a-", "a..b", &"x".repeat(64)] {
            assert_eq!(host_name(bad).verdict, Verdict::Limit, "{bad}");
        }
    }

    #[test]
    fn the_hosts_file_is_read_as_the_resolver_does() {
        let text = "127.0.0.1 localhost\n127.0.1.1 m1.example m1 # M1\n#192.0.2.9 m1\n192.0.2.1\tM1\n";
        let found = in_hosts(text, "m1");
        assert_eq!(found, ["127.0.1.1".parse::<IpAddr>().unwrap(), "192.0.2.1".parse().unwrap()]);
        assert!(in_hosts(text, "m2").is_empty());
    }
}
