//! `[host]`: what of a host's own settings may be changed for it to be a node. The same for all hosts of a cluster.

use std::net::IpAddr;

use serde::Deserialize;
use toml::Spanned;

use super::check::{Wrong, is_label};

/// `[host]` of `cluster.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSettings {
    /// The host's own name.
    pub hostname: HostName,
    /// Whether `/etc/hosts` gets the names of all nodes.
    pub hosts: bool,
    /// Swap, now and at boot.
    pub swap: Swap,
    /// SELinux.
    pub selinux: Selinux,
    /// A firewall that is active.
    pub firewall: Firewall,
    /// Names or numeric addresses of time servers, for hosts on which nothing keeps the time.
    pub time_servers: Vec<String>,
}

impl Default for HostSettings {
    fn default() -> Self {
        Self {
            hostname: HostName::default(),
            hosts: true,
            swap: Swap::default(),
            selinux: Selinux::default(),
            firewall: Firewall::default(),
            time_servers: Vec::new(),
        }
    }
}

/// What becomes of the host's name. The cluster needs none: kubelet and kube-proxy are told the node's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostName {
    /// Stays.
    #[default]
    Keep,
    /// The node's name, now and at boot.
    Set,
}

/// What becomes of swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Swap {
    /// Off, now and at boot: the kubelet does not start with it.
    #[default]
    Off,
    /// Stays; preflight refuses a host where some is in use.
    Keep,
}

/// What becomes of SELinux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selinux {
    /// Stays in the mode it is in.
    #[default]
    Keep,
    /// Reports and forbids nothing, now and at boot.
    Permissive,
}

/// What becomes of a firewall that is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firewall {
    /// Lets through what the roles of the host need.
    #[default]
    Open,
    /// Stays as it is.
    Keep,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHost {
    #[serde(default)]
    hostname: HostName,
    hosts: Option<bool>,
    #[serde(default)]
    swap: Swap,
    #[serde(default)]
    selinux: Selinux,
    #[serde(default)]
    firewall: Firewall,
    #[serde(default)]
    time_servers: Vec<Spanned<String>>,
}

/// The table as it is meant; every wrong time server is pushed with its place.
pub(super) fn check(raw: Option<RawHost>, wrongs: &mut Vec<Wrong>) -> HostSettings {
    let Some(raw) = raw else { return HostSettings::default() };
    let mut time_servers: Vec<String> = Vec::new();
    for server in raw.time_servers {
        let (span, server) = (server.span(), server.into_inner());
        match refusal(&server, &time_servers) {
            Some(message) => wrongs.push(Wrong(span, message.to_owned())),
            None => time_servers.push(server),
        }
    }
    HostSettings {
        hostname: raw.hostname,
        hosts: raw.hosts.unwrap_or(true),
        swap: raw.swap,
        selinux: raw.selinux,
        firewall: raw.firewall,
        time_servers,
    }
}

fn refusal(server: &str, others: &[String]) -> Option<&'static str> {
    let address = server.parse::<IpAddr>().ok();
    if address.is_some_and(|address| address.is_unspecified() || address.is_multicast())
        || address.is_none() && (server.len() > 253 || !server.split('.').all(is_label))
    {
        return Some("a time server is a lower-case DNS name or a numeric address");
    }
    others.iter().any(|other| other == server).then_some("this time server is given twice")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::ClusterConfig;

    const GOOD: &str =
        "[cluster]\nname = \"site\"\n\n[[node]]\nname = \"m1\"\naddress = \"192.0.2.1\"\nroles = [\"master\"]\n";

    fn parse(table: &str) -> Result<HostSettings, String> {
        let text = format!("{GOOD}{table}");
        ClusterConfig::parse(&text, Path::new("x")).map(|config| config.host).map_err(|error| error.to_string())
    }

    #[test]
    fn without_the_table_swap_goes_and_what_is_the_operators_stays() {
        let host = parse("").unwrap();
        assert_eq!(host, parse("[host]\n").unwrap());
        assert_eq!((host.hostname, host.selinux), (HostName::Keep, Selinux::Keep));
        assert_eq!((host.swap, host.firewall, host.hosts), (Swap::Off, Firewall::Open, true));
    }

    #[test]
    fn each_key_is_taken() {
        let table = "[host]\nhostname = \"set\"\nhosts = false\nswap = \"keep\"\nselinux = \"permissive\"\n\
            firewall = \"keep\"\ntime_servers = [\"192.0.2.123\", \"ntp.example\"]\n";
        let wanted = HostSettings {
            hostname: HostName::Set,
            hosts: false,
            swap: Swap::Keep,
            selinux: Selinux::Permissive,
            firewall: Firewall::Keep,
            time_servers: vec!["192.0.2.123".to_owned(), "ntp.example".to_owned()],
        };
        assert_eq!(parse(table).unwrap(), wanted);
    }

    #[test]
    fn what_is_wrong_shows_its_line() {
        for (key, message) in [
            ("swap = \"on\"", "unknown variant `on`"),
            ("selinux = \"disabled\"", "unknown variant `disabled`"),
            ("timezone = \"UTC\"", "unknown field `timezone`"),
            ("time_servers = [\"NTP.example\"]", "a time server is a lower-case DNS name"),
            ("time_servers = [\"a b\"]", "a time server is a lower-case DNS name"),
            ("time_servers = [\"0.0.0.0\"]", "a time server is a lower-case DNS name"),
            ("time_servers = [\"ntp\", \"ntp\"]", "given twice"),
        ] {
            let error = parse(&format!("[host]\n{key}\n")).unwrap_err();
            assert!(error.contains(message) && error.contains("line 9"), "{error}");
        }
    }
}
