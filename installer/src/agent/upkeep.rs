//! This host's part of the pod network, made as [`Network`] wants it: packet filter, forwarding, routes, CNI file.
//!
//! Only what differs is changed, and only what is ours. One part in trouble does not keep the others from being made. While
//! no apiserver answers, the last known network is kept up: somebody may restart the host's network or its firewall.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};

use super::cni::{self, Bridge};
use super::forwarding::{self, Filter};
use super::network::Network;
use super::routes::{self, Interface, Table};
use super::{NETWORK, packet_filter};
use crate::context::CURRENT;
use crate::event::{Event, Events};
use crate::host::{Command, Host};

/// The network of this host and what was last done about it.
pub(super) struct Upkeep<'a> {
    host: &'a Host,
    events: &'a dyn Events,
    /// What was last heard of, or restored.
    network: Option<Network>,
    /// The packet filter rules as last loaded.
    ruleset: String,
}

impl<'a> Upkeep<'a> {
    pub(super) fn new(host: &'a Host, events: &'a dyn Events) -> Self {
        Self { host, events, network: None, ruleset: String::new() }
    }

    /// Puts back what was known before the last shutdown.
    pub(super) fn restore(&mut self) -> Result<()> {
        let Some(text) = self.host.read_text(Path::new(NETWORK))? else { return Ok(()) };
        let network: Network = serde_json::from_str(&text).with_context(|| format!("reading `{NETWORK}`"))?;
        self.network = Some(network.clone());
        self.apply(&network)
    }

    /// Makes what was heard of the cluster; if nothing was heard, what was known before.
    pub(super) fn keep(&mut self, heard: Result<Network>) -> Result<()> {
        let network = match heard {
            Ok(network) => network,
            Err(error) => {
                let kept = self.network.clone().map_or(Ok(()), |network| self.apply(&network));
                return kept.and(Err(error));
            }
        };
        let text = serde_json::to_string_pretty(&network).context("writing the network")? + "\n";
        if !self.host.has(Path::new(NETWORK), text.as_bytes(), 0o600)? {
            self.host.write(Path::new(NETWORK), text.as_bytes(), 0o600)?;
        }
        self.network = Some(network.clone());
        self.apply(&network)
    }

    fn note(&self, text: String) {
        self.events.emit(&Event::Note { step: String::new(), text });
    }

    fn apply(&mut self, network: &Network) -> Result<()> {
        let mut results = vec![self.packet_filter(network), self.forwarding(network)];
        match self.interface(network) {
            Ok((own, interface)) => {
                results.extend([self.routes(network, own, &interface), self.cni(network, &interface)]);
            }
            Err(error) => results.push(Err(error)),
        }
        let trouble: Vec<String> =
            results.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
        if trouble.is_empty() { Ok(()) } else { Err(anyhow!("{}", trouble.join("; "))) }
    }

    /// This node's address and the interface that has it.
    fn interface(&self, network: &Network) -> Result<(IpAddr, Interface)> {
        let own = network.address.context("the cluster's config does not name this node")?;
        let listed = self.host.run(&Command::new("ip").args(routes::address_arguments(network.cluster)))?;
        let found = routes::interface(&listed.text(), own);
        Ok((own, found.with_context(|| format!("no interface of this host has its address {own}"))?))
    }

    fn packet_filter(&mut self, network: &Network) -> Result<()> {
        let nft = |arguments: &[&str]| Command::new("nft").args(arguments);
        if !network.is_bridge() {
            let list = nft(&["list", "table", packet_filter::family(network), packet_filter::TABLE]);
            // Without the tool there cannot be a table of ours.
            if self.host.try_run(&list).is_ok_and(|listed| listed.success()) {
                self.host.run(&nft(&["-f", "-"]).input(packet_filter::removal(network)))?;
                self.note("removed the packet filter table `sealift`".to_owned());
            }
            self.ruleset.clear();
            return Ok(());
        }
        let ruleset = packet_filter::ruleset(network);
        if ruleset == self.ruleset {
            // Somebody may have flushed the rules (`nft flush ruleset` of a firewall that restarts).
            let list = nft(&["list", "chain", packet_filter::family(network), packet_filter::TABLE, "postrouting"]);
            let listed = self.host.try_run(&list)?;
            if listed.success() && listed.text().contains("masquerade") {
                return Ok(());
            }
        }
        self.host.run(&nft(&["-f", "-"]).input(ruleset.clone()))?;
        self.ruleset = ruleset;
        self.note("loaded the packet filter table `sealift`".to_owned());
        Ok(())
    }

    fn forwarding(&self, network: &Network) -> Result<()> {
        // Without the tool there are no such rules.
        let Ok(listed) = self.host.try_run(&Command::new("iptables").args(forwarding::LIST)) else { return Ok(()) };
        if !listed.success() {
            bail!("`iptables -S` failed: {}", listed.tail());
        }
        let filter = Filter::parse(&listed.text());
        let calls = if network.is_bridge() { filter.open(network.cluster) } else { filter.remove() };
        for call in &calls {
            self.host.run(&Command::new("iptables").args(call))?;
        }
        if let (false, true, Some(closed)) = (calls.is_empty(), network.is_bridge(), &filter.closed) {
            self.note(format!("{closed}: let pods pass by chain `{}`", forwarding::CHAIN));
        }
        Ok(())
    }

    fn routes(&self, network: &Network, own: IpAddr, interface: &Interface) -> Result<()> {
        let listed = self.host.run(&Command::new("ip").args(routes::list_arguments(network.cluster)))?;
        let table = Table::parse(&listed.text());
        let (wanted, mut trouble) = network.routes(own, interface, &table);
        for arguments in table.changes(&wanted).0 {
            match self.host.run(&Command::new("ip").args(&arguments)) {
                Ok(_) => self.note(format!("ip {}", arguments.join(" "))),
                Err(error) => trouble.push(format!("{error:#}")),
            }
        }
        if trouble.is_empty() { Ok(()) } else { Err(anyhow!("{}", trouble.join("; "))) }
    }

    fn cni(&self, network: &Network, interface: &Interface) -> Result<()> {
        let path = Path::new(cni::FILE);
        if !network.is_bridge() {
            if self.host.exists(path)? {
                self.host.remove(path)?;
                self.note(format!("removed `{}`: the pods' network is `{}`", cni::FILE, network.plugin.name()));
                return self.remove_bridge();
            }
            return Ok(());
        }
        let Some(own) = network.own else { return Ok(()) };
        let text = cni::conflist(own, &self.plugins_version()?, interface.mtu);
        if !self.host.has(path, text.as_bytes(), 0o644)? {
            if let Some(parent) = path.parent() {
                self.host.create_dir(parent, 0o755)?;
            }
            self.host.write(path, text.as_bytes(), 0o644)?;
            self.note(format!("the pods of this node are in {own}"));
        }
        let addresses = self.ask(&["-j", "addr", "show", "dev", cni::BRIDGE])?;
        match cni::bridge(own, &addresses, &self.ports()?) {
            Bridge::Fits => Ok(()),
            Bridge::Delete => {
                self.host.run(&Command::new("ip").args(["link", "delete", cni::BRIDGE]))?;
                self.note(format!("deleted bridge {}: it was made for another pod network", cni::BRIDGE));
                Ok(())
            }
            Bridge::InUse => bail!(
                "bridge {} belongs to another pod network than {own} and has pods: drain this node and reboot it",
                cni::BRIDGE
            ),
        }
    }

    fn ask(&self, arguments: &[&str]) -> Result<String> {
        Ok(self.host.try_run(&Command::new("ip").args(arguments))?.text())
    }

    fn ports(&self) -> Result<String> {
        self.ask(&["-j", "link", "show", "master", cni::BRIDGE])
    }

    /// The bridge of a plugin that is no longer wanted, unless pods are still on it.
    fn remove_bridge(&self) -> Result<()> {
        if cni::has_ports(&self.ports()?) {
            bail!("bridge {} has pods of the former network: drain this node and reboot it", cni::BRIDGE);
        }
        if cni::has_ports(&self.ask(&["-j", "link", "show", "dev", cni::BRIDGE])?) {
            self.host.run(&Command::new("ip").args(["link", "delete", cni::BRIDGE]))?;
        }
        Ok(())
    }

    /// The version of the CNI plugins in use, from the name of their directory in the store (`cni-VERSION-DIGEST`).
    fn plugins_version(&self) -> Result<String> {
        let link = Path::new(CURRENT).join("cni");
        let target = self.host.link_target(&link)?.with_context(|| format!("`{}` does not exist", link.display()))?;
        let name = target.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let version = name.strip_prefix("cni-").and_then(|rest| rest.rsplit_once('-')).map(|(version, _)| version);
        version.map(str::to_owned).with_context(|| format!("`{name}` is not a store directory of `cni`"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Plugin;
    use crate::event::Quiet;
    use crate::host::Reply;

    const ADDRESSES: &str = r#"[{"ifname":"eth1","mtu":1450,"addr_info":[{"local":"10.9.0.1"}]}]"#;
    const LINK: &str = r#"{"dst":"10.9.0.0/24","dev":"eth1","protocol":"kernel","prefsrc":"10.9.0.1","flags":[]}"#;
    const OURS: &str =
        r#"{"dst":"10.244.1.0/24","gateway":"10.9.0.2","dev":"eth1","protocol":"119","prefsrc":"10.9.0.1","flags":[]}"#;

    fn network() -> Network {
        Network {
            plugin: Plugin::Bridge,
            own: Some("10.244.0.0/24".parse().unwrap()),
            cluster: "10.244.0.0/16".parse().unwrap(),
            peers: BTreeMap::from([("10.244.1.0/24".parse().unwrap(), "10.9.0.2".parse().unwrap())]),
            nodes: ["10.9.0.1".parse().unwrap(), "10.9.0.2".parse().unwrap()].into(),
            services: "10.96.0.0/16".parse().unwrap(),
            address: Some("10.9.0.1".parse().unwrap()),
        }
    }

    fn installed(directory: &Path, routes: &str) -> Host {
        let host = Host::under(directory);
        let fake = host.fake();
        fake.on("nft", Reply::ok("masquerade"));
        fake.on("iptables", Reply::ok("-P FORWARD ACCEPT\n"));
        fake.on("ip", Reply::ok("[]"));
        fake.on("ip -4 -j addr show", Reply::ok(ADDRESSES));
        fake.on("ip -4 -j route show table main", Reply::ok(format!("[{routes}]")));
        host.create_dir(Path::new("/var/lib/sealift/agent"), 0o700).unwrap();
        host.create_dir(Path::new(CURRENT), 0o755).unwrap();
        host.symlink(&Path::new(CURRENT).join("cni"), Path::new("../store/cni-1.1.1-abc")).unwrap();
        host
    }

    /// The calls that change something.
    fn changes(host: &Host) -> Vec<String> {
        let changing = ["route add", "route replace", "route del", "-f -", "link delete", "-I", "-D", "-X"];
        let ran = host.fake().commands();
        ran.into_iter().filter(|line| changing.iter().any(|verb| line.contains(verb))).collect()
    }

    #[test]
    fn the_last_known_network_is_kept_up_while_no_apiserver_answers() {
        let directory = tempfile::tempdir().unwrap();
        let host = installed(directory.path(), LINK);
        Upkeep::new(&host, &Quiet).keep(Ok(network())).unwrap();
        let route = "ip -4 route add 10.244.1.0/24 via 10.9.0.2 dev eth1 src 10.9.0.1 proto 119";
        assert!(changes(&host).contains(&route.to_owned()), "{:?}", changes(&host));
        assert!(host.read_text(Path::new(cni::FILE)).unwrap().unwrap().contains("\"mtu\": 1450"));
        // After a boot: from the disk, and again when somebody has flushed the routes.
        host.fake().clear();
        let mut upkeep = Upkeep::new(&host, &Quiet);
        upkeep.restore().unwrap();
        assert!(changes(&host).contains(&route.to_owned()));
        host.fake().clear();
        let error = upkeep.keep(Err(anyhow!("no apiserver"))).unwrap_err();
        assert_eq!(error.to_string(), "no apiserver");
        assert!(changes(&host).contains(&route.to_owned()));
    }

    #[test]
    fn one_part_in_trouble_does_not_stop_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let host = installed(directory.path(), LINK);
        host.fake().on("nft", Reply::fail(1, "no such table"));
        host.fake().on("ip -4 route add 10.96", Reply::fail(2, "RTNETLINK answers: File exists"));
        let error = Upkeep::new(&host, &Quiet).keep(Ok(network())).unwrap_err().to_string();
        assert!(error.contains("no such table") && error.contains("File exists"), "{error}");
        assert!(changes(&host).iter().any(|line| line.contains("route add 10.244.1.0/24")));
        assert!(host.exists(Path::new(cni::FILE)).unwrap());
        host.fake().on("ip -4 -j addr show", Reply::ok("[]"));
        let error = Upkeep::new(&host, &Quiet).keep(Ok(network())).unwrap_err().to_string();
        assert!(error.contains("no interface of this host has its address 10.9.0.1"), "{error}");
    }

    #[test]
    fn another_plugin_takes_everything_of_the_bridge_away() {
        let directory = tempfile::tempdir().unwrap();
        let host = installed(directory.path(), &format!("{LINK},{OURS}"));
        host.create_dir(Path::new("/etc/cni/net.d"), 0o755).unwrap();
        host.write(Path::new(cni::FILE), b"{}", 0o644).unwrap();
        let ours = "-P FORWARD DROP\n-N SEALIFT-FORWARD\n-A FORWARD -j SEALIFT-FORWARD\n";
        host.fake().on("iptables -w 5 -S", Reply::ok(ours));
        host.fake().on("ip -j link show dev cni0", Reply::ok(r#"[{"ifname":"cni0"}]"#));
        let calico = Network { plugin: Plugin::Calico, ..network() };
        Upkeep::new(&host, &Quiet).keep(Ok(calico)).unwrap();
        assert_eq!(
            changes(&host),
            [
                "nft -f -",
                "iptables -w 5 -D FORWARD -j SEALIFT-FORWARD",
                "iptables -w 5 -X SEALIFT-FORWARD",
                "ip -4 route del 10.244.1.0/24 proto 119",
                "ip -4 route add 10.96.0.0/16 dev lo src 10.9.0.1 proto 119",
                "ip link delete cni0",
            ]
        );
        assert_eq!(host.fake().inputs()[0].1, b"table ip sealift { }\ndelete table ip sealift\n");
        assert!(!host.exists(Path::new(cni::FILE)).unwrap());
    }

    #[test]
    fn a_bridge_with_pods_is_left_to_a_person() {
        let directory = tempfile::tempdir().unwrap();
        let host = installed(directory.path(), LINK);
        host.create_dir(Path::new("/etc/cni/net.d"), 0o755).unwrap();
        host.write(Path::new(cni::FILE), b"{}", 0o644).unwrap();
        host.fake().on("ip -j link show master cni0", Reply::ok(r#"[{"ifname":"veth1"}]"#));
        let error = Upkeep::new(&host, &Quiet).keep(Ok(Network { plugin: Plugin::None, ..network() })).unwrap_err();
        assert!(error.to_string().contains("drain this node"), "{error}");
        assert!(!changes(&host).iter().any(|line| line.contains("link delete")));
    }
}
