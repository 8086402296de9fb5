//! How kube-proxy brings connections to services to their pods on this host: the config's choice, or the best that this
//! version of Kubernetes and this kernel can do.

use crate::config::ProxyMode;
use crate::facts::Facts;

/// The modules that kube-proxy asks for before it uses ipvs (pkg/util/ipvs, `GetRequiredIPVSModules`).
pub const IPVS_MODULES: [&str; 4] = ["ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_sh"];
/// ipvs mode is deprecated from this version on (release notes of 1.35).
const IPVS_DEPRECATED: [u32; 3] = [1, 35, 0];
/// nftables mode is there without asking for it from this version on (release notes of 1.31).
const NFTABLES: [u32; 3] = [1, 31, 0];

/// The mode for a version of Kubernetes on this host; never `auto`. By itself: up to 1.30 ipvs where the kernel has it and the
/// tool `ipset` is there, from 1.31 on nftables where kernel and tool are new enough, else iptables. Thus never ipvs from 1.35
/// on.
pub fn chosen(wanted: ProxyMode, kubernetes: &str, facts: &Facts) -> ProxyMode {
    if wanted != ProxyMode::Auto {
        return wanted;
    }
    let best = if numbers(kubernetes) < NFTABLES { ProxyMode::Ipvs } else { ProxyMode::Nftables };
    if obstacles(best, kubernetes, facts).is_empty() { best } else { ProxyMode::Iptables }
}

/// What is missing on this host for a mode.
pub fn obstacles(mode: ProxyMode, kubernetes: &str, facts: &Facts) -> Vec<String> {
    let mut missing = Vec::new();
    let mut tool = |name: &str| {
        if !facts.tools.contains_key(name) {
            missing.push(format!("the tool `{name}`"));
        }
    };
    match mode {
        ProxyMode::Auto => {}
        ProxyMode::Iptables => tool("iptables"),
        ProxyMode::Ipvs => {
            tool("ipset");
            let absent: Vec<&str> =
                IPVS_MODULES.into_iter().filter(|module| !facts.modules.available(module)).collect();
            if !absent.is_empty() {
                missing.push(format!("kernel modules {}", absent.join(", ")));
            }
        }
        ProxyMode::Nftables => {
            if numbers(kubernetes) < NFTABLES {
                missing.push("Kubernetes 1.31 or later".to_owned());
            }
            if !nftables_ok(facts) {
                missing.push("Linux 5.13 or later with nf_tables, and `nft` 1.0.1 or later".to_owned());
            }
        }
    }
    missing
}

/// Whether Kubernetes is about to take the mode away.
pub fn deprecated(mode: ProxyMode, kubernetes: &str) -> bool {
    mode == ProxyMode::Ipvs && numbers(kubernetes) >= IPVS_DEPRECATED
}

/// kube-proxy's nftables mode needs kernel 5.13 and nft 1.0.1 (release notes of 1.31).
pub fn nftables_ok(facts: &Facts) -> bool {
    let nft = facts.tools.get("nft").map(String::as_str).unwrap_or_default();
    numbers(&facts.kernel) >= [5, 13, 0] && numbers(nft) >= [1, 0, 1] && facts.modules.available("nf_tables")
}

/// The first three numbers of a version; missing ones count as 0.
fn numbers(version: &str) -> [u32; 3] {
    let mut numbers = [0; 3];
    let parts = version.trim_start_matches('v').split(|c: char| !c.is_ascii_digit());
    for (number, part) in numbers.iter_mut().zip(parts) {
        let Ok(value) = part.parse() else { break };
        *number = value;
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::tests::debian;

    fn able() -> Facts {
        let mut facts = debian();
        facts.kernel = "6.1.0-40-amd64".to_owned();
        for (tool, version) in [("nft", "1.0.6"), ("ipset", "7.17"), ("iptables", "1.8.9")] {
            facts.tools.insert(tool.to_owned(), version.to_owned());
        }
        facts.modules.present = ["nf_tables".to_owned()].into();
        facts.modules.loadable = IPVS_MODULES.map(str::to_owned).into();
        facts
    }

    #[test]
    fn the_mode_follows_version_and_kernel() {
        let auto = |version: &str, facts: &Facts| chosen(ProxyMode::Auto, version, facts).name();
        let mut facts = able();
        for (version, mode) in [("1.20.2", "ipvs"), ("1.30.9", "ipvs"), ("1.31.0", "nftables"), ("1.37.0", "nftables")]
        {
            assert_eq!(auto(version, &facts), mode, "{version}");
        }
        facts.tools.remove("ipset");
        assert_eq!(auto("1.20.2", &facts), "iptables", "kube-proxy's ipvs mode calls ipset");
        let mut facts = able();
        facts.modules.loadable.remove("ip_vs_sh");
        assert_eq!(auto("1.20.2", &facts), "iptables", "kube-proxy asks for every scheduler it knows");
        facts.kernel = "5.10.0".to_owned();
        assert_eq!(auto("1.35.0", &facts), "iptables", "never ipvs");
        let mut facts = able();
        facts.kernel = "5.10.0".to_owned();
        assert_eq!(auto("1.35.0", &facts), "iptables", "never ipvs, even where it would work");
    }

    #[test]
    fn the_configs_choice_counts_and_what_it_lacks_is_named() {
        let facts = debian();
        assert_eq!(chosen(ProxyMode::Ipvs, "1.37.0", &facts), ProxyMode::Ipvs);
        let missing = |mode, version: &str| obstacles(mode, version, &facts).join("; ");
        assert_eq!(
            missing(ProxyMode::Ipvs, "1.20.2"),
            "the tool `ipset`; kernel modules ip_vs, ip_vs_rr, ip_vs_wrr, ip_vs_sh"
        );
        assert!(missing(ProxyMode::Nftables, "1.30.0").starts_with("Kubernetes 1.31 or later; Linux 5.13"));
        assert_eq!(missing(ProxyMode::Iptables, "1.20.2"), "the tool `iptables`");
        assert!(obstacles(ProxyMode::Ipvs, "1.37.0", &able()).is_empty());
        assert!(deprecated(ProxyMode::Ipvs, "1.35.0") && !deprecated(ProxyMode::Ipvs, "1.34.9"));
    }
}
